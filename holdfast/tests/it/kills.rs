//! Checkout and the fulfiller killed between any two steps, as by SIGKILL: every payment ends served xor refunded, and
//! neither Stripe nor the carrier has anything twice in its own books (I7).
//!
//! A process that dies is followed by one that is armed with the next point: what the last one left is brought to its end
//! while others begin.

use std::{sync::atomic::Ordering, time::Duration};

use plumbing::failpoint;
use serde_json::json;

use crate::{
    books::{SECRET, event, now_s, signed},
    shop::Shop,
    world::{PATIENCE, play, times},
};

/// What brings a payment past a point.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Road {
    /// It begins.
    Begin,
    /// It is paid in time.
    Paid(&'static str),
    /// Nobody pays.
    Unpaid,
    /// It is paid after the hold has expired: the units are there, or not.
    Late { is_sold: bool },
    /// Its order is given up.
    GivenUp,
    /// Its reserved money is gone after the hold was confirmed.
    Gone,
}

const CHECKOUT: [(&str, Road); 18] = [
    ("checkout.row_written", Road::Begin),
    ("checkout.payment_begun", Road::Begin),
    ("checkout.intent_created", Road::Begin),
    ("checkout.confirmed", Road::Paid("automatic")),
    ("checkout.confirmed", Road::Paid("manual")),
    ("checkout.captured", Road::Paid("manual")),
    ("checkout.finished", Road::Paid("automatic")),
    ("checkout.intent_cancelled", Road::Unpaid),
    ("checkout.abort_sent", Road::Unpaid),
    ("checkout.aborted", Road::Unpaid),
    ("checkout.retake_sent", Road::Late { is_sold: false }),
    ("checkout.retaken", Road::Late { is_sold: false }),
    ("checkout.retaken_confirmed", Road::Late { is_sold: false }),
    ("checkout.given_up", Road::Late { is_sold: true }),
    ("checkout.refund_required", Road::Late { is_sold: true }),
    ("checkout.refunded", Road::Late { is_sold: true }),
    ("checkout.refund_begun", Road::GivenUp),
    ("checkout.taken_back", Road::Gone),
];

impl Road {
    /// Settings of the process that is to die on it.
    fn settings(self, point: &'static str) -> Vec<(&'static str, &'static str)> {
        let mut settings = vec![(failpoint::VARIABLE, point)];
        if matches!(self, Self::Unpaid | Self::Late { .. }) {
            settings.push(("HOLDFAST_PAYMENT_CAP_SECONDS", "1"));
        }
        // The worker must not take the possibility to pay away before the buyer is late, and must do it where nobody pays.
        let look = if self == Self::Unpaid { "1" } else { "20" };
        settings.push(("HOLDFAST_RECONCILE_SECONDS", look));
        settings
    }
}

/// Walks the road. What fails because the process is dead already is no matter: then it died at its point.
async fn walk(shop: &Shop, road: Road, name: &str) -> Option<()> {
    let sku = format!("killed-{name}");
    shop.world.stock(&sku, 2).await;
    let price = shop.world.client.put(format!("{}/v1/prices/{sku}", shop.checkout));
    let price = price.json(&json!({"amount": 1_250, "currency": "eur"}));
    shop.world.try_request(price).await.ok()?;
    let hold = shop.world.reserve(&shop.key(name), &sku, 2, name).await.hold_id();
    let method = match road {
        Road::Paid(method) => method,
        Road::Gone => "manual",
        _ => "automatic",
    };
    let begin = shop
        .world
        .client
        .post(format!("{}/v1/holds/{hold}/checkout", shop.checkout));
    let begun = shop
        .world
        .try_request(begin.json(&json!({"capture_method": method})))
        .await
        .ok()?;
    let intent = begun.body["intent_id"].as_str()?.to_owned();
    match road {
        Road::Begin | Road::Unpaid => return Some(()),
        Road::Paid(_) => {}
        Road::Late { is_sold } => {
            shop.hold_becomes(&hold, "expired").await;
            if is_sold {
                let quick = shop
                    .world
                    .reserve(&shop.key(&format!("{name}-quick")), &sku, 2, "eve")
                    .await;
                assert_eq!(quick.status, 201, "{quick:?}");
            }
        }
        Road::GivenUp => shop.carrier.is_down.store(true, Ordering::Relaxed),
        Road::Gone => {
            let by = json!({"payment_ref": format!("pay-{hold}-1")});
            let confirmed = shop.world.post(&format!("/v1/holds/{hold}/confirm"), &by).await;
            assert_eq!(confirmed.status, 200, "{confirmed:?}");
            shop.stripe
                .post(&format!("/v1/payment_intents/{intent}/cancel"), &json!({}))
                .await;
        }
    }
    if road != Road::Gone {
        shop.stripe.try_pay(&intent).await.ok()?;
    }
    let told = event(&format!("evt_{name}"), "payment_intent.succeeded", &intent);
    let request = shop.world.client.post(format!("{}/v1/webhooks/stripe", shop.checkout));
    let request = request
        .header("Stripe-Signature", signed(&told, SECRET, now_s()))
        .body(told);
    shop.world.try_request(request).await.ok()?;
    if road == Road::GivenUp {
        shop.order_becomes(&hold, "failed").await;
        let cancelled = shop.desk(&hold, "cancel", "nobody drives there").await;
        shop.carrier.is_down.store(false, Ordering::Relaxed);
        assert_eq!(cancelled.status, 200, "{cancelled:?}");
    }
    Some(())
}

/// Arms checkout with a point and walks roads until it dies there.
async fn kill_at(shop: &Shop, point: &'static str, road: Road, name: &str) {
    shop.world.spawn_with("checkout", &road.settings(point)).await;
    let begun = std::time::Instant::now();
    for number in 0.. {
        assert!(
            begun.elapsed() < PATIENCE,
            "{point} is not reached on the road {road:?}"
        );
        shop.world
            .eventually("up, or dead already", async || {
                let page = shop.world.client.get(format!("{}/v1/prices", shop.checkout));
                let is_up = shop
                    .world
                    .try_request(page)
                    .await
                    .is_ok_and(|answer| answer.status == 200);
                let is_done = is_up || !shop.world.is_running("checkout").await;
                is_done.then_some(()).ok_or_else(|| "neither".to_owned())
            })
            .await;
        // A machine that stood still for a second may have been too late to be late: then once more.
        if !shop.world.is_running("checkout").await
            || walk(shop, road, &format!("{name}-{number}")).await.is_some()
                && shop.world.ends_within("checkout", Duration::from_secs(8)).await
        {
            break;
        }
    }
    shop.world.wait("checkout").await;
}

#[test]
fn checkout_killed_between_any_two_steps_serves_or_refunds_and_nothing_twice() {
    play(async {
        let shop = Shop::apart(|setup| setup.with("HOLDFAST_STRIPE_LIST_SECONDS", 1)).await;
        shop.world.kill("checkout").await;
        for round in 0..times(1, 20) {
            for (number, (point, road)) in CHECKOUT.into_iter().enumerate() {
                kill_at(&shop, point, road, &format!("{round}-{number}")).await;
            }
        }
        shop.world
            .spawn_with("checkout", &[("HOLDFAST_RECONCILE_SECONDS", "1")])
            .await;
        shop.serves(&format!("{}/v1/prices", shop.checkout)).await;
        tell_again(&shop).await;
        shop.assert_settled().await;
        let ends = "SELECT count(DISTINCT state) FROM payments WHERE state IN ('paid', 'aborted', 'refunded')";
        assert_eq!(shop.number(ends).await, 3, "all ends were met");
    });
}

/// Both workers wait for the log's word on an abort, of a payment without an intent as far as they know, when
/// reconciliation finds one.
#[test]
fn an_intent_found_while_its_payment_is_given_up_is_cancelled() {
    play(async {
        let lease = ("HOLDFAST_CHECKOUT_LEASE_SECONDS", 6);
        let shop = Shop::apart(|setup| setup.with("HOLDFAST_STRIPE_LIST_SECONDS", 3).with(lease.0, lease.1)).await;
        shop.world.kill("checkout").await;
        kill_at(&shop, "checkout.row_written", Road::Begin, "without").await;
        kill_at(&shop, "checkout.intent_created", Road::Begin, "found").await;
        shop.world.signal("persister", "STOP").await;
        shop.world.spawn("checkout").await;
        shop.world
            .eventually("found", async || match shop.intents_of("aborting").await.len() {
                1 => Ok(()),
                found => Err(format!("{found} intents")),
            })
            .await;
        shop.world.signal("persister", "CONT").await;
        shop.assert_settled().await;
    });
}

/// Stripe sends again what was not acknowledged; and buyers who never came back to pay give up.
async fn tell_again(shop: &Shop) {
    for (number, intent) in shop.intents_of("pending").await.into_iter().enumerate() {
        if !matches!(
            &*shop.stripe.status(&intent).await,
            "succeeded" | "requires_capture" | "canceled"
        ) {
            let path = format!("/v1/payment_intents/{intent}/cancel");
            if let Err(said) = shop.stripe.try_post(&path, &json!({})).await {
                eprintln!("the worker came first: {said}");
            }
        }
        let told = event(&format!("evt_again_{number}"), "payment_intent.updated", &intent);
        shop.told(&told).await;
    }
}

#[test]
fn a_fulfiller_killed_between_any_two_steps_ships_once() {
    play(async {
        let shop = Shop::apart(|setup| setup).await;
        shop.world.kill("fulfiller").await;
        shop.stock("killed", 10_000).await;
        for round in 1..=times(1, 20) {
            // Given up first: while the carrier is down nothing else may be on its way.
            for point in ["given_up", "leased", "carried", "recorded", "asked", "returned"] {
                kill_fulfiller_at(&shop, point, round).await;
            }
            shop.world.spawn("fulfiller").await;
            let (per_round, came_back) = (5, 1); // Parcels.
            let left = 10_000 - 2 * (per_round - came_back) * i64::try_from(round).expect("few");
            shop.world
                .eventually("all shipped, and what came back is back", async || {
                    match shop.world.counters("killed").await {
                        (on_hand, 0, 0, _) if on_hand == left => Ok(()),
                        counters => Err(format!("{counters:?}, {left} should be left")),
                    }
                })
                .await;
            assert_eq!(shop.carrier.parcels(), vec![1; 5 * round]);
            if round < times(1, 20) {
                shop.world.kill("fulfiller").await;
            }
        }
        shop.assert_settled().await;
    });
}

async fn kill_fulfiller_at(shop: &Shop, point: &str, round: usize) {
    let armed = format!("fulfiller.{point}");
    let settings = [
        (failpoint::VARIABLE, armed.as_str()),
        ("HOLDFAST_FULFILLER_GIVE_UP_SECONDS", "1"),
    ];
    shop.world.spawn_with("fulfiller", &settings).await;
    let key = shop.key(&format!("{point}-{round}"));
    let hold = shop.world.reserve(&key, "killed", 2, "ann").await.hold_id();
    shop.carrier.is_down.store(point == "given_up", Ordering::Relaxed);
    let by = json!({"payment_ref": format!("by-transfer-{point}-{round}")});
    let confirmed = shop.world.post(&format!("/v1/holds/{hold}/confirm"), &by).await;
    assert_eq!(confirmed.status, 200, "{confirmed:?}");
    if point == "returned" {
        shop.order_becomes(&hold, "fulfilled").await;
        let url = format!("{}/v1/orders/{hold}/returns", shop.orders);
        let back = shop.world.client.post(url).header("Idempotency-Key", "r");
        // The process may end before this is answered, but not before it is written down.
        let _cut_off = shop.world.try_request(back.json(&json!({"reason": "too small"}))).await;
    }
    shop.world.wait("fulfiller").await;
    shop.carrier.is_down.store(false, Ordering::Relaxed);
}
