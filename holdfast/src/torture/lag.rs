//! A failover of Redis to a replica that lags, while the old master goes on for those who are connected to it.

use std::{process::Stdio, time::Duration};

use anyhow::Context as _;
use tokio::process::Command;

use super::{dice::Dice, proxy::Proxy, system::System};

const SYNCED_WITHIN: Duration = Duration::from_secs(30);

/// Promotes a replica that has not heard of the last seconds; new connections reach it, old ones the master, for some seconds.
/// Then the master follows its replica, and takes over again, as after a repair.
///
/// # Errors
/// Redis cannot be replicated: the run is not worth anything.
pub async fn failover(system: &System, dice: &mut Dice) -> anyhow::Result<()> {
    let proxy = system.redis_proxy();
    let master = system.redis_address();
    let replication = Proxy::start(&master).await?;
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    let replica_address = format!("127.0.0.1:{port}");
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(system.log_of("replica"))?;
    let mut replica = Command::new("setpriv")
        .args([
            "--pdeathsig",
            "KILL",
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--maxmemory-policy",
            "noeviction",
        ])
        .args(["--enable-debug-command", "local", "--port", &port.to_string()])
        .args(["--dir", &system.logs.display().to_string()])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .context("redis-server does not start")?;
    follow(&replica_address, &replication.address.to_string()).await?;

    // From here on it hears nothing.
    replication.cut();
    tokio::time::sleep(Duration::from_millis(dice.between(500, 4_000))).await;
    tell(&replica_address, &["REPLICAOF", "NO", "ONE"]).await?;
    proxy.lead_to(&replica_address);
    // Some come at once, others stay with the old master.
    tokio::time::sleep(Duration::from_millis(dice.between(1_000, 6_000))).await;
    proxy.disconnect();
    tokio::time::sleep(Duration::from_millis(dice.between(2_000, 5_000))).await;

    follow(&master, &replica_address).await?;
    tell(&master, &["REPLICAOF", "NO", "ONE"]).await?;
    proxy.lead_to(&master);
    proxy.disconnect();
    replica.kill().await?;
    Ok(())
}

/// Makes one follow another, and waits until it has everything.
async fn follow(who: &str, whom: &str) -> anyhow::Result<()> {
    let (host, port) = whom.rsplit_once(':').context("host:port")?;
    let begun = tokio::time::Instant::now();
    let mut asked = false;
    while begun.elapsed() < SYNCED_WITHIN {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if !asked {
            asked = tell(who, &["REPLICAOF", host, port]).await.is_ok();
            continue;
        }
        let state: String = ask(who, &["INFO", "replication"]).await?;
        if state.contains("master_link_status:up") {
            return Ok(());
        }
    }
    anyhow::bail!("{who} does not follow {whom} within {} s", SYNCED_WITHIN.as_secs())
}

async fn tell(who: &str, words: &[&str]) -> anyhow::Result<()> {
    ask::<redis::Value>(who, words).await.map(drop)
}

async fn ask<T: redis::FromRedisValue + Send + 'static>(who: &str, words: &[&str]) -> anyhow::Result<T> {
    let client = plumbing::redis::client(&format!("redis://{who}/"))?;
    let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
    let asked = plumbing::task::thread("redis", move || {
        let mut connection = client.get_connection_with_timeout(Duration::from_secs(2))?;
        let mut command = redis::cmd(&words[0]);
        command.arg(&words[1..]);
        command.query(&mut connection)
    });
    Ok(asked.await??)
}
