//! The faults: each is done to the system, and undone, while the load goes on.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::{dice::Dice, lag, proxy::Proxy, system::System};

/// Which faults a run draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plan {
    /// Processes killed, paused, added, removed, answers of engines lost, this run's own keys in Redis lost: harms nobody else
    Roles,
    /// Engines killed, Redis flushed and set back to an older state: the engines must be this run's alone
    Engines,
    /// Both
    All,
    /// A process killed at each fail point (--list-points), so often as --rounds says: harms nobody else
    Points,
    /// A disk that runs full, and roles killed: the engines' state must be on a small disk of their own (--disk)
    Disk,
}

/// What is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// SIGKILL of a process, and a new one.
    Kill,
    /// SIGSTOP past the consumer's session, then SIGCONT.
    Pause,
    /// SIGTERM of a reserver, and a new one.
    End,
    /// A process more of each role, a while later another, and both gone again: three of a role at least.
    Grow,
    /// A reserver more, and gone again, every five seconds.
    Rebalance,
    /// An engine takes what is asked and its answers are lost: Redis.
    MuteRedis,
    /// The same of Kafka, for one process of each role.
    MuteKafka,
    /// The same of Postgres, for one process of each role.
    MutePostgres,
    /// A replica of Redis that lags is promoted, with the old master alive.
    LaggingReplica,
    /// No byte is left on the engines' disk for some seconds.
    FullDisk,
    /// A process ends at a fail point.
    Point,
    /// All keys of this run deleted.
    LoseKeys,
    /// One stock key deleted.
    LoseStock,
    /// SCRIPT FLUSH.
    ScriptFlush,
    /// CLIENT KILL of everybody.
    ClientKill,
    /// Redis hangs for longer than a lane waits.
    Hang,
    /// FLUSHALL.
    FlushAll,
    /// kill -9 of Redis.
    KillRedis,
    /// kill -9 of Kafka.
    KillKafka,
    /// kill -9 of Postgres.
    KillPostgres,
    /// kill -9 of the registry.
    KillRegistry,
    /// kill -9 of Redis, and its append-only file loses its last bytes.
    CutFile,
    /// kill -9 of Redis, and its files are those of some seconds before.
    OlderFiles,
}

impl Plan {
    /// The faults it draws from.
    #[must_use]
    pub fn faults(self) -> Vec<Fault> {
        use Fault::{
            ClientKill, CutFile, End, FlushAll, FullDisk, Grow, Hang, Kill, KillKafka, KillPostgres, KillRedis,
            KillRegistry, LaggingReplica, LoseKeys, LoseStock, MuteKafka, MutePostgres, MuteRedis, OlderFiles, Pause,
            Rebalance, ScriptFlush,
        };
        let roles = [
            Kill,
            Kill,
            Kill,
            Pause,
            End,
            Grow,
            Rebalance,
            LoseKeys,
            LoseStock,
            MuteRedis,
            MuteKafka,
            MutePostgres,
        ];
        let engines = [
            FlushAll,
            ScriptFlush,
            ClientKill,
            Hang,
            KillRedis,
            KillKafka,
            KillPostgres,
            KillRegistry,
            CutFile,
            OlderFiles,
            LaggingReplica,
        ];
        match self {
            Self::Roles => roles.to_vec(),
            Self::Engines => engines.to_vec(),
            Self::All => [&roles[..], &engines].concat(),
            Self::Points => Vec::new(),
            Self::Disk => vec![FullDisk, FullDisk, Kill, LoseKeys],
        }
    }
}

const ROLES: [&str; 4] = ["reserver", "ingress", "persister", "expirer"];

/// A process of some role.
fn somebody(system: &System, dice: &mut Dice) -> String {
    let role: &str = dice.of::<&str>(&ROLES);
    dice.of(&system.of_role(role)).clone()
}

/// Does a fault and undoes it; returns on whom, where it is a process.
///
/// # Errors
/// It could not be done: the run is not worth anything.
pub async fn inflict(fault: Fault, system: &mut System, dice: &mut Dice) -> anyhow::Result<String> {
    let name = match fault {
        Fault::Kill | Fault::Pause => somebody(system, dice),
        Fault::End => dice.of(&system.of_role("reserver")).clone(),
        _ => String::new(),
    };
    hurt(fault, &name, system, dice).await?;
    Ok(name.split('-').next().unwrap_or_default().to_owned())
}

async fn hurt(fault: Fault, name: &str, system: &mut System, dice: &mut Dice) -> anyhow::Result<()> {
    match fault {
        Fault::Kill => {
            system.kill(name).await?;
            tokio::time::sleep(Duration::from_millis(dice.between(0, 2_000))).await;
            system.spawn(name)
        }
        Fault::Pause => {
            system.signal(name, "STOP").await?;
            tokio::time::sleep(pause(dice)).await;
            system.signal(name, "CONT").await
        }
        Fault::End => {
            system.end(name).await?;
            system.spawn(name)
        }
        Fault::Grow => {
            let groups = ["more", "most"].map(|which| ROLES.map(|role| format!("{role}-{which}")));
            for group in &groups {
                for name in group {
                    system.spawn(name)?;
                }
                tokio::time::sleep(Duration::from_millis(dice.between(2_000, 6_000))).await;
            }
            for name in groups.as_flattened() {
                system.end(name).await?;
            }
            Ok(())
        }
        Fault::Rebalance => {
            for _ in 0..3 {
                system.spawn("reserver-more")?;
                tokio::time::sleep(Duration::from_secs(5)).await;
                system.end("reserver-more").await?;
            }
            Ok(())
        }
        Fault::MuteRedis => mute(system.redis_proxy(), dice, 8_000).await,
        Fault::MuteKafka => mute(&system.kafka, dice, 14_000).await,
        Fault::MutePostgres => mute(&system.postgres, dice, 8_000).await,
        Fault::LaggingReplica => lag::failover(system, dice).await,
        Fault::FullDisk => fill(system, dice).await,
        Fault::Point => anyhow::bail!("a point is reached, not inflicted"),
        Fault::LoseKeys => {
            let script = "for _, key in ipairs(redis.call('KEYS', ARGV[1])) do redis.call('DEL', key) end";
            let pattern = format!("{}:*", system.connections.redis_prefix);
            redis::Script::new(script)
                .arg(pattern)
                .invoke::<()>(&mut system.redis()?)?;
            Ok(())
        }
        Fault::LoseStock => {
            let mut redis = system.redis()?;
            let pattern = format!("{}:*:stock:*", system.connections.redis_prefix);
            let keys: Vec<String> = redis::cmd("KEYS").arg(pattern).query(&mut redis)?;
            if !keys.is_empty() {
                redis::cmd("DEL").arg(dice.of(&keys)).exec(&mut redis)?;
            }
            Ok(())
        }
        Fault::ScriptFlush => tell(system, &["SCRIPT", "FLUSH"]),
        Fault::ClientKill => tell(system, &["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]),
        Fault::Hang => tell(system, &["DEBUG", "SLEEP", "7"]),
        Fault::FlushAll => tell(system, &["FLUSHALL"]),
        Fault::KillRedis => again(system, "redis").await,
        Fault::KillKafka => again(system, "kafka").await,
        Fault::KillPostgres => again(system, "postgres").await,
        Fault::KillRegistry => again(system, "registry").await,
        Fault::CutFile => {
            let folder = files(system)?;
            system.services("kill", "redis").await?;
            cut(&folder, dice)?;
            system.services("start", "redis").await
        }
        Fault::OlderFiles => {
            let folder = files(system)?;
            let older = system.logs.join("older");
            copy(&folder, &older)?;
            tokio::time::sleep(Duration::from_millis(dice.between(500, 4_000))).await;
            system.services("kill", "redis").await?;
            copy(&older, &folder)?;
            system.services("start", "redis").await
        }
    }
}

/// How long a process stands still: mostly little more than the consumer's session, sometimes far past it.
fn pause(dice: &mut Dice) -> Duration {
    let longest_ms = if dice.percent(70) { 12_000 } else { 40_000 };
    Duration::from_millis(dice.between(5_000, longest_ms))
}

/// Requests are delivered and answers dropped; sometimes the connections are cut before all is well again.
async fn mute(proxy: &Proxy, dice: &mut Dice, longest_ms: u64) -> anyhow::Result<()> {
    proxy.mute();
    tokio::time::sleep(Duration::from_millis(dice.between(500, longest_ms))).await;
    if dice.percent(50) {
        proxy.cut();
        tokio::time::sleep(Duration::from_millis(dice.between(500, 4_000))).await;
    }
    proxy.heal();
    Ok(())
}

/// Fills the engines' disk for some seconds; whoever ended of it is started again.
async fn fill(system: &System, dice: &mut Dice) -> anyhow::Result<()> {
    const LARGEST: u64 = 4 << 30;
    let folder = system.disk.as_ref().context("--disk names the folder to fill")?;
    let path = folder.join("holdfast-torture-fills-the-disk");
    let writing = path.clone();
    let filled = plumbing::task::thread("fill", move || -> anyhow::Result<u64> {
        use std::io::Write as _;
        let mut file = std::fs::File::create(&writing)?;
        let block = vec![0_u8; 1 << 20];
        let mut written = 0;
        while written < LARGEST && file.write_all(&block).is_ok() {
            written += block.len() as u64;
        }
        Ok(written)
    });
    let filled = filled.await??;
    if filled >= LARGEST {
        std::fs::remove_file(&path)?;
        anyhow::bail!("{} is no small disk: use a tmpfs, say", folder.display());
    }
    tokio::time::sleep(Duration::from_millis(dice.between(2_000, 8_000))).await;
    std::fs::remove_file(&path)?;
    for engine in ["kafka", "registry", "redis", "postgres"] {
        system.services("start", engine).await?;
    }
    Ok(())
}

fn tell(system: &System, words: &[&str]) -> anyhow::Result<()> {
    let mut command = redis::cmd(words[0]);
    for word in &words[1..] {
        command.arg(*word);
    }
    command.exec(&mut system.redis()?)?;
    Ok(())
}

async fn again(system: &System, engine: &str) -> anyhow::Result<()> {
    system.services("kill", engine).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    system.services("start", engine).await
}

/// Where Redis keeps its append-only files.
fn files(system: &System) -> anyhow::Result<PathBuf> {
    let mut redis = system.redis()?;
    let mut ask = |name: &str| -> anyhow::Result<String> {
        let answer: Vec<String> = redis::cmd("CONFIG").arg("GET").arg(name).query(&mut redis)?;
        answer.get(1).cloned().with_context(|| format!("Redis has no {name}"))
    };
    Ok(Path::new(&ask("dir")?).join(ask("appenddirname")?))
}

/// Copies a folder over another, which is emptied first.
fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    if to.exists() {
        std::fs::remove_dir_all(to)?;
    }
    std::fs::create_dir_all(to)?;
    for file in std::fs::read_dir(from)? {
        let file = file?;
        std::fs::copy(file.path(), to.join(file.file_name()))?;
    }
    Ok(())
}

/// The last bytes of the append-only file are lost, as after a power cut.
fn cut(folder: &Path, dice: &mut Dice) -> anyhow::Result<()> {
    for file in std::fs::read_dir(folder)? {
        let path = file?.path();
        if path.to_string_lossy().ends_with(".incr.aof") {
            let file = std::fs::File::options().write(true).open(&path)?;
            let length = file.metadata()?.len();
            file.set_len(length - dice.between(0, length.min(200_000)))?;
        }
    }
    Ok(())
}
