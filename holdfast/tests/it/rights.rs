//! Least rights: every service has a login of its own, and each may do what its work needs and no more.
//!
//! That they may do their work is shown by all other tests here, which run the roles with these logins.

use std::{collections::BTreeSet, path::Path};

use plumbing::config::{Connections, Login};
use sqlx::{AssertSqlSafe, Connection as _, PgConnection};

use crate::world::Setup;

/// Rows that a service changes, and rows of others'.
const POSTGRES: &[(&str, &[&str], &[&str])] = &[
    (
        "ingress",
        &["SELECT FROM holds", "SELECT FROM lanes", "SELECT FROM holds_readable"],
        &[
            "UPDATE stock SET on_hand = on_hand",
            "DELETE FROM holds",
            "SELECT FROM console_users",
            "SELECT FROM payments",
        ],
    ),
    (
        "reserver",
        &["SELECT FROM stock", "SELECT FROM remembered_commands"],
        &[
            "UPDATE lanes SET epoch = epoch",
            "INSERT INTO processed_events SELECT * FROM processed_events",
        ],
    ),
    (
        "expirer",
        &["SELECT FROM holds"],
        &["UPDATE holds SET state = 'expired'", "SELECT FROM console_sessions"],
    ),
    (
        "persister",
        &[
            "UPDATE lanes SET epoch = epoch",
            "DELETE FROM processed_events WHERE false",
        ],
        &[
            "DROP TABLE holds",
            "TRUNCATE lanes",
            "ALTER TABLE holds ADD COLUMN mine text",
            "DELETE FROM stock_movements",
            "UPDATE payments SET state = state",
            "SELECT FROM console_users",
        ],
    ),
    (
        "checkout",
        &[
            "UPDATE payments SET state = state",
            "SELECT FROM holds",
            "DELETE FROM prices WHERE false",
        ],
        &[
            "UPDATE holds SET state = state",
            "UPDATE fulfilments SET state = state",
            "SELECT FROM console_users",
            "SELECT FROM audit_log",
        ],
    ),
    (
        "fulfiller",
        &[
            "UPDATE fulfilments SET state = state",
            "SELECT FROM payments",
            "SELECT FROM orders FOR UPDATE",
        ],
        &[
            "UPDATE payments SET state = state",
            "UPDATE orders SET payment_ref = payment_ref",
            "DELETE FROM orders",
            "DELETE FROM audit_log",
            "SELECT FROM console_users",
        ],
    ),
    (
        "console",
        &[
            "DELETE FROM console_sessions WHERE false",
            "SELECT FROM console_users",
            "SELECT FROM payments",
        ],
        &[
            "UPDATE console_users SET role = role",
            "DELETE FROM audit_log",
            "UPDATE holds SET state = state",
            "UPDATE payments SET state = state",
        ],
    ),
];

/// What no service may do.
const NOBODY: &[&str] = &[
    "CREATE TABLE mine (a int)",
    "CREATE ROLE another SUPERUSER",
    "COPY holds TO PROGRAM 'cat'",
    "SELECT pg_read_file('/etc/passwd')",
    "SET ROLE holdfast",
    "DELETE FROM _sqlx_migrations",
    "SELECT FROM pg_authid",
];

fn login_of(service: &str) -> Login {
    format!("holdfast_{service}:holdfast_{service}")
        .parse()
        .expect("a login")
}

/// `None` where it is let through, else Postgres' code.
async fn refused(connection: &mut PgConnection, statement: &str) -> Option<String> {
    let mut inside = connection.begin().await.expect("Postgres answers");
    let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut *inside)
        .await;
    inside.rollback().await.expect("Postgres answers");
    match done {
        Ok(_) => None,
        Err(sqlx::Error::Database(error)) => Some(error.code().unwrap_or_default().into_owned()),
        Err(error) => panic!("{statement}: {error}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_service_reads_and_writes_its_own_tables_and_no_others() {
    let world = Setup::new().prepare().await;
    for (service, its_own, of_others) in POSTGRES {
        let own = world.connections.clone().logged_in(Some(&login_of(service)), None);
        let mut connection = PgConnection::connect(own.postgres_url.expose())
            .await
            .unwrap_or_else(|error| panic!("the {service} logs in (infra/postgres/roles.sql): {error}"));
        for statement in *its_own {
            assert_eq!(
                refused(&mut connection, statement).await,
                None,
                "{service}: {statement}"
            );
        }
        for statement in of_others.iter().chain(NOBODY) {
            // insufficient_privilege
            let code = refused(&mut connection, statement).await;
            assert_eq!(code.as_deref(), Some("42501"), "{service}: {statement}");
        }
    }
}

/// The console reads whatever there is: what it may not read is a table that rights.sql does not know.
#[tokio::test]
async fn no_table_is_forgotten() {
    let world = Setup::new().prepare().await;
    let mut owner = PgConnection::connect(world.connections.postgres_url.expose())
        .await
        .expect("Postgres answers");
    let unknown: Vec<String> = sqlx::query_scalar(
        "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p', 'v', 'm') \
         AND NOT has_table_privilege('holdfast_console', oid, 'SELECT')",
    )
    .fetch_all(&mut owner)
    .await
    .expect("Postgres answers");
    assert!(
        unknown.is_empty(),
        "nobody's in schemas/src/picture/rights.sql: {unknown:?}"
    );
}

fn redis_as(connections: &Connections, service: &str) -> redis::Connection {
    let own = connections.clone().logged_in(None, Some(&login_of(service)));
    let client = plumbing::redis::client(own.redis_url.expose()).expect("a URL");
    client
        .get_connection()
        .unwrap_or_else(|error| panic!("the {service} logs in (infra/redis/redis.conf): {error}"))
}

/// `None` where it is let through, else Redis' code.
fn turned_down(connection: &mut redis::Connection, command: &str) -> Option<String> {
    let mut words = command.split(' ');
    let mut asked = redis::cmd(words.next().expect("a command"));
    words.for_each(|word| {
        asked.arg(word);
    });
    let answer: redis::RedisResult<redis::Value> = asked.query(connection);
    answer.err().map(|error| error.code().unwrap_or_default().to_owned())
}

#[test]
fn the_reserver_touches_lanes_only_and_the_expirer_changes_nothing() {
    let connections = Connections::from_env();
    let key = format!("least:{{0}}:{}", plumbing::id::random());
    let dangerous = [
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "CONFIG SET maxmemory-policy allkeys-lru",
        "CONFIG REWRITE",
        "DEBUG SLEEP 0",
        "SHUTDOWN NOSAVE",
        "SCRIPT FLUSH",
        "FUNCTION FLUSH",
        "REPLICAOF 127.0.0.1 1",
        "CLIENT KILL TYPE normal",
        "ACL LIST",
        "SAVE",
        "MODULE LIST",
        "MONITOR",
        "GET other",
        "SET other 1",
    ];
    let mut reserver = redis_as(&connections, "reserver");
    for command in [
        format!("SET {key} 1"),
        format!("UNLINK {key}"),
        "PING".into(),
        "CONFIG GET maxmemory-policy".into(),
        "INFO memory".into(),
        "SCAN 0 COUNT 1".into(),
    ] {
        assert_eq!(turned_down(&mut reserver, &command), None, "{command}");
    }
    for command in dangerous {
        assert_eq!(
            turned_down(&mut reserver, command).as_deref(),
            Some("NOPERM"),
            "{command}"
        );
    }
    // A script is no way around.
    for script in ["return redis.call('FLUSHALL')", "return redis.call('GET', 'other')"] {
        let answer: redis::RedisResult<redis::Value> = redis::cmd("EVAL").arg(script).arg(0).query(&mut reserver);
        let said = answer.expect_err("not allowed").to_string();
        assert!(said.contains("The user executing the script can't"), "{script}: {said}");
    }
    let mut expirer = redis_as(&connections, "expirer");
    assert_eq!(turned_down(&mut expirer, &format!("ZRANGEBYSCORE {key} -inf 1")), None);
    let writes = [
        format!("SET {key} 1"),
        format!("DEL {key}"),
        format!("ZADD {key} 1 a"),
        "EVAL return 1 0".into(),
    ];
    for command in dangerous.into_iter().chain(writes.iter().map(String::as_str)) {
        assert_eq!(
            turned_down(&mut expirer, command).as_deref(),
            Some("NOPERM"),
            "{command}"
        );
    }
}

/// All that is in quotes and capitals in the files of a folder.
fn loud_words(folder: &Path, found: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            loud_words(&path, found);
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("a text");
        let words = text.split(['\'', '"']);
        let is_loud = |word: &&str| word.len() > 2 && word.bytes().all(|byte| byte.is_ascii_uppercase());
        found.extend(words.filter(is_loud).map(str::to_ascii_lowercase));
    }
}

/// A command that a script calls at a rare moment only, and its user may not, would stop a lane then.
#[test]
fn whatever_the_reserver_and_its_scripts_call_is_allowed() {
    let connections = Connections::from_env();
    let client = plumbing::redis::client(connections.redis_url.expose()).expect("a URL");
    let mut redis = client.get_connection().expect("Redis answers");
    let known: BTreeSet<String> = redis::cmd("COMMAND")
        .arg("LIST")
        .query(&mut redis)
        .expect("its commands");
    let mut words = BTreeSet::new();
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    loud_words(&root.join("reserver/src"), &mut words);
    let settings = std::fs::read_to_string(root.join("infra/redis/redis.conf")).expect("the settings");
    let user = settings
        .lines()
        .find(|line| line.starts_with("user holdfast_reserver "));
    let rights: Vec<&str> = user.expect("the user").split([' ', '|']).collect();
    let called: Vec<&String> = words.intersection(&known).collect();
    assert!(called.len() > 20, "{called:?}");
    for command in called {
        assert!(rights.contains(&format!("+{command}").as_str()), "{command}");
    }
}
