//! What a verification found: one summary per lane and every difference.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::redis_lane::LaneCell;

/// Differences that one lane keeps in words; more are only counted.
pub const DIFFERENCES_KEPT: usize = 200;

/// What disagrees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// The log with itself.
    Log,
    /// Commands and events (I2).
    Commands,
    /// Redis and the log (I5).
    Redis,
    /// Postgres and the log (I5, I6).
    Postgres,
    /// The lane does not come to rest.
    Rest,
}

impl Place {
    /// Its name in tables.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Log => "log",
            Self::Commands => "commands",
            Self::Redis => "redis",
            Self::Postgres => "postgres",
            Self::Rest => "rest",
        }
    }
}

/// One thing that should be equal and is not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Which lane.
    pub lane: u16,
    /// What disagrees.
    pub place: Place,
    /// A sentence that names the SKU, hold or offset and both sides.
    pub what: String,
}

/// Differences of one lane, bounded.
#[derive(Debug, Default)]
pub struct Differences {
    lane: u16,
    kept: Vec<Difference>,
    more: u64,
}

impl Differences {
    /// None yet.
    #[must_use]
    pub fn new(lane: u16) -> Self {
        Self {
            lane,
            ..Self::default()
        }
    }

    /// Notes one.
    pub fn note(&mut self, place: Place, what: impl Into<String>) {
        if self.kept.len() < DIFFERENCES_KEPT {
            self.kept.push(Difference {
                lane: self.lane,
                place,
                what: what.into(),
            });
        } else {
            self.more += 1;
        }
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.kept.len() as u64 + self.more
    }

    /// Those in words, and how many more there are.
    #[must_use]
    pub fn into_parts(self) -> (Vec<Difference>, u64) {
        (self.kept, self.more)
    }
}

/// Units of a lane, all SKUs together.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Units {
    /// In the warehouse.
    pub on_hand: i64,
    /// Kept for holds.
    pub held: i64,
    /// Bought.
    pub allocated: i64,
}

/// One lane's numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct LaneSummary {
    /// Which lane.
    pub lane: u16,
    /// Readable commands up to the last decision.
    pub commands: u64,
    /// Valid decisions.
    pub valid: u64,
    /// Void events.
    pub void: u64,
    /// Turns of owners.
    pub opened: u64,
    /// Valid events by type, `LaneOpened` too.
    pub events: BTreeMap<String, u64>,
    /// SKUs.
    pub skus: u64,
    /// Holds by state.
    pub holds: BTreeMap<String, u64>,
    /// Units.
    pub units: Units,
    /// The last command that the log decides.
    pub last_decided: i64,
    /// The offset after the last event that was read.
    pub events_end: i64,
    /// What Redis says of the lane, where it was compared.
    pub redis: Option<LaneCell>,
    /// The event offset up to which Postgres was compared.
    pub checkpoint: Option<i64>,
    /// Differences of this lane.
    pub differences: u64,
}

/// The whole verification.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Each lane, ascending.
    pub lanes: Vec<LaneSummary>,
    /// The differences, those of each lane bounded by [`DIFFERENCES_KEPT`].
    pub differences: Vec<Difference>,
    /// Differences that are not in the list any more.
    pub more_differences: u64,
    /// What could not be checked to the full, and why.
    pub notes: Vec<String>,
}

impl Report {
    /// Whether the log, Redis and Postgres agree.
    #[must_use]
    pub fn agrees(&self) -> bool {
        self.differences.is_empty() && self.more_differences == 0
    }

    /// Valid events of all lanes by type.
    #[must_use]
    pub fn events(&self) -> BTreeMap<String, u64> {
        sum(self.lanes.iter().map(|lane| &lane.events))
    }

    /// Holds of all lanes by state.
    #[must_use]
    pub fn holds(&self) -> BTreeMap<String, u64> {
        sum(self.lanes.iter().map(|lane| &lane.holds))
    }
}

fn sum<'a>(maps: impl Iterator<Item = &'a BTreeMap<String, u64>>) -> BTreeMap<String, u64> {
    let mut sum: BTreeMap<String, u64> = BTreeMap::new();
    for (name, count) in maps.flatten() {
        *sum.entry(name.clone()).or_default() += count;
    }
    sum
}
