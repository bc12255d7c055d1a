//! Load: buyers who ask under their own keys, and ask again until they have an answer, as real clients do.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::world::World;

/// What became of one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    Held,
    Confirmed,
    Cancelled,
    SoldOut,
}

/// Buyers at work on some SKUs until they are told to stop.
pub struct Load {
    stop: Arc<AtomicBool>,
    asked: Arc<AtomicUsize>,
    fates: Arc<Mutex<HashMap<String, Fate>>>,
    buyers: Vec<tokio::task::JoinHandle<()>>,
}

impl Load {
    /// So many buyers; every third hold is confirmed, every fourth cancelled.
    pub fn start(world: &Arc<World>, name: &str, skus: &[String], buyers: usize) -> Self {
        let (stop, asked) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let fates = Arc::<Mutex<HashMap<String, Fate>>>::default();
        let buyers = (0..buyers)
            .map(|_| {
                let (world, stop, asked, fates) = (world.clone(), stop.clone(), asked.clone(), fates.clone());
                let (skus, name) = (skus.to_vec(), name.to_owned());
                #[expect(clippy::disallowed_methods, reason = "the test awaits it and unwraps its panic")]
                tokio::spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        let number = asked.fetch_add(1, Ordering::Relaxed);
                        let key = format!("{name}-{number}");
                        let fate = buy(&world, &key, &skus[number % skus.len()], number).await;
                        fates.lock().expect("no holder panics").insert(key, fate);
                    }
                })
            })
            .collect();
        Self {
            stop,
            asked,
            fates,
            buyers,
        }
    }

    /// How many keys were asked for.
    pub fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }

    /// Waits until so many more keys were asked for: the system works.
    pub async fn goes_on(&self, more: usize) {
        let target = self.asked() + more;
        let waited = tokio::time::timeout(Duration::from_secs(90), async {
            while self.asked() < target {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        });
        waited
            .await
            .unwrap_or_else(|_| panic!("only {} of {target} requests came through", self.asked()));
    }

    /// Ends it; every buyer gets an answer first.
    pub async fn end(self) -> HashMap<String, Fate> {
        self.stop.store(true, Ordering::Relaxed);
        for buyer in self.buyers {
            tokio::time::timeout(Duration::from_secs(120), buyer)
                .await
                .expect("an answer")
                .expect("no panic");
        }
        Arc::try_unwrap(self.fates)
            .expect("all buyers ended")
            .into_inner()
            .expect("no holder panics")
    }
}

/// Asks until the answer is decided: lost connections, 202 and 503 are asked again under the same key.
async fn buy(world: &World, key: &str, sku: &str, number: usize) -> Fate {
    let hold = loop {
        let request = world.posting("/v1/holds", &World::wanting(sku, 1, &format!("user-{number}")));
        match world.try_request(request.header("Idempotency-Key", key)).await {
            Ok(answer) if matches!(answer.status, 200 | 201) => break answer,
            Ok(answer) if answer.status == 409 && answer.code() == "insufficient_stock" => return Fate::SoldOut,
            Ok(answer) if matches!(answer.status, 202 | 503 | 429) => {}
            Ok(answer) => panic!("{key}: {answer:?}"),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let (call, fate) = match number % 12 {
        0 | 3 | 6 | 9 => ("confirm", Fate::Confirmed),
        1 | 5 | 8 => ("cancel", Fate::Cancelled),
        _ => return Fate::Held,
    };
    let path = format!("/v1/holds/{}/{call}", hold.hold_id());
    let body = match fate {
        Fate::Confirmed => serde_json::json!({"payment_ref": key}),
        _ => serde_json::json!({}),
    };
    loop {
        match world.try_request(world.posting(&path, &body)).await {
            Ok(answer) if answer.status == 200 => return fate,
            Ok(answer) if matches!(answer.status, 202 | 503 | 429) => {}
            Ok(answer) => panic!("{key} {call}: {answer:?}"),
            Err(_) => {}
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
