//! A shop: a world with checkout and a fulfiller, Stripe's stand-in and a carrier, each of which keeps books of its own.

use std::sync::Arc;

use holdfast::check;
use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::{
    books::{Carrier, SECRET, Stripe, now_s, signed},
    world::{Answer, Setup, World, free_port},
};

/// A running shop.
pub struct Shop {
    pub world: World,
    pub stripe: Stripe,
    pub carrier: Arc<Carrier>,
    /// Where checkout's calls are.
    pub checkout: String,
    /// Where the calls about orders are.
    pub orders: String,
}

impl Shop {
    /// All roles in one process; quick waits.
    pub async fn open(more: impl FnOnce(Setup) -> Setup) -> Self {
        Self::of(Setup::new(), more).await
    }

    /// Checkout and fulfiller in processes of their own, so that each can be killed alone.
    pub async fn apart(more: impl FnOnce(Setup) -> Setup) -> Self {
        let mut setup = Setup::new().apart();
        setup.processes.extend(["checkout", "fulfiller"]);
        let setup = setup
            .with("HOLDFAST_CHECKOUT_ADDR", format!("127.0.0.1:{}", free_port()))
            .with("HOLDFAST_FULFILLER_ADDR", format!("127.0.0.1:{}", free_port()));
        Self::of(setup, more).await
    }

    async fn of(setup: Setup, more: impl FnOnce(Setup) -> Setup) -> Self {
        let (carrier, url) = Carrier::open().await;
        let stripe = Stripe::new();
        let setup = setup
            .with("STRIPE_WEBHOOK_SECRET", SECRET)
            .with("HOLDFAST_STRIPE_URL", &stripe.url)
            .with("HOLDFAST_RECONCILE_SECONDS", 1)
            .with("HOLDFAST_STRIPE_LIST_SECONDS", 10)
            .with("HOLDFAST_CHECKOUT_LEASE_SECONDS", 2)
            .with("HOLDFAST_FULFILLER_CARRIER", url)
            .with("HOLDFAST_FULFILLER_TICK_MS", 50)
            .with("HOLDFAST_FULFILLER_WAIT_MS", 50)
            .with("HOLDFAST_FULFILLER_TIMEOUT_MS", 500);
        let setup = more(setup);
        let at = |name: &str| setup.environment.get(name).map(|addr| format!("http://{addr}"));
        let (checkout, orders) = (at("HOLDFAST_CHECKOUT_ADDR"), at("HOLDFAST_FULFILLER_ADDR"));
        let world = setup.start().await;
        let shop = Self {
            checkout: checkout.unwrap_or_else(|| world.url.clone()),
            orders: orders.unwrap_or_else(|| world.url.clone()),
            world,
            stripe,
            carrier,
        };
        shop.serves(&format!("{}/v1/prices", shop.checkout)).await;
        shop.serves(&format!("{}/v1/orders", shop.orders)).await;
        shop
    }

    /// Waits until a page is served.
    pub async fn serves(&self, url: &str) {
        self.world
            .eventually("served", async || {
                let answer = self.world.try_request(self.world.client.get(url)).await;
                match answer {
                    Ok(answer) if answer.status == 200 => Ok(()),
                    other => Err(format!("{url}: {other:?}")),
                }
            })
            .await;
    }

    /// A key that no other world uses: all of them share one Stripe.
    pub fn key(&self, name: &str) -> String {
        format!("{}-{name}", self.world.connections.redis_prefix)
    }

    /// Makes a SKU with so many units at 12.50.
    pub async fn stock(&self, sku: &str, units: i64) {
        self.world.stock(sku, units).await;
        let url = format!("{}/v1/prices/{sku}", self.checkout);
        let price = json!({"amount": 1_250, "currency": "eur"});
        let answer = self.decided(|| self.world.client.put(&url).json(&price)).await;
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// Asks for a payment, once.
    pub async fn begin(&self, hold: &str, method: &str) -> Answer {
        let url = format!("{}/v1/holds/{hold}/checkout", self.checkout);
        let call = self.world.client.post(&url).json(&json!({"capture_method": method}));
        self.world.request(call).await
    }

    /// A hold of two units whose payment is begun: hold and intent.
    pub async fn begun(&self, sku: &str, user: &str, method: &str) -> (String, String) {
        let held = self
            .world
            .reserve(&self.key(&format!("{sku}-{user}")), sku, 2, user)
            .await;
        assert_eq!(held.status, 201, "{held:?}");
        let url = format!("{}/v1/holds/{}/checkout", self.checkout, held.hold_id());
        let asked = json!({"capture_method": method});
        let answer = self.decided(|| self.world.client.post(&url).json(&asked)).await;
        assert_eq!(
            (answer.status, &answer.body["amount"]),
            (200, &json!(2_500)),
            "{answer:?}"
        );
        let intent = answer.body["intent_id"].as_str().expect("an intent");
        (held.hold_id(), intent.to_owned())
    }

    /// Asks again while a busy machine has no time.
    async fn decided(&self, request: impl Fn() -> reqwest::RequestBuilder) -> Answer {
        self.world
            .eventually("an answer", async || match self.world.request(request()).await {
                answer if answer.status == 503 => Err(format!("{answer:?}")),
                answer => Ok(answer),
            })
            .await
    }

    async fn becomes(&self, url: &str, state: &str) -> Value {
        self.world
            .eventually("its end", async || {
                let answer = self.world.try_request(self.world.client.get(url)).await;
                match answer {
                    Ok(answer) if answer.state() == state => Ok(answer.body),
                    other => Err(format!("{other:?} is not {state}")),
                }
            })
            .await
    }

    /// Waits until a hold's payment is in a state.
    pub async fn payment_becomes(&self, hold: &str, state: &str) -> Value {
        self.becomes(&format!("{}/v1/holds/{hold}/payment", self.checkout), state)
            .await
    }

    /// Waits until a hold's order is in a state.
    pub async fn order_becomes(&self, hold: &str, state: &str) -> Value {
        self.becomes(&format!("{}/v1/orders/{hold}", self.orders), state).await
    }

    /// Waits until a hold is in a state.
    pub async fn hold_becomes(&self, hold: &str, state: &str) {
        self.becomes(&format!("{}/v1/holds/{hold}", self.world.url), state)
            .await;
    }

    /// Runs a command of the binary, which ends with a code; what it says.
    pub async fn tool(&self, arguments: &[&str], code: i32) -> String {
        let (ended, out, error) = self.world.run(arguments).await;
        assert_eq!(ended, code, "{arguments:?}: {out}{error}");
        out
    }

    /// Acts on the failed queue.
    pub async fn desk(&self, hold: &str, what: &str, reason: &str) -> Answer {
        let url = format!("{}/v1/admin/failed/{hold}/{what}", self.orders);
        let body = json!({"reason": reason, "actor": "eve"});
        self.world.request(self.world.client.post(url).json(&body)).await
    }

    /// Delivers a webhook, and says how it was answered.
    pub async fn deliver(&self, body: &[u8], header: &str) -> u16 {
        let request = self.world.client.post(format!("{}/v1/webhooks/stripe", self.checkout));
        let request = request.header("Stripe-Signature", header).body(body.to_vec());
        self.world.request(request).await.status
    }

    /// Delivers a webhook until it is taken, as Stripe does.
    pub async fn told(&self, body: &[u8]) {
        self.world
            .eventually("taken", async || {
                match self.deliver(body, &signed(body, SECRET, now_s())).await {
                    200 => Ok(()),
                    status => Err(format!("{status}")),
                }
            })
            .await;
    }

    /// One row of the world's own database.
    pub async fn number(&self, query: &'static str) -> i64 {
        let mut postgres = self.postgres().await;
        sqlx::query_scalar(query)
            .fetch_one(&mut postgres)
            .await
            .expect("a number")
    }

    /// Intents of payments in a state.
    pub async fn intents_of(&self, state: &str) -> Vec<String> {
        let mut postgres = self.postgres().await;
        let query = "SELECT intent_id FROM payments WHERE state = $1 AND intent_id IS NOT NULL";
        sqlx::query_scalar(query)
            .bind(state)
            .fetch_all(&mut postgres)
            .await
            .expect("intents")
    }

    /// Changes the world's own database behind everybody's back.
    pub async fn sql(&self, statement: &'static str) {
        let mut postgres = self.postgres().await;
        sqlx::raw_sql(statement).execute(&mut postgres).await.expect("done");
    }

    async fn postgres(&self) -> sqlx::PgConnection {
        let url = self.world.connections.postgres_url.expose();
        sqlx::PgConnection::connect(url).await.expect("Postgres answers")
    }

    /// I7: nothing moves any more, the log's sides agree, and Stripe's and the carrier's own books fit the log.
    pub async fn assert_settled(&self) {
        self.world
            .eventually("payments at rest", async || {
                let open =
                    "SELECT count(*) FROM payments WHERE state IN ('beginning', 'pending', 'aborting', 'returning')";
                match self.number(open).await {
                    0 => Ok(()),
                    open => Err(format!("{open} payments are open")),
                }
            })
            .await;
        self.world
            .eventually("parcels at rest", async || {
                let open = "SELECT count(*) FROM fulfilments WHERE state IN ('paid', 'fulfilling')";
                match self.number(open).await {
                    0 => Ok(()),
                    open => Err(format!("{open} orders are not shipped")),
                }
            })
            .await;
        self.world.assert_verified().await;
        let log = check::dump(&self.world.connections).await.expect("the log can be read");
        let standings = check::payments::standings(&log);
        let ids: std::collections::HashSet<_> = standings.iter().map(|one| one.hold_id.to_string()).collect();
        let is_ours = |reference: &str| {
            let hold = reference.strip_prefix("pay-").and_then(|rest| rest.rsplit_once('-'));
            hold.is_some_and(|(hold, _)| ids.contains(hold))
        };
        // On a busy machine an intent may be made after its payment was given up: whoever reconciles ends it.
        self.world
            .eventually("everybody's books agree", async || {
                let paid = self.stripe.book(is_ours).await;
                let violations = check::payments::check(&standings, &paid, &self.carrier.book());
                if violations.is_empty() {
                    Ok(())
                } else {
                    Err(format!("{violations:#?}\n{paid:#?}"))
                }
            })
            .await;
    }
}
