//! Programs on this machine.

use std::{path::Path, process::Command};

use super::Finding::{self, Good, Missing, Wrong};

/// Tools on this machine; an engine that answers makes those that would start it unneeded.
pub(super) fn tools(kafka: bool, redis: bool, postgres: bool) -> Vec<Finding> {
    let apt = |package: &str| format!("apt-get install {package}");
    let need = |found: Option<String>, name: &str, needed: bool, fix: String| match found {
        Some(what) => Good(what),
        None if needed => Wrong(format!("{name} is missing"), fix),
        None => Missing(format!("{name} is missing; not needed now"), fix),
    };
    let java = first_line("java", &["-version"]);
    let java_old = java
        .as_deref()
        .is_some_and(|line| java_major(line).is_some_and(|major| major < 17));
    vec![
        need(
            java.filter(|_| !java_old),
            if java_old {
                "java 17 (there is an older one)"
            } else {
                "java 17"
            },
            !kafka,
            apt("openjdk-17-jre-headless"),
        ),
        need(
            first_line("mvn", &["-B", "-v"]),
            "mvn (fetches Kafka and the registry)",
            !kafka,
            apt("maven"),
        ),
        need(
            first_line("redis-server", &["--version"]),
            "redis-server",
            !redis,
            apt("redis-server"),
        ),
        need(postgres_version(), "postgres", !postgres, apt("postgresql")),
        need(
            first_line("cargo", &["--version"]),
            "cargo (builds Holdfast)",
            false,
            "https://rustup.rs".to_owned(),
        ),
        need(
            first_line("cc", &["--version"]),
            "cc (builds librdkafka)",
            false,
            apt("build-essential"),
        ),
        need(first_line("kcat", &["-V"]), "kcat (shows the log)", false, apt("kcat")),
    ]
}

/// The line in which a program names its version, else the first that it prints; `None` when there is no such program.
fn first_line(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next()?;
    let line = lines.find(|line| line.starts_with("Version ")).unwrap_or(first);
    Some(format!("{program}: {line}"))
}

/// Debian keeps the server's programs out of the path.
fn postgres_version() -> Option<String> {
    let versions = Path::new("/usr/lib/postgresql");
    let mut found: Vec<_> = versions
        .read_dir()
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin/postgres"))
        .filter(|program| program.exists())
        .collect();
    found.sort();
    let program = found
        .pop()
        .map_or_else(|| "postgres".into(), |path| path.to_string_lossy().into_owned());
    first_line(&program, &["--version"])
}

/// 17 of `openjdk version "17.0.13" ...`, 8 of `java version "1.8.0_392"`.
fn java_major(line: &str) -> Option<u32> {
    let version = line.split('"').nth(1)?;
    let mut parts = version.split(['.', '_', '-']);
    let first: u32 = parts.next()?.parse().ok()?;
    if first == 1 {
        parts.next()?.parse().ok()
    } else {
        Some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_from_what_programs_say() {
        assert_eq!(java_major("openjdk version \"17.0.13\" 2024-10-15"), Some(17));
        assert_eq!(java_major("java version \"1.8.0_392\""), Some(8));
        assert_eq!(java_major("openjdk version \"21-ea\""), Some(21));
    }
}
