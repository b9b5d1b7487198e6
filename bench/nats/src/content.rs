//! What messages contain, as `dislog bench` makes it: who made it, its number, and a piece of a
//! pool of random bytes.

use std::sync::Arc;

use anyhow::ensure;
use bytes::Bytes;

const HEAD_BYTES: usize = 16;
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
const BEGINNINGS: usize = 1 << 20;

/// Makes messages. A cheap handle.
#[derive(Clone)]
pub struct Content {
    pool: Arc<[u8]>,
    record_bytes: usize,
}

impl Content {
    /// Messages of `record_bytes`, at least 16.
    pub fn new(record_bytes: usize) -> Content {
        assert!(record_bytes >= HEAD_BYTES, "a message carries its maker and number");
        let words = (BEGINNINGS + record_bytes).div_ceil(8) as u64;
        let word = |number: u64| mixed(number.wrapping_mul(GOLDEN));
        let pool = (1..=words).flat_map(|number| word(number).to_le_bytes()).collect();
        Content { pool, record_bytes }
    }

    /// One message.
    pub fn record(&self, maker: u64, number: u64) -> Bytes {
        let mut value = Vec::with_capacity(self.record_bytes);
        value.extend_from_slice(&maker.to_le_bytes());
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(self.filling(maker, number));
        value.into()
    }

    fn filling(&self, maker: u64, number: u64) -> &[u8] {
        let begin = mixed(maker ^ mixed(number)) as usize % BEGINNINGS;
        &self.pool[begin..][..self.record_bytes - HEAD_BYTES]
    }
}

/// SplitMix64's finalizer.
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Checks that every maker's messages are all there, once, in order, unchanged.
pub struct Verifier {
    content: Arc<Content>,
    next: Vec<u64>,
}

impl Verifier {
    /// For so many makers.
    pub fn new(content: Arc<Content>, makers: usize) -> Verifier {
        Verifier { content, next: vec![0; makers] }
    }

    /// The next message of the stream.
    pub fn next(&mut self, value: &[u8]) -> anyhow::Result<()> {
        ensure!(value.len() == self.content.record_bytes, "a message of {} bytes", value.len());
        let maker = u64::from_le_bytes(value[..8].try_into()?);
        let number = u64::from_le_bytes(value[8..16].try_into()?);
        ensure!((maker as usize) < self.next.len(), "a message of maker {maker}");
        let expected = self.next[maker as usize];
        ensure!(number == expected, "message {number} of maker {maker} instead of {expected}");
        ensure!(self.content.record(maker, number) == value, "message {number} was changed");
        self.next[maker as usize] += 1;
        Ok(())
    }

    /// Nothing is missing.
    pub fn end(&self, acknowledged: &[u64]) -> anyhow::Result<()> {
        ensure!(self.next == acknowledged, "{:?} instead of {acknowledged:?}", self.next);
        Ok(())
    }
}
