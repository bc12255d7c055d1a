//! Money through the whole system, with localstripe's own books as the other side.

use domain::Lane;
use holdfast::torture::proxy::{Proxy, host_of};
use plumbing::time;
use serde_json::{Value, json};

use crate::{
    books::{Stripe, event, now_s, signed},
    shop::Shop,
    world::play,
};

/// No webhook is sent here: the worker's own look at Stripe is enough.
#[test]
fn a_payment_in_either_mode_confirms_its_hold_once() {
    play(async {
        let shop = Shop::open(|setup| setup).await;
        shop.stock("cup", 10).await;
        for method in ["automatic", "manual"] {
            let (hold, intent) = shop.begun("cup", method, method).await;
            let order = shop.order_becomes(&hold, "payment_pending").await;
            assert_eq!(
                (&order["payment_state"], &order["lines"][0]["quantity"]),
                (&json!("pending"), &json!(2))
            );
            let again = shop.begin(&hold, method).await;
            assert_eq!(again.body["intent_id"], intent.as_str(), "the same again: {again:?}");
            shop.stripe.pay(&intent).await;
            shop.payment_becomes(&hold, "paid").await;
            assert_eq!(shop.stripe.status(&intent).await, "succeeded");
            assert_eq!(shop.order_becomes(&hold, "fulfilled").await["payment_state"], "paid");
            shop.hold_becomes(&hold, "shipped").await;
        }
        assert_eq!(shop.carrier.parcels(), [1, 1]);
        shop.assert_settled().await;
    });
}

#[test]
fn a_stripe_that_is_away_gives_the_hold_its_time_back_and_the_buyer_tries_again() {
    play(async {
        let proxy = Proxy::start(host_of(&Stripe::new().url)).await.expect("a free port");
        let through = format!("http://{}", proxy.address);
        let shop = Shop::open(|setup| setup.with("HOLDFAST_STRIPE_URL", through)).await;
        shop.stock("cup", 10).await;
        let held = shop.world.reserve(&shop.key("away"), "cup", 2, "ann").await;
        let (hold, until) = (held.hold_id(), held.body["expires_at"].clone());
        proxy.cut();
        for attempt in 1..=2 {
            let answer = shop.begin(&hold, "automatic").await;
            assert_eq!((answer.status, answer.code()), (503, "unavailable"), "{answer:?}");
            assert_eq!(answer.header("retry-after"), Some("1"));
            let payment = shop.payment_becomes(&hold, "aborted").await;
            assert_eq!(payment["payment_ref"], format!("pay-{hold}-{attempt}"));
            shop.hold_becomes(&hold, "held").await;
        }
        // The clock stood still while it was paying: not a moment was lost.
        let now = shop.world.get(&format!("/v1/holds/{hold}")).await;
        assert!(now.body["expires_at"].as_str() >= until.as_str(), "{now:?} was {until}");
        proxy.heal();
        let answer = shop.begin(&hold, "automatic").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        shop.stripe
            .pay(answer.body["intent_id"].as_str().expect("an intent"))
            .await;
        shop.order_becomes(&hold, "fulfilled").await;
        shop.assert_settled().await;
    });
}

/// Its home lane is asked to begin the payment; the parts in other lanes stay held meanwhile, and are settled with it.
#[test]
fn a_cart_over_several_lanes_is_paid_as_one_in_time_and_late() {
    play(async {
        let shop = Shop::open(|setup| {
            setup
                .with("HOLDFAST_RECONCILE_SECONDS", 5)
                .with("HOLDFAST_PAYMENT_CAP_SECONDS", 2)
        })
        .await;
        let skus = [0, 1, 3].map(|lane| shop.world.sku_in(Lane::new(lane).expect("a lane"), "apart"));
        for sku in &skus {
            shop.stock(sku, 3).await;
        }
        for (user, is_late) in [("ann", false), ("bob", true)] {
            let lines = skus.each_ref().map(|sku| json!({"sku": sku, "quantity": 1}));
            let cart = json!({"lines": lines, "user_id": user});
            let hold = shop
                .world
                .post_keyed("/v1/holds", &shop.key(user), &cart)
                .await
                .hold_id();
            let begun = shop
                .world
                .eventually("a payment is begun", async || match shop.begin(&hold, "manual").await {
                    busy if busy.status == 503 => Err(format!("{busy:?}")),
                    answer => Ok(answer),
                })
                .await;
            assert_eq!((begun.status, &begun.body["amount"]), (200, &json!(3_750)), "{begun:?}");
            if is_late {
                shop.hold_becomes(&hold, "expired").await;
            } else {
                shop.hold_becomes(&hold, "paying").await;
            }
            let intent = begun.body["intent_id"].as_str().expect("an intent");
            shop.stripe.pay(intent).await;
            let told = event(
                &format!("evt_{user}"),
                "payment_intent.amount_capturable_updated",
                intent,
            );
            assert_eq!(
                shop.deliver(&told, &signed(&told, crate::books::SECRET, now_s())).await,
                200
            );
            let payment = shop.payment_becomes(&hold, "paid").await;
            assert_eq!(payment["retaken_hold_id"].is_string(), is_late, "{payment}");
            let order = shop.order_becomes(&hold, "fulfilled").await;
            assert_eq!(order["lines"].as_array().map(Vec::len), Some(3), "{order}");
        }
        shop.assert_settled().await;
        for sku in &skus {
            assert_eq!(shop.world.counters(sku).await, (1, 0, 0, 1), "{sku}");
        }
    });
}

/// The hold expires while the buyer types: what is paid then is served again, or given back.
#[test]
fn late_money_takes_the_units_again_or_goes_back() {
    play(async {
        let shop = Shop::open(|setup| {
            setup
                .with("HOLDFAST_RECONCILE_SECONDS", 5)
                .with("HOLDFAST_PAYMENT_CAP_SECONDS", 1)
        })
        .await;
        for (sku, user, is_sold) in [("rare", "ann", false), ("sold", "bob", true)] {
            shop.stock(sku, 2).await;
            let (hold, intent) = shop.begun(sku, user, "automatic").await;
            shop.hold_becomes(&hold, "expired").await;
            if is_sold {
                assert_eq!(shop.world.reserve(&shop.key("quick"), sku, 2, "eve").await.status, 201);
            }
            shop.stripe.pay(&intent).await;
            let paid_at = time::now_ms();
            if is_sold {
                shop.payment_becomes(&hold, "refunded").await;
                assert_eq!(shop.order_becomes(&hold, "refunded").await["payment_state"], "refunded");
                assert_eq!(shop.stripe.refunds(&intent).await, 1);
            } else {
                let payment = shop.payment_becomes(&hold, "paid").await;
                let again = payment["retaken_hold_id"].as_str().expect("another hold").to_owned();
                // The order is found by the hold that the buyer knows, too.
                assert_eq!(shop.order_becomes(&hold, "fulfilled").await["hold_id"], again);
                shop.hold_becomes(&hold, "expired").await;
                assert_eq!(shop.stripe.refunds(&intent).await, 0);
            }
            assert!(time::now_ms() - paid_at < 15 * 60_000);
        }
        shop.assert_settled().await;
    });
}

/// Reserved money is let go before it is taken, by the bank or by hand: what was confirmed for it is not shipped but taken back.
#[test]
fn a_confirmation_whose_money_is_gone_is_not_shipped_and_is_taken_back() {
    play(async {
        let shop = Shop::apart(|setup| setup).await;
        shop.stock("cup", 10).await;
        let (hold, intent) = shop.begun("cup", "ann", "manual").await;
        shop.world.kill("checkout").await;
        shop.stripe.pay(&intent).await;
        let by = |reference: &str| json!({"payment_ref": reference});
        let confirm = format!("/v1/holds/{hold}/confirm");
        let confirmed = shop.world.post(&confirm, &by(&format!("pay-{hold}-1"))).await;
        assert_eq!(confirmed.status, 200, "{confirmed:?}");
        // Another order, paid elsewhere, is shipped meanwhile: the fulfiller is at work, and leaves this one alone.
        let other = shop.world.reserve(&shop.key("other"), "cup", 1, "bob").await.hold_id();
        assert_eq!(shop.world.confirm(&other).await.status, 200);
        shop.order_becomes(&other, "fulfilled").await;
        assert_eq!(shop.order_becomes(&hold, "payment_pending").await["tries"], Value::Null);
        shop.stripe
            .post(&format!("/v1/payment_intents/{intent}/cancel"), &json!({}))
            .await;
        shop.world.spawn("checkout").await;
        shop.payment_becomes(&hold, "aborted").await;
        shop.hold_becomes(&hold, "unallocated").await;
        shop.order_becomes(&hold, "cancelled").await;
        assert_eq!(shop.carrier.parcels(), [1]);
        assert_eq!(shop.world.counters("cup").await, (9, 0, 0, 9));
        shop.assert_settled().await;
    });
}

/// Nobody told us, and what we knew is gone: Stripe's own list is enough.
#[test]
fn a_lost_webhook_and_a_lost_row_lose_nothing() {
    play(async {
        let shop = Shop::apart(|setup| setup.with("HOLDFAST_STRIPE_LIST_SECONDS", 1)).await;
        shop.stock("cup", 10).await;
        let (paid, intent) = shop.begun("cup", "ann", "automatic").await;
        let (unpaid, open) = shop.begun("cup", "bob", "automatic").await;
        shop.world.kill("checkout").await;
        shop.stripe.pay(&intent).await;
        shop.sql("DELETE FROM payment_steps; DELETE FROM payments").await;
        shop.world.spawn("checkout").await;
        shop.serves(&format!("{}/v1/prices", shop.checkout)).await;
        shop.order_becomes(&paid, "fulfilled").await;
        let again = shop.payment_becomes(&unpaid, "pending").await;
        assert_eq!(again["intent_id"], open.as_str(), "{again}");
        let secret = shop.begin(&unpaid, "automatic").await;
        assert!(
            secret.body["client_secret"].is_string(),
            "the buyer can still pay: {secret:?}"
        );
        shop.stripe.pay(&open).await;
        shop.order_becomes(&unpaid, "fulfilled").await;
        shop.assert_settled().await;
    });
}

/// What the view says of an order that nobody has begun to ship is what the domain says.
#[test]
fn orders_are_where_the_domain_says() {
    use domain::{HoldState, OrderState, payment::PaymentState};
    use sqlx::Connection as _;
    play(async {
        let world = crate::world::World::shared().await;
        let url = world.connections.postgres_url.expose();
        let mut postgres = sqlx::PgConnection::connect(url).await.expect("Postgres answers");
        for hold in HoldState::ALL {
            for payment in PaymentState::ALL.map(Some).into_iter().chain([None]) {
                let said: String = sqlx::query_scalar("SELECT order_before_shipping($1, $2)")
                    .bind(payment.map(PaymentState::name))
                    .bind(hold.name())
                    .fetch_one(&mut postgres)
                    .await
                    .expect("a state");
                let expected = OrderState::before_shipping(payment, hold).name();
                assert_eq!(said, expected, "{payment:?} {hold:?}");
            }
        }
    });
}
