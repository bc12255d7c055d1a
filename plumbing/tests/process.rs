//! A service as a process: this binary starts itself again as one, sends it signals, and looks at how it ends.
//!
//! The deadline of a service that hangs takes its 15 s, so that part runs only with `HOLDFAST_TEST_FULL` set.

use std::env;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use plumbing::service::{self, Context};
use plumbing::task::Tasks;
use plumbing::telemetry::TRACE;

#[derive(clap::Args)]
struct Config {
    /// How the service behaves.
    #[arg(long)]
    behave: String,
}

async fn serve(config: Config, context: Context) -> anyhow::Result<()> {
    let span = tracing::info_span!(target: TRACE, "decide");
    anyhow::ensure!(
        span.is_disabled(),
        "without a collector a span of the road costs nothing"
    );
    let kafka = context.health.component("kafka");
    kafka.up();
    let mut tasks = Tasks::<anyhow::Error>::new(&context.stop);
    let stop = tasks.stop().clone();
    match config.behave.as_str() {
        "well" => tasks.spawn("loop", async move {
            stop.requested().await;
            // Long enough for the test to look at a service that drains.
            tokio::time::sleep(Duration::from_millis(700)).await;
            Ok(())
        }),
        "hang" => loop {
            std::thread::sleep(Duration::from_secs(60)); // As the drop of a consumer can.
        },
        "fail" => tasks.spawn("loop", async {
            Err(anyhow::anyhow!("the lane is torn").context("lane 3"))
        }),
        "panic" => tasks.thread("poll", || panic!("a fact was none")),
        other => anyhow::bail!("unknown behaviour {other}"),
    }
    tasks.join_all(service::DRAIN_DEADLINE).await
}

fn main() -> ExitCode {
    if env::args().any(|argument| argument.starts_with("--behave")) {
        return service::main("child", serve);
    }
    a_signal_drains_and_exits_0();
    a_service_opens_as_many_files_as_it_may();
    a_second_signal_ends_a_service_that_hangs();
    failures_and_panics_are_logged_and_exit_1();
    a_wrong_command_line_exits_2();
    if env::var_os("HOLDFAST_TEST_FULL").is_some() {
        a_service_that_hangs_is_cut_off_at_its_deadline();
    }
    println!("process: all ok");
    ExitCode::SUCCESS
}

fn this_binary() -> PathBuf {
    env::current_exe().expect("this binary has a path")
}

fn start(behave: &str, admin: &str) -> Child {
    start_by(Command::new(this_binary()), behave, admin)
}

fn start_by(mut command: Command, behave: &str, admin: &str) -> Child {
    command
        .arg(format!("--behave={behave}"))
        .arg("--log-format=json")
        .env_remove("OTEL_EXPORTER_OTLP_ENDPOINT");
    if !admin.is_empty() {
        command.arg(format!("--admin-addr={admin}"));
    }
    command
        .env("HOLDFAST_LOG", "info")
        .stderr(Stdio::piped())
        .spawn()
        .expect("this binary starts")
}

fn kill(child: &Child, signal: &str) {
    let sent = Command::new("kill")
        .args([signal, &child.id().to_string()])
        .status()
        .expect("kill is there");
    assert!(sent.success());
}

/// Reads log lines until one contains `text`.
fn read_until(log: &mut impl BufRead, text: &str) -> String {
    let mut seen = String::new();
    while !seen.lines().last().is_some_and(|line| line.contains(text)) {
        let read = log.read_line(&mut seen).expect("the log is text");
        assert!(read > 0, "the log ended without {text:?}:\n{seen}");
    }
    seen
}

fn get(addr: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).expect("the admin server listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");
    answer
}

fn a_signal_drains_and_exits_0() {
    for signal in ["-TERM", "-INT"] {
        let mut child = start("well", "127.0.0.1:0");
        let mut log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let served = read_until(&mut log, "http.addr");
        let addr = served
            .rsplit_once("\"http.addr\":\"")
            .and_then(|(_, rest)| rest.split('"').next())
            .expect("an address");
        let addr = addr.to_owned();
        read_until(&mut log, "child 0.1.0 started");
        while !get(&addr, "/readyz").starts_with("HTTP/1.1 200") {
            std::thread::sleep(Duration::from_millis(5));
        }
        kill(&child, signal);
        read_until(&mut log, &format!("child stops: SIG{}", &signal[1..]));
        let draining = get(&addr, "/readyz");
        assert!(
            draining.starts_with("HTTP/1.1 503") && draining.contains("stopping"),
            "{draining}"
        );
        assert!(
            get(&addr, "/livez").starts_with("HTTP/1.1 200"),
            "it drains, and is alive"
        );
        read_until(&mut log, "child stopped");
        assert_eq!(child.wait().expect("it ended").code(), Some(0));
    }
}

/// A thousand files, as a shell allows, are no thousand buyers.
fn a_service_opens_as_many_files_as_it_may() {
    let mut limited = Command::new("prlimit");
    limited.arg("--nofile=256:1500").arg(this_binary());
    let mut child = start_by(limited, "well", "");
    let mut log = BufReader::new(child.stderr.take().expect("stderr is piped"));
    read_until(&mut log, "child 0.1.0 started");
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id())).expect("it lives");
    let files = limits.lines().find(|line| line.starts_with("Max open files"));
    let files: Vec<&str> = files.expect("a limit").split_whitespace().collect();
    kill(&child, "-TERM");
    assert_eq!(child.wait().expect("it ended").code(), Some(0));
    assert_eq!(files[3..5], ["1500", "1500"], "{limits}");
}

fn a_second_signal_ends_a_service_that_hangs() {
    let mut child = start("hang", "");
    let mut log = BufReader::new(child.stderr.take().expect("stderr is piped"));
    read_until(&mut log, "started");
    kill(&child, "-TERM");
    read_until(&mut log, "stops: SIGTERM");
    kill(&child, "-INT");
    read_until(&mut log, "ends at once");
    assert_eq!(child.wait().expect("it ended").code(), Some(130));
}

fn failures_and_panics_are_logged_and_exit_1() {
    for (behave, line) in [
        ("fail", "child failed: lane 3: the lane is torn"),
        ("panic", "child failed: poll panicked: a fact was none"),
        ("oddly", "child failed: unknown behaviour oddly"),
    ] {
        let mut child = start(behave, "");
        let mut log = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let seen = read_until(&mut log, line);
        assert!(
            behave != "panic" || seen.contains("\"panic.location\":"),
            "the panic itself is logged too:\n{seen}"
        );
        assert_eq!(child.wait().expect("it ended").code(), Some(1));
    }
}

fn a_wrong_command_line_exits_2() {
    let mut child = start("well", "nowhere");
    let mut log = String::new();
    child
        .stderr
        .take()
        .expect("stderr is piped")
        .read_to_string(&mut log)
        .expect("the log is text");
    assert_eq!(child.wait().expect("it ended").code(), Some(2));
    assert!(log.contains("--admin-addr"), "{log}");
}

fn a_service_that_hangs_is_cut_off_at_its_deadline() {
    let mut child = start("hang", "");
    let mut log = BufReader::new(child.stderr.take().expect("stderr is piped"));
    read_until(&mut log, "started");
    let started = Instant::now();
    kill(&child, "-TERM");
    read_until(&mut log, "child did not stop within 15000 ms and is cut off");
    assert_eq!(child.wait().expect("it ended").code(), Some(1));
    assert!(started.elapsed() >= service::SHUTDOWN_DEADLINE);
}
