//! `dead-letters`: `tell` shows one, `draft` makes of one what a person may correct.

mod draft;
mod tell;

use std::path::PathBuf;

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use domain::{Command, CommandBody, Lane, Sku, Source};
use plumbing::{
    config::Connections,
    kafka::producer::{ProduceError, Producer, Record as NewRecord},
    task,
};
use reserver::pack;
use schemas::{DecodeError, Topics, headers};

use super::{Outcome, table, time_text};
use crate::log::{self, Decoder, LogReader, Record};

const SOURCE: &str = "/holdfast/dead-letters";
const ERROR_HEADERS: &str = "holdfast.error.";

/// Records that could not be read: list them, look at one, send one where it belongs.
#[derive(Args, Debug)]
pub struct DeadLetters {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// All dead letters, oldest first
    List(List),
    /// One dead letter: where it was, why it was buried, its bytes, and what they mean if they can be read by now
    Show(Show),
    /// Send one to the lane where it belongs; refused while it still cannot be read
    ///
    /// With --corrected, a corrected copy is sent in its place; the letter itself stays as it was buried. A lane counts a letter
    /// once, however often it is sent: the first copy that it decided is the one that counts. So correct it before it is sent.
    Send(Resend),
}

#[derive(Args, Debug)]
struct List {
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connections: Connections,
}

#[derive(Args, Debug)]
struct Show {
    /// Offset in the dead-letter topic
    offset: i64,

    /// Print JSON, with a draft that can be corrected
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connections: Connections,
}

#[derive(Args, Debug)]
struct Resend {
    /// Offset in the dead-letter topic
    offset: i64,

    /// A command as JSON, as `show --json` drafts it, to send in the letter's place; - reads standard input
    #[arg(long, value_name = "FILE")]
    corrected: Option<PathBuf>,

    /// Who corrected it: the actor of a change of stock
    #[arg(long, requires = "corrected", value_name = "NAME")]
    actor: Option<String>,

    #[command(flatten)]
    connections: Connections,
}

impl DeadLetters {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        match self.what {
            What::List(list) => list.run().await?,
            What::Show(show) => show.run().await?,
            What::Send(resend) => return resend.run().await,
        }
        Ok(Outcome::Fine)
    }
}

/// Where a dead letter went.
struct Sent {
    /// Full name of the commands topic.
    topic: String,
    lane: u16,
    /// Its offset there.
    offset: i64,
    /// What it asks.
    kind: &'static str,
}

impl List {
    async fn run(self) -> anyhow::Result<()> {
        let letters = read_all(&self.connections).await?;
        if self.json {
            for letter in &letters {
                let line = serde_json::json!({
                    "offset": letter.offset,
                    "buried_at": letter.timestamp_ms,
                    "topic": error_header(letter, "topic"),
                    "partition": error_header(letter, "partition"),
                    "record_offset": error_header(letter, "offset"),
                    "stage": error_header(letter, "stage"),
                    "message": error_header(letter, "message"),
                    "bytes": letter.value.as_ref().map(Vec::len),
                });
                super::print(&format!("{line}\n"));
            }
            return Ok(());
        }
        let mut table = table(&["letter", "buried", "record", "stage", "bytes", "why"]);
        for letter in &letters {
            table.add_row([
                letter.offset.to_string(),
                letter.timestamp_ms.map(time_text).unwrap_or_default(),
                record_of(letter),
                error_header(letter, "stage").to_owned(),
                letter
                    .value
                    .as_ref()
                    .map_or_else(|| "none".to_owned(), |value| value.len().to_string()),
                error_header(letter, "message").to_owned(),
            ]);
        }
        if letters.is_empty() {
            super::print("no dead letters\n");
        } else {
            super::print(&format!("{table}\n"));
        }
        Ok(())
    }
}

impl Resend {
    async fn run(self) -> anyhow::Result<Outcome> {
        let decoder = Decoder::connect(&self.connections).await?;
        let letter = read_one(&self.connections, self.offset).await?;
        let what = if self.corrected.is_some() { "corrected" } else { "dead" };
        let command = match &self.corrected {
            Some(path) => draft::corrected(&read_text(path)?, self.actor.as_deref())?,
            None => readable(&decoder, &letter).await?,
        };
        let sent = match send(&self.connections, &decoder, &letter, command).await {
            Ok(sent) => sent,
            Err(error) if error.is::<ProduceError>() => {
                // No refusal: it may be in the log.
                eprintln!("error: {error:#}");
                return Ok(Outcome::CouldNotLook);
            }
            Err(error) => return Err(error),
        };
        super::print(&format!(
            "✓ {what} letter {} is now command {} of lane {} ({} in {})\n",
            self.offset, sent.offset, sent.lane, sent.kind, sent.topic
        ));
        Ok(Outcome::Fine)
    }
}

fn read_text(path: &std::path::Path) -> anyhow::Result<String> {
    if path.as_os_str() == "-" {
        return std::io::read_to_string(std::io::stdin()).context("standard input cannot be read");
    }
    std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))
}

/// What the letter means, if it can be read by now.
async fn readable(decoder: &Decoder, letter: &Record) -> anyhow::Result<Command> {
    let (value, decoding) = (letter.value.clone(), decoder.clone());
    match task::thread("decode", move || decoding.command(value.as_deref())).await?? {
        Ok(command) => Ok(command),
        Err(DecodeError::NewerBody(name)) => bail!("this version does not know the command `{name}`: upgrade it first"),
        Err(error) => bail!("dead letter {} still cannot be read: {error}", letter.offset),
    }
}

/// Sends what a dead letter means to the lane where it belongs. Its source names the letter, so that it counts once.
async fn send(
    connections: &Connections,
    decoder: &Decoder,
    letter: &Record,
    mut command: Command,
) -> anyhow::Result<Sent> {
    let offset = letter.offset;
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let asked = connections.clone();
    let lanes = task::thread("lanes", move || log::lanes(&asked)).await??;
    let (lane, subject) = home_of(&command, lanes);
    if lane.number() >= lanes {
        bail!("dead letter {offset} is about a hold of lane {lane}, and there are {lanes} lanes");
    }
    command.source = Some(Source {
        topic: topics.dead_letters.clone(),
        partition: letter.partition,
        offset,
        log_time: plumbing::time::now_ms(),
    });
    let producer = Producer::new(&connections.kafka_brokers, "holdfast-dead-letters", "0")?;
    let kind = command.body.name();
    let position = producer
        .send(NewRecord {
            topic: &topics.commands,
            partition: Some(lane.partition()),
            key: Some(subject.as_bytes()),
            value: Some(&decoder.codec().encode_command(&command)),
            headers: &headers::of_command(command.command_id.as_str(), SOURCE, kind, &subject),
        })?
        .await
        .context("the command was not acknowledged: sending it again does no harm")?;
    Ok(Sent {
        topic: topics.commands,
        lane: lane.number(),
        offset: position.offset,
        kind,
    })
}

/// The lane where a command belongs (of a cart's lanes the lowest decides), and what it is about: its record's key.
fn home_of(command: &Command, lanes: u16) -> (Lane, String) {
    let body = &command.body;
    let home = *pack::lanes_of(body, lanes).first().expect("a command has a lane");
    let is_at_home = |sku: &&Sku| Lane::of_sku(sku, lanes) == home;
    let about = match body {
        CommandBody::Reserve(reserve) => {
            let mut skus = reserve.lines.into_iter().map(|line| &line.sku);
            skus.find(is_at_home).map(Sku::to_string)
        }
        CommandBody::AdjustStock { sku, .. }
        | CommandBody::ConfigureSku { sku, .. }
        | CommandBody::ReturnStock { sku, .. } => Some(sku.to_string()),
        _ => body.hold_id().map(|hold_id| hold_id.to_string()),
    };
    (home, about.unwrap_or_default())
}

async fn read_all(connections: &Connections) -> anyhow::Result<Vec<Record>> {
    let connections = connections.clone();
    task::thread("dead-letters", move || {
        let mut log = open(&connections)?;
        let (first, _) = log.bounds()?;
        log.seek(first);
        let mut letters = Vec::new();
        log.read_to_end(|record| {
            letters.push(record);
            Ok(())
        })?;
        Ok(letters)
    })
    .await?
}

async fn read_one(connections: &Connections, offset: i64) -> anyhow::Result<Record> {
    let connections = connections.clone();
    task::thread("dead-letter", move || {
        let mut log = open(&connections)?;
        let (first, end) = log.bounds()?;
        if !(first..end).contains(&offset) {
            bail!(
                "there is no dead letter {offset}: the topic has offsets {first} to {}",
                end - 1
            );
        }
        log.seek(offset);
        let mut found = None;
        log.read_while(|record| {
            found = Some(record);
            Ok(false)
        })?;
        found
            .filter(|record| record.offset == offset)
            .with_context(|| format!("there is no dead letter {offset}"))
    })
    .await?
}

fn open(connections: &Connections) -> anyhow::Result<LogReader> {
    let topic = Topics::with_prefix(&connections.topic_prefix).dead_letters;
    LogReader::open(&connections.kafka_brokers, &topic, 0, 0)
}

fn error_header<'a>(letter: &'a Record, name: &str) -> &'a str {
    letter.header(&format!("{ERROR_HEADERS}{name}")).unwrap_or("")
}

fn record_of(letter: &Record) -> String {
    format!(
        "{}[{}] @ {}",
        error_header(letter, "topic"),
        error_header(letter, "partition"),
        error_header(letter, "offset")
    )
}
