//! The faults: each is done to the system, and undone, while the load goes on.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context as _;
use clap::ValueEnum;
use serde::Serialize;

use super::{dice::Dice, system::System};

/// Which faults a run draws from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Plan {
    /// Processes killed, paused, added, removed, and this run's own keys in Redis lost: harms nobody else on the engines
    Roles,
    /// Engines killed, Redis flushed and set back to an older state: the engines must be this run's alone
    Engines,
    /// Both
    All,
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
    /// A process more of each role, and gone again.
    Grow,
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
            ClientKill, CutFile, End, FlushAll, Grow, Hang, Kill, KillKafka, KillPostgres, KillRedis, KillRegistry,
            LoseKeys, LoseStock, OlderFiles, Pause, ScriptFlush,
        };
        let roles = [Kill, Kill, Kill, Pause, End, Grow, LoseKeys, LoseStock];
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
        ];
        match self {
            Self::Roles => roles.to_vec(),
            Self::Engines => engines.to_vec(),
            Self::All => [&roles[..], &engines].concat(),
        }
    }
}

const ROLES: [&str; 4] = ["reserver", "ingress", "persister", "expirer"];

/// Does a fault and undoes it.
///
/// # Errors
/// It could not be done: the run is not worth anything.
pub async fn inflict(fault: Fault, system: &mut System, dice: &mut Dice) -> anyhow::Result<()> {
    match fault {
        Fault::Kill => {
            let role: &str = dice.of::<&str>(&ROLES);
            let all = system.of_role(role);
            let name = dice.of(&all).clone();
            system.kill(&name).await?;
            tokio::time::sleep(Duration::from_millis(dice.between(0, 2_000))).await;
            system.spawn(&name)
        }
        Fault::Pause => {
            let role: &str = dice.of::<&str>(&ROLES);
            let all = system.of_role(role);
            let name = dice.of(&all).clone();
            system.signal(&name, "STOP").await?;
            tokio::time::sleep(Duration::from_millis(dice.between(5_000, 12_000))).await;
            system.signal(&name, "CONT").await
        }
        Fault::End => {
            let name = dice.of(&system.of_role("reserver")).clone();
            system.end(&name).await?;
            system.spawn(&name)
        }
        Fault::Grow => {
            for role in &ROLES[..3] {
                system.spawn(&format!("{role}-more"))?;
            }
            tokio::time::sleep(Duration::from_millis(dice.between(2_000, 6_000))).await;
            for role in &ROLES[..3] {
                system.end(&format!("{role}-more")).await?;
            }
            Ok(())
        }
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
