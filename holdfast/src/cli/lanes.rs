//! `lanes`.

use clap::Args;
use domain::{EventBody, Lane, LaneState};
use plumbing::{config::Connections, task};
use schemas::{
    Topics,
    picture::{self, Checkpoint},
};
use serde::Serialize;

use super::{Outcome, table};
use crate::{
    log::{self, Decoder, LogReader, Record},
    redis_lane::{LaneCell, RedisLanes},
};

/// Commands behind the last decision that are counted one by one; more are taken from the offsets.
const COUNTED: i64 = 10_000;

/// Who owns each lane, and how far everybody has come.
#[derive(Args, Debug)]
pub struct Lanes {
    /// Print JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    connections: Connections,
}

/// One lane as everybody sees it.
#[derive(Debug, Serialize)]
struct LaneRow {
    lane: u16,
    /// Host and process of the last `LaneOpened`; none before the first.
    owner: Option<String>,
    epoch: i64,
    /// When the owner opened the lane.
    opened_at: Option<i64>,
    /// When the lane in Redis was last made anew from the log: its generation is named by the epoch that did it.
    rebuilt_at: Option<i64>,
    commands_end: i64,
    last_decided: i64,
    commands_lag: i64,
    events_end: i64,
    checkpoint: Option<i64>,
    events_lag: Option<i64>,
    redis: Option<LaneCell>,
}

struct Engines {
    connections: Connections,
    topics: Topics,
    decoder: Option<Decoder>,
    checkpoints: Option<Vec<(Lane, Checkpoint)>>,
}

impl Lanes {
    pub async fn run(self) -> anyhow::Result<Outcome> {
        let decoder = match Decoder::connect(&self.connections).await {
            Ok(decoder) => Some(decoder),
            Err(error) => {
                eprintln!("note: owners are not shown: {error:#}");
                None
            }
        };
        let pool = plumbing::postgres::connect_lazy(&self.connections.postgres_url, "holdfast lanes", 1)?;
        let checkpoints = match picture::checkpoints(&pool).await {
            Ok(checkpoints) => Some(checkpoints),
            Err(error) => {
                eprintln!("note: checkpoints are not shown: Postgres: {error}");
                None
            }
        };
        let engines = Engines {
            topics: Topics::with_prefix(&self.connections.topic_prefix),
            connections: self.connections,
            decoder,
            checkpoints,
        };
        let rows = task::thread("lanes", move || engines.rows()).await??;
        if self.json {
            super::print(&format!("{}\n", serde_json::to_string_pretty(&rows)?));
        } else {
            super::print(&format!("{}\n", render(&rows)));
        }
        Ok(Outcome::Fine)
    }
}

impl Engines {
    fn rows(&self) -> anyhow::Result<Vec<LaneRow>> {
        let lanes = log::lanes(&self.connections)?;
        let mut redis = match RedisLanes::open(&self.connections) {
            Ok(redis) => Some(redis),
            Err(error) => {
                eprintln!("note: Redis is not shown: {error:#}");
                None
            }
        };
        Lane::all(lanes).map(|lane| self.row(lane, redis.as_mut())).collect()
    }

    fn row(&self, lane: Lane, redis: Option<&mut RedisLanes>) -> anyhow::Result<LaneRow> {
        let reader = |topic: &str| LogReader::open(&self.connections.kafka_brokers, topic, lane.partition(), 0);
        let mut events = reader(&self.topics.events)?;
        let (first, events_end) = events.bounds()?;
        let checkpoint = self
            .checkpoints
            .as_ref()
            .and_then(|all| all.iter().find(|(found, _)| *found == lane))
            .map(|(_, checkpoint)| *checkpoint);
        let mut state = LaneState::default();
        match checkpoint {
            Some(checkpoint) if (first..=events_end).contains(&checkpoint.next_event_offset) => {
                state = checkpoint.state;
                events.seek(checkpoint.next_event_offset);
            }
            Some(_) | None => events.seek(first),
        }
        events.read_to_end(|record| {
            record.verdict(&mut state);
            Ok(())
        })?;
        let events_end = events.next_offset().max(events_end);
        let redis = redis.map(|redis| redis.lane(lane)).transpose()?.flatten();
        let opened = opening(&mut events, state.epoch, first)?;
        let owner = self.owner(opened.as_ref())?;
        let rebuilt = match redis {
            Some(cell) => opening(&mut events, cell.generation, first)?,
            None => None,
        };
        let (commands_end, commands_lag) = commands_lag(reader(&self.topics.commands)?, state.last_command_offset)?;
        let checkpoint = match (&self.checkpoints, checkpoint) {
            (Some(_), checkpoint) => Some(checkpoint.map_or(0, |checkpoint| checkpoint.next_event_offset)),
            (None, _) => None,
        };
        Ok(LaneRow {
            lane: lane.number(),
            owner,
            epoch: state.epoch,
            opened_at: opened.and_then(|record| record.timestamp_ms),
            rebuilt_at: rebuilt.and_then(|record| record.timestamp_ms),
            commands_end,
            last_decided: state.last_command_offset,
            commands_lag,
            events_end,
            checkpoint,
            events_lag: checkpoint.map(|next| events_end - next),
            redis,
        })
    }

    /// Host and process of whoever opened the epoch, from its own record.
    fn owner(&self, opened: Option<&Record>) -> anyhow::Result<Option<String>> {
        let (Some(decoder), Some(record)) = (&self.decoder, opened) else {
            return Ok(None);
        };
        Ok(match decoder.event(record.value.as_deref())?.map(|event| event.body) {
            Ok(EventBody::LaneOpened { owner, .. }) => Some(owner.to_string()),
            Ok(_) | Err(_) => None,
        })
    }
}

/// The `LaneOpened` of an epoch, while the log still has it.
fn opening(events: &mut LogReader, epoch: i64, first: i64) -> anyhow::Result<Option<Record>> {
    if epoch < first.max(0) {
        return Ok(None);
    }
    events.seek(epoch);
    let mut opened = None;
    events.read_while(|record| {
        opened = Some(record);
        Ok(false)
    })?;
    Ok(opened.filter(|record| record.offset == epoch))
}

/// The end of a lane's commands, and how many of them are not decided.
fn commands_lag(mut commands: LogReader, last_decided: i64) -> anyhow::Result<(i64, i64)> {
    let (first, end) = commands.bounds()?;
    let from = first.max(last_decided + 1);
    if end - from > COUNTED || from >= end {
        return Ok((end, (end - from).max(0)));
    }
    // Counted, because the markers of transactions have offsets too.
    commands.seek(from);
    let mut lag = 0;
    commands.read_to_end(|_| {
        lag += 1;
        Ok(())
    })?;
    Ok((end, lag))
}

fn render(rows: &[LaneRow]) -> comfy_table::Table {
    let mut table = table(&[
        "lane",
        "owner",
        "epoch",
        "commands\nend",
        "\ndecided",
        "\nlag",
        "events\nend",
        "Postgres\nat event",
        "\nlag",
        "Redis\nepoch",
        "\ngeneration",
        "\nfence",
        "\nbuilding",
    ]);
    let or_dash = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
    for row in rows {
        table.add_row([
            row.lane.to_string(),
            row.owner.clone().unwrap_or_else(|| "-".to_owned()),
            row.epoch.to_string(),
            row.commands_end.to_string(),
            row.last_decided.to_string(),
            row.commands_lag.to_string(),
            row.events_end.to_string(),
            or_dash(row.checkpoint),
            or_dash(row.events_lag),
            or_dash(row.redis.map(|cell| cell.epoch)),
            or_dash(row.redis.map(|cell| cell.generation)),
            or_dash(row.redis.map(|cell| cell.fence)),
            row.redis
                .map_or("-", |cell| if cell.building { "yes" } else { "no" })
                .to_owned(),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_known_is_a_dash() {
        let row = LaneRow {
            lane: 2,
            owner: None,
            epoch: -1,
            opened_at: None,
            rebuilt_at: None,
            commands_end: 0,
            last_decided: -1,
            commands_lag: 0,
            events_end: 0,
            checkpoint: None,
            events_lag: None,
            redis: None,
        };
        let text = render(&[row]).to_string();
        let dashes = text.split_whitespace().filter(|word| *word == "-").count();
        assert_eq!(dashes, 7, "{text}");
    }
}
