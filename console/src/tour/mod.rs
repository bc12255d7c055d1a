//! The tour, for a system on one's own machine: what a visitor wants to see once, against the real thing.
//!
//! ```text
//! sale       more buyers than units, at once
//! takeover   a sale in a lane whose reserver is killed (SIGKILL) in the middle
//! card       a payment with a test card, as the buyer's browser would make it at Stripe
//! ```

mod card;
mod sale;
mod takeover;

use serde_json::{Value, json};

pub use card::{TestCard, pay};
pub use sale::sale;
pub use takeover::{Stage, begin as take_over, look};

use crate::{Console, access::Person, pass, problem::Problem, users::Role};

/// Whether the person may play here.
fn admit(app: &Console, person: &Person) -> Result<(), Problem> {
    if !app.options.tour {
        return Err(Problem::forbidden("the tour is for a local system: HOLDFAST_TOUR"));
    }
    person.must_be(Role::Operator)
}

/// One unit for one buyer, waited for; the status of the answer, 0 where there was none.
async fn buy(app: &Console, sku: &str, key: &str, buyer: &str) -> u16 {
    let body = json!({"lines": [{"sku": sku, "quantity": 1}], "user_id": buyer, "ttl_seconds": 60});
    let request = app
        .client
        .post(format!("{}/v1/holds", app.api.url))
        .header("idempotency-key", key)
        .header("prefer", "wait=30")
        .json(&body);
    pass::send(app, request)
        .await
        .map_or(0, |answer| answer.status().as_u16())
}

/// So many units for sale, whatever earlier sales left; the stock then.
async fn restock(app: &Console, person: &Person, sku: &str, units: usize) -> Result<Value, Problem> {
    let now = read(app, sku).await?;
    let taken = now["held"].as_u64().unwrap_or(0) + now["allocated"].as_u64().unwrap_or(0);
    let body = json!({"sku": sku, "set": taken + units as u64, "reason": "the tour's sale"});
    let request = app
        .client
        .post(format!("{}/v1/stock/adjustments", app.api.url))
        .header("x-actor", person.actor())
        .header("prefer", "wait=30")
        .json(&body);
    let answer = pass::send(app, request).await?;
    if answer.status() != 200 {
        let status = answer.status();
        return Err(Problem::refused(format!("the stock could not be set: {status}")));
    }
    json_of(answer).await
}

/// A SKU's stock; null where there is none yet.
async fn read(app: &Console, sku: &str) -> Result<Value, Problem> {
    let answer = pass::send(app, app.client.get(format!("{}/v1/stock/{sku}", app.api.url))).await?;
    match answer.status().is_success() {
        true => json_of(answer).await,
        false => Ok(Value::Null),
    }
}

async fn json_of(answer: reqwest::Response) -> Result<Value, Problem> {
    let broken = |_| Problem::unavailable("the HTTP API broke off its answer");
    answer.json().await.map_err(broken)
}
