//! Why an owner's turn on a lane ends, and so what the lane does next.

use plumbing::kafka::{KafkaError, producer::ProduceError};

/// Why a turn ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum End {
    /// The process stops.
    #[error("stopping")]
    Stopped,
    /// A newer owner has opened the lane.
    #[error("a newer owner opened the lane at {0}")]
    Superseded(i64),
    /// The lane is not ours any more, or nobody knows whether our last step counts: own it again from the log.
    #[error("{0}")]
    Lost(String),
    /// A dependency does not answer: the same, after waiting for it.
    #[error("{0}")]
    Down(String),
    /// The logs contradict the state: somebody must look, and the text says where.
    #[error("{0}")]
    Halt(String),
}

impl From<KafkaError> for End {
    fn from(error: KafkaError) -> Self {
        Self::Down(format!("Kafka does not answer: {error}"))
    }
}

impl From<ProduceError> for End {
    fn from(error: ProduceError) -> Self {
        Self::Lost(format!("a record's fate is unknown: {error}"))
    }
}

impl From<redis::RedisError> for End {
    fn from(error: redis::RedisError) -> Self {
        if error.is_io_error() || error.is_timeout() || error.is_connection_dropped() {
            Self::Down(format!("Redis does not answer: {error}"))
        } else {
            Self::Lost(format!("Redis refused: {error}"))
        }
    }
}
