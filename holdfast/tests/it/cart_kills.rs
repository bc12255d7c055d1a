//! Reservers that die, or are failed by Kafka, between any two steps of a cart over four lanes: what becomes of the cart is
//! the same as without.

use futures::future::join_all;
use plumbing::failpoint;

use crate::{
    carts::{cart, one_sku_a_lane, settles},
    world::{Setup, World, play, times},
};

/// Units of each SKU but the last lane's scarce one.
const PLENTY: i64 = 1_000_000;
/// A dead member of the group is believed to live for some seconds, so systems are struck side by side.
const WORLDS: usize = 6;

/// What becomes of the cart that is struck.
#[derive(Debug, Clone, Copy)]
enum Story {
    /// All lanes hold; it is paid.
    Paid,
    /// The last lane cannot hold.
    Refused,
    /// All lanes hold; the buyer changes his mind.
    Cancelled,
}

use Story::{Cancelled, Paid, Refused};

/// Where a reserver dies: at a point that the lanes of one cart reach one after the other, when it is reached so often.
///
/// `relay_decided`    decided in Redis; nobody else knows
/// `relay_read_back`  its event is in the log; nothing is sent
/// `relay_sent`       what it has others do is handed to Kafka's client
/// `acknowledged`     one of these records is in the log; the cursor stands before the event
///
/// A paid cart's decisions are pending (1), three parts held (2 to 4), held (5), confirmed (6), three parts settled (7 to
/// 9); events that send something: pending, the parts held, confirmed (5); records: three relays, done (4), settles (5 to 7).
const STEPS: [(Story, &str, u32); 26] = [
    // The home lane holds, and asks the next.
    (Paid, "relay_decided", 1),
    (Paid, "relay_read_back", 1),
    (Paid, "relay_sent", 1),
    (Paid, "acknowledged", 1),
    // A participant holds, and asks the next.
    (Paid, "relay_decided", 2),
    (Paid, "relay_read_back", 3),
    (Paid, "relay_sent", 2),
    // The last one holds, and tells the home lane.
    (Paid, "relay_decided", 4),
    (Paid, "relay_read_back", 4),
    (Paid, "acknowledged", 4),
    // The home lane decides.
    (Paid, "relay_decided", 5),
    // It is paid, and the others are told.
    (Paid, "relay_decided", 6),
    (Paid, "relay_read_back", 5),
    (Paid, "relay_sent", 5),
    (Paid, "acknowledged", 5),
    (Paid, "relay_decided", 8),
    (Paid, "acknowledged", 7),
    // The last lane refuses, and tells the home lane, which rejects the cart and undoes the others.
    (Refused, "relay_decided", 4),
    (Refused, "relay_read_back", 4),
    (Refused, "acknowledged", 4),
    (Refused, "relay_decided", 5),
    (Refused, "relay_read_back", 5),
    (Refused, "acknowledged", 5),
    (Refused, "relay_decided", 7),
    // It is given back.
    (Cancelled, "relay_read_back", 5),
    (Cancelled, "acknowledged", 6),
];

/// A system whose relay has all the time that takeovers need, and what its carts have come to.
struct Shop {
    world: World,
    /// One SKU of each lane.
    skus: Vec<String>,
    /// In the last lane, and too few of it.
    scarce: String,
    sold: i64,
}

impl Shop {
    async fn open() -> Self {
        let world = Setup::new().apart().with("HOLDFAST_RELAY_MS", 600_000).start().await;
        let skus = one_sku_a_lane(&world, "struck", PLENTY).await;
        let scarce = one_sku_a_lane(&world, "scarce", 1).await.pop().expect("four lanes");
        Self {
            world,
            skus,
            scarce,
            sold: 0,
        }
    }

    /// Lets a reserver die at a step of a cart, and another one take over.
    async fn strike(&mut self, (story, point, nth): (Story, &str, u32), round: usize) {
        let armed = format!("forwards.{point}:{nth}");
        self.begin_anew(&[(failpoint::VARIABLE, &armed)]).await;
        let dies = async {
            self.world.wait("reserver").await;
            self.world.spawn("reserver").await;
        };
        let key = format!("{story:?}-{point}-{nth}-{round}");
        tokio::join!(self.play(story, &key, &armed), dies);
        self.assert_settled(story).await;
    }

    /// Ends the reserver in peace, so that its lanes are free at once and nothing is owed, and starts another.
    async fn begin_anew(&self, settings: &[(&str, &str)]) {
        self.world.signal("reserver", "TERM").await;
        self.world.wait("reserver").await;
        self.world.spawn_with("reserver", settings).await;
    }

    /// A buyer who waits for his answers.
    async fn play(&self, story: Story, key: &str, armed: &str) {
        let world = &self.world;
        let mut lines: Vec<(&str, i64)> = self.skus.iter().map(|sku| (sku.as_str(), 1)).collect();
        if let Refused = story {
            lines.push((&self.scarce, 2));
        }
        let asked = world.post_keyed("/v1/holds", key, &cart(&lines, "ann")).await;
        let ended = match story {
            Refused => {
                let refusal = (asked.status, asked.code());
                assert_eq!(refusal, (409, "insufficient_stock"), "{armed}: {asked:?}");
                return;
            }
            Paid => world.confirm(&asked.hold_id()).await,
            Cancelled => world.cancel(&asked.hold_id()).await,
        };
        assert_eq!((asked.status, ended.status), (201, 200), "{armed}: {asked:?} {ended:?}");
    }

    /// No unit is kept but what is sold, in every lane.
    async fn assert_settled(&mut self, story: Story) {
        self.sold += i64::from(matches!(story, Paid));
        for sku in &self.skus {
            settles(&self.world, sku, (PLENTY, 0, self.sold, PLENTY - self.sold)).await;
        }
        settles(&self.world, &self.scarce, (1, 0, 0, 1)).await;
    }
}

#[test]
fn a_reserver_killed_between_any_two_steps_of_a_cart_changes_nothing() {
    play(async {
        let rounds = times(1, 20);
        let one_world = |first: usize| async move {
            let mut shop = Shop::open().await;
            for step in STEPS.iter().skip(first).step_by(WORLDS) {
                for round in 0..rounds {
                    shop.strike(*step, round).await;
                }
            }
            shop
        };
        for shop in join_all((0..WORLDS).map(one_world)).await {
            let report = shop.world.assert_verified().await;
            let sold = u64::try_from(shop.sold).expect("not negative");
            assert_eq!(report.holds().get("confirmed").copied().unwrap_or(0), sold);
        }
    });
}

/// A turn that ends by an error while it forwards owes what it has not sent: the next turn of the same process must not
/// begin after it.
#[test]
fn a_turn_that_ends_while_it_forwards_leaves_nothing_unsent() {
    play(async {
        let mut shop = Shop::open().await;
        // A record of its own decision: to the next lane, to the home lane, and one of three that tell the cart's end.
        for nth in [1, 4, 6] {
            let armed = format!("forwards.refused:{nth}");
            shop.begin_anew(&[(failpoint::VARIABLE, &armed)]).await;
            shop.play(Paid, &format!("refused-{nth}"), &armed).await;
            shop.assert_settled(Paid).await;
        }
        // What an earlier owner died owing: the second of three records.
        shop.begin_anew(&[(failpoint::VARIABLE, "forwards.relay_read_back:5")])
            .await;
        let dies = async {
            shop.world.wait("reserver").await;
            let armed = [(failpoint::VARIABLE, "forwards.refused:2")];
            shop.world.spawn_with("reserver", &armed).await;
        };
        tokio::join!(shop.play(Paid, "owed", "owed"), dies);
        shop.assert_settled(Paid).await;
        shop.world.assert_verified().await;
    });
}
