//! Reading stretches of a lane's logs, one after the other, on the lane's thread.

use std::time::{Duration, Instant};

use plumbing::{
    kafka::{
        KafkaError,
        consumer::{self, Reader},
    },
    stop::Stop,
};
use rdkafka::{Message, message::BorrowedMessage};

use crate::end::End;

/// A broker that gives nothing for so long is down.
const PATIENCE: Duration = Duration::from_secs(15);

/// Reads a partition from `from` until `each` says that it has enough, or the partition ends.
///
/// # Errors
/// [`End::Down`] when the broker gives nothing for 15 s; [`End::Stopped`]; whatever `each` returns.
pub(crate) fn read(
    reader: &Reader,
    topic: &str,
    partition: i32,
    from: i64,
    stop: &Stop,
    mut each: impl FnMut(&BorrowedMessage<'_>) -> Result<bool, End>,
) -> Result<(), End> {
    consumer::assign(reader, &[(topic, partition, from)])?;
    let mut heard = Instant::now();
    loop {
        match reader.poll(Duration::from_millis(50)) {
            Some(Ok(message)) if message.topic() == topic && message.offset() >= from => {
                heard = Instant::now();
                if each(&message)? {
                    return Ok(());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if heard.elapsed() > PATIENCE => return Err(error.into()),
            Some(Err(_)) | None => {}
        }
        if stop.is_requested() {
            return Err(End::Stopped);
        }
        if heard.elapsed() > PATIENCE {
            return Err(End::Down(format!("Kafka gives nothing of {topic}/{partition}")));
        }
    }
}
