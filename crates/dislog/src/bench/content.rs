//! What records contain, and the proof that they came back: all of them, once, in order, unchanged.
//!
//! ```text
//!  0  maker    u64   who made the record; every maker makes its records one after the other
//!  8  number   u64   how many its maker made before
//! 16  filling        from a pool of random bytes, beginning where maker and number say
//! ```
//!
//! The pool is SplitMix64 (Steele, Lea, Flood 2014), seeded with the run's seed. It makes records
//! nearly for free: what a benchmark spends on itself is missing where producer and server share
//! the machine. Fillings overlap, so compression finds repetitions in a batch of many records.

use std::sync::Arc;

use bytes::Bytes;

use dislog_client::ConsumedRecord;

/// The bytes of a record before its filling.
pub(crate) const HEAD_BYTES: usize = 16;

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Where in the pool a filling may begin.
const BEGINNINGS: usize = 1 << 20;

/// Makes and checks the records of one run. A cheap handle.
#[derive(Clone, Debug)]
pub(crate) struct Content {
    pool: Arc<[u8]>,
    record_bytes: usize,
}

impl Content {
    /// Records of `record_bytes`, at least [`HEAD_BYTES`].
    pub(crate) fn new(seed: u64, record_bytes: usize) -> Content {
        assert!(record_bytes >= HEAD_BYTES, "a record carries its maker and number");
        let words = (BEGINNINGS + record_bytes).div_ceil(8) as u64;
        let word = |number: u64| mixed(seed.wrapping_add(number.wrapping_mul(GOLDEN)));
        let pool = (1..=words).flat_map(|number| word(number).to_le_bytes()).collect();
        Content { pool, record_bytes }
    }

    /// One record.
    pub(crate) fn record(&self, maker: u64, number: u64) -> Bytes {
        let mut value = Vec::with_capacity(self.record_bytes);
        value.extend_from_slice(&maker.to_le_bytes());
        value.extend_from_slice(&number.to_le_bytes());
        value.extend_from_slice(self.filling(maker, number));
        value.into()
    }

    /// Who made a record and its number, if it is one of this run and unchanged.
    fn check(&self, value: &[u8]) -> Option<(u64, u64)> {
        if value.len() != self.record_bytes {
            return None;
        }
        let (head, filling) = value.split_at(HEAD_BYTES);
        let maker = u64::from_le_bytes(head[..8].try_into().ok()?);
        let number = u64::from_le_bytes(head[8..].try_into().ok()?);
        (filling == self.filling(maker, number)).then_some((maker, number))
    }

    fn filling(&self, maker: u64, number: u64) -> &[u8] {
        let begin = mixed(maker ^ mixed(number)) as usize % BEGINNINGS;
        &self.pool[begin..][..self.record_bytes - HEAD_BYTES]
    }
}

fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Why what came back is not what was acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Wrong {
    /// The offset is not the one that comes next.
    Offset { expected: u64, actual: u64 },
    /// The content at this offset is not what any maker of this run made.
    Content { offset: u64 },
    /// A maker's records are doubled, missing or out of order here.
    Number { offset: u64, maker: u64, expected: u64, actual: u64 },
    /// Acknowledged records of this maker are missing at the end.
    Missing { maker: u64, acknowledged: u64, found: u64 },
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Wrong::Offset { expected, actual } => {
                write!(f, "offset {actual} came where {expected} was due")
            }
            Wrong::Content { offset } => {
                write!(f, "the record at offset {offset} is not what was added")
            }
            Wrong::Number { offset, maker, expected, actual } => write!(
                f,
                "at offset {offset} stands record {actual} of client {maker}, {expected} was due"
            ),
            Wrong::Missing { maker, acknowledged, found } => write!(
                f,
                "client {maker} has {acknowledged} records acknowledged, {found} came back"
            ),
        }
    }
}

/// Checks the records of a topic from its first on.
///
/// - Offsets are dense from 0.
/// - Every record is one that a maker of this run made; each maker's numbers are dense from 0, in
///   order.
#[derive(Clone, Debug)]
pub(crate) struct Verifier {
    content: Content,
    next_offset: u64,
    /// Per maker: the number of its next record.
    next_numbers: Vec<u64>,
}

impl Verifier {
    /// A verifier of what `makers` makers, numbered from 0, made.
    pub(crate) fn new(content: Content, makers: usize) -> Verifier {
        Verifier { content, next_offset: 0, next_numbers: vec![0; makers] }
    }

    /// Checks the next record.
    pub(crate) fn accept(&mut self, record: &ConsumedRecord) -> Result<(), Wrong> {
        let offset = record.offset;
        if offset != self.next_offset {
            return Err(Wrong::Offset { expected: self.next_offset, actual: offset });
        }
        let (maker, number) = self.content.check(&record.value).ok_or(Wrong::Content { offset })?;
        let next = usize::try_from(maker).ok().and_then(|maker| self.next_numbers.get_mut(maker));
        let next = next.ok_or(Wrong::Content { offset })?;
        if number != *next {
            return Err(Wrong::Number { offset, maker, expected: *next, actual: number });
        }
        *next += 1;
        self.next_offset += 1;
        Ok(())
    }

    /// How many records were checked.
    pub(crate) fn records(&self) -> u64 {
        self.next_offset
    }

    /// Checks that everything acknowledged came back. Returns how many records that was.
    pub(crate) fn finish(self, acknowledged: &[u64]) -> Result<u64, Wrong> {
        for (maker, (&acknowledged, &found)) in
            acknowledged.iter().zip(&self.next_numbers).enumerate()
        {
            if found != acknowledged {
                return Err(Wrong::Missing { maker: maker as u64, acknowledged, found });
            }
        }
        Ok(self.next_offset)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use super::*;

    const MAKERS: usize = 2;

    /// The same for every test: its pool takes a while to make.
    fn content() -> Content {
        static CONTENT: LazyLock<Content> = LazyLock::new(|| Content::new(7, 45));
        CONTENT.clone()
    }

    /// Two makers' records, taking turns.
    fn records() -> Vec<ConsumedRecord> {
        (0..20).map(|offset| record(offset, content().record(offset % 2, offset / 2))).collect()
    }

    fn record(offset: u64, value: Bytes) -> ConsumedRecord {
        ConsumedRecord {
            offset,
            timestamp_ms: 0,
            created_ms: 0,
            key: None,
            value,
            headers: Vec::new(),
            type_number: 0,
        }
    }

    fn verify(records: &[ConsumedRecord]) -> Result<u64, Wrong> {
        let mut verifier = Verifier::new(content(), MAKERS);
        records.iter().try_for_each(|record| verifier.accept(record))?;
        verifier.finish(&[10, 10])
    }

    #[test]
    fn what_was_made_is_accepted() {
        assert_eq!(verify(&records()), Ok(20));
    }

    #[test]
    fn every_flipped_byte_is_caught() {
        for position in 0..45 {
            let mut records = records();
            let mut value = records[11].value.to_vec();
            value[position] ^= 1;
            records[11].value = value.into();
            assert!(verify(&records).is_err(), "byte {position}");
        }
    }

    #[test]
    fn a_missing_record_is_caught_even_if_offsets_are_dense() {
        let mut records = records();
        records.remove(4);
        records.iter_mut().zip(0..).for_each(|(record, offset)| record.offset = offset);
        let wrong = Wrong::Number { offset: 5, maker: 0, expected: 2, actual: 3 };
        assert_eq!(verify(&records), Err(wrong));
    }

    #[test]
    fn a_record_missing_at_the_end_is_caught() {
        let records = records();
        let wrong = Wrong::Missing { maker: 1, acknowledged: 10, found: 9 };
        assert_eq!(verify(&records[..19]), Err(wrong));
    }

    #[test]
    fn a_doubled_record_is_caught() {
        let mut records = records();
        records.insert(5, records[4].clone());
        records.iter_mut().zip(0..).for_each(|(record, offset)| record.offset = offset);
        assert!(matches!(verify(&records), Err(Wrong::Number { offset: 5, .. })));
    }

    #[test]
    fn a_gap_in_the_offsets_is_caught() {
        let mut records = records();
        records[9].offset = 10;
        assert_eq!(verify(&records), Err(Wrong::Offset { expected: 9, actual: 10 }));
    }

    #[test]
    fn records_of_another_run_are_caught() {
        let mut records = records();
        records[3].value = Content::new(8, 45).record(1, 1);
        assert_eq!(verify(&records), Err(Wrong::Content { offset: 3 }));
        records[3].value = content().record(2, 0);
        assert_eq!(verify(&records), Err(Wrong::Content { offset: 3 }), "there is no third maker");
    }

    #[test]
    fn records_have_the_size_asked_for() {
        for bytes in HEAD_BYTES..HEAD_BYTES + 20 {
            let content = Content::new(1, bytes);
            let value = content.record(3, 9);
            assert_eq!(value.len(), bytes);
            assert_eq!(content.check(&value), Some((3, 9)));
        }
    }
}
