//! Reading stretches of a lane's logs, one after the other, on the lane's thread.

use std::time::Duration;

use plumbing::{kafka::KafkaError, stop::Stop};
use rdkafka::Message;

use crate::{
    end::End,
    world::{LogReader, World},
};

/// A broker that gives nothing for so long is down.
const PATIENCE: Duration = Duration::from_secs(15);

/// Reads a partition from `from` until `each` says that it has enough, or the partition ends.
///
/// # Errors
/// [`End::Down`] when the broker gives nothing for 15 s; [`End::Stopped`]; whatever `each` returns.
pub(crate) fn read<'r, W: World>(
    world: &W,
    reader: &'r W::Reader,
    (topic, partition, from): (&str, i32, i64),
    stop: &Stop,
    mut each: impl FnMut(&<W::Reader as LogReader>::Record<'r>) -> Result<bool, End>,
) -> Result<(), End> {
    reader.assign(&[(topic, partition, from)])?;
    let mut heard = world.now();
    loop {
        match reader.poll(Duration::from_millis(50)) {
            Some(Ok(message)) if message.topic() == topic && message.offset() >= from => {
                heard = world.now();
                if each(&message)? {
                    return Ok(());
                }
            }
            Some(Ok(_)) => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(()),
            Some(Err(error)) if world.now() - heard > PATIENCE => return Err(error.into()),
            Some(Err(_)) | None => {}
        }
        if stop.is_requested() {
            return Err(End::Stopped);
        }
        if world.now() - heard > PATIENCE {
            return Err(End::Down(format!("Kafka gives nothing of {topic}/{partition}")));
        }
    }
}
