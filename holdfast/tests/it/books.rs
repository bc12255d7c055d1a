//! The other sides' books: Stripe's stand-in and a carrier, as those who pay and audit see them; and webhooks as Stripe signs them.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use axum::{Json, Router, extract::State, http::HeaderMap, response::IntoResponse, routing::post};
use hmac::{Hmac, KeyInit as _, Mac as _};
use holdfast::check::payments::{Paid, Parcel};
use serde_json::{Value, json};
use sha2::Sha256;

/// What signs webhooks.
pub const SECRET: &str = "whsec_of_the_tests";

/// A carrier with a book, which can be out of order.
#[derive(Default)]
pub struct Carrier {
    pub is_down: AtomicBool,
    pub asked: AtomicUsize,
    parcels: Mutex<BTreeMap<String, usize>>,
}

impl Carrier {
    /// Opens it, and says where.
    pub async fn open() -> (Arc<Self>, String) {
        let carrier = Arc::new(Self::default());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/ship", listener.local_addr().expect("bound"));
        let router = Router::new()
            .route("/ship", post(take))
            .with_state(Arc::clone(&carrier));
        // It serves until the test's process ends.
        drop(plumbing::task::spawn("carrier", async move {
            axum::serve(listener, router).await
        }));
        (carrier, url)
    }

    /// How many parcels there are of each key.
    pub fn parcels(&self) -> Vec<usize> {
        self.parcels.lock().expect("no panic").values().copied().collect()
    }

    /// What it has sent.
    pub fn book(&self) -> Vec<Parcel> {
        let parcels = self.parcels.lock().expect("no panic");
        let parcel = |(key, count): (&String, &usize)| Parcel {
            key: key.clone(),
            count: *count,
        };
        parcels.iter().map(parcel).collect()
    }
}

async fn take(State(carrier): State<Arc<Carrier>>, headers: HeaderMap) -> axum::response::Response {
    carrier.asked.fetch_add(1, Ordering::Relaxed);
    if carrier.is_down.load(Ordering::Relaxed) {
        return (axum::http::StatusCode::SERVICE_UNAVAILABLE, "on strike").into_response();
    }
    let key = headers["idempotency-key"].to_str().expect("text").to_owned();
    let reference = format!("parcel {key}");
    carrier.parcels.lock().expect("no panic").entry(key).or_insert(1);
    Json(json!({"reference": reference})).into_response()
}

/// A client of the stand-in: the buyer's browser, and an auditor.
#[derive(Clone)]
pub struct Stripe {
    pub url: String,
    client: reqwest::Client,
}

impl Stripe {
    pub fn new() -> Self {
        Self {
            url: std::env::var("HOLDFAST_STRIPE_URL").expect("infra/services.sh env"),
            client: plumbing::tls::plain_client().build().expect("a client"),
        }
    }

    pub async fn try_post(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.send(self.client.post(format!("{}{path}", self.url)), path, body)
            .await
    }

    /// As a service does that may have to send it again.
    pub async fn try_post_keyed(&self, key: &str, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.client.post(format!("{}{path}", self.url));
        self.send(request.header("Idempotency-Key", key), path, body).await
    }

    async fn send(&self, request: reqwest::RequestBuilder, path: &str, body: &Value) -> Result<Value, String> {
        let answer = request.bearer_auth("sk_test_holdfast").json(body).send().await;
        let answer = answer.expect("localstripe answers");
        let (status, text) = (answer.status(), answer.text().await.expect("a body"));
        match status.is_success() {
            true => Ok(serde_json::from_str(&text).unwrap_or_default()),
            false => Err(format!("{path}: {status} {text}")),
        }
    }

    pub async fn post(&self, path: &str, body: &Value) -> Value {
        self.try_post(path, body).await.unwrap_or_else(|said| panic!("{said}"))
    }

    pub async fn get(&self, path: &str) -> Value {
        let request = self
            .client
            .get(format!("{}{path}", self.url))
            .bearer_auth("sk_test_holdfast");
        let answer = request.send().await.expect("localstripe answers");
        answer.json().await.expect("JSON")
    }

    /// Pays, as the buyer's browser does; an intent that cannot be paid any more says so.
    pub async fn try_pay(&self, intent: &str) -> Result<(), String> {
        let card = json!({"number": "4242424242424242", "exp_month": 12, "exp_year": 2035, "cvc": "123"});
        let card = self
            .post("/v1/payment_methods", &json!({"type": "card", "card": card}))
            .await;
        let method = json!({"payment_method": card["id"]});
        self.try_post(&format!("/v1/payment_intents/{intent}"), &method).await?;
        self.try_post(&format!("/v1/payment_intents/{intent}/confirm"), &json!({}))
            .await?;
        Ok(())
    }

    pub async fn pay(&self, intent: &str) {
        self.try_pay(intent).await.unwrap_or_else(|said| panic!("{said}"));
    }

    pub async fn status(&self, intent: &str) -> String {
        let intent = self.get(&format!("/v1/payment_intents/{intent}")).await;
        intent["status"].as_str().expect("a status").to_owned()
    }

    pub async fn refunds(&self, intent: &str) -> usize {
        let refunds = self.get(&format!("/v1/refunds?payment_intent={intent}")).await;
        refunds["data"].as_array().expect("a list").len()
    }

    /// Everything of one kind, of all worlds.
    async fn all(&self, kind: &str) -> Vec<Value> {
        let list = self.get(&format!("/v1/{kind}?limit=1000000")).await;
        list["data"]
            .as_array()
            .unwrap_or_else(|| panic!("{kind}: {list}"))
            .clone()
    }

    /// The payments of some references, as the stand-in has them.
    pub async fn book(&self, is_ours: impl Fn(&str) -> bool) -> Vec<Paid> {
        let (intents, moved, refunds) = (
            self.all("payment_intents").await,
            self.all("balance_transactions").await,
            self.all("refunds").await,
        );
        let sums = |rows: &[Value], field: &str, charge: &Value| -> Vec<i64> {
            let of = rows.iter().filter(|row| !charge.is_null() && row[field] == *charge);
            of.filter_map(|row| row["amount"].as_i64()).collect()
        };
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let ours = intents
            .iter()
            .filter(|intent| is_ours(&text(&intent["metadata"]["payment_ref"])));
        ours.map(|intent| {
            let charge = &intent["latest_charge"]["id"];
            Paid {
                intent: text(&intent["id"]),
                payment_ref: text(&intent["metadata"]["payment_ref"]),
                amount: intent["amount"].as_i64().expect("an amount"),
                taken: sums(&moved, "source", charge),
                given_back: sums(&refunds, "charge", charge),
                is_open: !matches!(intent["status"].as_str(), Some("succeeded" | "canceled")),
            }
        })
        .collect()
    }
}

/// The header of a webhook that is signed at a time.
pub fn signed(body: &[u8], secret: &str, time_s: i64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key");
    mac.update(format!("{time_s}.").as_bytes());
    mac.update(body);
    let digits: Vec<String> = mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    format!("t={time_s},v1={}", digits.concat())
}

/// Now, in seconds, as a webhook says it.
pub fn now_s() -> i64 {
    plumbing::time::now_ms() / 1_000
}

/// What Stripe tells of an intent.
pub fn event(id: &str, kind: &str, intent: &str) -> Vec<u8> {
    let event = json!({"id": id, "object": "event", "type": kind, "livemode": false,
        "data": {"object": {"id": intent, "object": "payment_intent"}}});
    serde_json::to_vec_pretty(&event).expect("JSON")
}
