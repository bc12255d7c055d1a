//! The sale itself: everybody reserves at once, then each winner does what such people do.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use domain::HoldId;
use plumbing::task;
use reqwest::{Method, StatusCode};
use serde_json::json;

use super::catalogue::{CONCERT, MUG, SHIRT, VIP};
use crate::http::{Answer, Api};

/// How long the release of an unpaid hold may take after its deadline.
const RELEASED_WITHIN: Duration = Duration::from_secs(15);

/// One buyer.
#[derive(Debug, Clone)]
pub struct Buyer {
    pub name: String,
    pub sku: &'static str,
    pub quantity: i64,
    pub plan: Plan,
}

/// What a buyer does with a hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plan {
    Pay,
    /// Pay, except for the last one who won.
    PayOrCancel,
    /// Hold for a second and never come back.
    Forget,
}

/// What a buyer was told.
#[derive(Debug, Clone)]
pub enum Told {
    Won(HoldId),
    /// The refusal's code.
    Refused(String),
}

/// All buyers with their answers.
#[derive(Debug)]
pub struct Rush {
    pub answers: Vec<(Buyer, Told)>,
    pub took: Duration,
}

/// What became of a buyer.
#[derive(Debug, Clone)]
pub enum End {
    Refused(String),
    Confirmed,
    Cancelled,
    Expired(HoldId),
}

/// A buyer and what became of them.
#[derive(Debug, Clone)]
pub struct Ended {
    pub buyer: Buyer,
    pub end: End,
}

/// Everybody who wants something.
pub fn buyers(run: &str, vip: u32) -> Vec<Buyer> {
    let mut buyers = Vec::new();
    let mut add = |count: u32, sku: &'static str, quantity: i64, plan: Plan| {
        for _ in 0..count {
            let name = format!("demo-{run}-{}", buyers.len() + 1);
            buyers.push(Buyer {
                name,
                sku,
                quantity,
                plan,
            });
        }
    };
    add(vip, VIP, 1, Plan::PayOrCancel);
    add(11, CONCERT, 2, Plan::Pay);
    add(1, CONCERT, 2, Plan::Forget);
    add(4, SHIRT, 2, Plan::Pay);
    add(2, SHIRT, 3, Plan::Pay); // More than one buyer may have.
    add(6, MUG, 1, Plan::Pay);
    buyers
}

/// Lets all of them reserve at the same moment.
///
/// # Errors
/// Somebody got no answer, or one that is neither a hold nor a refusal.
pub async fn rush(api: &Api, buyers: Vec<Buyer>) -> anyhow::Result<Rush> {
    let begun = Instant::now();
    let waiting: Vec<_> = buyers
        .into_iter()
        .map(|buyer| {
            let api = api.clone();
            task::spawn("buyer", async move {
                let told = reserve(&api, &buyer).await?;
                anyhow::Ok((buyer, told))
            })
        })
        .collect();
    let mut answers = Vec::with_capacity(waiting.len());
    for buyer in waiting {
        answers.push(buyer.await??);
    }
    Ok(Rush {
        answers,
        took: begun.elapsed(),
    })
}

async fn reserve(api: &Api, buyer: &Buyer) -> anyhow::Result<Told> {
    let mut body = json!({
        "lines": [{"sku": buyer.sku, "quantity": buyer.quantity}],
        "user_id": buyer.name,
    });
    if buyer.plan == Plan::Forget {
        body["ttl_seconds"] = 1.into();
    }
    let answer = api.command(Method::POST, "/v1/holds", &buyer.name, &body).await?;
    match answer.status {
        StatusCode::CREATED | StatusCode::OK => Ok(Told::Won(hold_of(&answer)?)),
        status if status.is_client_error() => match answer.code() {
            Some("insufficient_stock" | "limit_exceeded") => {
                Ok(Told::Refused(answer.code().unwrap_or_default().to_owned()))
            }
            _ => bail!("{} could not reserve {}: {}", buyer.name, buyer.sku, answer.problem()),
        },
        _ => bail!("{} could not reserve {}: {}", buyer.name, buyer.sku, answer.problem()),
    }
}

fn hold_of(answer: &Answer) -> anyhow::Result<HoldId> {
    let id = answer.body["hold_id"].as_str().context("an answer without a hold_id")?;
    Ok(HoldId::parse(id)?)
}

/// Lets the winners pay, cancel or forget, and waits for what was forgotten.
///
/// # Errors
/// A hold does not end as it should.
pub async fn end(api: &Api, rush: Rush) -> anyhow::Result<Vec<Ended>> {
    let won = |told: &Told| matches!(told, Told::Won(_));
    let winners = |plan: Plan| {
        rush.answers
            .iter()
            .filter(|(buyer, told)| buyer.plan == plan && won(told))
            .count()
    };
    let mut may_still_pay = winners(Plan::PayOrCancel);
    let mut ended = Vec::new();
    let mut forgotten = Vec::new();
    for (buyer, told) in rush.answers {
        let hold_id = match told {
            Told::Refused(code) => {
                ended.push(Ended {
                    buyer,
                    end: End::Refused(code),
                });
                continue;
            }
            Told::Won(hold_id) => hold_id,
        };
        let last = buyer.plan == Plan::PayOrCancel && {
            may_still_pay -= 1;
            may_still_pay == 0
        };
        let end = match buyer.plan {
            Plan::Forget => {
                forgotten.push((buyer, hold_id));
                continue;
            }
            Plan::PayOrCancel if last => {
                let body = json!({"reason": "changed my mind"});
                act(api, &buyer, hold_id, "cancel", &body).await?;
                End::Cancelled
            }
            Plan::Pay | Plan::PayOrCancel => {
                let body = json!({"payment_ref": format!("pay-{}", buyer.name)});
                act(api, &buyer, hold_id, "confirm", &body).await?;
                End::Confirmed
            }
        };
        ended.push(Ended { buyer, end });
    }
    for (buyer, hold_id) in forgotten {
        wait_for_expiry(api, hold_id).await?;
        ended.push(Ended {
            buyer,
            end: End::Expired(hold_id),
        });
    }
    Ok(ended)
}

async fn act(api: &Api, buyer: &Buyer, hold_id: HoldId, what: &str, body: &serde_json::Value) -> anyhow::Result<()> {
    let key = format!("{}-{what}", buyer.name);
    api.command(Method::POST, &format!("/v1/holds/{hold_id}/{what}"), &key, body)
        .await?
        .success()
        .with_context(|| format!("{} could not {what} hold {hold_id}", buyer.name))?;
    Ok(())
}

async fn wait_for_expiry(api: &Api, hold_id: HoldId) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let hold = api.get(&format!("/v1/holds/{hold_id}")).await?.success()?;
        match hold["state"].as_str() {
            Some("expired") => return Ok(()),
            _ if begun.elapsed() > RELEASED_WITHIN => bail!(
                "hold {hold_id} was not paid within its second and is still {} after {} s: is an expirer running?",
                hold["state"],
                RELEASED_WITHIN.as_secs()
            ),
            _ => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_people_want_the_tickets_than_there_are_and_every_run_has_names_of_its_own() {
        let first = buyers("a", 40);
        assert_eq!(first.iter().filter(|buyer| buyer.sku == VIP).count(), 40);
        let names: std::collections::HashSet<_> = first.iter().map(|buyer| &buyer.name).collect();
        assert_eq!(names.len(), first.len());
        assert!(buyers("b", 40).iter().all(|buyer| !names.contains(&buyer.name)));
        assert_eq!(first.iter().filter(|buyer| buyer.plan == Plan::Forget).count(), 1);
    }
}
