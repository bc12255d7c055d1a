//! Money through the whole system, with localstripe's own books as the other side.

use domain::Lane;
use serde_json::{Value, json};

use crate::world::{Setup, World, play};

/// A client of the stand-in, as the buyer's browser and as an auditor.
struct Stripe(String, reqwest::Client);

impl Stripe {
    fn new() -> Self {
        let url = std::env::var("HOLDFAST_STRIPE_URL").expect("infra/services.sh env");
        Self(url, reqwest::Client::builder().no_proxy().build().expect("a client"))
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let request = self.1.post(format!("{}{path}", self.0)).bearer_auth("sk_test_holdfast");
        let answer = request.json(body).send().await.expect("localstripe answers");
        assert!(answer.status().is_success(), "{path}: {answer:?}");
        answer.json().await.expect("JSON")
    }

    async fn get(&self, path: &str) -> Value {
        let request = self.1.get(format!("{}{path}", self.0)).bearer_auth("sk_test_holdfast");
        request
            .send()
            .await
            .expect("localstripe answers")
            .json()
            .await
            .expect("JSON")
    }

    async fn pay(&self, intent: &str) {
        let card = json!({"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2030, "cvc": "123"}});
        let card = self.post("/v1/payment_methods", &card).await;
        let body = json!({"payment_method": card["id"]});
        self.post(&format!("/v1/payment_intents/{intent}"), &body).await;
        self.post(&format!("/v1/payment_intents/{intent}/confirm"), &json!({}))
            .await;
    }

    async fn refunds(&self, intent: &str) -> usize {
        let refunds = self.get(&format!("/v1/refunds?payment_intent={intent}")).await;
        refunds["data"].as_array().expect("a list").len()
    }
}

async fn world(cap: u64, stripe: &str) -> World {
    Setup::new()
        .with("HOLDFAST_RECONCILE_SECONDS", 1)
        .with("HOLDFAST_PAYMENT_CAP_SECONDS", cap)
        .with("HOLDFAST_STRIPE_URL", stripe)
        .start()
        .await
}

async fn priced(world: &World, sku: &str, units: i64) {
    world.stock(sku, units).await;
    let price = world.client.put(format!("{}/v1/prices/{sku}", world.url));
    let answer = world
        .request(price.json(&json!({"amount": 1_250, "currency": "eur"})))
        .await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

async fn becomes(world: &World, hold_id: &str, state: &str) -> Value {
    world
        .eventually("the payment's end", async || {
            let answer = world.get(&format!("/v1/holds/{hold_id}/payment")).await;
            match answer.state() == state {
                true => Ok(answer.body.clone()),
                false => Err(format!("{answer:?} is not {state}")),
            }
        })
        .await
}

async fn begun(world: &World, sku: &str, user: &str, method: &str) -> (String, String) {
    let hold = world.reserve(&format!("{sku}-{user}"), sku, 2, user).await.hold_id();
    let path = format!("/v1/holds/{hold}/checkout");
    let answer = world.post(&path, &json!({"capture_method": method})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body["amount"], 2_500);
    let again = world.post(&path, &json!({"capture_method": method})).await;
    assert_eq!(again.body, answer.body, "the same answer again");
    (hold, answer.body["intent_id"].as_str().expect("an intent").to_owned())
}

/// No webhook is registered here: the worker's own look at Stripe is enough.
#[test]
fn a_payment_in_either_mode_confirms_its_hold_once() {
    play(async {
        let stripe = Stripe::new();
        let world = world(600, &stripe.0).await;
        priced(&world, "cup", 10).await;
        for method in ["automatic", "manual"] {
            let (hold, intent) = begun(&world, "cup", method, method).await;
            stripe.pay(&intent).await;
            becomes(&world, &hold, "paid").await;
            assert_eq!(world.get(&format!("/v1/holds/{hold}")).await.state(), "confirmed");
            let books = stripe.get(&format!("/v1/payment_intents/{intent}")).await;
            assert_eq!(
                (&books["status"], stripe.refunds(&intent).await),
                (&json!("succeeded"), 0)
            );
        }
        world.assert_verified().await;
    });
}

#[test]
fn a_stripe_that_is_away_gives_the_hold_its_time_back() {
    play(async {
        let world = world(600, "http://127.0.0.1:1").await;
        priced(&world, "cup", 10).await;
        let hold = world.reserve("away", "cup", 2, "ann").await.hold_id();
        for attempt in 1..=2 {
            let answer = world.post(&format!("/v1/holds/{hold}/checkout"), &json!({})).await;
            assert_eq!((answer.status, answer.code()), (503, "try_again"), "{answer:?}");
            let payment = becomes(&world, &hold, "aborted").await;
            assert_eq!(payment["payment_ref"], format!("pay-{hold}-{attempt}"));
            world
                .eventually("held again", async || {
                    let answer = world.get(&format!("/v1/holds/{hold}")).await;
                    (answer.state() == "held").then_some(()).ok_or(format!("{answer:?}"))
                })
                .await;
        }
        world.assert_verified().await;
    });
}

#[test]
fn a_cart_over_several_lanes_is_refused_and_stays_held() {
    play(async {
        let world = world(600, "http://127.0.0.1:1").await;
        let skus = [0, 1].map(|lane| world.sku_in(Lane::new(lane).expect("a lane"), "apart"));
        for sku in &skus {
            priced(&world, sku, 2).await;
        }
        let lines = json!([{"sku": skus[0], "quantity": 1}, {"sku": skus[1], "quantity": 1}]);
        let cart = json!({"lines": lines, "user_id": "ann"});
        let hold = world.post_keyed("/v1/holds", "apart", &cart).await.hold_id();
        let path = format!("/v1/holds/{hold}/checkout");
        let refused = world
            .eventually("a decision", async || {
                let answer = world.post(&path, &json!({})).await;
                (answer.status != 503)
                    .then_some(answer.clone())
                    .ok_or(format!("{answer:?}"))
            })
            .await;
        assert_eq!((refused.status, refused.code()), (422, "several_lanes"), "{refused:?}");
        assert_eq!(world.get(&format!("/v1/holds/{hold}")).await.state(), "held");
        world.assert_verified().await;
    });
}

/// The buyer gives the hold's units up while the money is on its way: what is paid is served again, or given back.
#[test]
fn late_money_takes_the_units_again_or_goes_back() {
    play(async {
        let stripe = Stripe::new();
        let world = Setup::new()
            .with("HOLDFAST_RECONCILE_SECONDS", 5)
            .with("HOLDFAST_PAYMENT_CAP_SECONDS", 1)
            .with("HOLDFAST_STRIPE_URL", &stripe.0)
            .start()
            .await;
        priced(&world, "rare", 2).await;
        for is_sold in [false, true] {
            let user = if is_sold { "bob" } else { "ann" };
            let sku = if is_sold { "sold" } else { "rare" };
            priced(&world, sku, 2).await;
            let (hold, intent) = begun(&world, sku, user, "automatic").await;
            world
                .eventually("expired", async || {
                    let answer = world.get(&format!("/v1/holds/{hold}")).await;
                    (answer.state() == "expired").then_some(()).ok_or(format!("{answer:?}"))
                })
                .await;
            if is_sold {
                assert_eq!(world.reserve("quick", sku, 2, "eve").await.status, 201);
            }
            stripe.pay(&intent).await;
            if is_sold {
                becomes(&world, &hold, "refunded").await;
                assert_eq!(stripe.refunds(&intent).await, 1);
            } else {
                let payment = becomes(&world, &hold, "paid").await;
                let again = payment["retaken_hold_id"].as_str().expect("another hold");
                assert_eq!(world.get(&format!("/v1/holds/{again}")).await.state(), "confirmed");
                assert_eq!(stripe.refunds(&intent).await, 0);
            }
        }
        world.assert_verified().await;
    });
}
