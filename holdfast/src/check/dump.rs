//! Both topics of every lane in memory: what the checker judges.

use domain::{Event, EventBody, Lane, Stamp};
use plumbing::{config::Connections, task};
use schemas::Topics;

use crate::log::{self, Decoder, LogReader};

/// A command as it lies in the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenCommand {
    /// Offset.
    pub offset: i64,
    /// The broker's timestamp in milliseconds.
    pub at_ms: i64,
    /// Its id; `None` for a record that cannot be read.
    pub command_id: Option<String>,
}

/// An event as it lies in the log, valid or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenEvent {
    /// Offset.
    pub offset: i64,
    /// The record's timestamp in milliseconds.
    pub at_ms: i64,
    /// What it says.
    pub event: Event,
}

impl SeenEvent {
    /// The fold's numbers.
    #[must_use]
    pub fn stamp(&self) -> Stamp {
        match self.event.body {
            EventBody::LaneOpened { .. } => Stamp::Opened,
            _ => Stamp::Decision {
                epoch: self.event.epoch,
                command: self.event.command_offset,
                previous: self.event.previous_command_offset,
                time: self.event.decided_at,
            },
        }
    }
}

/// One lane's records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneLog {
    /// Which.
    pub lane: Lane,
    /// Commands, ascending.
    pub commands: Vec<SeenCommand>,
    /// Events, ascending.
    pub events: Vec<SeenEvent>,
}

/// All lanes' records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Log {
    /// Number of lanes.
    pub count: u16,
    /// Each lane.
    pub lanes: Vec<LaneLog>,
}

/// Reads both topics from their beginnings to their ends.
///
/// # Errors
/// Kafka or the registry does not answer, or an event cannot be read.
pub async fn dump(connections: &Connections) -> anyhow::Result<Log> {
    let decoder = Decoder::connect(connections).await?;
    let connections = connections.clone();
    task::thread("check-dump", move || {
        let count = log::lanes(&connections)?;
        let lanes = Lane::all(count)
            .map(|lane| lane_log(&connections, &decoder, lane))
            .collect::<anyhow::Result<_>>()?;
        Ok(Log { count, lanes })
    })
    .await?
}

fn lane_log(connections: &Connections, decoder: &Decoder, lane: Lane) -> anyhow::Result<LaneLog> {
    let topics = Topics::with_prefix(&connections.topic_prefix);
    let open = |topic: &str| LogReader::open(&connections.kafka_brokers, topic, lane.partition(), 0);
    let (mut commands, mut events) = (Vec::new(), Vec::new());
    open(&topics.commands)?.read_to_end(|record| {
        let command = decoder.command(record.value.as_deref())?.ok();
        commands.push(SeenCommand {
            offset: record.offset,
            at_ms: record.timestamp_ms.unwrap_or_default(),
            command_id: command.map(|command| command.command_id.to_string()),
        });
        Ok(())
    })?;
    open(&topics.events)?.read_to_end(|record| {
        let event = decoder.event(record.value.as_deref())?;
        let event = event.map_err(|error| anyhow::anyhow!("event {} of lane {lane}: {error}", record.offset))?;
        events.push(SeenEvent {
            offset: record.offset,
            at_ms: record.timestamp_ms.unwrap_or_default(),
            event,
        });
        Ok(())
    })?;
    Ok(LaneLog { lane, commands, events })
}
