//! `dead-letters`.

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use domain::{Command, CommandBody, Lane, Source};
use plumbing::{
    config::Connections,
    kafka::producer::{Producer, Record as NewRecord},
    task,
};
use schemas::{DecodeError, Topics, headers};

use super::{Outcome, table, time_text};
use crate::{
    json,
    log::{self, Decoder, LogReader, Record},
};

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
    Show(One),
    /// Send one to the lane where it belongs; refused while it still cannot be read
    Send(One),
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
struct One {
    /// Offset in the dead-letter topic
    offset: i64,

    #[command(flatten)]
    connections: Connections,
}

impl DeadLetters {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        match self.what {
            What::List(list) => list.run().await?,
            What::Show(one) => one.show().await?,
            What::Send(one) => {
                let sent = send(&one.connections, one.offset).await?;
                super::print(&format!(
                    "✓ dead letter {} is now command {} of lane {} ({} in {})\n",
                    one.offset, sent.offset, sent.lane, sent.kind, sent.topic
                ));
            }
        }
        Ok(Outcome::Fine)
    }
}

/// Where a dead letter went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sent {
    /// Full name of the commands topic.
    pub topic: String,
    /// Its lane.
    pub lane: u16,
    /// Its offset there.
    pub offset: i64,
    /// What it asks.
    pub kind: &'static str,
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

impl One {
    async fn show(self) -> anyhow::Result<()> {
        let letter = read_one(&self.connections, self.offset).await?;
        let mut out = format!(
            "dead letter {}, buried {}: {}\n\nheaders\n",
            letter.offset,
            letter.timestamp_ms.map(time_text).unwrap_or_default(),
            record_of(&letter)
        );
        for (name, value) in &letter.headers {
            let value = value
                .as_deref()
                .map_or_else(|| "(none)".into(), String::from_utf8_lossy);
            out += &format!("  {name}: {}\n", printable(&value));
        }
        let key = letter.key.as_deref().map(String::from_utf8_lossy);
        out += &format!(
            "\nkey\n  {}\n",
            key.map_or_else(|| "(none)".to_owned(), |key| printable(&key))
        );
        match &letter.value {
            Some(value) => out += &format!("\nvalue, {} bytes\n{}", value.len(), hex_dump(value)),
            None => out += "\nvalue\n  (none)\n",
        }
        let decoder = Decoder::connect(&self.connections).await;
        out += &match decoder {
            Err(error) => format!("\nit cannot be said what it means: {error:#}\n"),
            Ok(decoder) => {
                let value = letter.value.clone();
                match task::thread("decode", move || decoder.command(value.as_deref())).await?? {
                    Ok(command) => format!(
                        "\nit can be read: {}\n{}\n\nholdfast dead-letters send {} gives it to its lane\n",
                        command.body.name(),
                        serde_json::to_string_pretty(&json::command_fields(&command))?,
                        letter.offset
                    ),
                    Err(error) => format!("\nit still cannot be read: {error}\n"),
                }
            }
        };
        super::print(&out);
        Ok(())
    }
}

/// Sends a dead letter to the lane where it belongs. Its source names the dead letter, so that it counts once.
///
/// # Errors
/// There is no such letter, it still cannot be read, or Kafka does not take it.
pub async fn send(connections: &Connections, offset: i64) -> anyhow::Result<Sent> {
    let letter = read_one(connections, offset).await?;
    let decoder = Decoder::connect(connections).await?;
    let (value, decoding) = (letter.value.clone(), decoder.clone());
    let mut command = match task::thread("decode", move || decoding.command(value.as_deref())).await?? {
        Ok(command) => command,
        Err(DecodeError::NewerBody(name)) => bail!("this version does not know the command `{name}`: upgrade it first"),
        Err(error) => bail!("dead letter {offset} still cannot be read: {error}"),
    };
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

/// The lane where a command belongs, and what it is about: its record's key.
fn home_of(command: &Command, lanes: u16) -> (Lane, String) {
    match &command.body {
        CommandBody::Reserve(reserve) => {
            // The lowest lane of a cart's lines decides on it.
            let lines = reserve
                .lines
                .into_iter()
                .map(|line| (Lane::of_sku(&line.sku, lanes), &line.sku));
            let (home, sku) = lines.min().expect("a cart has at least one line");
            (home, sku.to_string())
        }
        CommandBody::AdjustStock { sku, .. }
        | CommandBody::ConfigureSku { sku, .. }
        | CommandBody::ReturnStock { sku, .. } => (Lane::of_sku(sku, lanes), sku.to_string()),
        CommandBody::Relay { part, lane, .. } | CommandBody::Follow { part, lane, .. } => {
            (*lane, part.hold_id.to_string())
        }
        CommandBody::RelayDone { part } | CommandBody::RelayFailed { part, .. } => {
            (part.hold_id.lane(), part.hold_id.to_string())
        }
        CommandBody::Confirm { hold_id, .. }
        | CommandBody::Cancel { hold_id, .. }
        | CommandBody::Extend { hold_id, .. }
        | CommandBody::Release { hold_id, .. }
        | CommandBody::BeginPayment { hold_id, .. }
        | CommandBody::AbortPayment { hold_id, .. }
        | CommandBody::Ship { hold_id, .. }
        | CommandBody::Unallocate { hold_id, .. }
        | CommandBody::RequireRefund { hold_id, .. } => (hold_id.lane(), hold_id.to_string()),
    }
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

/// What a stranger wrote must not steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '.' } else { c }).collect()
}

/// Sixteen bytes a line: offset, hexadecimal, text.
fn hex_dump(bytes: &[u8]) -> String {
    bytes
        .chunks(16)
        .enumerate()
        .map(|(row, chunk)| {
            let hex: Vec<String> = chunk.iter().map(|byte| format!("{byte:02x}")).collect();
            let text: String = chunk
                .iter()
                .map(|byte| {
                    if byte.is_ascii_graphic() || *byte == b' ' {
                        char::from(*byte)
                    } else {
                        '.'
                    }
                })
                .collect();
            format!("  {:06x}  {:47}  {text}\n", row * 16, hex.join(" "))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_shows_bytes_and_text_and_steers_no_terminal() {
        let dump = hex_dump(b"\x00\x00\x00\x00\x07Hello\x1b[31m world");
        let lines: Vec<&str> = dump.lines().collect();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].starts_with("  000000  00 00 00 00 07 48 65") && lines[0].ends_with(".....Hello.[31m "));
        assert_eq!(printable("a\u{1b}[31mb"), "a.[31mb");
    }
}
