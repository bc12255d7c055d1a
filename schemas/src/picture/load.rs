//! The whole picture of one lane, at one moment: what a rebuild of Redis starts from, and `verify` compares.

use domain::{
    Fingerprint, Key, Lane, Ledger, Millis, RequestMark, Sku, Source, Tenant, UserId, ledger::Remembered, limits,
};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row, postgres::PgRow};

use super::{
    Checkpoint, Error,
    carts::read_part,
    checkpoint,
    holds::{hold_with_lines, read_hold, unforgotten},
    lane_number, legal,
    stock::read_stock,
};

/// Rows that are fetched at once: a lane may have more holds than fit twice into memory.
const CHUNK_ROWS: usize = 5_000;

/// A lane's ledger at its checkpoint, without what the lane has forgotten by then: what [`Ledger::forget`] would drop at
/// the checkpoint's log time. `None` where the lane has no checkpoint.
///
/// One REPEATABLE READ transaction. It must not be dropped half-way: await it in a task of its own (sqlx's `begin` is not
/// cancel-safe).
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn load(pool: &PgPool, lane: Lane, remember_ms: Millis) -> Result<Option<(Checkpoint, Ledger)>, Error> {
    load_telling(pool, lane, remember_ms, |_| {}).await
}

/// As [`load`]; tells as it goes on how many more rows were read.
///
/// # Errors
/// [`Error`] when the database does not answer.
pub async fn load_telling(
    pool: &PgPool,
    lane: Lane,
    remember_ms: Millis,
    mut tell: impl FnMut(usize) + Send,
) -> Result<Option<(Checkpoint, Ledger)>, Error> {
    let mut transaction = pool
        .begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ, READ ONLY")
        .await?;
    let Some(checkpoint) = checkpoint(&mut *transaction, lane).await? else {
        return Ok(None);
    };
    // Compiling a query that looks up a million rows one by one takes longer than it saves.
    sqlx::query("SET LOCAL jit = off").execute(&mut *transaction).await?;
    sqlx::query("SET LOCAL statement_timeout = 0")
        .execute(&mut *transaction)
        .await?;
    let lane = lane_number(lane);
    let forgotten_at = checkpoint.state.log_time.saturating_sub(remember_ms);
    let mut ledger = Ledger::default();
    let mut rows = Rows {
        connection: &mut transaction,
        tell: &mut tell,
    };
    load_stock(&mut rows, lane, &mut ledger).await?;
    load_holds(&mut rows, lane, forgotten_at, &mut ledger).await?;
    load_parts(&mut rows, lane, checkpoint.state.log_time, forgotten_at, &mut ledger).await?;
    load_limits(&mut rows, lane, &mut ledger).await?;
    load_commands(&mut rows, lane, forgotten_at, &mut ledger).await?;
    load_sources(&mut rows, lane, forgotten_at, &mut ledger).await?;
    load_requests(&mut rows, lane, checkpoint.state.log_time, &mut ledger).await?;
    transaction.commit().await?;
    Ok(Some((checkpoint, ledger)))
}

/// The rows of one transaction.
struct Rows<'a> {
    connection: &'a mut PgConnection,
    tell: &'a mut (dyn FnMut(usize) + Send),
}

impl Rows<'_> {
    /// Hands each row of a query to `take`, a bounded number in memory at a time. A cursor takes no parameters, so whatever
    /// varies in the query must be a number of ours.
    async fn each(
        &mut self,
        cursor: &str,
        query: String,
        mut take: impl FnMut(&PgRow) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let declare = format!("DECLARE {cursor} NO SCROLL CURSOR FOR {query}");
        sqlx::query(AssertSqlSafe(declare))
            .persistent(false)
            .execute(&mut *self.connection)
            .await?;
        loop {
            let fetch = format!("FETCH {CHUNK_ROWS} FROM {cursor}");
            let rows = sqlx::query(AssertSqlSafe(fetch))
                .persistent(false)
                .fetch_all(&mut *self.connection)
                .await?;
            rows.iter().try_for_each(&mut take)?;
            (self.tell)(rows.len());
            if rows.len() < CHUNK_ROWS {
                return Ok(());
            }
        }
    }
}

async fn load_stock(rows: &mut Rows<'_>, lane: i16, ledger: &mut Ledger) -> Result<(), Error> {
    let query = format!("SELECT * FROM stock WHERE lane = {lane}");
    rows.each("stock_of_lane", query, |row| {
        let (sku, stock) = read_stock(row)?;
        ledger
            .stock
            .insert((legal(row, "stock", "tenant", Tenant::parse)?, sku), stock);
        Ok(())
    })
    .await
}

async fn load_holds(rows: &mut Rows<'_>, lane: i16, forgotten_at: Millis, ledger: &mut Ledger) -> Result<(), Error> {
    let query = format!(
        concat!(
            "SELECT ",
            hold_with_lines!(),
            "WHERE h.lane = {lane} AND (h.state IN ",
            unforgotten!(),
            " OR h.state <> 'rejected' AND h.changed_at > {forgotten_at})"
        ),
        lane = lane,
        forgotten_at = forgotten_at
    );
    rows.each("holds_of_lane", query, |row| {
        let stored = read_hold(row)?;
        let known = ledger.holds.get(&stored.hold_id);
        if known.is_none_or(|known| known.terms.attempt < stored.hold.terms.attempt) {
            ledger.holds.insert(stored.hold_id, stored.hold);
        }
        Ok(())
    })
    .await
}

async fn load_parts(
    rows: &mut Rows<'_>,
    lane: i16,
    log_time: Millis,
    forgotten_at: Millis,
    ledger: &mut Ledger,
) -> Result<(), Error> {
    let query = format!(
        "SELECT *, lines::text AS lines_json, cart::text AS cart_json FROM hold_parts WHERE lane = {lane} \
         AND (state IN ('held', 'settled') OR changed_at > {forgotten_at} OR relay_until > {log_time})"
    );
    rows.each("parts_of_lane", query, |row| {
        let (id, part) = read_part(row)?;
        ledger.parts.insert(id, part);
        Ok(())
    })
    .await
}

async fn load_limits(rows: &mut Rows<'_>, lane: i16, ledger: &mut Ledger) -> Result<(), Error> {
    let query = format!("SELECT * FROM user_limits WHERE lane = {lane} AND counted <> 0");
    rows.each("limits_of_lane", query, |row| {
        let key = (
            legal(row, "user_limits", "tenant", Tenant::parse)?,
            legal(row, "user_limits", "sku", Sku::parse)?,
            legal(row, "user_limits", "user_id", UserId::parse)?,
        );
        ledger.counted.insert(key, row.try_get("counted")?);
        Ok(())
    })
    .await
}

async fn load_commands(rows: &mut Rows<'_>, lane: i16, forgotten_at: Millis, ledger: &mut Ledger) -> Result<(), Error> {
    const TABLE: &str = "remembered_commands";
    let query = format!("SELECT * FROM {TABLE} WHERE lane = {lane} AND applied_at > {forgotten_at}");
    rows.each("commands_of_lane", query, |row| {
        let key = (
            legal(row, TABLE, "tenant", Tenant::parse)?,
            legal(row, TABLE, "command_id", |text| Key::parse("command_id", text))?,
        );
        let fingerprint = Fingerprint::from_bytes(row.try_get("fingerprint")?)
            .ok_or_else(|| Error::corrupt(TABLE, "a fingerprint has not 32 bytes"))?;
        let at = row.try_get("applied_at")?;
        ledger.commands.insert(key, Remembered { fingerprint, at });
        Ok(())
    })
    .await
}

async fn load_sources(rows: &mut Rows<'_>, lane: i16, forgotten_at: Millis, ledger: &mut Ledger) -> Result<(), Error> {
    let query = format!("SELECT * FROM remembered_sources WHERE lane = {lane} AND applied_at > {forgotten_at}");
    rows.each("sources_of_lane", query, |row| {
        let source = Source {
            topic: row.try_get("topic")?,
            partition: row.try_get("source_partition")?,
            offset: row.try_get("source_offset")?,
            log_time: row.try_get("log_time")?,
        };
        ledger.sources.insert(source, row.try_get("applied_at")?);
        Ok(())
    })
    .await
}

async fn load_requests(rows: &mut Rows<'_>, lane: i16, log_time: Millis, ledger: &mut Ledger) -> Result<(), Error> {
    let forgotten_at = log_time - limits::REMEMBER_REQUEST_MS;
    let query = format!(
        "SELECT mark, decided_at FROM refused_requests WHERE lane = {lane} AND decided_at > {forgotten_at} ORDER BY decided_at"
    );
    rows.each("requests_of_lane", query, |row| {
        let mark = RequestMark::from_number(row.try_get("mark")?);
        ledger.requests.insert(mark, row.try_get("decided_at")?);
        Ok(())
    })
    .await
}
