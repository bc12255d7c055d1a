//! Redis keys of a lane. All share the hash tag `{p}`; the Lua scripts derive the same names from the lane's key.

use domain::{Key, Lane, Millis, PartId, Sku, Source, Tenant};

/// Which stretch of log time a moment is in, where each is as long as a request is remembered.
#[must_use]
pub fn stretch_of(at: Millis, request_ms: Millis) -> i64 {
    at.div_euclid(request_ms)
}

/// The keys of one lane under a configured prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneKeys {
    base: String,
}

impl LaneKeys {
    /// The keys of a lane.
    #[must_use]
    pub fn new(prefix: &str, lane: Lane) -> Self {
        Self {
            base: format!("{prefix}:{{{lane}}}:"),
        }
    }

    /// The lane itself: a hash of epoch, generation, layout, fence, log_time, holds; while it is rebuilt or
    /// written, building and chunks too.
    #[must_use]
    pub fn lane(&self) -> String {
        format!("{}lane", self.base)
    }

    /// A pattern that finds every key of the lane.
    #[must_use]
    pub fn pattern(&self) -> String {
        format!("{}*", glob_escape(&self.base))
    }

    /// The keys of one generation.
    #[must_use]
    pub fn generation(&self, generation: i64) -> GenerationKeys {
        GenerationKeys {
            base: format!("{}{generation}:", self.base),
        }
    }
}

fn glob_escape(text: &str) -> String {
    text.chars()
        .flat_map(|c| if "*?[]\\".contains(c) { vec!['\\', c] } else { vec![c] })
        .collect()
}

/// The keys of one generation of a lane: what a rebuild writes, and apply reads and changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationKeys {
    base: String,
}

impl GenerationKeys {
    /// Hash of command offset -> outcome, trimmed when its event has been read back.
    #[must_use]
    pub fn journal(&self) -> String {
        format!("{}journal", self.base)
    }

    /// Hash of counters and policy of one SKU.
    #[must_use]
    pub fn stock(&self, tenant: &Tenant, sku: &Sku) -> String {
        format!("{}stock:{tenant}/{sku}", self.base)
    }

    /// Set of `<tenant>/<sku>` that have a stock key.
    #[must_use]
    pub fn skus(&self) -> String {
        format!("{}skus", self.base)
    }

    /// Hash of a hold's 16 bytes -> the hold (MessagePack). One key for all: each of its own would cost 60 bytes more.
    #[must_use]
    pub fn holds(&self) -> String {
        format!("{}holds", self.base)
    }

    /// One part of another lane's cart (MessagePack).
    #[must_use]
    pub fn part(&self, part: PartId) -> String {
        format!("{}part:{part}", self.base)
    }

    /// Set of `<hold>/<attempt>` of the parts that keep units.
    #[must_use]
    pub fn parts(&self) -> String {
        format!("{}parts", self.base)
    }

    /// Sorted set of `<units>:<hold>/<attempt>` by the relay's deadline: units of one SKU in carts that may not be decided yet.
    #[must_use]
    pub fn relayed(&self, tenant: &Tenant, sku: &Sku) -> String {
        format!("{}relayed:{tenant}/{sku}", self.base)
    }

    /// Sorted set of the 16 bytes of held holds, by deadline in milliseconds.
    #[must_use]
    pub fn due(&self) -> String {
        format!("{}due", self.base)
    }

    /// Hash of user -> units held or bought of one SKU.
    #[must_use]
    pub fn limit(&self, tenant: &Tenant, sku: &Sku) -> String {
        format!("{}limit:{tenant}/{sku}", self.base)
    }

    /// An applied command id (MessagePack: fingerprint, log time).
    #[must_use]
    pub fn command(&self, tenant: &Tenant, command_id: &Key) -> String {
        format!("{}command:{tenant}/{command_id}", self.base)
    }

    /// An applied source of a forwarded command.
    #[must_use]
    pub fn source(&self, source: &Source) -> String {
        format!(
            "{}source:{}/{}/{}",
            self.base, source.topic, source.partition, source.offset
        )
    }

    /// Hash of the 8 bytes of request marks -> log time: requests that were refused in one stretch of log time, as long as a
    /// request is remembered ([`stretch_of`]). Those that are remembered are in the current one and the one before.
    #[must_use]
    pub fn requests(&self, stretch: i64) -> String {
        format!("{}requests:{stretch}", self.base)
    }

    /// List of (MessagePack: log time when to forget, key suffix), oldest first.
    #[must_use]
    pub fn forget(&self) -> String {
        format!("{}forget", self.base)
    }
}
