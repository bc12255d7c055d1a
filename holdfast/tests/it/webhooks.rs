//! Stripe's webhooks: delivered by the stand-in, and such as nobody should believe.
//!
//! The worker's own look at Stripe is put off here, so that only a webhook moves anything.

use holdfast::torture::proxy::{Proxy, host_of};
use serde_json::{Value, json};

use crate::{
    books::{SECRET, event, now_s, signed},
    shop::Shop,
    world::{Setup, play},
};

const CAPTURABLE: &str = "payment_intent.amount_capturable_updated";
const SUCCEEDED: &str = "payment_intent.succeeded";

fn only_webhooks(setup: Setup) -> Setup {
    setup.with("HOLDFAST_RECONCILE_SECONDS", 600)
}

/// The whole road, as `./run` has it: hold, pay, the stand-in's own signed webhook, confirmed, shipped; once each.
#[test]
fn what_the_stand_in_tells_brings_a_payment_to_a_parcel_in_both_modes() {
    play(async {
        let shop = Shop::open(only_webhooks).await;
        shop.stock("cup", 10).await;
        let hook = json!({"url": format!("{}/v1/webhooks/stripe", shop.checkout), "secret": SECRET});
        shop.stripe
            .try_post(&format!("/_config/webhooks/{}", shop.key("hook")), &hook)
            .await
            .expect("registered");
        for method in ["automatic", "manual"] {
            let (hold, intent) = shop.begun("cup", method, method).await;
            shop.stripe.pay(&intent).await;
            if method == "manual" {
                // Stripe tells of reserved money too; its stand-in does not.
                let told = event("evt_reserved", CAPTURABLE, &intent);
                assert_eq!(shop.deliver(&told, &signed(&told, SECRET, now_s())).await, 200);
            }
            shop.payment_becomes(&hold, "paid").await;
            shop.order_becomes(&hold, "fulfilled").await;
            shop.world
                .eventually("told by the stand-in", async || {
                    let told =
                        shop.number("SELECT count(*) FROM webhook_events JOIN payments ON intent_id = object_id WHERE kind = 'payment_intent.succeeded'");
                    let wanted = if method == "manual" { 2 } else { 1 };
                    match told.await {
                        told if told == wanted => Ok(()),
                        told => Err(format!("{told} events of success, not {wanted}")),
                    }
                })
                .await;
        }
        assert_eq!(shop.carrier.parcels(), [1, 1]);
        assert_eq!(shop.number("SELECT count(*) FROM orders").await, 2);
        shop.assert_settled().await;

        // The demonstration of `./run` has a buyer who pays, and an order that is shipped.
        let told = shop.tool(&["demo"], 0).await;
        let (_, receipt) = told.split_once("paid by checkout").expect("a receipt");
        let (receipt, _) = receipt.split_once("the stock now").expect("the stock");
        assert!(receipt.contains("fulfilled") && receipt.contains("parcel"), "{told}");
        assert!(receipt.contains("12.50 eur") && receipt.contains("pi_"), "{told}");
    });
}

#[test]
fn only_a_signed_fresh_event_of_our_mode_is_believed_and_it_counts_once() {
    play(async {
        let shop = Shop::open(only_webhooks).await;
        shop.stock("cup", 100).await;
        let (hold, intent) = shop.begun("cup", "ann", "automatic").await;
        // The worker's first look is over, before there is anything to see.
        let looked_at = "SELECT count(*) FROM payments WHERE next_at > clock_ms() + 10000";
        shop.world
            .eventually("the first look", async || match shop.number(looked_at).await {
                1 => Ok(()),
                _ => Err("not yet".to_owned()),
            })
            .await;
        shop.stripe.pay(&intent).await;
        let told = event("evt_1", SUCCEEDED, &intent);
        let value: Value = serde_json::from_slice(&told).expect("JSON");
        let reserialised = serde_json::to_vec(&value).expect("JSON");
        let mut live = value.clone();
        live["livemode"] = true.into();
        let live = serde_json::to_vec(&live).expect("JSON");
        let now = now_s();
        for (why, body, header) in [
            ("another secret", &told, signed(&told, "whsec_other", now)),
            ("old", &told, signed(&told, SECRET, now - 302)),
            ("of tomorrow", &told, signed(&told, SECRET, now + 400)),
            ("serialised anew", &reserialised, signed(&told, SECRET, now)),
            ("of live mode", &live, signed(&live, SECRET, now)),
            ("no JSON", &b"{".to_vec(), signed(b"{", SECRET, now)),
            ("no event", &b"{}".to_vec(), signed(b"{}", SECRET, now)),
            (
                "an older scheme",
                &told,
                signed(&told, SECRET, now).replace("v1=", "v0="),
            ),
            (
                "another time than the signed",
                &told,
                signed(&told, SECRET, now).replace(&format!("t={now}"), &format!("t={}", now + 1)),
            ),
            ("unsigned", &told, String::new()),
        ] {
            assert_eq!(shop.deliver(body, &header).await, 400, "{why}");
        }
        assert_eq!(shop.number("SELECT count(*) FROM webhook_events").await, 0);
        assert_eq!(
            shop.payment_becomes(&hold, "pending").await["intent_id"],
            intent.as_str()
        );

        // While a secret is changed there is a signature by each.
        let (time, good) = (now_s(), signed(&told, SECRET, now_s()));
        let good = good.split_once("v1=").expect("a signature").1.to_owned();
        let two = format!("t={time},v1={},v0={good},v1={good}", "0".repeat(64));
        let header = if shop.deliver(&told, &two).await == 200 {
            two
        } else {
            signed(&told, SECRET, now_s())
        };
        assert_eq!(shop.deliver(&told, &header).await, 200, "{header}");
        shop.payment_becomes(&hold, "paid").await;

        // Replayed, one after the other and 50 at once.
        let (news, fifty) = ("SELECT news FROM payments", 50);
        let before = shop.number(news).await;
        for _round in 0..20 {
            futures::future::join_all((0..fifty).map(|_| shop.told(&told))).await;
        }
        assert_eq!((before, shop.number(news).await), (1, 1));
        assert_eq!(shop.number("SELECT count(*) FROM webhook_events").await, 1);
        shop.order_becomes(&hold, "fulfilled").await;

        // In any order, and of things that we do not know: what Stripe says when it is asked is what counts.
        let (hold, intent) = shop.begun("cup", "bob", "automatic").await;
        for (number, kind) in ["payment_intent.canceled", "charge.refunded", SUCCEEDED]
            .into_iter()
            .enumerate()
        {
            let told = event(&format!("evt_early_{number}"), kind, &intent);
            assert_eq!(
                shop.deliver(&told, &signed(&told, SECRET, now_s())).await,
                200,
                "{kind}"
            );
        }
        let unknown = event("evt_unknown", SUCCEEDED, "pi_of_somebody_else");
        assert_eq!(shop.deliver(&unknown, &signed(&unknown, SECRET, now_s())).await, 200);
        assert_eq!(
            shop.payment_becomes(&hold, "pending").await["intent_id"],
            intent.as_str()
        );
        shop.stripe.pay(&intent).await;
        for (number, kind) in [SUCCEEDED, "payment_intent.payment_failed", "payment_intent.created"]
            .into_iter()
            .enumerate()
        {
            let told = event(&format!("evt_late_{number}"), kind, &intent);
            assert_eq!(
                shop.deliver(&told, &signed(&told, SECRET, now_s())).await,
                200,
                "{kind}"
            );
        }
        shop.order_becomes(&hold, "fulfilled").await;
        shop.assert_settled().await;
    });
}

/// What is not stored is not acknowledged: Stripe sends it again, and that is served.
#[test]
fn a_webhook_while_postgres_is_down_is_refused_and_its_repetition_served() {
    play(async {
        let setup = Setup::new();
        let url = setup.connections.postgres_url.expose().to_owned();
        let proxy = Proxy::start(host_of(&url)).await.expect("a free port");
        let through = url.replace(host_of(&url), &proxy.address.to_string());
        let shop = Shop::open(|setup| {
            let name = setup
                .connections
                .postgres_url
                .expose()
                .rsplit_once('/')
                .expect("a name")
                .1
                .to_owned();
            let (server, _) = through.rsplit_once('/').expect("a name");
            only_webhooks(setup).with("HOLDFAST_POSTGRES_URL", format!("{server}/{name}"))
        })
        .await;
        shop.stock("cup", 10).await;
        let (hold, intent) = shop.begun("cup", "ann", "automatic").await;
        shop.stripe.pay(&intent).await;
        let told = event("evt_1", SUCCEEDED, &intent);
        proxy.cut();
        for _again in 0..3 {
            let status = shop.deliver(&told, &signed(&told, SECRET, now_s())).await;
            assert_eq!(status, 503);
        }
        assert_eq!(shop.number("SELECT count(*) FROM webhook_events").await, 0);
        proxy.heal();
        shop.world
            .eventually("taken", async || {
                match shop.deliver(&told, &signed(&told, SECRET, now_s())).await {
                    200 => Ok(()),
                    status => Err(format!("{status}")),
                }
            })
            .await;
        shop.order_becomes(&hold, "fulfilled").await;
        shop.assert_settled().await;
    });
}
