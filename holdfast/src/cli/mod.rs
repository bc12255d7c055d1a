//! The command line: one subcommand per role and per tool.

mod alone;
mod bench;
mod call;
mod console;
mod dead_letters;
mod demo;
mod doctor;
mod failed;
mod lanes;
mod prices;
mod rebuild;
mod roles;
mod setup;
mod show;
mod stock;
mod tail;
mod torture;
mod verify;

use std::{
    process::ExitCode,
    sync::atomic::{AtomicU8, Ordering},
};

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use comfy_table::{Table, presets};
use plumbing::{
    config::{LogFormat, Telemetry, without_secrets},
    service::{self, Context},
};

const AFTER_HELP: &str = "\
Every option can be set in the environment (12factor.net): each command's --help names the variable and the default.
The defaults are the local services that ./run starts.

Exit codes of the tools: 0 fine, 1 refused or not in order, 2 wrong usage or an engine that does not answer (verify).";

/// Sells stock that cannot be sold twice: a reservation pipeline on Kafka, Redis and Postgres.
#[derive(Parser, Debug)]
#[command(name = "holdfast", version, after_help = AFTER_HELP, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    #[command(flatten)]
    Role(roles::Role),
    /// Create the topics that are missing, and check those that exist
    ///
    /// An existing topic is never changed: when it has another number of partitions or another clock, this says so and fails.
    Topics(Tool<setup::Topics>),
    /// Set the registry's compatibility and register the schemas
    Schemas(Tool<setup::Schemas>),
    /// Bring Postgres' tables up to date
    Migrate(Tool<setup::Migrate>),
    /// Look at stock and change it, over HTTP
    Stock(Tool<stock::Stock>),
    /// What SKUs cost, over HTTP
    ///
    /// Checkout charges these prices and no others: a client names none.
    Prices(Tool<prices::Prices>),
    /// Orders that could not be shipped: list them, look at one, try again, or give up
    ///
    /// After the last try with the carrier an order waits here for a person. `retry` begins again with the first try. `cancel`
    /// gives the money and the units back. Both are written down with who and why.
    Failed(Tool<failed::Failed>),
    /// Everything that is known of one hold: its records, Redis, Postgres, and whether they agree
    ///
    /// Reads the hold's whole lane, so that it knows which events are valid. Exit code 1 when the hold is nowhere, or the sides
    /// disagree (one that is only behind says so).
    Show(Tool<show::Show>),
    /// The valid events as they come, one JSON object a line
    ///
    /// What a zombie wrote is left out, as for everybody who reads the log; LaneOpened is there, because it says who decides.
    /// Ends at Ctrl-C, when its reader goes away, after -n lines, or with --no-follow at the end of the log.
    Tail(Tool<tail::Tail>),
    /// Fold the log and compare it with Redis and Postgres, per SKU and per hold
    ///
    /// It may run at any time: each comparison is made at one exact position of the log. It changes nothing. Exit code 0 when
    /// everything agrees, 1 on any difference, 2 when an engine does not answer, so that nothing is known.
    Verify(Tool<verify::Verify>),
    /// Who owns each lane, and how far everybody has come
    ///
    /// Lag counts commands that are not decided yet, and events that are not in Postgres yet. An engine that does not answer
    /// leaves its columns empty, and says so.
    Lanes(Tool<lanes::Lanes>),
    /// Rebuild lanes in Redis from Postgres and the log, and prove that they are equal
    ///
    /// The same as a reserver does by itself where it finds Redis lost, with or without one running; the log alone is enough where it
    /// reaches back to its beginning. Requests wait meanwhile, none is lost. Exit code 1 when a lane is halted (the logs
    /// contradict what Postgres or Redis have seen: the message says what to do) or differs afterwards, 2 when an engine does not
    /// answer.
    Rebuild(Tool<rebuild::Rebuild>),
    /// Records that could not be read: list them, look at one, send one where it belongs
    ///
    /// A record that can never be decoded is buried: its bytes go to the dead-letter topic with where and why, and its command
    /// is refused as malformed. When whatever was wrong is mended (a schema that was not registered, mostly), `send` gives it to
    /// the lane where it belongs, where it counts once however often it is sent.
    DeadLetters(Tool<dead_letters::DeadLetters>),
    /// Check tools, ports, versions and settings, each with its fix
    ///
    /// A tool that only ./run needs is no fault where the engine it would start answers already. Exit code 1 when something
    /// needed is wrong.
    Doctor(Tool<doctor::Doctor>),
    /// Let a person use the console, or give one a new role and password
    ///
    /// Without --password-stdin the password is made here and printed once. The person's sessions end.
    ConsoleUser(Tool<console::ConsoleUser>),
    /// Break a system on purpose, under load, and see whether it keeps its promises
    ///
    /// Starts processes of its own on topics, tables and keys of its own, and lets buyers loose on them while it kills, pauses and
    /// loses what the plan says. Then all is healed, and what the clients were told is laid beside the log, Redis and Postgres.
    /// Exit code 1 on any violation. The plans `engines` and `all` need engines that nobody else uses.
    Torture(Tool<torture::Torture>),
    /// Seed a small catalogue and run a short sale with more buyers than units
    ///
    /// It sells five VIP tickets to forty buyers at once, some concert tickets, shirts (at most two each) and mugs (a few of
    /// which are never sold). Most winners pay, one cancels, one forgets to pay. One more pays by checkout, at Stripe's stand-in,
    /// and gets a parcel where a carrier is set. Then it shows what that left in the log, in Redis
    /// and in Postgres, and whether they agree. It may be run again at any time: it restocks what it sells.
    Demo(Tool<demo::Demo>),
    /// Measure throughput, latency and processor time, with ceilings and baselines in the same run
    ///
    /// It starts roles of its own on the engines that are up, with topics, tables and keys of their own, which it deletes at the
    /// end. Nothing else should run on the machine. Exit code 1 when somebody got no answer, or the books disagree afterwards.
    Bench(Tool<bench::Bench>),
}

/// A tool and how much it logs while it works.
#[derive(Args, Debug)]
struct Tool<A: Args> {
    #[command(flatten)]
    args: A,

    /// What is logged on standard error, such as `debug` or `warn,holdfast=debug`
    #[arg(
        long,
        env = "HOLDFAST_LOG",
        default_value = "warn",
        value_name = "FILTER",
        global = true,
        help_heading = "Telemetry"
    )]
    log: String,
}

/// How a tool ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Fine.
    Fine,
    /// It worked, and what it looked at is not in order.
    NotInOrder,
    /// It could not look; what was wrong is printed already.
    CouldNotLook,
}

/// Runs a tool to its exit code.
fn tool<F>(name: &'static str, log: String, run: impl FnOnce(Context) -> F) -> ExitCode
where
    F: Future<Output = anyhow::Result<Outcome>>,
{
    let telemetry = Telemetry {
        log,
        log_format: LogFormat::Text,
        otlp_endpoint: None,
        admin_addr: None,
    };
    let code = AtomicU8::new(0);
    let ended = service::block_on_command(name, &telemetry, async |context| {
        let outcome = run(context).await?;
        code.store(outcome as u8, Ordering::Relaxed);
        Ok(())
    });
    match code.into_inner() {
        0 => ended,
        code => ExitCode::from(code),
    }
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    let line = Cli::command();
    let parsed = line
        .clone()
        .try_get_matches()
        .and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = parsed.unwrap_or_else(|error| without_secrets(&line, error).exit());
    match cli.command {
        Command::Role(role) => role.run(),
        Command::Topics(t) => tool("topics", t.log, |_| t.args.run()),
        Command::ConsoleUser(t) => tool("console-user", t.log, |_| t.args.run()),
        Command::Schemas(t) => tool("schemas", t.log, |_| t.args.run()),
        Command::Migrate(t) => tool("migrate", t.log, |_| t.args.run()),
        Command::Stock(t) => tool("stock", t.log, |_| t.args.run()),
        Command::Prices(t) => tool("prices", t.log, |_| t.args.run()),
        Command::Failed(t) => tool("failed", t.log, |_| t.args.run()),
        Command::Show(t) => tool("show", t.log, |_| t.args.run()),
        Command::Tail(t) => tool("tail", t.log, |context| t.args.run(context)),
        Command::Verify(t) => tool("verify", t.log, |_| t.args.run()),
        Command::Lanes(t) => tool("lanes", t.log, |_| t.args.run()),
        Command::Rebuild(t) => tool("rebuild", t.log, |context| t.args.run(context)),
        Command::DeadLetters(t) => tool("dead-letters", t.log, |_| t.args.run()),
        Command::Torture(t) => tool("torture", t.log, |_| t.args.run()),
        Command::Doctor(t) => tool("doctor", t.log, |_| t.args.run()),
        Command::Demo(t) => tool("demo", t.log, |_| t.args.run()),
        Command::Bench(t) => tool("bench", t.log, |context| t.args.run(context.stop)),
    }
}

/// An empty table in the house's style.
#[must_use]
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(header);
    table
}

/// Writes to standard output. Whoever closed it has read enough: that is no failure.
fn print(text: &str) {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    let _closed = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// A point in time for people: UTC with milliseconds.
#[must_use]
pub fn time_text(millis: i64) -> String {
    plumbing::time::text(millis).replacen('T', " ", 1)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_line_is_well_formed_and_help_names_the_environment() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for (name, variables) in [
            (
                "topics",
                &["HOLDFAST_LANES", "HOLDFAST_KAFKA_BROKERS", "HOLDFAST_TOPIC_PREFIX"][..],
            ),
            (
                "verify",
                &["HOLDFAST_REDIS_URL", "HOLDFAST_POSTGRES_URL", "HOLDFAST_REGISTRY_URL"][..],
            ),
            ("demo", &["HOLDFAST_URL", "HOLDFAST_TOKEN"][..]),
        ] {
            let help = command
                .find_subcommand_mut(name)
                .unwrap()
                .render_long_help()
                .to_string();
            for variable in variables {
                assert!(help.contains(variable), "{name} lacks {variable}:\n{help}");
            }
        }
    }

    #[test]
    fn times_are_utc() {
        assert_eq!(time_text(0), "1970-01-01 00:00:00.000Z");
        assert_eq!(time_text(951_782_400_000), "2000-02-29 00:00:00.000Z");
        assert_eq!(time_text(1_700_000_000_123), "2023-11-14 22:13:20.123Z");
    }
}
