//! Carriers: who takes the parcel. Each knows a shipment by its key, and asked again it ships nothing again.

use std::{fmt, str::FromStr, time::Duration};

use plumbing::config::SecretUrl;
use serde_json::Value;
use sqlx::PgPool;

/// Which carrier is asked.
#[derive(Clone, Debug)]
pub enum Choice {
    /// Nobody: orders wait.
    None,
    /// The log carrier: it writes into its own book in Postgres, for a machine without a carrier.
    Log,
    /// A carrier at an http:// URL; one that is far away belongs behind a proxy that speaks TLS.
    Http(SecretUrl),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "none" => Ok(Self::None),
            "log" => Ok(Self::Log),
            url if url.starts_with("http://") => Ok(Self::Http(url.to_owned().into())),
            _ => Err("must be none, log, or an http:// URL".to_owned()),
        }
    }
}

/// What a carrier is asked to take.
pub(crate) struct Shipment {
    /// The same for every try of one order.
    pub(crate) key: String,
    pub(crate) payload: Value,
}

/// Why a try failed. The carrier may have the parcel all the same: the next try, of the same key, tells.
#[derive(Debug)]
pub(crate) struct Refused(pub(crate) String);

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Takes parcels.
pub(crate) trait Carrier: Send + Sync {
    fn name(&self) -> &'static str;

    /// Ships, or says how it shipped before: the carrier's reference.
    fn ship<'a>(&'a self, shipment: &'a Shipment) -> futures::future::BoxFuture<'a, Result<String, Refused>>;
}

/// Writes `carrier_book`.
pub(crate) struct LogCarrier {
    pub(crate) pool: PgPool,
}

impl Carrier for LogCarrier {
    fn name(&self) -> &'static str {
        "log"
    }

    fn ship<'a>(&'a self, shipment: &'a Shipment) -> futures::future::BoxFuture<'a, Result<String, Refused>> {
        Box::pin(async move {
            let query = "INSERT INTO carrier_book (shipment_key, reference, payload, shipped_at) \
                 VALUES ($1, $2, $3::jsonb, clock_ms()) \
                 ON CONFLICT (shipment_key) DO UPDATE SET asked = carrier_book.asked + 1 RETURNING reference";
            let asked = sqlx::query_scalar(query)
                .bind(&shipment.key)
                .bind(format!("parcel-{}", plumbing::id::random()))
                .bind(shipment.payload.to_string())
                .fetch_one(&self.pool);
            let reference: String = asked.await.map_err(|error| Refused(error.to_string()))?;
            tracing::info!(%reference, shipment = shipment.key, "the log carrier has a parcel");
            Ok(reference)
        })
    }
}

/// Posts to a carrier.
pub(crate) struct HttpCarrier {
    client: reqwest::Client,
    url: SecretUrl,
}

impl HttpCarrier {
    pub(crate) fn new(url: SecretUrl, timeout: Duration) -> anyhow::Result<Self> {
        let (client, url) = plumbing::tls::client_for(url.expose())?;
        Ok(Self {
            client: client.timeout(timeout).build()?,
            url: url.into(),
        })
    }
}

impl Carrier for HttpCarrier {
    fn name(&self) -> &'static str {
        "http"
    }

    fn ship<'a>(&'a self, shipment: &'a Shipment) -> futures::future::BoxFuture<'a, Result<String, Refused>> {
        Box::pin(async move {
            // Without its URL: it may carry a password, and what is said here is shown to people.
            let lost = |error: reqwest::Error| Refused(format!("no answer: {}", error.without_url()));
            let call = self.client.post(self.url.expose());
            let call = call.header("Idempotency-Key", &shipment.key).json(&shipment.payload);
            let answer = call.send().await.map_err(lost)?;
            let status = answer.status();
            let text = answer.text().await.map_err(lost)?;
            if !status.is_success() {
                let said: String = text.chars().take(500).collect();
                return Err(Refused(format!("{status}: {said}")));
            }
            let body: Value = serde_json::from_str(&text).unwrap_or_default();
            let reference = body.get("reference").and_then(Value::as_str);
            let reference = reference.ok_or_else(|| Refused(format!("{status}, but without a reference")))?;
            match domain::Text::parse("reference", reference) {
                Ok(_) => Ok(reference.to_owned()),
                Err(invalid) => Err(Refused(format!("{status}, but its reference {invalid}"))),
            }
        })
    }
}
