//! The few calls of Stripe's API that checkout makes. Every write carries an `Idempotency-Key`, so that it may be sent again.

use std::time::Duration;

use anyhow::Context as _;
use domain::payment::Intent;
use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::store::Payment;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Names of what an intent's metadata says.
const PAYMENT_REF: &str = "payment_ref";
const HOLD_ATTEMPT: &str = "hold_attempt";
/// Of a list.
const PAGE: usize = 100;

/// A client of one account.
pub(crate) struct Stripe {
    client: reqwest::Client,
    base: String,
    key: String,
}

/// How the text of [`Error::Refused`] begins: steps are kept as text.
pub(crate) const SAID_NO: &str = "Stripe answers";

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody knows whether it was done.
    #[error("Stripe does not answer: {0}")]
    Silent(#[from] reqwest::Error),
    /// Stripe said no.
    #[error("{SAID_NO} {status}: {said}")]
    Refused { status: StatusCode, said: String },
    /// An answer that is none.
    #[error("Stripe's answer has no {0}")]
    Strange(&'static str),
}

/// A new intent.
pub(crate) struct Created {
    pub(crate) id: String,
    pub(crate) client_secret: String,
}

/// An intent as a list shows it.
#[derive(Debug)]
pub(crate) struct Listed {
    pub(crate) id: String,
    /// When it was made, in seconds.
    pub(crate) created: i64,
    pub(crate) status: String,
    /// The payment that it was made for; none: it is not one of ours.
    pub(crate) payment_ref: Option<String>,
    /// Of the hold.
    pub(crate) hold_attempt: Option<i64>,
    pub(crate) client_secret: Option<String>,
    pub(crate) amount: i64,
    pub(crate) currency: String,
    pub(crate) capture_method: String,
}

impl Listed {
    fn read(intent: &Value) -> Result<Self, Error> {
        let text = |name: &'static str| intent[name].as_str().map(str::to_owned).ok_or(Error::Strange(name));
        let noted = |name: &str| intent["metadata"][name].as_str().map(str::to_owned);
        Ok(Self {
            id: text("id")?,
            created: intent["created"].as_i64().ok_or(Error::Strange("created"))?,
            status: text("status")?,
            payment_ref: noted(PAYMENT_REF),
            hold_attempt: noted(HOLD_ATTEMPT).and_then(|attempt| attempt.parse().ok()),
            client_secret: intent["client_secret"].as_str().map(str::to_owned),
            amount: intent["amount"].as_i64().ok_or(Error::Strange("amount"))?,
            currency: text("currency")?,
            capture_method: text("capture_method")?,
        })
    }
}

impl Stripe {
    pub(crate) fn new(url: &str, key: &str) -> anyhow::Result<Self> {
        let (client, url) = plumbing::tls::client_for(url).context("HOLDFAST_STRIPE_URL")?;
        // A live key on a bare line is everybody's.
        let is_local = !key.contains("_live_");
        anyhow::ensure!(
            url.starts_with("https://") || (url.starts_with("http://") && is_local),
            "HOLDFAST_STRIPE_URL must begin with https:// (http:// for a stand-in, with a key of test mode)"
        );
        Ok(Self {
            client: client.timeout(TIMEOUT).build().context("an HTTP client")?,
            base: url.trim_end_matches('/').to_owned(),
            key: key.to_owned(),
        })
    }

    /// Whether events of this account are of live mode.
    pub(crate) fn is_live(&self) -> bool {
        self.key.starts_with("sk_live_") || self.key.starts_with("rk_live_")
    }

    async fn call(&self, method: Method, path: &str, write: Option<(&str, &[(&str, &str)])>) -> Result<Value, Error> {
        let mut request = self
            .client
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.key);
        if let Some((key, form)) = write {
            let body = form_urlencoded::Serializer::new(String::new())
                .extend_pairs(form)
                .finish();
            request = request
                .header("Idempotency-Key", key)
                .header("Content-Type", "application/x-www-form-urlencoded")
                .body(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        if !status.is_success() {
            let text = answer.text().await.unwrap_or_default();
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let said = body["error"]["message"].as_str().unwrap_or(&text);
            let said = said.chars().take(300).collect();
            return Err(Error::Refused { status, said });
        }
        Ok(answer.json().await?)
    }

    /// An intent that the buyer's browser can pay. The payment's reference is its idempotency key.
    pub(crate) async fn create(&self, payment: &Payment) -> Result<Created, Error> {
        let (amount, attempt) = (payment.amount.to_string(), payment.hold_attempt.to_string());
        let form = [
            ("amount", amount.as_str()),
            ("currency", &payment.currency),
            ("capture_method", &payment.capture_method),
            ("metadata[payment_ref]", &payment.payment_ref),
            ("metadata[hold_attempt]", &attempt),
        ];
        let write = Some((payment.payment_ref.as_str(), form.as_slice()));
        let intent = self.call(Method::POST, "/v1/payment_intents", write).await?;
        let text = |name: &'static str| intent[name].as_str().map(str::to_owned).ok_or(Error::Strange(name));
        Ok(Created {
            id: text("id")?,
            client_secret: text("client_secret")?,
        })
    }

    /// What became of an intent.
    pub(crate) async fn read(&self, id: &str) -> Result<Intent, Error> {
        let intent = self
            .call(Method::GET, &format!("/v1/payment_intents/{id}"), None)
            .await?;
        Ok(match intent["status"].as_str() {
            Some("requires_payment_method" | "requires_confirmation" | "requires_action") => Intent::Unpaid,
            Some("processing") => Intent::Processing,
            Some("requires_capture") => Intent::Authorised,
            Some("canceled") => Intent::Cancelled,
            Some("succeeded") => {
                // What was captured may be less than what was asked for. The local stand-in captures all, and does not say it.
                let paid = intent["amount_received"].as_i64().or_else(|| intent["amount"].as_i64());
                let paid = paid.ok_or(Error::Strange("amount"))?;
                match self.refunds(id).await?.back >= paid {
                    true => Intent::Refunded,
                    false => Intent::Succeeded,
                }
            }
            _ => return Err(Error::Strange("known status")),
        })
    }

    /// A page of intents, those after `after`, and whether there are more.
    pub(crate) async fn list(&self, after: Option<&str>) -> Result<(Vec<Listed>, bool), Error> {
        let after = after.map(|id| format!("&starting_after={id}")).unwrap_or_default();
        let path = format!("/v1/payment_intents?limit={PAGE}{after}");
        let page = self.call(Method::GET, &path, None).await?;
        let intents = page["data"].as_array().ok_or(Error::Strange("data"))?;
        let has_more = page["has_more"].as_bool().ok_or(Error::Strange("has_more"))?;
        Ok((intents.iter().map(Listed::read).collect::<Result<_, _>>()?, has_more))
    }

    async fn refunds(&self, id: &str) -> Result<Refunds, Error> {
        let path = format!("/v1/refunds?payment_intent={id}&limit={PAGE}");
        let refunds = self.call(Method::GET, &path, None).await?;
        let refunds = refunds["data"].as_array().ok_or(Error::Strange("data"))?;
        let has_failed = |refund: &&Value| matches!(refund["status"].as_str(), Some("failed" | "canceled"));
        let (failed, good): (Vec<_>, Vec<_>) = refunds.iter().partition(has_failed);
        Ok(Refunds {
            back: good.iter().filter_map(|refund| refund["amount"].as_i64()).sum(),
            failed: failed.len(),
        })
    }

    /// Takes the reserved money. `refused`: how often Stripe has said no to this payment. It answers a key that it knows with what it
    /// said before, for a day, so whoever asks again after a no needs another key; after silence, the same.
    pub(crate) async fn capture(&self, id: &str, refused: i64) -> Result<(), Error> {
        self.post(
            &format!("/v1/payment_intents/{id}/capture"),
            &format!("{id}-capture-{refused}"),
            &[],
        )
        .await
    }

    /// Makes the intent unpayable, and lets reserved money go. `refused`: see [`Stripe::capture`].
    pub(crate) async fn cancel(&self, id: &str, refused: i64) -> Result<(), Error> {
        self.post(
            &format!("/v1/payment_intents/{id}/cancel"),
            &format!("{id}-cancel-{refused}"),
            &[],
        )
        .await
    }

    /// Gives back what of the money is not back yet. One key for each refund that did not come about, and for each no (`refused`: see
    /// [`Stripe::capture`]).
    pub(crate) async fn refund(&self, id: &str, refused: i64) -> Result<(), Error> {
        // Not how many there are: whoever asks beside another, whose refund came about a moment ago, must ask by its key.
        let failed = self.refunds(id).await?.failed;
        self.post(
            "/v1/refunds",
            &format!("{id}-refund-{failed}-{refused}"),
            &[("payment_intent", id)],
        )
        .await
    }

    async fn post(&self, path: &str, key: &str, form: &[(&str, &str)]) -> Result<(), Error> {
        self.call(Method::POST, path, Some((key, form))).await.map(drop)
    }
}

/// The refunds of an intent.
struct Refunds {
    /// What is back, or on its way, in the smallest coin.
    back: i64,
    /// How many came to nothing.
    failed: usize,
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use axum::{Json, Router, extract::Request, routing::any};
    use serde_json::json;

    use super::*;

    /// A Stripe that answers every path with what `says` says of it, and the idempotency keys that it was sent.
    async fn stand_in(says: fn(&str) -> Value) -> (Stripe, Arc<Mutex<Vec<String>>>) {
        let keys = Arc::new(Mutex::new(Vec::new()));
        let seen = Arc::clone(&keys);
        let answer = move |request: Request| {
            let key = request
                .headers()
                .get("idempotency-key")
                .map(|key| key.to_str().unwrap().to_owned());
            seen.lock().unwrap().extend(key);
            let said = says(request.uri().path());
            async move { Json(said) }
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(plumbing::task::spawn("stand-in", async move {
            axum::serve(listener, Router::new().fallback(any(answer))).await
        }));
        (Stripe::new(&url, "sk_test_x").unwrap(), keys)
    }

    /// Eighty of a hundred were captured by hand: eighty are all that can go back, and asking for more would never end.
    #[tokio::test]
    async fn a_part_that_was_captured_is_refunded_when_that_part_is_back() {
        let says_all: fn(&str) -> Value = |path| match path {
            "/v1/refunds" => json!({"data": [{"amount": 80, "status": "succeeded"}]}),
            _ => json!({"status": "succeeded", "amount": 100, "amount_received": 80}),
        };
        let says_some: fn(&str) -> Value = |path| match path {
            "/v1/refunds" => {
                json!({"data": [{"amount": 80, "status": "failed"}, {"amount": 79, "status": "succeeded"}]})
            }
            _ => json!({"status": "succeeded", "amount": 100, "amount_received": 80}),
        };
        assert_eq!(stand_in(says_all).await.0.read("pi").await.unwrap(), Intent::Refunded);
        assert_eq!(stand_in(says_some).await.0.read("pi").await.unwrap(), Intent::Succeeded);
    }

    #[tokio::test]
    async fn a_call_after_a_no_has_another_key_and_one_after_silence_the_same() {
        let (stripe, keys) = stand_in(|_| json!({"data": []})).await;
        for refused in [0, 0, 1] {
            stripe.capture("pi", refused).await.unwrap();
            stripe.cancel("pi", refused).await.unwrap();
            stripe.refund("pi", refused).await.unwrap();
        }
        let of = |refused: i64| ["capture", "cancel", "refund-0"].map(|call| format!("pi-{call}-{refused}"));
        assert_eq!(*keys.lock().unwrap(), [of(0), of(0), of(1)].concat());
    }

    /// Found by checkouts beside kills: the second of two who refund at once counted the first's refund, and money went back twice.
    #[tokio::test]
    async fn who_refunds_beside_another_asks_by_the_same_key() {
        let (stripe, keys) = stand_in(|_| json!({"data": [{"amount": 100, "status": "succeeded"}]})).await;
        stripe.refund("pi", 0).await.unwrap();
        assert_eq!(*keys.lock().unwrap(), ["pi-refund-0-0"]);
    }
}
