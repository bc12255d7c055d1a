//! The Postgres pool, and which of its errors go away by themselves.
//!
//! The pool connects when it is used, so a role starts without Postgres and says so in its health. Work on it belongs
//! into tasks that are never dropped half-way: sqlx 0.9's `begin()` is not cancel-safe (its issue 4385), so no `select!`,
//! no request future and no timeout around it but that of [`within`]. The server's own timeouts, set here, end what hangs there.

use std::io;
use std::time::Duration;

use sqlx::Error;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};

use crate::config::SecretUrl;

/// For how long a query waits for a connection before it fails with [`Error::PoolTimedOut`], which is transient.
pub const ACQUIRE_TIMEOUT: Duration = Duration::from_secs(3);

/// Options of each session, in milliseconds unless said otherwise. A statement that rightly takes longer begins its
/// transaction with `SET LOCAL`.
const SESSION: [(&str, &str); 6] = [
    // Nothing here takes minutes; what does is stuck, and blocks whoever comes next.
    ("statement_timeout", "300000"),
    // A row lock is held for one batch. A longer wait is a deadlock in the making or a paused owner.
    ("lock_timeout", "10000"),
    // A paused process must not keep its row of `lanes` locked against the one that takes over.
    ("idle_in_transaction_session_timeout", "15000"),
    // The server notices a client that vanished without a word after 10 s + 3 * 5 s (these in seconds).
    ("tcp_keepalives_idle", "10"),
    ("tcp_keepalives_interval", "5"),
    ("tcp_keepalives_count", "3"),
];

/// A pool that connects when it is first used. `application_name` shows in `pg_stat_activity`. Call it inside a runtime.
///
/// # Errors
/// The URL is not one. Whether somebody answers there shows only when the pool is used.
pub fn connect_lazy(url: &SecretUrl, application_name: &str, max_connections: u32) -> Result<PgPool, Error> {
    let options = url
        .expose()
        .parse::<PgConnectOptions>()?
        .application_name(application_name)
        .options(SESSION);
    Ok(PgPoolOptions::new()
        .max_connections(max_connections)
        .acquire_timeout(ACQUIRE_TIMEOUT)
        // After a restart of the server the pool is full of dead connections; one round trip finds out before the work does.
        .test_before_acquire(true)
        .idle_timeout(Duration::from_secs(300))
        .connect_lazy_with(options))
}

/// Does work on a connection of the pool, but not for longer than `limit`: a server that is gone without a word, and took what it was
/// asked for with it, answers never. Its connection is closed then, whatever was begun on it, so this is the one timeout that
/// may stand around database work; what became of the work nobody knows.
///
/// # Errors
/// The work's own; [`Error::Io`] with [`io::ErrorKind::TimedOut`] after `limit`.
pub async fn within<T, E: From<Error>>(
    limit: Duration,
    pool: &PgPool,
    work: impl AsyncFnOnce(&mut PgConnection) -> Result<T, E>,
) -> Result<T, E> {
    let mut connection = pool.acquire().await?;
    let done = tokio::time::timeout(limit, work(&mut connection)).await;
    done.unwrap_or_else(|_late| {
        connection.close_on_drop();
        Err(Error::Io(io::ErrorKind::TimedOut.into()).into())
    })
}

/// May the same work succeed later, unchanged? Then wait and do it again; otherwise it is a fault of ours or of the schema.
#[must_use]
pub fn is_transient(error: &Error) -> bool {
    match error {
        Error::Io(_) | Error::PoolTimedOut | Error::WorkerCrashed | Error::BeginFailed => true,
        Error::Database(error) => error.code().is_some_and(|code| is_transient_sqlstate(&code)),
        // The rest is wrong use: it would be as wrong the next time.
        _ => false,
    }
}

/// PostgreSQL 15, appendix A.
fn is_transient_sqlstate(code: &str) -> bool {
    match code {
        "25P03" // idle_in_transaction_session_timeout: we were paused; the transaction is rolled back
        | "40001" // serialization_failure
        | "40P01" // deadlock_detected
        | "55P03" // lock_not_available: lock_timeout
        | "57014" // query_canceled: statement_timeout
        | "57P01" // admin_shutdown
        | "57P02" // crash_shutdown
        | "57P03" // cannot_connect_now: starting up
        | "57P05" // idle_session_timeout
        | "25006" // read_only_sql_transaction: a failover, and we still talk to the old primary
        | "58030" => true, // io_error
        // 08: connection exceptions. 53: out of connections, memory or disk, which somebody will look after.
        _ => code.starts_with("08") || code.starts_with("53"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_away_by_itself_is_transient() {
        for code in [
            "08006", "40001", "40P01", "53300", "53100", "57P01", "57P03", "55P03", "25P03",
        ] {
            assert!(is_transient_sqlstate(code), "{code}");
        }
        for code in ["23505", "23514", "42P01", "42703", "22003", "28P01", "3D000", "25P02"] {
            assert!(!is_transient_sqlstate(code), "{code}");
        }
        assert!(is_transient(&Error::Io(io::ErrorKind::ConnectionReset.into())));
        assert!(is_transient(&Error::PoolTimedOut));
        assert!(!is_transient(&Error::RowNotFound) && !is_transient(&Error::PoolClosed));
    }

    #[tokio::test]
    async fn the_pool_needs_no_server_until_it_is_used() {
        let nobody = SecretUrl::from("postgres://u:p@127.0.0.1:1/x");
        let pool = connect_lazy(&nobody, "test", 2).unwrap();
        let error = sqlx::query("SELECT 1").execute(&pool).await.unwrap_err();
        assert!(is_transient(&error), "{error:?}");
        assert!(connect_lazy(&SecretUrl::from("not a url"), "test", 2).is_err());
    }
}
