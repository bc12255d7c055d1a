//! Membership of a consumer group, as a hint who should work on which partition.
//!
//! The member never reads a record: its partitions are paused as they come. Whoever works on a partition reads it with
//! a reader of its own and has its own proof of ownership.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use rdkafka::{
    ClientContext, TopicPartitionList,
    config::RDKafkaLogLevel,
    consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance},
    error::KafkaError,
};
use tokio::sync::watch;

use super::{client, consumer::Reader};
use crate::config::Brokers;
use crate::{stop::Stop, task};

struct Assignment {
    partitions: Arc<Mutex<BTreeSet<i32>>>,
    changed: watch::Sender<BTreeSet<i32>>,
}

impl ClientContext for Assignment {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        client::log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka group member");
    }
}

impl ConsumerContext for Assignment {
    fn pre_rebalance(&self, _: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Revoke(gone) = rebalance {
            let mut partitions = self.partitions.lock().expect("no holder of this lock panics");
            for element in gone.elements() {
                partitions.remove(&element.partition());
            }
            self.changed.send_replace(partitions.clone());
        }
    }

    fn post_rebalance(&self, member: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        if let Rebalance::Assign(new) = rebalance {
            pause(member, new);
            let mut partitions = self.partitions.lock().expect("no holder of this lock panics");
            partitions.extend(new.elements().iter().map(|element| element.partition()));
            self.changed.send_replace(partitions.clone());
        }
    }
}

fn pause(member: &BaseConsumer<Assignment>, list: &TopicPartitionList) {
    if let Err(error) = member.pause(list) {
        tracing::debug!(%error, "a member's partition could not be paused; what it reads is ignored");
    }
}

/// How long the broker may take to say who is in a group.
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// How many members a group has.
///
/// # Errors
/// [`KafkaError`] when no broker answers within a second.
pub fn members(reader: &Reader, group_id: &str) -> Result<usize, KafkaError> {
    let groups = reader.fetch_group_list(Some(group_id), ASK_TIMEOUT)?;
    Ok(groups.groups().iter().map(|group| group.members().len()).sum())
}

/// Joins a group for a topic until `stop`; the receiver always holds the partitions that are assigned now. The task ends when
/// the group was told that this member leaves.
///
/// # Errors
/// [`KafkaError`] when librdkafka refuses the options; a broker that is down is waited for.
pub fn join(
    brokers: &Brokers,
    client_id: &str,
    group_id: &str,
    topic: &str,
    stop: Stop,
) -> Result<(watch::Receiver<BTreeSet<i32>>, task::Task<()>), KafkaError> {
    let (changed, assigned) = watch::channel(BTreeSet::new());
    let context = Assignment {
        partitions: Arc::default(),
        changed,
    };
    let member: BaseConsumer<Assignment> = client::member(brokers, client_id, group_id).create_with_context(context)?;
    member.subscribe(&[topic])?;
    let polling = task::thread("group-member", move || {
        while !stop.is_requested() {
            // Records are never wanted here; polling serves the rebalance callbacks.
            if let Some(Err(error)) = member.poll(Duration::from_millis(100)) {
                tracing::debug!(%error, "kafka group member");
            }
        }
        // Its drop closes it, which tells the group: the others need not wait for the session to time out. (To unsubscribe first in the
        // middle of a rebalance tells it nothing.)
        drop(member);
    });
    Ok((assigned, polling))
}
