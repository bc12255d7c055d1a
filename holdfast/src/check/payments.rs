//! I7: what Stripe and the carrier have in their books, beside the log. Paid means served or refunded, and nothing twice.
//!
//! The books are the others' own, read when nothing moves any more: what we believe of a payment is no witness.

use std::collections::BTreeMap;

use domain::{HoldId, HoldState};

use super::{Log, Promise, Violation, lane};

/// A payment, as Stripe has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paid {
    /// Stripe's intent.
    pub intent: String,
    /// What it was made for; how the log names it.
    pub payment_ref: String,
    /// What it is over, in the smallest coin.
    pub amount: i64,
    /// Each time that money was taken.
    pub taken: Vec<i64>,
    /// Each time that money was given back.
    pub given_back: Vec<i64>,
    /// Whether money is still reserved or can still be paid.
    pub is_open: bool,
}

/// A parcel, as the carrier has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// Its key: hold and attempt.
    pub key: String,
    /// How many were sent.
    pub count: usize,
}

/// A hold, as the log leaves it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which hold.
    pub hold_id: HoldId,
    /// Which attempt of it.
    pub attempt: i64,
    /// Its last state.
    pub state: HoldState,
    /// The payment that was made or tried last; once confirmed, the one that paid.
    pub payment_ref: Option<String>,
}

/// How the valid events leave every hold.
#[must_use]
pub fn standings(log: &Log) -> Vec<Standing> {
    let mut last = BTreeMap::new();
    for event in log.lanes.iter().flat_map(lane::fold).map(|seen| &seen.event) {
        let (Some(hold_id), Some(terms)) = (event.hold_id, &event.hold) else {
            continue;
        };
        let standing = Standing {
            hold_id,
            attempt: terms.attempt,
            state: terms.state,
            payment_ref: terms.payment_ref.as_ref().map(|text| text.as_str().to_owned()),
        };
        last.insert((hold_id, terms.attempt), standing);
    }
    last.into_values().collect()
}

/// Lays the books of those who took the money and the parcels beside the log, when all has come to rest. Only payments of
/// `paid` are judged; what is confirmed by others is not theirs.
#[must_use]
pub fn check(standings: &[Standing], paid: &[Paid], parcels: &[Parcel]) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut say = |what: String| {
        violations.push(Violation {
            promise: Promise::Paid,
            what,
        });
    };
    for payment in paid {
        judge(standings, payment, parcels, &mut say);
    }
    for parcel in parcels {
        let of = standings.iter().find(|standing| key_of(standing) == parcel.key);
        match of.map(|standing| standing.state) {
            Some(HoldState::Shipped) if parcel.count == 1 => {}
            Some(HoldState::Shipped) => say(format!("{} was sent {} times", parcel.key, parcel.count)),
            state => say(format!("a parcel of {} was sent, which is {state:?}", parcel.key)),
        }
    }
    violations
}

fn key_of(standing: &Standing) -> String {
    format!("{}.{}", standing.hold_id, standing.attempt)
}

fn judge(standings: &[Standing], payment: &Paid, parcels: &[Parcel], say: &mut impl FnMut(String)) {
    let name = format!("payment {} ({})", payment.payment_ref, payment.intent);
    let by_it = |standing: &&Standing| standing.payment_ref.as_deref() == Some(payment.payment_ref.as_str());
    let serves = |standing: &&Standing| matches!(standing.state, HoldState::Confirmed | HoldState::Shipped);
    let served: Vec<&Standing> = standings.iter().filter(by_it).filter(serves).collect();
    let (taken, back) = (
        payment.taken.iter().sum::<i64>(),
        payment.given_back.iter().sum::<i64>(),
    );
    if payment.taken.len() > 1 || taken > payment.amount {
        say(format!(
            "{name}: money was taken {} times: {:?}",
            payment.taken.len(),
            payment.taken
        ));
    }
    if payment.given_back.len() > 1 || back > taken {
        say(format!("{name}: {:?} was given back of {taken}", payment.given_back));
    }
    if served.len() > 1 {
        say(format!("{name} serves {} holds: {served:?}", served.len()));
    }
    if payment.is_open {
        say(format!("{name} is still open"));
    }
    match (taken > 0, back > 0, served.first()) {
        (true, false, Some(_)) | (true, true, None) | (false, _, None) => {}
        (true, false, None) => say(format!("{name}: paid, and neither served nor given back")),
        (true, true, Some(standing)) => say(format!("{name}: given back, and serves {standing:?}")),
        (false, _, Some(standing)) => say(format!("{name}: never paid, and serves {standing:?}")),
    }
    // Where a carrier is at work, what is paid and stands has left.
    for standing in served.iter().filter(|standing| standing.state == HoldState::Shipped) {
        if !parcels.iter().any(|parcel| parcel.key == key_of(standing)) {
            say(format!(
                "{name}: the log says that {} is shipped, the carrier has no parcel",
                key_of(standing)
            ));
        }
    }
}

#[cfg(test)]
mod tests {
    use domain::{Key, Lane, Tenant};

    use super::*;

    fn books() -> (Vec<Standing>, Vec<Paid>, Vec<Parcel>) {
        let hold = |key: &str, state, payment: &str| Standing {
            hold_id: HoldId::of(
                Lane::new(0).unwrap(),
                &Tenant::parse("default").unwrap(),
                &Key::parse("key", key).unwrap(),
            ),
            attempt: 7,
            state,
            payment_ref: Some(payment.to_owned()),
        };
        let paid = |name: &str, taken: &[i64], given_back: &[i64]| Paid {
            intent: format!("pi_{name}"),
            payment_ref: name.to_owned(),
            amount: 5,
            taken: taken.to_vec(),
            given_back: given_back.to_vec(),
            is_open: false,
        };
        let standings = vec![
            hold("a", HoldState::Shipped, "served"),
            hold("b", HoldState::Expired, "late"),
            hold("c", HoldState::Held, "never"),
            hold("d", HoldState::Confirmed, "somebody-else's"),
        ];
        let payments = vec![
            paid("served", &[5], &[]),
            paid("late", &[5], &[5]),
            paid("never", &[], &[]),
        ];
        let parcels = vec![Parcel {
            key: key_of(&standings[0]),
            count: 1,
        }];
        (standings, payments, parcels)
    }

    #[test]
    fn good_books_are_good() {
        let (standings, paid, parcels) = books();
        assert_eq!(check(&standings, &paid, &parcels), []);
    }

    #[test]
    fn every_planted_fault_is_found() {
        type Plant = fn(&mut Vec<Standing>, &mut Vec<Paid>, &mut Vec<Parcel>);
        let plants: [(&str, Plant); 10] = [
            ("taken 2 times", |_, paid, _| paid[0].taken.push(5)),
            ("was given back of", |_, paid, _| paid[1].given_back.push(5)),
            ("neither served nor given back", |_, paid, _| paid[1].given_back.clear()),
            ("given back, and serves", |_, paid, _| paid[0].given_back.push(5)),
            ("never paid, and serves", |_, paid, _| paid[0].taken.clear()),
            ("still open", |_, paid, _| paid[2].is_open = true),
            ("serves 2 holds", |standings, _, _| {
                let twin = Standing {
                    attempt: 8,
                    state: HoldState::Confirmed,
                    ..standings[0].clone()
                };
                standings.push(twin);
            }),
            ("was sent 2 times", |_, _, parcels| parcels[0].count = 2),
            ("the carrier has no parcel", |_, _, parcels| parcels.clear()),
            ("which is Some(Expired)", |standings, _, parcels| {
                parcels.push(Parcel {
                    key: key_of(&standings[1]),
                    count: 1,
                });
            }),
        ];
        for (says, plant) in plants {
            let (mut standings, mut paid, mut parcels) = books();
            plant(&mut standings, &mut paid, &mut parcels);
            let found = check(&standings, &paid, &parcels);
            assert!(found.iter().any(|one| one.what.contains(says)), "{says}: {found:?}");
        }
    }
}
