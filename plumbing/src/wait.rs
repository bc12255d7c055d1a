//! Waiting at start for what a role cannot do without: with backoff, seen in the readiness report, ended by a stop.
//!
//! And watching Kafka afterwards, for roles that only send: they would else not know that it is gone.

use std::{fmt::Display, thread, time::Duration};

use crate::{
    backoff::Backoff,
    config::Brokers,
    health::Component,
    kafka::{KafkaError, consumer},
    stop::Stop,
};

/// How often [`watch_kafka`] asks.
const LOOK_EVERY: Duration = Duration::from_secs(2);
const NAP: Duration = Duration::from_millis(50);

/// Why an attempt did not work, and so whether there is another.
#[derive(Debug)]
pub enum Attempt {
    /// It is not there yet; the readiness report says why.
    Again(String),
    /// No waiting will mend it.
    Never(anyhow::Error),
}

impl Attempt {
    /// Not there yet.
    pub fn again(why: impl Display) -> Self {
        Self::Again(why.to_string())
    }

    /// As an error says of itself.
    pub fn of(is_transient: bool, error: impl Into<anyhow::Error> + Display) -> Self {
        match is_transient {
            true => Self::again(error),
            false => Self::Never(error.into()),
        }
    }
}

/// Tries until it works; `None` when asked to stop before.
///
/// # Errors
/// What [`Attempt::Never`] says.
pub async fn until<T, F: Future<Output = Result<T, Attempt>>>(
    health: &Component,
    stop: &Stop,
    mut attempt: impl FnMut() -> F,
) -> anyhow::Result<Option<T>> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(3));
    loop {
        match attempt().await {
            Ok(done) => {
                health.up();
                return Ok(Some(done));
            }
            Err(Attempt::Again(why)) => health.down(why),
            Err(Attempt::Never(error)) => return Err(error),
        }
        if !backoff.sleep(stop).await {
            return Ok(None);
        }
    }
}

/// How many partitions a topic has, once it is there; `None` when asked to stop before.
///
/// # Errors
/// More than can be counted.
pub async fn for_partitions(
    brokers: &Brokers,
    topic: &str,
    health: &Component,
    stop: &Stop,
) -> anyhow::Result<Option<u16>> {
    let counted = until(health, stop, || consumer::wait_partition_count(brokers, topic)).await?;
    let counted = counted.map(u16::try_from).transpose();
    counted.map_err(|_| anyhow::anyhow!("topic {topic} has more partitions than can be counted"))
}

/// Asks Kafka every two seconds whether it is there, as the client `holdfast-<role>`. On a thread: the question blocks.
///
/// # Errors
/// Options that the client refuses.
pub fn watch_kafka(role: &str, brokers: &Brokers, topic: &str, health: &Component, stop: &Stop) -> anyhow::Result<()> {
    let reader = consumer::reader(brokers, &format!("holdfast-{role}"), &format!("holdfast.{role}"))?;
    while !stop.is_requested() {
        match consumer::partition_count(&reader, topic) {
            Ok(Some(_)) => health.up(),
            Ok(None) => health.down(format_args!("topic {topic} is not there yet: run `holdfast topics`")),
            Err(error) => health.down(silent(&error)),
        }
        let mut waited = Duration::ZERO;
        while waited < LOOK_EVERY && !stop.is_requested() {
            thread::sleep(NAP);
            waited += NAP;
        }
    }
    Ok(())
}

fn silent(error: &KafkaError) -> String {
    format!("Kafka does not answer: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{health::Health, stop};

    #[tokio::test]
    async fn it_tries_until_it_works_and_health_says_why_it_does_not() {
        let (health, never) = (Health::new().component("engine"), Stop::never());
        let mut attempts = 0;
        let found = until(&health, &never, || {
            attempts += 1;
            std::future::ready(if attempts < 3 {
                Err(Attempt::again("not yet"))
            } else {
                Ok(attempts)
            })
        });
        assert_eq!(found.await.unwrap(), Some(3));
        assert!(health.is_up());
    }

    #[tokio::test]
    async fn it_ends_with_the_stop_and_with_what_cannot_be_mended() {
        let health = Health::new().component("engine");
        let (stopper, stop) = stop::pair();
        stopper.stop();
        let waiting = until(&health, &stop, || {
            std::future::ready(Err::<(), _>(Attempt::again("never there")))
        });
        assert!(waiting.await.unwrap().is_none());
        let never = Stop::never();
        let broken = until(&health, &never, || {
            std::future::ready(Err::<(), _>(Attempt::Never(anyhow::anyhow!("wrong URL"))))
        });
        assert!(broken.await.is_err());
    }
}
