//! Who used the processor and the memory: `/proc`, by process and by thread.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

/// The kernel's clock ticks a second in `/proc/<pid>/stat`: 100 on every Linux that Rust's standard library supports.
const TICK: Duration = Duration::from_millis(10);

/// The process that listens on a TCP port of this machine; `None` where it cannot be seen.
#[must_use]
pub fn listening_on(port: u16) -> Option<u32> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"].iter().find_map(|table| {
        let text = fs::read_to_string(table).ok()?;
        text.lines().skip(1).find_map(|line| {
            let mut fields = line.split_ascii_whitespace();
            let local = fields.nth(1)?;
            let state = fields.nth(1)?;
            let is_it = state == "0A" && local.ends_with(&format!(":{port:04X}"));
            is_it.then(|| fields.nth(5).map(str::to_owned))?
        })
    })?;
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    pids()
        .filter(|pid| {
            let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files
                .map(|file| fs::read_link(file.path()))
                .any(|target| target.is_ok_and(|target| target == wanted))
        })
        .min() // A parent shares its socket with its children.
}

fn pids() -> impl Iterator<Item = u32> {
    numbers(Path::new("/proc"))
}

fn numbers(folder: &Path) -> impl Iterator<Item = u32> + use<> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// Fields of `/proc/<pid>/stat` after the name, which may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(')')?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

fn ticks(fields: &[String], of: std::ops::RangeInclusive<usize>) -> u32 {
    fields[of].iter().filter_map(|field| field.parse::<u32>().ok()).sum()
}

/// Processor time of a process.
#[must_use]
pub fn used(pid: u32) -> Duration {
    TICK * stat(pid).map_or(0, |fields| ticks(&fields, 11..=12)) // utime, stime
}

/// Processor time of a process and its children, those that have ended too: a server that forks per connection.
#[must_use]
pub fn used_by_family(pid: u32) -> Duration {
    let parent = pid.to_string();
    let children = pids().filter_map(stat).filter(|child| child.get(1) == Some(&parent));
    let own = stat(pid).map_or(0, |fields| ticks(&fields, 11..=14)); // And those of children that have ended.
    TICK * (own + children.map(|child| ticks(&child, 11..=14)).sum::<u32>())
}

/// Processor time by the name of the thread, in the threads that live.
#[must_use]
pub fn threads(pid: u32) -> BTreeMap<String, Duration> {
    let mut used: BTreeMap<String, Duration> = BTreeMap::new();
    for thread in numbers(Path::new(&format!("/proc/{pid}/task"))) {
        let folder = format!("/proc/{pid}/task/{thread}");
        let name = fs::read_to_string(format!("{folder}/comm")).unwrap_or_default();
        let on_cpu = fs::read_to_string(format!("{folder}/schedstat"))
            .ok()
            .and_then(|text| text.split(' ').next()?.parse().ok())
            .unwrap_or(0);
        *used.entry(name.trim().to_owned()).or_default() += Duration::from_nanos(on_cpu);
    }
    used
}

/// Memory that a process has in RAM now, and the most that it ever had, in bytes.
#[must_use]
pub fn memory(pid: u32) -> (u64, u64) {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let of = |name: &str| {
        text.lines()
            .find_map(|line| {
                line.strip_prefix(name)?
                    .split_ascii_whitespace()
                    .next()?
                    .parse::<u64>()
                    .ok()
            })
            .unwrap_or(0)
            * 1_024
    };
    (of("VmRSS:"), of("VmHWM:"))
}

/// The machine in a line: processor, cores, memory, kernel.
#[must_use]
pub fn machine() -> String {
    let first = |path: &str, name: &str| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':')
            .map(|(_, value)| value.trim().to_owned())
            .unwrap_or_default()
    };
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let kib: u64 = first("/proc/meminfo", "MemTotal")
        .trim_end_matches(" kB")
        .parse()
        .unwrap_or(0);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{}, {cores} cores, {} GiB, Linux {}",
        first("/proc/cpuinfo", "model name"),
        (kib + 512 * 1_024) / (1_024 * 1_024),
        kernel.trim()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_finds_itself_by_its_port() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(listening_on(port), Some(std::process::id()));
        assert!(memory(std::process::id()).0 > 0);
        assert!(threads(std::process::id()).values().any(|used| !used.is_zero()));
    }
}
