//! Many checkouts while roles are killed under them: I7 by Stripe's and the carrier's own books.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use plumbing::task;
use serde_json::json;

use crate::{
    books::{SECRET, event, now_s, signed},
    shop::Shop,
    world::{Answer, PATIENCE, play, times},
};

const SKUS: usize = 4;
const BUYERS: usize = 8;
/// A buyer may take so long; some take longer.
const CAP_S: u64 = 3;
/// Lanes come to a new reserver when the killed one's session of 6 s is over; killed again before that, they never would.
const TAKEOVER: Duration = Duration::from_secs(10);

/// What a buyer does with an intent.
#[derive(Clone, Copy)]
enum Plan {
    Pay,
    PayLate,
    WalkAway,
}

impl Plan {
    fn of(number: usize) -> Self {
        match number % 10 {
            7 => Self::WalkAway,
            8 | 9 => Self::PayLate,
            _ => Self::Pay,
        }
    }
}

/// Asks until somebody decides: processes die under it.
async fn insist(shop: &Shop, request: impl Fn() -> reqwest::RequestBuilder) -> Option<Answer> {
    let begun = std::time::Instant::now();
    while begun.elapsed() < PATIENCE {
        match shop.world.try_request(request()).await {
            Ok(answer) if !matches!(answer.status, 202 | 401 | 429 | 500..) => return Some(answer),
            Ok(_) | Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    None
}

/// One buyer's checkout; what fails on the way is left as it is.
async fn buy(shop: &Shop, number: usize) -> Option<()> {
    let (key, sku) = (
        shop.key(&format!("buyer-{number}")),
        format!("bought-{}", number % SKUS),
    );
    let client = &shop.world.client;
    let wanted = json!({"lines": [{"sku": sku, "quantity": 1}], "user_id": key});
    let holds = format!("{}/v1/holds", shop.world.url);
    let held = insist(shop, || {
        client.post(&holds).header("Idempotency-Key", &key).json(&wanted)
    })
    .await?;
    if held.status >= 400 {
        return None; // Sold out.
    }
    let method = if number.is_multiple_of(2) {
        "automatic"
    } else {
        "manual"
    };
    let url = format!("{}/v1/holds/{}/checkout", shop.checkout, held.hold_id());
    let begun = insist(shop, || client.post(&url).json(&json!({"capture_method": method}))).await?;
    let intent = begun.body["intent_id"].as_str()?.to_owned();
    match Plan::of(number) {
        Plan::WalkAway => return None,
        Plan::PayLate => tokio::time::sleep(Duration::from_secs(CAP_S)).await,
        Plan::Pay => {}
    }
    shop.stripe.try_pay(&intent).await.ok()?; // Or it came too late even for that.
    if number.is_multiple_of(3) {
        return Some(()); // This webhook is lost.
    }
    let told = event(&format!("evt_{key}"), "payment_intent.succeeded", &intent);
    let hook = format!("{}/v1/webhooks/stripe", shop.checkout);
    let header = signed(&told, SECRET, now_s());
    let deliver = || {
        client
            .post(&hook)
            .header("Stripe-Signature", &header)
            .body(told.clone())
    };
    assert_eq!(insist(shop, deliver).await?.status, 200);
    Some(())
}

#[test]
fn checkouts_while_roles_are_killed_end_served_or_refunded_by_everybodys_books() {
    play(async {
        let shop = Shop::apart(|setup| {
            setup
                .with("HOLDFAST_PAYMENT_CAP_SECONDS", CAP_S)
                .with("HOLDFAST_STRIPE_LIST_SECONDS", 5)
        })
        .await;
        let shop = Arc::new(shop);
        let count = times(40, 1_000);
        for number in 0..SKUS {
            // Some late money finds nothing left.
            let units = i64::try_from(count / SKUS * 7 / 10).expect("few");
            shop.stock(&format!("bought-{number}"), units).await;
        }
        let (next, paid) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let buyers: Vec<_> = (0..BUYERS)
            .map(|_| {
                let (shop, next, paid) = (Arc::clone(&shop), Arc::clone(&next), Arc::clone(&paid));
                task::spawn("buyer", async move {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= count {
                            return;
                        }
                        if buy(&shop, number).await.is_some() {
                            paid.fetch_add(1, Ordering::Relaxed);
                        }
                    }
                })
            })
            .collect();
        for victim in [
            "checkout",
            "fulfiller",
            "persister",
            "checkout",
            "ingress",
            "fulfiller",
            "checkout",
            "reserver",
        ]
        .iter()
        .cycle()
        {
            tokio::time::sleep(Duration::from_millis(700)).await;
            if next.load(Ordering::Relaxed) >= count {
                break;
            }
            shop.world.kill(victim).await;
            shop.world.spawn(victim).await;
            if *victim == "reserver" {
                tokio::time::sleep(TAKEOVER).await;
            }
        }
        for buyer in buyers {
            buyer.await.expect("a buyer did not panic");
        }
        shop.assert_settled().await;
        let paid = paid.load(Ordering::Relaxed);
        assert!(paid > count / 3, "only {paid} of {count} paid: the rest shows nothing");
    });
}
