//! The pool against the Postgres of the tests.

use std::time::{Duration, Instant};

use plumbing::postgres;

/// A server that is gone without a word never answers: its connection is left, and the next one is another.
#[tokio::test(flavor = "multi_thread")]
async fn database_work_that_takes_too_long_is_left_with_its_connection() {
    let url = plumbing::config::Connections::from_env().postgres_url;
    let pool = postgres::connect_lazy(&url, "test", 1).expect("a pool");
    let backend = async |connection: &mut sqlx::PgConnection| {
        sqlx::query_scalar::<_, i32>("SELECT pg_backend_pid()")
            .fetch_one(connection)
            .await
    };
    let long = Duration::from_secs(30);
    let first = postgres::within(long, &pool, backend).await.expect("it answers");
    let begun = Instant::now();
    let hanging = async |connection: &mut sqlx::PgConnection| {
        let mut transaction = sqlx::Connection::begin(connection).await?;
        sqlx::query("SELECT pg_sleep(30)").execute(&mut *transaction).await
    };
    let late = postgres::within(Duration::from_millis(300), &pool, hanging).await;
    let error = late.expect_err("too late");
    assert!(postgres::is_transient(&error), "{error:?}");
    let second = postgres::within(long, &pool, backend).await.expect("it answers again");
    assert_ne!(first, second);
    assert!(begun.elapsed() < long, "nobody waited for what hangs");
}
