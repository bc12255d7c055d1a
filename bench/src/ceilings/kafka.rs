//! Kafka alone, and the bare loop: consume, one Lua call a batch, produce, all acknowledged.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::ensure;
use plumbing::config::Brokers;
use plumbing::kafka::{
    KafkaError, admin,
    consumer::{self, Reader},
    producer::{ProduceError, Producer, Record},
};
use rdkafka::Message;
use redis::{Script, Value};

/// A topic of one partition for a measurement; deleted by [`Log::delete`].
#[derive(Debug, Clone)]
pub struct Log {
    /// Brokers.
    pub brokers: Brokers,
    /// Full name.
    pub topic: String,
}

/// A record of about the size of an event, with as many headers.
const VALUE: [u8; 300] = [7; 300];

fn headers() -> Vec<(&'static str, String)> {
    ["ce_id", "ce_type", "epoch", "previous", "command", "time"]
        .map(|name| (name, "1700000000000".to_owned()))
        .into()
}

impl Log {
    /// Makes the topic.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn create(brokers: &Brokers, topic: &str) -> anyhow::Result<Self> {
        let spec = admin::TopicSpec {
            name: topic.to_owned(),
            partitions: 1,
            settings: Vec::new(),
        };
        admin::ensure_topic(brokers, &spec, 1).await?;
        Ok(Self {
            brokers: brokers.clone(),
            topic: topic.to_owned(),
        })
    }

    /// Deletes the topic.
    ///
    /// # Errors
    /// Kafka does not answer.
    pub async fn delete(self) -> anyhow::Result<()> {
        Ok(admin::delete_topics(&self.brokers, &[&self.topic]).await?)
    }

    fn reader(&self) -> anyhow::Result<Reader> {
        let reader = consumer::reader(&self.brokers, "holdfast-bench", "holdfast-bench")?;
        consumer::assign(&reader, &[(&self.topic, 0, 0)])?;
        Ok(reader)
    }
}

/// Produces through one producer and knows what is acknowledged, and when the last was.
struct Sender {
    producer: Producer,
    acknowledged: Arc<Acknowledged>,
    headers: Vec<(&'static str, String)>,
}

struct Acknowledged {
    count: AtomicU64,
    /// Of the newest, in microseconds since `begun`: a flush looks only every 100 ms, which is half of a short run.
    last_us: AtomicU64,
    begun: Instant,
}

impl Sender {
    fn new(brokers: &Brokers) -> anyhow::Result<Self> {
        Ok(Self {
            producer: Producer::new(brokers, "holdfast-bench", "0.5")?,
            acknowledged: Arc::new(Acknowledged {
                count: AtomicU64::new(0),
                last_us: AtomicU64::new(0),
                begun: Instant::now(),
            }),
            headers: headers(),
        })
    }

    fn send(&self, topic: &str, key: &[u8]) -> anyhow::Result<()> {
        loop {
            let record = Record {
                topic,
                partition: Some(0),
                key: Some(key),
                value: Some(&VALUE),
                headers: &self.headers,
            };
            let acknowledged = Arc::clone(&self.acknowledged);
            let sent = self
                .producer
                .send_then(record, move |result| acknowledged.take(result.is_ok()));
            match sent {
                Err(ProduceError::QueueFull) => std::thread::sleep(Duration::from_millis(1)),
                other => return Ok(other?),
            }
        }
    }

    /// Waits for the acknowledgement of so many records; returns when the last came.
    fn finish(&self, records: u64) -> anyhow::Result<Instant> {
        self.producer.flush(Duration::from_secs(30))?;
        let acknowledged = self.acknowledged.count.load(Ordering::Acquire);
        ensure!(
            acknowledged == records,
            "{acknowledged} of {records} records were acknowledged"
        );
        let last = self.acknowledged.last_us.load(Ordering::Acquire);
        Ok(self.acknowledged.begun + Duration::from_micros(last))
    }
}

impl Acknowledged {
    fn take(&self, written: bool) {
        let now = u64::try_from(self.begun.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.last_us.fetch_max(now, Ordering::AcqRel);
        self.count.fetch_add(u64::from(written), Ordering::AcqRel);
    }
}

/// Records a second, produced and acknowledged. Blocks.
///
/// # Errors
/// Kafka does not acknowledge.
pub fn produce(log: &Log, records: u64) -> anyhow::Result<f64> {
    let sender = Sender::new(&log.brokers)?;
    // The first one finds the broker and gets the producer its id.
    sender.send(&log.topic, b"first")?;
    sender.finish(1)?;
    let begun = Instant::now();
    let mut key = [b'0'; 20];
    for number in 0..records {
        sender.send(&log.topic, digits(number, &mut key))?;
    }
    let last = sender.finish(records + 1)?;
    Ok(records as f64 / (last - begun).as_secs_f64())
}

/// A number in decimal, without an allocation.
fn digits(mut number: u64, place: &mut [u8; 20]) -> &[u8] {
    let mut first = place.len();
    loop {
        first -= 1;
        place[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return &place[first..];
        }
    }
}

/// Records a second, read from the beginning. Blocks.
///
/// # Errors
/// Kafka does not give them.
pub fn consume(log: &Log, records: u64) -> anyhow::Result<f64> {
    let reader = log.reader()?;
    let mut begun = None;
    let mut count = 0;
    while count < records {
        match reader.poll(Duration::from_secs(10)) {
            Some(Ok(_)) => {
                begun.get_or_insert_with(Instant::now);
                count += 1;
            }
            Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) => return Err(error.into()),
            None => anyhow::bail!("Kafka gives nothing after {count} of {records} records"),
        }
    }
    let elapsed = begun.map_or(Duration::ZERO, |begun| begun.elapsed());
    Ok(records as f64 / elapsed.as_secs_f64().max(1e-9))
}

/// Decides as little as a reservation can: counts units, keeps a packed hold, answers with it.
const DECIDE: &str = "\
local commands = cmsgpack.unpack(ARGV[1])
local stock = redis.call('HGET', KEYS[1], 'held') or '0'
local held, outcomes = tonumber(stock), {}
for i, c in ipairs(commands) do
  held = held + 1
  local packed = cmsgpack.pack({ 'held', c, held })
  redis.call('SET', KEYS[1] .. c, packed)
  outcomes[i] = packed
end
redis.call('HSET', KEYS[1], 'held', string.format('%.0f', held))
return outcomes";
/// Commands in one script call, as in a lane.
const BATCH: usize = 128;

/// Decisions a second of a loop that does nothing but consume, decide in one script call a batch, and produce. Blocks.
/// `from` must hold so many records.
///
/// # Errors
/// An engine does not answer.
pub fn bare_loop(from: &Log, to: &Log, redis_url: &str, prefix: &str, records: u64) -> anyhow::Result<f64> {
    let (reader, sender) = (from.reader()?, Sender::new(&to.brokers)?);
    let mut connection = plumbing::redis::client(redis_url)?.get_connection()?;
    let (script, key) = (Script::new(DECIDE), format!("{prefix}:{{bare}}:"));
    let mut begun = None;
    let (mut count, mut keys) = (0, Vec::<Vec<u8>>::with_capacity(BATCH));
    while count < records {
        let wait = if keys.is_empty() {
            Duration::from_secs(10)
        } else {
            Duration::ZERO
        };
        let end = match reader.poll(wait) {
            Some(Ok(message)) => {
                begun.get_or_insert_with(Instant::now);
                keys.push(message.key().unwrap_or_default().to_vec());
                keys.len() == BATCH
            }
            Some(Err(KafkaError::PartitionEOF(_))) => false,
            Some(Err(error)) => return Err(error.into()),
            None if keys.is_empty() => anyhow::bail!("Kafka gives nothing after {count} of {records} records"),
            None => true,
        };
        if end || count + keys.len() as u64 == records {
            let outcomes: Vec<Value> = script.key(&key).arg(pack(&keys)).invoke(&mut connection)?;
            ensure!(outcomes.len() == keys.len(), "the script answers all");
            for key in &keys {
                sender.send(&to.topic, key)?;
            }
            count += keys.len() as u64;
            keys.clear();
        }
    }
    let last = sender.finish(records)?;
    let elapsed = begun.map_or(Duration::ZERO, |begun| last - begun);
    Ok(records as f64 / elapsed.as_secs_f64().max(1e-9))
}

/// MessagePack: an array of strings shorter than 32 bytes.
fn pack(keys: &[Vec<u8>]) -> Vec<u8> {
    let count = u16::try_from(keys.len()).expect("a batch is small");
    let mut out = vec![0xdc];
    out.extend(count.to_be_bytes());
    for key in keys {
        let length = u8::try_from(key.len()).expect("numbers are short");
        out.push(0xa0 | length.min(31));
        out.extend_from_slice(&key[..usize::from(length.min(31))]);
    }
    out
}
