//! Lanes: one partition number from the commands topic through Redis to the events topic.

use crate::{limits, values::Sku};

/// One lane: commands partition p, events partition p and Redis hash tag `{p}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lane(u16);

impl Lane {
    /// The lane of a partition number; `None` beyond the twelve bits that a hold id has for it.
    #[must_use]
    pub fn new(partition: i32) -> Option<Self> {
        u16::try_from(partition)
            .ok()
            .filter(|lane| *lane < limits::LANES_MAX)
            .map(Self)
    }

    /// The lane where a SKU lives: the Java client's default partitioner (`murmur2_random` in librdkafka and kcat).
    ///
    /// # Panics
    /// When `lanes` is 0 or above 4096.
    #[must_use]
    pub fn of_sku(sku: &Sku, lanes: u16) -> Self {
        assert!((1..=limits::LANES_MAX).contains(&lanes), "a topic has 1 to 4096 lanes");
        let positive = murmur2(sku.as_str().as_bytes()) & 0x7fff_ffff;
        Self(u16::try_from(positive % u32::from(lanes)).expect("a remainder below 4096 fits"))
    }

    /// The partition number.
    #[must_use]
    pub fn partition(self) -> i32 {
        i32::from(self.0)
    }

    /// The lane's number.
    #[must_use]
    pub fn number(self) -> u16 {
        self.0
    }

    /// All lanes of a topic with that many partitions, ascending.
    pub fn all(lanes: u16) -> impl Iterator<Item = Self> {
        (0..lanes).map(Self)
    }
}

impl std::fmt::Display for Lane {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// MurmurHash2 with Kafka's seed, as `org.apache.kafka.common.utils.Utils.murmur2`.
#[must_use]
pub fn murmur2(bytes: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    const SEED: u32 = 0x9747_b28c;
    let mut hash = SEED ^ u32::try_from(bytes.len()).expect("a key is shorter than 4 GiB");
    let mut chunks = bytes.chunks_exact(4);
    for chunk in &mut chunks {
        let mut k = u32::from_le_bytes(chunk.try_into().expect("a chunk of four"));
        k = k.wrapping_mul(M);
        k ^= k >> 24;
        k = k.wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ k;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (index, byte) in rest.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From Kafka's own `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_is_the_one_of_the_java_client() {
        let cases: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in cases {
            assert_eq!(murmur2(key.as_bytes()).cast_signed(), hash, "{key}");
        }
    }
}
