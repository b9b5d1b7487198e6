//! Raft entries and frames: the same thing in two shapes.
//!
//! An entry's data is the frame's payload, untouched. Its context is
//!
//! ```text
//! 0  kind       u8   as in the frame
//! 1  timestamp  i64  little-endian
//! ```
//!
//! and is empty in the entries Raft makes by itself: the start of a leader's term, and changes of
//! membership, which have an entry type of their own. Offsets are not in an entry: each replica
//! derives them from where its log ends and checks them against the stamp in the batch.

use bytes::Bytes;
use dislog_log::{Frame, Kind};
use dislog_types::BatchHeader;
use raft::eraftpb::{Entry, EntryType};

/// Bytes of a context that is not empty.
const CONTEXT_BYTES: usize = 9;

/// An entry that does not extend the log it was sent to.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {raft_index} does not extend the log: {message}")]
pub(crate) struct EntryError {
    /// The entry.
    pub(crate) raft_index: u64,
    /// What is wrong with it.
    pub(crate) message: String,
}

/// Where a log ends, as far as the next entry is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LogEnd {
    /// One past the last offset.
    pub(crate) offset: u64,
    /// The timestamp of the last entry.
    pub(crate) timestamp_ms: i64,
}

/// An entry to propose; Raft fills in its term and position.
pub(crate) fn proposal(kind: Kind, timestamp_ms: i64, payload: Bytes) -> Entry {
    Entry { data: payload, context: context(kind, timestamp_ms), ..Entry::default() }
}

/// The entry that a frame holds.
pub(crate) fn from_frame(frame: Frame) -> Entry {
    let (entry_type, context) = match frame.kind {
        Kind::LeaderStart => (EntryType::EntryNormal, Bytes::new()),
        Kind::Membership => (EntryType::EntryConfChangeV2, Bytes::new()),
        kind => (EntryType::EntryNormal, context(kind, frame.timestamp_ms)),
    };
    Entry {
        entry_type,
        term: frame.term,
        index: frame.raft_index,
        data: frame.payload,
        context,
        ..Entry::default()
    }
}

/// The frame of an entry that stands at `end`.
pub(crate) fn to_frame(entry: &Entry, end: LogEnd) -> Result<Frame, EntryError> {
    let refuse = |message| EntryError { raft_index: entry.index, message };
    let (kind, timestamp_ms) = match entry.entry_type {
        EntryType::EntryNormal => parse_context(&entry.context, end).map_err(refuse)?,
        EntryType::EntryConfChangeV2 => (Kind::Membership, end.timestamp_ms),
        EntryType::EntryConfChange => {
            return Err(refuse("it changes the membership in a way of old".to_owned()));
        }
    };
    let record_count = match kind {
        Kind::Batch => batch_records(&entry.data, end).map_err(refuse)?,
        Kind::Trim | Kind::LeaderStart | Kind::Membership => 0,
    };
    Ok(Frame {
        kind,
        term: entry.term,
        raft_index: entry.index,
        base_offset: end.offset,
        record_count,
        timestamp_ms,
        payload: entry.data.clone(),
    })
}

fn context(kind: Kind, timestamp_ms: i64) -> Bytes {
    let mut context = [0; CONTEXT_BYTES];
    context[0] = kind as u8;
    context[1..].copy_from_slice(&timestamp_ms.to_le_bytes());
    Bytes::copy_from_slice(&context)
}

fn parse_context(context: &[u8], end: LogEnd) -> Result<(Kind, i64), String> {
    if context.is_empty() {
        return Ok((Kind::LeaderStart, end.timestamp_ms));
    }
    let Some((&kind, Ok(timestamp))) =
        context.split_first().map(|(kind, rest)| (kind, <[u8; 8]>::try_from(rest)))
    else {
        return Err(format!("its context has {} bytes, not {CONTEXT_BYTES}", context.len()));
    };
    let kind = match kind {
        kind if kind == Kind::Batch as u8 => Kind::Batch,
        kind if kind == Kind::Trim as u8 => Kind::Trim,
        other => return Err(format!("kind {other} is not known")),
    };
    let timestamp_ms = i64::from_le_bytes(timestamp);
    if timestamp_ms < end.timestamp_ms {
        return Err(format!("its timestamp is {timestamp_ms}, before {}", end.timestamp_ms));
    }
    Ok((kind, timestamp_ms))
}

fn batch_records(batch: &[u8], end: LogEnd) -> Result<u32, String> {
    let header = BatchHeader::parse(batch).map_err(|error| error.to_string())?;
    if header.batch_bytes != batch.len() {
        return Err(format!("the batch has {} bytes of {}", batch.len(), header.batch_bytes));
    }
    if header.base_offset != end.offset {
        return Err(format!(
            "the batch is stamped with offset {}, the log ends at {}",
            header.base_offset, end.offset
        ));
    }
    Ok(header.record_count)
}

#[cfg(test)]
mod tests {
    use dislog_types::batch::stamp;
    use dislog_types::{BatchBuilder, Compression, Record};

    use super::*;

    const END: LogEnd = LogEnd { offset: 7, timestamp_ms: 1_000 };

    fn batch(base_offset: u64) -> Bytes {
        let mut builder = BatchBuilder::new();
        assert!(builder.push(&Record::new("a")) && builder.push(&Record::new("b")));
        let mut batch = builder.finish(Compression::None, None);
        stamp(&mut batch, base_offset, 3);
        batch.freeze()
    }

    fn entry(kind: Kind, timestamp_ms: i64, payload: Bytes) -> Entry {
        Entry { term: 3, index: 9, ..proposal(kind, timestamp_ms, payload) }
    }

    #[test]
    fn frames_and_entries_are_the_same_thing() {
        for (kind, payload, record_count) in
            [(Kind::Batch, batch(7), 2), (Kind::Trim, Bytes::from_static(&[1; 8]), 0)]
        {
            let entry = entry(kind, 1_001, payload.clone());
            let frame = to_frame(&entry, END).unwrap();
            assert_eq!(
                (frame.kind, frame.record_count, frame.base_offset),
                (kind, record_count, 7)
            );
            assert_eq!((frame.term, frame.raft_index, frame.timestamp_ms), (3, 9, 1_001));
            assert_eq!(frame.payload, payload);
            assert_eq!(from_frame(frame), entry);
        }
    }

    #[test]
    fn a_leaders_first_entry_takes_the_running_timestamp() {
        let entry = Entry { term: 4, index: 10, ..Entry::default() };
        let frame = to_frame(&entry, END).unwrap();
        assert_eq!((frame.kind, frame.timestamp_ms), (Kind::LeaderStart, 1_000));
        assert_eq!((frame.base_offset, frame.record_count), (7, 0));
        assert_eq!(from_frame(frame), entry);
    }

    #[test]
    fn a_change_of_membership_keeps_its_type() {
        let data = Bytes::from_static(&[8, 0]);
        let entry_type = EntryType::EntryConfChangeV2;
        let entry = Entry { term: 4, index: 10, entry_type, data, ..Entry::default() };
        let frame = to_frame(&entry, END).unwrap();
        assert_eq!((frame.kind, frame.timestamp_ms), (Kind::Membership, 1_000));
        assert_eq!((frame.base_offset, frame.record_count), (7, 0));
        assert_eq!(from_frame(frame), entry);
    }

    #[test]
    fn what_does_not_extend_the_log_is_an_error() {
        let good = entry(Kind::Batch, 1_000, batch(7));
        assert!(to_frame(&good, END).is_ok());
        let membership = Entry { entry_type: EntryType::EntryConfChange, ..good.clone() };
        let context =
            |bytes: &[u8]| Entry { context: Bytes::copy_from_slice(bytes), ..good.clone() };
        for bad in [
            entry(Kind::Batch, 999, batch(7)),
            entry(Kind::Batch, 1_000, batch(6)),
            entry(Kind::Batch, 1_000, batch(7).slice(..70)),
            entry(Kind::Batch, 1_000, Bytes::new()),
            context(&[1]),
            context(&[0; 10]),
            context(&[9, 0, 0, 0, 0, 0, 0, 0, 9]),
            membership,
        ] {
            assert!(to_frame(&bad, END).is_err(), "{bad:?}");
        }
    }
}
