//! A payment with a test card: what the buyer's browser does at Stripe, done here for Stripe's stand-in or its test mode.
//!
//! A shop's own page gives the client secret to Stripe's form, and the card goes from the browser to Stripe: no card data
//! ever reaches Holdfast. Here there is no card either, only the name of Stripe's test card.

use axum::{
    Json,
    extract::{Path, State},
    response::IntoResponse,
};
use domain::HoldId;
use serde_json::{Value, json};

use super::{admit, json_of};
use crate::{
    App, Console,
    access::Person,
    audit::Action,
    pass,
    problem::{Answer, Problem},
};

/// Stripe's name for a card that is always accepted, in test mode only (docs.stripe.com/testing).
const CARD: &str = "pm_card_visa";

/// Where test payments are made.
#[derive(Clone)]
pub struct TestCard {
    /// Base URL of Stripe's API, without a slash at the end.
    url: String,
    /// A secret key of test mode.
    key: String,
}

impl TestCard {
    /// `None` for a key of live mode: real money is none of the tour's.
    #[must_use]
    pub fn new(url: &str, key: &str) -> Option<Self> {
        key.starts_with("sk_test_").then(|| Self {
            url: url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        })
    }

    async fn call(&self, app: &Console, intent: &str, step: &str, form: &str) -> Result<Value, Problem> {
        let calling = app
            .client
            .post(format!("{}/v1/payment_intents/{intent}{step}", self.url))
            .basic_auth(&self.key, None::<&str>)
            .header("idempotency-key", format!("{intent}-test-card{step}"))
            .header("content-type", "application/x-www-form-urlencoded")
            .body(form.to_owned());
        let answer = calling.send().await.map_err(|error| {
            tracing::debug!(%error, "Stripe does not answer the console");
            Problem::unavailable("Stripe does not answer")
        })?;
        match answer.status() {
            status if status.is_success() => json_of(answer).await,
            status => Err(Problem::refused(format!("Stripe did not take the test card: {status}"))),
        }
    }
}

/// Pays the open payment of a hold.
pub async fn pay(State(app): State<App>, person: Person, Path(hold_id): Path<String>) -> Answer {
    admit(&app, &person)?;
    let card = app.test_card.clone();
    let card = card.ok_or_else(|| Problem::forbidden("there is no test card here: Stripe is in live mode"))?;
    let hold_id = HoldId::parse(&hold_id).map_err(|invalid| Problem::invalid(invalid.to_string()))?;
    let subject = hold_id.to_string();
    let begun = Action::of(&person, "tour_pay", subject, json!({"card": CARD}));
    let begun = begun.begin(&app).await?;
    let paid = run(&app, &card, hold_id).await;
    begun.end(if paid.is_ok() { "ok" } else { "unknown" }).await;
    Ok(Json(paid?).into_response())
}

async fn run(app: &Console, card: &TestCard, hold_id: HoldId) -> Result<Value, Problem> {
    let asking = app.client.get(format!("{}/v1/holds/{hold_id}/payment", app.api.url));
    let payment = json_of(pass::send(app, asking).await?).await?;
    let Some(intent) = payment["intent_id"].as_str() else {
        return Err(Problem::refused("no payment of this hold is open: begin it first"));
    };
    // The card first, then the buyer's yes: the stand-in takes no card with the yes.
    card.call(app, intent, "", &format!("payment_method={CARD}")).await?;
    let paid = card.call(app, intent, "/confirm", "").await?;
    Ok(json!({"status": paid["status"]}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_no_test_card_for_real_money() {
        assert!(TestCard::new("http://stripe", "sk_live_1").is_none() && TestCard::new("http://stripe", "").is_none());
        assert!(TestCard::new("http://stripe/", "sk_test_1").is_some_and(|card| card.url == "http://stripe"));
    }
}
