//! Choosing a partition for a record.
//!
//! Keys are hashed with murmur2 as Kafka's Java client hashes them, so that programs of both sides
//! agree on where a key lives. Source of the algorithm: Austin Appleby's MurmurHash2 (public
//! domain), with the seed of `org.apache.kafka.common.utils.Utils.murmur2`.

use std::sync::atomic::{AtomicUsize, Ordering};

const SEED: u32 = 0x9747_b28c;
const MULTIPLIER: u32 = 0x5bd1_e995;
const SHIFT: u32 = 24;

/// The partition that records with this key go to: murmur2 with its sign bit cleared, modulo
/// `partitions`.
///
/// # Panics
/// If there are no partitions.
#[must_use]
pub fn partition_of_key(key: &[u8], partitions: u32) -> u32 {
    assert!(partitions > 0, "a topic has at least one partition");
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// Chooses among the partitions of one producer.
#[derive(Debug)]
pub(crate) struct Router {
    partitions: usize,
    /// Where records without a key go until a batch is full.
    sticky: AtomicUsize,
}

impl Router {
    /// A router among `partitions`, at least one.
    pub(crate) fn new(partitions: usize) -> Router {
        assert!(partitions > 0, "a topic has at least one partition");
        Router { partitions, sticky: AtomicUsize::new(rand::random_range(0..partitions)) }
    }

    /// The position of the partition that a record with this key goes to.
    pub(crate) fn choose(&self, key: Option<&[u8]>) -> usize {
        let partitions = u32::try_from(self.partitions).expect("a topic's partitions are few");
        match key {
            _ if partitions == 1 => 0,
            Some(key) => partition_of_key(key, partitions) as usize,
            None => self.sticky.load(Ordering::Relaxed),
        }
    }

    /// Lets records without a key go to another partition from now on.
    pub(crate) fn batch_is_full(&self) {
        if self.partitions > 1 {
            let step = rand::random_range(1..self.partitions);
            let next = (self.sticky.load(Ordering::Relaxed) + step) % self.partitions;
            self.sticky.store(next, Ordering::Relaxed);
        }
    }
}

fn murmur2(bytes: &[u8]) -> u32 {
    // As in Java, the length takes part modulo 2^32.
    let mut hash = SEED ^ bytes.len() as u32;
    let mut words = bytes.chunks_exact(4);
    for word in &mut words {
        let mut k = u32::from_le_bytes(word.try_into().expect("a chunk has 4 bytes"));
        k = k.wrapping_mul(MULTIPLIER);
        k ^= k >> SHIFT;
        k = k.wrapping_mul(MULTIPLIER);
        hash = hash.wrapping_mul(MULTIPLIER) ^ k;
    }
    let tail = words.remainder();
    for (position, &byte) in tail.iter().enumerate() {
        hash ^= u32::from(byte) << (8 * position);
    }
    if !tail.is_empty() {
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    hash ^ (hash >> 15)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_answers_of_the_java_client() {
        // From Kafka's own UtilsTest.testMurmur2.
        let answers: [(&[u8], i32); 6] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ];
        for (key, hash) in answers {
            assert_eq!(murmur2(key) as i32, hash, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn a_negative_hash_still_names_a_partition() {
        assert_eq!(partition_of_key(b"21", 10), ((-973_932_308_i32) & 0x7fff_ffff) as u32 % 10);
        assert_eq!(partition_of_key(b"", 1), 0);
    }

    #[test]
    fn records_without_a_key_stick_until_a_batch_is_full() {
        let router = Router::new(3);
        let first = router.choose(None);
        assert!((0..10).all(|_| router.choose(None) == first));
        router.batch_is_full();
        assert_ne!(router.choose(None), first);
        assert!(router.choose(None) < 3);
        assert_eq!(router.choose(Some(b"foobar")), partition_of_key(b"foobar", 3) as usize);
    }

    #[test]
    fn one_partition_takes_everything() {
        let router = Router::new(1);
        router.batch_is_full();
        assert_eq!(router.choose(None), 0);
        assert_eq!(router.choose(Some(b"k")), 0);
    }
}
