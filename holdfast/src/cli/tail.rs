//! `tail`.

use std::{
    collections::HashMap,
    io::{self, BufWriter, Write},
};

use anyhow::Context as _;
use clap::Args;
use domain::{Lane, LaneState, Verdict};
use plumbing::{config::Connections, kafka::consumer, service::Context, stop::Stop, task};
use schemas::{
    Topics,
    picture::{self, Checkpoint},
};

use super::Outcome;
use crate::{
    json::{self, EventLine},
    log::{self, Decoder, LogReader, Polled, Record},
};

/// The valid events as they come, one JSON object a line.
#[derive(Args, Debug)]
pub struct Tail {
    /// Begin at the first event that the log still has, not at now
    #[arg(long)]
    from_beginning: bool,

    /// Only this lane
    #[arg(long)]
    lane: Option<u16>,

    /// Stop after so many lines
    #[arg(short = 'n', long, value_name = "LINES")]
    lines: Option<u64>,

    /// Go on when the end is reached: the default
    #[arg(short = 'f', long, overrides_with = "no_follow")]
    follow: bool,

    /// Stop at the end that the log has now
    #[arg(long)]
    no_follow: bool,

    /// Also events that never happened, marked "void":true
    #[arg(long)]
    void: bool,

    #[command(flatten)]
    connections: Connections,
}

impl Tail {
    pub async fn run(self, context: Context) -> anyhow::Result<Outcome> {
        let decoder = Decoder::connect(&self.connections).await?;
        let asked = self.connections.clone();
        let lanes = task::thread("tail-lanes", move || log::lanes(&asked)).await??;
        let lanes: Vec<Lane> = match self.lane {
            Some(number) if number >= lanes => anyhow::bail!("there is no lane {number}: lanes are 0 to {}", lanes - 1),
            Some(number) => Lane::new(i32::from(number)).into_iter().collect(),
            None => Lane::all(lanes).collect(),
        };
        let checkpoints = checkpoints(&self.connections).await;
        let stop = context.stop;
        task::thread("tail", move || self.read(&lanes, &checkpoints, &decoder, &stop)).await??;
        Ok(Outcome::Fine)
    }

    fn read(
        &self,
        lanes: &[Lane],
        checkpoints: &HashMap<Lane, Checkpoint>,
        decoder: &Decoder,
        stop: &Stop,
    ) -> anyhow::Result<()> {
        let topic = Topics::with_prefix(&self.connections.topic_prefix).events;
        let mut starts = Vec::new();
        let mut places = HashMap::new();
        for lane in lanes {
            let place = self.begin(*lane, &topic, checkpoints.get(lane).copied(), stop)?;
            starts.push((topic.as_str(), lane.partition(), place.next));
            places.insert(lane.partition(), place);
        }
        let reader = consumer::reader(&self.connections.kafka_brokers, "holdfast-tail", "holdfast-tail")?;
        consumer::assign(&reader, &starts)?;
        let mut out = Out {
            sink: BufWriter::new(io::stdout()),
            topic,
            decoder,
            void: self.void,
            left: self.lines.unwrap_or(u64::MAX),
        };
        while !stop.is_requested() && out.left > 0 {
            match log::poll(&reader)? {
                Polled::Record(record) => {
                    let Some(place) = places.get_mut(&record.partition) else {
                        continue;
                    };
                    let verdict = record.verdict(&mut place.state);
                    place.next = record.offset + 1;
                    if !out.line(&record, verdict)? {
                        return Ok(());
                    }
                }
                Polled::End(partition) => {
                    if let Some(place) = places.get_mut(&partition) {
                        place.ended = true;
                    }
                    if self.no_follow && places.values().all(|place| place.ended) {
                        break;
                    }
                }
                // People and pipes see a line when it is there, and a busy log is written in large pieces.
                Polled::Nothing => {
                    if !out.flush()? {
                        return Ok(());
                    }
                }
            }
        }
        out.flush()?;
        Ok(())
    }

    /// Where a lane's output begins, with the fold's state there.
    fn begin(&self, lane: Lane, topic: &str, checkpoint: Option<Checkpoint>, stop: &Stop) -> anyhow::Result<Place> {
        let mut log = LogReader::open(&self.connections.kafka_brokers, topic, lane.partition(), 0)?;
        let (first, end) = log.bounds()?;
        let from_start = self.from_beginning && first == 0;
        let (mut state, next) = match checkpoint {
            Some(checkpoint) if !from_start && (first..=end).contains(&checkpoint.next_event_offset) => {
                (checkpoint.state, checkpoint.next_event_offset)
            }
            _ if first == 0 => (LaneState::default(), 0),
            _ => anyhow::bail!(
                "lane {lane}: the events before offset {first} are gone, and Postgres has no checkpoint after them, so \
                 nobody can say which events are valid"
            ),
        };
        if self.from_beginning {
            if next > 0 {
                eprintln!(
                    "lane {lane}: the log begins at event {first}; what is valid is known from Postgres' checkpoint {next} on"
                );
            }
            return Ok(Place::new(state, next));
        }
        log.seek(next);
        log.read_while(|record| {
            if record.offset < end {
                record.verdict(&mut state);
            }
            Ok(record.offset + 1 < end && !stop.is_requested())
        })?;
        Ok(Place::new(state, end.max(next)))
    }
}

struct Place {
    state: LaneState,
    next: i64,
    ended: bool,
}

impl Place {
    fn new(state: LaneState, next: i64) -> Self {
        Self {
            state,
            next,
            ended: false,
        }
    }
}

struct Out<'a, W: Write> {
    sink: W,
    topic: String,
    decoder: &'a Decoder,
    void: bool,
    left: u64,
}

impl<W: Write> Out<'_, W> {
    /// Writes an event; `false` when nobody reads any more.
    fn line(&mut self, record: &Record, verdict: Verdict) -> anyhow::Result<bool> {
        let void = verdict == Verdict::Void;
        if void && !self.void {
            return Ok(true);
        }
        let decoded = self.decoder.event(record.value.as_deref())?;
        let (kind, fields) = match &decoded {
            Ok(event) => (event.body.name(), json::event_fields(event)),
            Err(error) => (
                record.type_name().unwrap_or("unknown"),
                json::error_fields(format!("cannot be decoded: {error}")),
            ),
        };
        let line = EventLine {
            topic: &self.topic,
            partition: record.partition,
            offset: record.offset,
            kind,
            void,
            fields,
        };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.left -= 1;
        still_read(self.sink.write_all(text.as_bytes()))
    }

    fn flush(&mut self) -> anyhow::Result<bool> {
        still_read(self.sink.flush())
    }
}

fn still_read(written: io::Result<()>) -> anyhow::Result<bool> {
    match written {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error).context("the events cannot be written"),
    }
}

/// The checkpoints in Postgres; without Postgres, none: then the log is folded from its beginning.
async fn checkpoints(connections: &Connections) -> HashMap<Lane, Checkpoint> {
    let pool = match plumbing::postgres::connect_lazy(&connections.postgres_url, "holdfast tail", 1) {
        Ok(pool) => pool,
        Err(error) => {
            tracing::warn!(%error, "Postgres cannot be asked for its checkpoints: folding from the log's beginning");
            return HashMap::new();
        }
    };
    match picture::checkpoints(&pool).await {
        Ok(checkpoints) => checkpoints.into_iter().collect(),
        Err(error) => {
            tracing::warn!(%error, "Postgres cannot be asked for its checkpoints: folding from the log's beginning");
            HashMap::new()
        }
    }
}
