//! What a scenario used while it ran: processor time by process and thread, memory; and the sample that comes of it.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use bench::{
    cpu,
    tally::{Latency, Tally},
};
use plumbing::config::Connections;

/// One measurement of one scenario.
#[derive(Debug, Clone)]
pub struct Sample {
    pub scenario: String,
    /// A second.
    pub rate: f64,
    pub latency: Option<Latency>,
    pub failures: u64,
    /// Processor time of each process per operation, in microseconds.
    pub cpu_us: BTreeMap<String, f64>,
    /// The same of the roles' threads, by name.
    pub threads_us: BTreeMap<String, f64>,
    /// Whatever else was measured, by a name with its unit.
    pub more: BTreeMap<&'static str, f64>,
    /// What `verify` found wrong afterwards.
    pub differences: Option<u64>,
}

impl Sample {
    pub fn of_rate(scenario: &str, rate: f64) -> Self {
        Self {
            scenario: scenario.to_owned(),
            rate,
            latency: None,
            failures: 0,
            cpu_us: BTreeMap::new(),
            threads_us: BTreeMap::new(),
            more: BTreeMap::new(),
            differences: None,
        }
    }

    pub fn of_load(scenario: &str, tally: &Tally) -> Self {
        Self {
            latency: Some(tally.latency()),
            failures: tally.failures(),
            ..Self::of_rate(scenario, tally.per_second())
        }
    }

    /// For whoever watches the run.
    pub fn line(&self) -> String {
        let failed = match self.failures {
            0 => String::new(),
            failures => format!(", {failures} failed"),
        };
        format!("{} {:.0}/s{failed}", self.scenario, self.rate)
    }

    /// Processor time of everything but the load, in microseconds an operation.
    pub fn cpu_of_all(&self) -> f64 {
        let all = self.cpu_us.iter().filter(|(name, _)| *name != "load");
        all.map(|(_, us)| us).sum()
    }

    pub fn with_usage(self, used: Usage) -> Self {
        Self {
            cpu_us: used.processes,
            threads_us: used.threads,
            ..self
        }
    }
}

/// Microseconds of processor time per operation.
#[derive(Debug, Default)]
pub struct Usage {
    processes: BTreeMap<String, f64>,
    threads: BTreeMap<String, f64>,
}

/// Processor time from its start on.
pub struct Meter {
    processes: Vec<(String, u32, Duration)>,
    /// Threads of the roles.
    threads: Vec<(u32, BTreeMap<String, Duration>)>,
    pub begun: Instant,
}

/// The engines' processes, by their ports, and this one.
pub fn engines(connections: &Connections) -> Vec<(String, u32)> {
    let port = |url: &str| url.rsplit_once(':')?.1.split('/').next()?.parse().ok();
    let engine = |name: &str, url: &str| Some((name.to_owned(), cpu::listening_on(port(url)?)?));
    [
        Some(("load".to_owned(), std::process::id())),
        engine("kafka", &connections.kafka_brokers.addresses),
        engine("redis", connections.redis_url.expose()),
        engine("postgres", connections.postgres_url.expose()),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Postgres works in a process per connection.
fn used(name: &str, pid: u32) -> Duration {
    if name == "postgres" {
        cpu::used_by_family(pid)
    } else {
        cpu::used(pid)
    }
}

impl Meter {
    pub fn start(engines: &[(String, u32)], roles: &[(String, u32)]) -> Self {
        let all = engines.iter().chain(roles);
        Self {
            processes: all.map(|(name, pid)| (name.clone(), *pid, used(name, *pid))).collect(),
            threads: roles.iter().map(|(_, pid)| (*pid, cpu::threads(*pid))).collect(),
            begun: Instant::now(),
        }
    }

    /// The time used since, divided by so many operations.
    pub fn stop(self, operations: u64) -> Usage {
        let each = |used: Duration| used.as_secs_f64() * 1e6 / operations.max(1) as f64;
        let mut usage = Usage::default();
        for (name, pid, before) in self.processes {
            let now = used(&name, pid);
            *usage.processes.entry(name).or_default() += each(now.saturating_sub(before));
        }
        for (pid, before) in self.threads {
            for (name, after) in cpu::threads(pid) {
                let used = after.saturating_sub(before.get(&name).copied().unwrap_or_default());
                *usage.threads.entry(name).or_default() += each(used);
            }
        }
        usage
    }
}
