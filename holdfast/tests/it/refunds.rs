//! Money that goes back after it was taken: orders that are given up, sales that are taken back, payments that are others'.

use std::{collections::BTreeSet, sync::atomic::Ordering};

use domain::{CommandBody, EventBody, HoldId, Text};
use futures::future::join_all;
use serde_json::json;

use crate::{
    books::Stripe,
    shop::Shop,
    wire::{Wire, command},
    world::play,
};

async fn units(shop: &Shop, sku: &str, wanted: (i64, i64, i64, i64)) {
    shop.world
        .eventually("the counters", async || match shop.world.counters(sku).await {
            found if found == wanted => Ok(()),
            found => Err(format!("{found:?} is not {wanted:?}")),
        })
        .await;
}

/// The books of the stand-in are worth a comparison only if it does with a repeated call what Stripe does.
#[test]
fn the_stand_in_does_a_call_once_per_key_as_stripe_does() {
    play(async {
        let stripe = Stripe::new();
        let intent = json!({"amount": 1250, "currency": "eur"});
        let intent = stripe.post("/v1/payment_intents", &intent).await;
        let id = intent["id"].as_str().expect("an id");
        stripe.pay(id).await;
        let (key, refund) = (format!("{id}-refund"), json!({"payment_intent": id}));
        let asked = (0..5).map(|_| stripe.try_post_keyed(&key, "/v1/refunds", &refund));
        let answers: BTreeSet<_> = join_all(asked)
            .await
            .into_iter()
            .map(|answer| answer.expect("done")["id"].to_string())
            .collect();
        assert_eq!((answers.len(), stripe.refunds(id).await), (1, 1), "{answers:?}");
        let other = stripe.try_post_keyed(&key, "/v1/refunds", &json!({})).await;
        assert!(
            other.is_err_and(|said| said.contains("400")),
            "a key stands for one call"
        );
    });
}

#[test]
fn an_order_that_is_given_up_is_refunded_once_and_its_units_are_for_sale() {
    play(async {
        let shop = Shop::open(|setup| setup).await;
        shop.stock("cup", 10).await;
        shop.carrier.is_down.store(true, Ordering::Relaxed);
        let (hold, intent) = shop.begun("cup", "ann", "automatic").await;
        let (tried_again, _) = shop.begun("cup", "bob", "manual").await;
        for hold in [&hold, &tried_again] {
            let intent = shop.payment_becomes(hold, "pending").await["intent_id"]
                .as_str()
                .expect("one")
                .to_owned();
            shop.stripe.pay(&intent).await;
            assert_eq!(shop.order_becomes(hold, "failed").await["tries"], 3);
        }
        assert_eq!(shop.carrier.asked.load(Ordering::Relaxed), 6);
        // On the command line, as at the desk.
        let listed = shop.tool(&["failed", "list"], 0).await;
        assert!(listed.contains(&hold) && listed.contains(&tried_again), "{listed}");
        let shown = shop.tool(&["failed", "show", &hold], 0).await;
        assert!(shown.contains("on strike") && shown.contains("cup x 2"), "{shown}");
        let why = ["--reason", "nobody drives there", "--actor", "eve"];
        for code in [0, 1] {
            shop.tool(&[&["failed", "cancel", &hold], &why[..]].concat(), code)
                .await;
        }
        shop.order_becomes(&hold, "refunded").await;
        assert_eq!(
            shop.payment_becomes(&hold, "refunded").await["intent_id"],
            intent.as_str()
        );
        assert_eq!(shop.stripe.refunds(&intent).await, 1);
        let why = "SELECT count(*) FROM required_refunds WHERE reason = 'nobody drives there'";
        assert_eq!(shop.number(why).await, 1);
        shop.carrier.is_down.store(false, Ordering::Relaxed);
        let why = ["--reason", "they drive again", "--actor", "eve"];
        shop.tool(&[&["failed", "retry", &tried_again], &why[..]].concat(), 0)
            .await;
        shop.order_becomes(&tried_again, "fulfilled").await;
        units(&shop, "cup", (8, 0, 0, 8)).await;
        assert_eq!(shop.carrier.parcels(), [1]);
        let audited =
            "SELECT count(*) FROM audit_log WHERE actor = 'eve' AND action IN ('order.cancel', 'order.retry')";
        assert_eq!(shop.number(audited).await, 2);
        shop.assert_settled().await;
        movements(&shop, &hold).await;

        shop.tool(&["prices", "set", "saucer", "300", "EUR"], 0).await;
        let all = shop.tool(&["prices", "list"], 0).await;
        assert!(all.contains("saucer") && all.contains("1250"), "{all}");
        assert!(shop.tool(&["prices", "get", "saucer"], 0).await.contains("eur"));
        shop.tool(&["prices", "get", "spoon"], 1).await;
    });
}

/// Every change of the SKU's counters can be read, page by page, newest first.
async fn movements(shop: &Shop, given_up: &str) {
    let first = shop.world.get("/v1/stock/cup/movements?limit=3").await;
    assert_eq!(first.status, 200, "{first:?}");
    let rest = format!(
        "/v1/stock/cup/movements?cursor={}",
        first.body["next_cursor"].as_str().expect("more")
    );
    let rest = shop.world.get(&rest).await;
    let pages = [&first, &rest].map(|page| page.body["movements"].as_array().expect("a list").clone());
    let all = pages.concat();
    assert_eq!(
        i64::try_from(all.len()).expect("few"),
        shop.number("SELECT count(*) FROM stock_movements WHERE sku = 'cup'")
            .await
    );
    let sum: i64 = all
        .iter()
        .map(|one| one["change"]["on_hand"].as_i64().expect("units"))
        .sum();
    assert_eq!((sum, &all[0]["after"]["on_hand"]), (8, &json!(8)), "{all:?}");
    let taken_back = all.iter().find(|one| one["kind"] == "HoldUnallocated").expect("one");
    assert_eq!(
        (&taken_back["hold_id"], &taken_back["actor"]),
        (&json!(given_up), &json!("eve"))
    );
    assert!(rest.body["next_cursor"].is_null(), "{rest:?}");
    let unknown = shop.world.get("/v1/stock/spoon/movements").await;
    assert_eq!((unknown.status, unknown.code()), (404, "unknown_sku"), "{unknown:?}");
}

/// By the janitor, and by a command in the log where nobody ships at all.
#[test]
fn whoever_takes_a_sale_back_its_money_goes_back() {
    play(async {
        let shop = Shop::open(|setup| setup.with("HOLDFAST_FULFILLER_GIVE_UP_SECONDS", 1)).await;
        shop.stock("cup", 10).await;
        shop.carrier.is_down.store(true, Ordering::Relaxed);
        let (hold, intent) = shop.begun("cup", "ann", "automatic").await;
        shop.stripe.pay(&intent).await;
        shop.order_becomes(&hold, "refunded").await;
        assert_eq!(shop.stripe.refunds(&intent).await, 1);
        let janitor = "SELECT count(*) FROM refund_requests WHERE actor = 'janitor' AND done_at IS NOT NULL";
        assert_eq!(shop.number(janitor).await, 1);
        shop.assert_settled().await;

        let shop = Shop::open(|setup| setup.with("HOLDFAST_FULFILLER_CARRIER", "none")).await;
        shop.stock("cup", 10).await;
        let (hold, intent) = shop.begun("cup", "bob", "automatic").await;
        shop.stripe.pay(&intent).await;
        shop.order_becomes(&hold, "paid").await;
        let hold_id = HoldId::parse(&hold).expect("an id");
        let text = |text: &str| Text::parse("text", text).expect("a text");
        let body = CommandBody::Unallocate {
            hold_id,
            reason: text("recalled"),
            actor: text("the maker"),
        };
        let wire = Wire::of(&shop.world).await;
        wire.write_command(hold_id.lane(), &command("recall", (&body).into()))
            .await;
        shop.order_becomes(&hold, "refunded").await;
        assert_eq!(shop.stripe.refunds(&intent).await, 1);
        units(&shop, "cup", (10, 0, 0, 10)).await;
        shop.assert_settled().await;
    });
}

/// Somebody refunds a paid order at Stripe itself: it is not shipped, and its units are for sale.
#[test]
fn money_given_back_at_stripe_by_hand_takes_the_sale_back() {
    play(async {
        let shop = Shop::open(|setup| setup.with("HOLDFAST_FULFILLER_CARRIER", "none")).await;
        shop.stock("cup", 10).await;
        let (hold, intent) = shop.begun("cup", "ann", "automatic").await;
        shop.stripe.pay(&intent).await;
        shop.order_becomes(&hold, "paid").await;
        shop.stripe
            .post("/v1/refunds", &json!({"payment_intent": intent}))
            .await;
        // As Stripe does; its local stand-in does not tell of refunds.
        let refunded = json!({"id": shop.key("by-hand"), "object": "event", "type": "charge.refunded", "livemode": false,
            "data": {"object": {"id": "ch_1", "object": "charge", "payment_intent": intent}}});
        shop.told(refunded.to_string().as_bytes()).await;
        shop.order_becomes(&hold, "refunded").await;
        assert_eq!(shop.stripe.refunds(&intent).await, 1);
        units(&shop, "cup", (10, 0, 0, 10)).await;
        shop.assert_settled().await;
    });
}

/// A payment that checkout does not hold: the log tells whoever holds it, and a person says when the money is back.
#[test]
fn money_that_others_hold_is_asked_back_in_the_log() {
    play(async {
        let shop = Shop::open(|setup| setup).await;
        shop.stock("cup", 10).await;
        shop.carrier.is_down.store(true, Ordering::Relaxed);
        let hold = shop
            .world
            .reserve(&shop.key("elsewhere"), "cup", 2, "ann")
            .await
            .hold_id();
        assert_eq!(shop.world.confirm(&hold).await.status, 200);
        shop.order_becomes(&hold, "failed").await;
        let done = format!("{}/v1/orders/{hold}/refunded", shop.orders);
        let say = || {
            shop.world
                .client
                .post(&done)
                .json(&json!({"reason": "by transfer", "actor": "eve"}))
        };
        let early = shop.world.request(say()).await;
        assert_eq!((early.status, early.code()), (409, "wrong_order_state"), "{early:?}");
        assert_eq!(shop.desk(&hold, "cancel", "nobody drives there").await.status, 200);
        let hold_id = HoldId::parse(&hold).expect("an id");
        let wire = Wire::of(&shop.world).await;
        shop.world
            .eventually("the fact", async || {
                let events = wire.decisions(hold_id.lane()).await;
                let facts = events
                    .iter()
                    .filter(|event| matches!(event.body, EventBody::RefundRequired { .. }));
                match facts.count() {
                    1 => Ok(()),
                    facts => Err(format!("{facts} facts")),
                }
            })
            .await;
        shop.order_becomes(&hold, "cancelled").await;
        assert_eq!(shop.world.request(say()).await.status, 200);
        shop.order_becomes(&hold, "refunded").await;
        let audited = "SELECT count(*) FROM audit_log WHERE action = 'order.refunded' AND actor = 'eve'";
        assert_eq!(shop.number(audited).await, 1);
        shop.assert_settled().await;
    });
}
