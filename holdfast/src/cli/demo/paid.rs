//! One more buyer, who pays by checkout: a hold, a payment at Stripe's stand-in, its webhook, and a parcel.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use plumbing::config::SecretUrl;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{
    catalogue::MUG,
    sale::{Buyer, End, Ended, Plan},
};
use crate::http::Api;

/// What a mug costs, in cents.
const PRICE: i64 = 1_250;
/// The stand-in signs and sends its webhooks a second late.
const PAID_WITHIN: Duration = Duration::from_secs(30);
/// A fulfiller with a carrier needs less.
const SHIPPED_WITHIN: Duration = Duration::from_secs(5);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Where the stand-in is. A real Stripe is left alone: nobody plays with its cards.
#[derive(clap::Args, Debug)]
#[command(next_help_heading = "Connections")]
pub struct StandIn {
    /// Stripe's stand-in, where one buyer pays
    #[arg(
        long,
        env = "HOLDFAST_STRIPE_URL",
        default_value = "http://127.0.0.1:18420",
        hide_env_values = true,
        value_name = "URL"
    )]
    stripe_url: SecretUrl,

    /// A key of a real account: then nobody pays
    #[arg(long, env = "STRIPE_SECRET_KEY", hide_env_values = true, value_name = "KEY")]
    stripe_secret_key: Option<SecretUrl>,
}

/// A payment that came through.
#[derive(Debug)]
pub struct Receipt {
    pub buyer: String,
    pub intent: String,
    pub amount: i64,
    pub currency: String,
    /// Where the order stands.
    pub order: String,
    /// Of the carrier.
    pub parcel: Option<String>,
    pub took: Duration,
}

/// Lets the buyer buy. An `Err` inside: nobody can pay here, and why; that is no fault of the sale.
///
/// # Errors
/// It was begun and does not end as it should.
pub async fn buy(api: &Api, stand_in: &StandIn, run: &str) -> anyhow::Result<Result<(Ended, Receipt), String>> {
    if stand_in.stripe_secret_key.is_some() {
        return Ok(Err(
            "STRIPE_SECRET_KEY is set: nobody pays at the real Stripe".to_owned()
        ));
    }
    let begun = Instant::now();
    let name = format!("demo-{run}-payer");
    let price = json!({"amount": PRICE, "currency": "eur"});
    let priced = api
        .call(Method::PUT, &format!("/v1/prices/{MUG}"), None, Some(&price))
        .await?;
    if priced.status == StatusCode::NOT_FOUND {
        return Ok(Err("checkout is not served there".to_owned()));
    }
    priced.success()?;
    let body = json!({"lines": [{"sku": MUG, "quantity": 1}], "user_id": name});
    let hold = api.command(Method::POST, "/v1/holds", &name, &body).await?.success()?;
    let hold = hold["hold_id"]
        .as_str()
        .context("an answer without a hold_id")?
        .to_owned();
    let path = format!("/v1/holds/{hold}/checkout");
    let payment = api.command(Method::POST, &path, &name, &json!({})).await?.success()?;
    let intent = payment["intent_id"]
        .as_str()
        .context("an answer without an intent_id")?
        .to_owned();
    pay(stand_in, &intent)
        .await
        .context("the stand-in does not take the card")?;
    wait_for(api, &format!("/v1/holds/{hold}/payment"), "paid", PAID_WITHIN).await?;
    let order = wait_for(api, &format!("/v1/orders/{hold}"), "fulfilled", SHIPPED_WITHIN).await;
    let order = match order {
        Ok(order) => order,
        Err(_) => api.get(&format!("/v1/orders/{hold}")).await?.success()?, // Nobody ships here.
    };
    let receipt = Receipt {
        buyer: name.clone(),
        intent,
        amount: payment["amount"].as_i64().unwrap_or_default(),
        currency: payment["currency"].as_str().unwrap_or_default().to_owned(),
        order: order["state"].as_str().unwrap_or_default().to_owned(),
        parcel: order["carrier_reference"].as_str().map(str::to_owned),
        took: begun.elapsed(),
    };
    let buyer = Buyer {
        name,
        sku: MUG,
        quantity: 1,
        plan: Plan::Pay,
    };
    let ended = Ended {
        buyer,
        end: End::Confirmed,
    };
    Ok(Ok((ended, receipt)))
}

/// As the buyer's browser would.
async fn pay(stand_in: &StandIn, intent: &str) -> anyhow::Result<()> {
    let client = plumbing::tls::plain_client().build()?;
    let base = stand_in.stripe_url.expose().trim_end_matches('/').to_owned();
    let post = async |path: String, body: Value| -> anyhow::Result<Value> {
        let call = client.post(format!("{base}{path}")).bearer_auth("sk_test_holdfast");
        Ok(call.json(&body).send().await?.error_for_status()?.json().await?)
    };
    let card = json!({"number": "4242424242424242", "exp_month": 12, "exp_year": 2035, "cvc": "123"});
    let card = post("/v1/payment_methods".to_owned(), json!({"type": "card", "card": card})).await?;
    let method = json!({"payment_method": card["id"]});
    post(format!("/v1/payment_intents/{intent}"), method).await?;
    post(format!("/v1/payment_intents/{intent}/confirm"), json!({})).await?;
    Ok(())
}

async fn wait_for(api: &Api, path: &str, state: &str, within: Duration) -> anyhow::Result<Value> {
    let begun = Instant::now();
    loop {
        let found = api.get(path).await?;
        if found.body["state"] == state {
            return found.success();
        }
        anyhow::ensure!(
            begun.elapsed() < within,
            "{path} is {} after {} s, not {state}: does Stripe know our webhook? (docs/checkout.md)",
            found.body["state"],
            within.as_secs()
        );
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
