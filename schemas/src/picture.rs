//! The durable picture of the log: what processes agree on about Postgres.
//!
//! The persister writes it, each batch of valid events in one transaction with the lane's checkpoint (I6). Everybody else
//! reads it here: ingress answers and lists from it, a rebuild of Redis and `verify` load it, roles start from its checkpoints.
//! The tables are in `migrations/`.

mod carts;
mod holds;
mod load;
mod movements;
mod stock;

use domain::{Invalid, Lane, LaneState};
use sqlx::{
    Executor, PgPool, Postgres, Row,
    migrate::{MigrateError, Migrator},
    postgres::PgRow,
};

pub use carts::{cart_json, cart_lines_json, find_parts, lines_json};
pub use holds::{HoldCursor, HoldFilter, Rejection, StoredHold, find_hold, list_holds};
pub use load::{load, load_telling};
pub use movements::{Movement, list_movements};
pub use stock::{find_stock, list_stock};

/// What each service may do with them.
const RIGHTS: &str = include_str!("picture/rights.sql");
static MIGRATIONS: Migrator = sqlx::migrate!("../migrations");

/// Why there is no answer from the picture.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Postgres does not answer, or refuses; `plumbing::postgres::is_transient` tells which.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// A row that no version of ours could have written.
    #[error("a row of {table} cannot be read: {problem}")]
    Corrupt {
        /// Which table.
        table: &'static str,
        /// What is wrong with it.
        problem: String,
    },
}

impl Error {
    fn corrupt(table: &'static str, problem: impl Into<String>) -> Self {
        Self::Corrupt {
            table,
            problem: problem.into(),
        }
    }

    /// What the database said, if it was the database.
    #[must_use]
    pub fn database(&self) -> Option<&sqlx::Error> {
        match self {
            Self::Database(error) => Some(error),
            Self::Corrupt { .. } => None,
        }
    }
}

/// Brings the tables to this version, and gives each service its rights. Several processes may do it at once: they wait for each other.
///
/// # Errors
/// [`MigrateError`] when the database does not answer, or was migrated by a newer or another version.
pub async fn migrate(pool: &PgPool) -> Result<(), MigrateError> {
    MIGRATIONS.run(pool).await?;
    // One statement, and so one transaction: nobody is without its rights meanwhile.
    sqlx::raw_sql(RIGHTS).execute(pool).await?;
    Ok(())
}

/// Whether every migration that this version knows is applied: what a role waits for at start.
///
/// # Errors
/// [`sqlx::Error`] when the database does not answer.
pub async fn is_migrated(pool: &PgPool) -> Result<bool, sqlx::Error> {
    let known: Vec<i64> = MIGRATIONS.iter().map(|migration| migration.version).collect();
    let query = "SELECT count(*) FROM _sqlx_migrations WHERE success AND version = ANY($1)";
    match sqlx::query_scalar::<_, i64>(query).bind(&known).fetch_one(pool).await {
        Ok(applied) => Ok(usize::try_from(applied) == Ok(known.len())),
        Err(error) if is_undefined_table(&error) => Ok(false),
        Err(error) => Err(error),
    }
}

fn is_undefined_table(error: &sqlx::Error) -> bool {
    matches!(error, sqlx::Error::Database(error) if error.code().as_deref() == Some("42P01"))
}

/// How far the picture has come in a lane: the position in the events log, and the fold's state there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Checkpoint {
    /// The first offset of the events partition that is not in the picture yet.
    pub next_event_offset: i64,
    /// The fold of all that is before it.
    pub state: LaneState,
}

/// The checkpoint of a lane; `None` before the persister's first look at it.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn checkpoint<'e>(
    executor: impl Executor<'e, Database = Postgres>,
    lane: Lane,
) -> Result<Option<Checkpoint>, Error> {
    let query = "SELECT * FROM lanes WHERE lane = $1";
    let row = sqlx::query(query)
        .bind(lane_number(lane))
        .fetch_optional(executor)
        .await?;
    Ok(row.as_ref().map(read_checkpoint).transpose()?)
}

/// The checkpoints of all lanes that have one, ascending.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn checkpoints(pool: &PgPool) -> Result<Vec<(Lane, Checkpoint)>, Error> {
    let rows = sqlx::query("SELECT * FROM lanes ORDER BY lane").fetch_all(pool).await?;
    rows.iter()
        .map(|row| Ok((read_lane(row)?, read_checkpoint(row)?)))
        .collect()
}

fn read_checkpoint(row: &PgRow) -> Result<Checkpoint, sqlx::Error> {
    Ok(Checkpoint {
        next_event_offset: row.try_get("next_event_offset")?,
        state: LaneState {
            epoch: row.try_get("epoch")?,
            last_command_offset: row.try_get("last_command_offset")?,
            last_decision_epoch: row.try_get("last_decision_epoch")?,
            log_time: row.try_get("log_time")?,
        },
    })
}

fn read_lane(row: &PgRow) -> Result<Lane, Error> {
    let number: i16 = row.try_get("lane")?;
    Lane::new(i32::from(number)).ok_or_else(|| Error::corrupt("lanes", format!("lane {number}")))
}

/// A lane as the tables have it.
///
/// # Panics
/// Never: a lane has twelve bits.
#[must_use]
pub fn lane_number(lane: Lane) -> i16 {
    i16::try_from(lane.number()).expect("a lane has twelve bits")
}

/// Reads a text column and parses it; what is stored was legal when it was written.
fn legal<T>(
    row: &PgRow,
    table: &'static str,
    column: &str,
    parse: impl FnOnce(&str) -> Result<T, Invalid>,
) -> Result<T, Error> {
    let text: &str = row.try_get(column)?;
    parse(text).map_err(|invalid| Error::corrupt(table, invalid.to_string()))
}

fn legal_note(row: &PgRow, column: &'static str) -> Result<Option<domain::Text>, Error> {
    let text: Option<&str> = row.try_get(column)?;
    text.map(|text| domain::Text::parse(column, text))
        .transpose()
        .map_err(|invalid| Error::corrupt("holds", invalid.to_string()))
}
