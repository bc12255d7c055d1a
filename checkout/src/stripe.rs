//! The few calls of Stripe's API that checkout makes. Every write carries an `Idempotency-Key`, so that it may be sent again.

use std::time::Duration;

use anyhow::Context as _;
use domain::payment::Intent;
use reqwest::{Method, StatusCode};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(10);

/// A client of one account.
pub(crate) struct Stripe {
    client: reqwest::Client,
    base: String,
    key: String,
}

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody knows whether it was done.
    #[error("Stripe does not answer: {0}")]
    Silent(#[from] reqwest::Error),
    /// Stripe said no.
    #[error("Stripe answers {status}: {said}")]
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

impl Stripe {
    pub(crate) fn new(url: &str, key: &str) -> anyhow::Result<Self> {
        anyhow::ensure!(
            url.starts_with("http://"),
            "HOLDFAST_STRIPE_URL must begin with http://: TLS is left to a proxy beside this process"
        );
        Ok(Self {
            client: reqwest::Client::builder()
                .no_proxy()
                .timeout(TIMEOUT)
                .build()
                .context("an HTTP client")?,
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
            let said = answer.text().await.unwrap_or_default().chars().take(300).collect();
            return Err(Error::Refused { status, said });
        }
        Ok(answer.json().await?)
    }

    /// An intent that the buyer's browser can pay. `payment_ref` is its idempotency key.
    pub(crate) async fn create(
        &self,
        payment_ref: &str,
        amount: i64,
        currency: &str,
        capture_method: &str,
    ) -> Result<Created, Error> {
        let amount = amount.to_string();
        let form = [
            ("amount", amount.as_str()),
            ("currency", currency),
            ("capture_method", capture_method),
            ("metadata[payment_ref]", payment_ref),
        ];
        let intent = self
            .call(Method::POST, "/v1/payment_intents", Some((payment_ref, &form)))
            .await?;
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
            Some("succeeded") if self.is_refunded(id).await? => Intent::Refunded,
            Some("succeeded") => Intent::Succeeded,
            _ => return Err(Error::Strange("known status")),
        })
    }

    async fn is_refunded(&self, id: &str) -> Result<bool, Error> {
        let refunds = self
            .call(Method::GET, &format!("/v1/refunds?payment_intent={id}"), None)
            .await?;
        let refunds = refunds["data"].as_array().ok_or(Error::Strange("data"))?;
        Ok(refunds
            .iter()
            .any(|refund| !matches!(refund["status"].as_str(), Some("failed" | "canceled"))))
    }

    /// Takes the reserved money.
    pub(crate) async fn capture(&self, id: &str) -> Result<(), Error> {
        self.post(
            &format!("/v1/payment_intents/{id}/capture"),
            &format!("{id}-capture"),
            &[],
        )
        .await
    }

    /// Makes the intent unpayable, and lets reserved money go.
    pub(crate) async fn cancel(&self, id: &str) -> Result<(), Error> {
        self.post(
            &format!("/v1/payment_intents/{id}/cancel"),
            &format!("{id}-cancel"),
            &[],
        )
        .await
    }

    /// Gives the money back, all of it.
    pub(crate) async fn refund(&self, id: &str) -> Result<(), Error> {
        self.post("/v1/refunds", &format!("{id}-refund"), &[("payment_intent", id)])
            .await
    }

    async fn post(&self, path: &str, key: &str, form: &[(&str, &str)]) -> Result<(), Error> {
        self.call(Method::POST, path, Some((key, form))).await.map(drop)
    }
}
