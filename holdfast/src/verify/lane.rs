//! One lane's verification, from its first event to its last difference. Blocks: it runs on a thread of its own.

use domain::{HoldState, Lane, Ledger, Millis};
use plumbing::config::Connections;
use schemas::{Topics, picture::Checkpoint};
use sqlx::PgPool;

use super::{
    books::Books,
    carts::Carts,
    commands, postgres,
    redis::compare as compare_redis,
    report::{Differences, LaneSummary, Units},
};
use crate::{
    log::{Decoder, LogReader},
    redis_lane::RedisLanes,
};

/// What every lane's verification needs.
#[derive(Debug, Clone)]
pub struct Engines {
    /// Where they are.
    pub connections: Connections,
    /// The topics' names.
    pub topics: Topics,
    /// Number of lanes.
    pub lanes: u16,
    /// Decodes events and commands.
    pub decoder: Decoder,
    /// Postgres.
    pub pool: PgPool,
    /// For Postgres' answers.
    pub runtime: tokio::runtime::Handle,
    /// How long Redis remembers what has ended, in log milliseconds.
    pub remember_ms: Millis,
}

impl Engines {
    /// A reader of a lane's events from an offset on.
    ///
    /// # Errors
    /// The client refuses its options.
    pub fn events(&self, lane: Lane, from: i64) -> anyhow::Result<LogReader> {
        LogReader::open(
            &self.connections.kafka_brokers,
            &self.topics.events,
            lane.partition(),
            from,
        )
    }

    /// A reader of a lane's commands from an offset on.
    ///
    /// # Errors
    /// The client refuses its options.
    pub fn commands(&self, lane: Lane, from: i64) -> anyhow::Result<LogReader> {
        LogReader::open(
            &self.connections.kafka_brokers,
            &self.topics.commands,
            lane.partition(),
            from,
        )
    }
}

/// What was found of one lane.
#[derive(Debug)]
pub struct Verified {
    /// Its numbers.
    pub summary: LaneSummary,
    /// Its differences.
    pub differences: Differences,
    /// Its carts over several lanes.
    pub carts: Carts,
    /// What could not be checked to the full.
    pub notes: Vec<String>,
}

/// Verifies one lane: Postgres where it stands, the log to its end, Redis where it stands, and the commands.
///
/// # Errors
/// An engine does not answer: then nothing is known.
pub fn verify(engines: &Engines, lane: Lane) -> anyhow::Result<Verified> {
    let mut differences = Differences::new(lane.number());
    let mut notes = Vec::new();
    let picture = engines.runtime.block_on(postgres::load(&engines.pool, lane))?;
    let log = engines.events(lane, 0)?;
    let (first, _) = log.bounds()?;
    let whole = first == 0;
    let checkpoint = picture.as_ref().map(|(checkpoint, _)| *checkpoint);
    let mut books = if whole {
        Books::begin(lane, engines.lanes, log, engines.decoder.clone(), None)
    } else {
        let position = checkpoint.map_or(0, |checkpoint| checkpoint.next_event_offset);
        notes.push(format!(
            "lane {lane}: the log begins at event {first}, so it was folded from Postgres' checkpoint at event {position}; \
             Postgres itself could not be checked against older events"
        ));
        books_from(engines, lane, log, picture.clone())?
    };
    if let Some((checkpoint, ledger)) = &picture {
        books.read_to_offset(checkpoint.next_event_offset, &mut differences)?;
        postgres::compare(checkpoint, ledger, &books.pages, engines.remember_ms, &mut differences);
        let side = engines
            .runtime
            .block_on(postgres::load_side_rows(&engines.pool, lane, checkpoint))?;
        postgres::compare_side_rows(&side, &books.pages, whole, &mut differences);
    }
    drop(picture);
    books.read_to_end(&mut differences)?;
    let mut redis = RedisLanes::open(&engines.connections)?;
    let cell = compare_redis(lane, &mut redis, &mut books, engines.remember_ms, &mut differences)?;
    let log = engines.commands(lane, 0)?;
    let seen = commands::compare(lane, log, &engines.decoder, &books.pages, &mut differences)?;
    if seen.from > books.pages.decided_before + 1 {
        notes.push(format!(
            "lane {lane}: commands before offset {} are gone, so only those from there on were laid beside their events",
            seen.from
        ));
    }
    let summary = LaneSummary {
        commands: seen.commands,
        redis: cell,
        checkpoint: checkpoint.map(|checkpoint| checkpoint.next_event_offset),
        differences: differences.count(),
        ..summary_of(lane, &books)
    };
    Ok(Verified {
        carts: Carts::of(lane, &books.pages.ledger),
        summary,
        differences,
        notes,
    })
}

/// Compares Redis alone with what lasts: Postgres' rows and the log behind them, or the whole log where Postgres is away. As fast
/// as it goes, for whoever waits for a lane that was rebuilt.
///
/// # Errors
/// An engine does not answer, or the log's beginning is gone and Postgres is away.
pub fn verify_redis(engines: &Engines, lane: Lane) -> anyhow::Result<Differences> {
    let mut differences = Differences::new(lane.number());
    let log = engines.events(lane, 0)?;
    let (first, _) = log.bounds()?;
    let mut books = match engines.runtime.block_on(postgres::load(&engines.pool, lane)) {
        Ok(Some(picture)) => books_from(engines, lane, log, Some(picture))?,
        Ok(None) | Err(_) if first == 0 => Books::begin(lane, engines.lanes, log, engines.decoder.clone(), None),
        Ok(None) => anyhow::bail!("lane {lane}: the events before offset {first} are gone and Postgres has no rows"),
        Err(error) => return Err(error),
    };
    books.read_to_end(&mut differences)?;
    let mut redis = RedisLanes::open(&engines.connections)?;
    compare_redis(lane, &mut redis, &mut books, engines.remember_ms, &mut differences)?;
    Ok(differences)
}

/// Books that begin at Postgres' checkpoint.
fn books_from(
    engines: &Engines,
    lane: Lane,
    mut log: LogReader,
    picture: Option<(Checkpoint, Ledger)>,
) -> anyhow::Result<Books> {
    let (first, end) = log.bounds()?;
    let position = picture
        .as_ref()
        .map_or(0, |(checkpoint, _)| checkpoint.next_event_offset);
    anyhow::ensure!(
        (first..=end).contains(&position),
        "lane {lane}: Postgres' checkpoint {position} is not in the log ({first}..{end}): there is nothing to fold from"
    );
    log.seek(position);
    Ok(Books::begin(lane, engines.lanes, log, engines.decoder.clone(), picture))
}

fn summary_of(lane: Lane, books: &Books) -> LaneSummary {
    let pages = &books.pages;
    let opened = pages.events.get("LaneOpened").copied().unwrap_or(0);
    let mut summary = LaneSummary {
        lane: lane.number(),
        valid: pages.events.values().sum::<u64>() - opened,
        void: pages.void,
        opened,
        events: pages.events.clone(),
        skus: pages.ledger.stock.len() as u64,
        last_decided: pages.state.last_command_offset,
        events_end: books.next_offset(),
        ..LaneSummary::default()
    };
    for hold in pages.ledger.holds.values() {
        *summary.holds.entry(hold.terms.state.name().to_owned()).or_default() += 1;
    }
    for state in HoldState::ALL {
        summary.holds.entry(state.name().to_owned()).or_default();
    }
    for stock in pages.ledger.stock.values() {
        summary.units = Units {
            on_hand: summary.units.on_hand + stock.on_hand,
            held: summary.units.held + stock.held,
            allocated: summary.units.allocated + stock.allocated,
        };
    }
    summary
}
