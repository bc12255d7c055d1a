//! How series are measured: a world that grows from point to point, or one for each.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bench::load::Pace;
use domain::Sku;
use plumbing::{config::Connections, task};

use super::{
    feed::{self, Ask, Feed},
    log,
    meter::Sample,
    plan::{Plan, SKUS},
    sales,
    series::{Grows, POLICIES, Point, Series},
    world::{self, World},
};

/// No point takes longer.
const LONGEST: Duration = Duration::from_secs(180);
/// Holds that each point of the series over the expirer lets expire.
const EXPIRING: u64 = 5_000;

/// Measures a series point by point; what was measured stays in `points` whatever comes then.
pub async fn run(
    connections: &Connections,
    plan: &Plan,
    series: &Series,
    deadline: Option<Instant>,
    points: &mut Vec<Point>,
) -> anyhow::Result<()> {
    let places = series.places(plan);
    let has_time = |seconds: u64| deadline.is_none_or(|end| Instant::now() + Duration::from_secs(seconds) < end);
    let mut take = |at: u64, sample: Sample| {
        points.push(Point {
            at: series.name_of(at),
            sample,
        });
    };
    if series.grows == Grows::Lanes {
        for (lanes, seconds) in places {
            if !has_time(seconds) {
                return Ok(());
            }
            let lanes16 = u16::try_from(lanes)?;
            take(
                lanes,
                world::in_place(connections, LONGEST, async |place| by_lanes(place, plan, lanes16).await).await?,
            );
        }
        return Ok(());
    }
    if !has_time(places.first().map_or(0, |(_, seconds)| *seconds)) {
        return Ok(());
    }
    world::in_place(connections, 3 * LONGEST, async |place| {
        let mut growing = Growing::open(place, plan, series.grows).await?;
        for (at, seconds) in places {
            if !has_time(seconds) {
                break;
            }
            take(at, growing.measure(plan, series.grows, at).await?);
        }
        growing.close(series.grows).await
    })
    .await
}

async fn by_lanes(place: &Connections, plan: &Plan, lanes: u16) -> anyhow::Result<Sample> {
    let mut world = World::new(place, plan, lanes).await?;
    sales::open(&mut world).await?;
    let mut sample = sales::sale(&world, plan, "flat-lanes", (SKUS, 256, Pace::Closed)).await?;
    sample.differences = Some(world.verify().await?);
    world.end()?;
    Ok(sample)
}

/// One world in which a series grows.
struct Growing {
    world: World,
    feed: Feed,
    skus: Arc<[Sku]>,
    /// Reservations so far: each has a key of its own.
    asked: u64,
    /// Holds that live.
    live: u64,
    /// SKUs that have stock.
    stocked: usize,
    /// Redis' own policy, put back at the end.
    _policy: Option<Policy>,
}

impl Growing {
    async fn open(place: &Connections, plan: &Plan, grows: Grows) -> anyhow::Result<Self> {
        let mut world = World::new(place, plan, plan.lanes).await?;
        let mut policy = None;
        if grows.is_over_http() {
            sales::open(&mut world).await?;
        }
        if grows == Grows::Appendfsync {
            policy = Some(Policy::of(place)?);
        }
        let skus = match grows {
            Grows::Lines => {
                let some = feed::everywhere(700 * usize::from(plan.lanes))?;
                feed::of_lanes(&some, 351, 1, plan.lanes)?
            }
            Grows::Skus => feed::everywhere(plan.most as usize)?,
            _ => feed::everywhere(SKUS)?,
        };
        let feed = Feed::new(&world).await?;
        let mut growing = Self {
            world,
            feed,
            skus,
            asked: 0,
            live: 0,
            stocked: 0,
            _policy: policy,
        };
        if !grows.is_over_http() && grows != Grows::Skus {
            growing.stock(growing.skus.len()).await?;
        }
        Ok(growing)
    }

    async fn measure(&mut self, plan: &Plan, grows: Grows, at: u64) -> anyhow::Result<Sample> {
        let records = u64::from(plan.records);
        let some = Ask::of(records / 5);
        match grows {
            Grows::Lines => {
                let lines = usize::try_from(at)?;
                self.waiting(Ask {
                    lines,
                    ..Ask::of(records / (4 + at))
                })
                .await
            }
            Grows::Carts => sales::carts(&self.world, plan, usize::try_from(at / 100)?, u16::try_from(at % 100)?).await,
            Grows::Batch => {
                self.world.set("HOLDFAST_RESERVER_BATCH", at);
                self.waiting(some).await
            }
            Grows::Skus => {
                let skus = usize::try_from(at)?;
                self.stock(skus).await?;
                let all = std::mem::replace(&mut self.skus, feed::everywhere(skus)?);
                let sample = self.waiting(some).await;
                self.skus = all;
                sample
            }
            Grows::Held => {
                self.hold_up_to(at).await?;
                self.waiting(Ask::of(records / 10)).await
            }
            Grows::HeldWhileOthersExpire => {
                self.hold_up_to(at).await?;
                self.expire().await
            }
            Grows::Appendfsync => self.with_policy(plan, usize::try_from(at)?).await,
            Grows::Lanes => unreachable!("each has a world of its own"),
        }
    }

    async fn stock(&mut self, count: usize) -> anyhow::Result<()> {
        if count > self.stocked {
            let from = log::ends(&self.world).await?;
            let asked = self.feed.stock(&self.skus[self.stocked..count]).await?;
            self.decide(from, asked).await?;
            self.stocked = count;
        }
        Ok(())
    }

    /// Holds until so many live.
    async fn hold_up_to(&mut self, count: u64) -> anyhow::Result<()> {
        let missing = count.saturating_sub(self.live);
        if missing > 0 {
            self.waiting(Ask::of(missing)).await?;
        }
        Ok(())
    }

    /// Asks while nobody decides, then measures how they are decided.
    async fn waiting(&mut self, ask: Ask) -> anyhow::Result<Sample> {
        let from = log::ends(&self.world).await?;
        let ask = Ask {
            first: self.asked,
            ..ask
        };
        self.asked += ask.holds;
        self.live += ask.holds;
        let asked = self.feed.reserve(&self.skus, ask).await?;
        self.decide(from, asked).await
    }

    async fn decide(&mut self, from: Vec<i64>, asked: u64) -> anyhow::Result<Sample> {
        self.world.start("reserver")?;
        let sample = log::decisions(&self.world, from, asked, "reserver").await?;
        self.world.stop("reserver")?;
        Ok(sample)
    }

    /// Lets some holds expire beside those that live.
    async fn expire(&mut self) -> anyhow::Result<Sample> {
        let due = Ask {
            ttl_ms: 1,
            ..Ask::of(EXPIRING)
        };
        self.waiting(due).await?;
        self.live -= EXPIRING;
        let from = log::ends(&self.world).await?;
        self.world.start("reserver")?;
        self.world.start("expirer")?;
        let sample = log::decisions(&self.world, from, EXPIRING, "expirer").await?;
        self.world.stop("expirer")?;
        self.world.stop("reserver")?;
        Ok(sample)
    }

    async fn with_policy(&mut self, plan: &Plan, policy: usize) -> anyhow::Result<Sample> {
        let place = &self.world.connections;
        let word = POLICIES[policy].split(',').next().unwrap_or_default();
        config(place, "SET", &["appendfsync", word])?;
        let rewriting = POLICIES[policy].ends_with("rewriting").then(|| {
            let (stopper, stop) = plumbing::stop::pair();
            let place = place.clone();
            (stopper, task::thread("rewrites", move || rewrite_until(&place, &stop)))
        });
        let name = format!("fsync-{policy}");
        let sample = sales::sale(&self.world, plan, &name, (SKUS, 64, Pace::Closed)).await;
        if let Some((stopper, rewrites)) = rewriting {
            stopper.stop();
            let count = rewrites.await??;
            return sample.map(|mut sample| {
                sample.more.insert("rewrites", count as f64);
                sample
            });
        }
        sample
    }

    /// Checks the books where rows were written, and ends.
    async fn close(self, grows: Grows) -> anyhow::Result<()> {
        if grows.is_over_http() {
            let differences = self.world.verify().await?;
            anyhow::ensure!(differences == 0, "verify found {differences} differences");
        }
        self.world.end()
    }
}

/// Redis' policy of the append-only file as it was; put back by the drop.
struct Policy {
    place: Connections,
    before: String,
}

impl Policy {
    fn of(place: &Connections) -> anyhow::Result<Self> {
        Ok(Self {
            place: place.clone(),
            before: config(place, "GET", &["appendfsync"])?,
        })
    }
}

impl Drop for Policy {
    fn drop(&mut self) {
        if let Err(error) = config(&self.place, "SET", &["appendfsync", &self.before]) {
            eprintln!("Redis' appendfsync could not be set back to {}: {error}", self.before);
        }
    }
}

fn config(place: &Connections, verb: &str, words: &[&str]) -> anyhow::Result<String> {
    let mut connection = plumbing::redis::client(place.redis_url.expose())?.get_connection()?;
    let answer: redis::Value = redis::cmd("CONFIG").arg(verb).arg(words).query(&mut connection)?;
    Ok(match answer {
        redis::Value::Array(pair) => pair
            .last()
            .map(redis::from_redis_value_ref)
            .transpose()?
            .unwrap_or_default(),
        _ => String::new(),
    })
}

/// Rewrites the append-only file again and again; returns how often.
fn rewrite_until(place: &Connections, stop: &plumbing::stop::Stop) -> anyhow::Result<u64> {
    let mut connection = plumbing::redis::client(place.redis_url.expose())?.get_connection()?;
    let mut count = 0;
    while !stop.is_requested() {
        // Refused while one is going on.
        count += u64::from(redis::cmd("BGREWRITEAOF").exec(&mut connection).is_ok());
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(count)
}
