//! The topics, their settings and their subjects. Names live here and nowhere else.

const DAY_MS: i64 = 24 * 60 * 60 * 1_000;

/// One topic as this version wants it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Topic {
    /// Name without the configured prefix.
    pub name: &'static str,
    /// How long the broker keeps records, in milliseconds.
    pub retention_ms: i64,
    /// Whether the broker stamps records itself: the only clock of decisions.
    pub log_append_time: bool,
    /// Whether it has one partition per lane.
    pub laned: bool,
    /// The Avro schema of its values; `None` where values are other topics' raw bytes.
    pub schema: Option<&'static str>,
}

/// Records that ask.
pub const COMMANDS: Topic = Topic {
    name: "inventory.commands.v1",
    retention_ms: 7 * DAY_MS,
    log_append_time: true,
    laned: true,
    schema: Some(include_str!("../inventory_command.v1.avsc")),
};

/// Records that say what was decided; co-partitioned with the commands: one SKU, one lane, end to end.
pub const EVENTS: Topic = Topic {
    name: "inventory.events.v1",
    retention_ms: 30 * DAY_MS,
    log_append_time: false,
    laned: true,
    schema: Some(include_str!("../inventory_event.v1.avsc")),
};

/// Records that could never be read, with where and why.
pub const DEAD_LETTERS: Topic = Topic {
    name: "inventory.dead-letters.v1",
    retention_ms: 30 * DAY_MS,
    log_append_time: true,
    laned: false,
    schema: None,
};

/// All topics.
pub const ALL: [Topic; 3] = [COMMANDS, EVENTS, DEAD_LETTERS];

/// Partitions of the laned topics of a local installation.
pub const LANES_DEFAULT: u16 = 4;

/// The topics' full names under a configured prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topics {
    /// Full name of [`COMMANDS`].
    pub commands: String,
    /// Full name of [`EVENTS`].
    pub events: String,
    /// Full name of [`DEAD_LETTERS`].
    pub dead_letters: String,
}

impl Topics {
    /// The names under a prefix, which is put in front as it is.
    #[must_use]
    pub fn with_prefix(prefix: &str) -> Self {
        Self {
            commands: COMMANDS.full_name(prefix),
            events: EVENTS.full_name(prefix),
            dead_letters: DEAD_LETTERS.full_name(prefix),
        }
    }
}

impl Topic {
    /// The topic's name under a prefix.
    #[must_use]
    pub fn full_name(&self, prefix: &str) -> String {
        format!("{prefix}{}", self.name)
    }

    /// The subject of its values (TopicNameStrategy) under a prefix.
    #[must_use]
    pub fn subject(&self, prefix: &str) -> String {
        format!("{prefix}{}-value", self.name)
    }
}
