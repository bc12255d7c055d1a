//! What is measured, and how long.

use std::time::Duration;

use bench::{baselines::Baseline, load::Pace};

use super::series::Series;

/// SKUs of the scenarios over many.
pub const SKUS: usize = 1_000;
/// Units that nobody sells out.
pub const PLENTY: i64 = 1_000_000_000;
/// The SKU that everybody wants.
pub const HOT: usize = 0;

/// A run of the tool.
#[derive(Debug)]
pub struct Plan {
    pub rounds: u32,
    pub seconds: u32,
    /// Seconds of load before anything over HTTP is measured.
    pub warm_up: u32,
    pub records: u32,
    pub buyers: u32,
    pub storm_connections: usize,
    /// Largest point of the series over SKUs and live holds.
    pub most: u32,
    pub lanes: u16,
    /// Nothing is begun afterwards.
    pub limit: Option<Duration>,
    /// Environment of the roles.
    pub settings: Vec<(String, String)>,
    pub scenarios: Vec<Scenario>,
    pub series: Vec<Series>,
}

/// One thing to measure.
#[derive(Debug, Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub what: &'static str,
    pub load: Load,
}

/// How it is measured.
#[derive(Debug, Clone, Copy)]
pub enum Load {
    Produce,
    BareLoop,
    PostgresBatches,
    /// A service to compare with, over so many SKUs and connections.
    Baseline(Baseline, usize, usize),
    /// HTTP reservations over so many SKUs and connections.
    Http {
        skus: usize,
        connections: usize,
        pace: Pace,
    },
    /// Many buyers of few units at once; with refusals from the tail's state while a lane is behind, or from events only.
    Storm {
        from_tail: bool,
    },
    /// Reservations of one SKU of many from Kafka; then the persister.
    Log {
        skus: usize,
    },
    /// Carts of so many lines from Kafka, each over so many lanes.
    Carts {
        lines: usize,
        lanes: u16,
    },
}

/// What a scenario needs around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Engines only.
    Other,
    /// All roles, shared with the other sales of a round.
    Sale,
    /// A log of its own, decided and written by one role after the other.
    Log,
}

impl Scenario {
    pub fn kind(&self) -> Kind {
        match self.load {
            Load::Produce | Load::BareLoop | Load::PostgresBatches | Load::Baseline(..) => Kind::Other,
            Load::Http { .. } | Load::Storm { .. } => Kind::Sale,
            Load::Log { .. } | Load::Carts { .. } => Kind::Log,
        }
    }

    /// The scenario of which this one's rate is told as a share.
    pub fn ceiling(&self) -> Option<&'static str> {
        match self.load {
            Load::Log { .. } => Some("bare-loop"),
            Load::Http {
                skus: 1,
                connections: 256,
                pace: Pace::Closed,
            } => Some("redis-hot"),
            Load::Http {
                connections: 256,
                pace: Pace::Closed, // An open loop's rate is what was asked for: a share of nothing.
                ..
            } => Some("redis-many"),
            _ => None,
        }
    }
}

const fn http(name: &'static str, what: &'static str, skus: usize, connections: usize) -> Scenario {
    Scenario {
        name,
        what,
        load: Load::Http {
            skus,
            connections,
            pace: Pace::Closed,
        },
    }
}

const fn other(name: &'static str, what: &'static str, load: Load) -> Scenario {
    Scenario { name, what, load }
}

const ALL: [Scenario; 19] = [
    other(
        "kafka",
        "ceiling: raw produce (and consume) of 300 B records with six headers",
        Load::Produce,
    ),
    other(
        "bare-loop",
        "ceiling: consume, one Lua call for 128, produce, all acknowledged",
        Load::BareLoop,
    ),
    other(
        "postgres-batches",
        "ceiling: (hold, processed event) pairs in transactions of 500",
        Load::PostgresBatches,
    ),
    other(
        "redis-hot",
        "baseline: axum on Redis alone, one SKU, 256 connections",
        Load::Baseline(Baseline::Redis, 1, 256),
    ),
    other(
        "redis-many",
        "baseline: axum on Redis alone, 1,000 SKUs, 256 connections",
        Load::Baseline(Baseline::Redis, SKUS, 256),
    ),
    other(
        "postgres-row-hot",
        "baseline: axum on Postgres, UPDATE then INSERT, one SKU, 64 connections",
        Load::Baseline(Baseline::PostgresRow, 1, 64),
    ),
    other(
        "postgres-row-many",
        "baseline: the same over 1,000 SKUs",
        Load::Baseline(Baseline::PostgresRow, SKUS, 64),
    ),
    other(
        "postgres-cte-hot",
        "baseline: axum on Postgres, one statement, one SKU, 64 connections",
        Load::Baseline(Baseline::PostgresCte, 1, 64),
    ),
    other(
        "postgres-cte-many",
        "baseline: the same over 1,000 SKUs",
        Load::Baseline(Baseline::PostgresCte, SKUS, 64),
    ),
    http("http-hot-256", "POST /v1/holds, one SKU, 256 connections", 1, 256),
    http("http-hot-64", "POST /v1/holds, one SKU, 64 connections", 1, 64),
    http(
        "http-many-256",
        "POST /v1/holds, 1,000 SKUs, 256 connections",
        SKUS,
        256,
    ),
    http("http-many-64", "POST /v1/holds, 1,000 SKUs, 64 connections", SKUS, 64),
    Scenario {
        name: "http-open-1000",
        what: "POST /v1/holds, 1,000 SKUs, 1,000 a second whatever the answers do",
        load: Load::Http {
            skus: SKUS,
            connections: 256,
            pace: Pace::Open(1_000),
        },
    },
    other(
        "storm",
        "1,000 units, many buyers at once, each answered by an event",
        Load::Storm { from_tail: false },
    ),
    other(
        "storm-from-tail",
        "the same, \"sold out\" from the tail's state while a lane is behind",
        Load::Storm { from_tail: true },
    ),
    other(
        "log",
        "commands waiting in Kafka to valid events over 1,000 SKUs, then the persister",
        Load::Log { skus: SKUS },
    ),
    other(
        "carts-20",
        "carts of 20 lines waiting in one lane to valid events",
        Load::Carts { lines: 20, lanes: 1 },
    ),
    other(
        "carts-20-over-4",
        "the same, each over four lanes: five hops",
        Load::Carts { lines: 20, lanes: 4 },
    ),
];

/// All scenarios, or those whose name contains one of `only`.
pub fn scenarios(only: &[String]) -> Vec<Scenario> {
    let wanted =
        |scenario: &&Scenario| only.is_empty() || only.iter().any(|part| scenario.name.contains(part.as_str()));
    ALL.iter().filter(wanted).copied().collect()
}

/// The name of a SKU.
pub fn sku(number: usize) -> String {
    format!("bench-{number:04}")
}

/// The names of the first SKUs.
pub fn skus(count: usize) -> Vec<String> {
    (0..count).map(sku).collect()
}
