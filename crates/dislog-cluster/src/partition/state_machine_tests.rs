//! The state machine: what follows from a log follows from any checkpoint on the way, too.

use bytes::Bytes;
use dislog_log::trim_payload;
use dislog_types::batch::{ProducerStamp, stamp};
use dislog_types::{BatchBuilder, Compression, Record};
use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

fn batch_frame(raft_index: u64, base_offset: u64, producer: (i64, i32), records: u32) -> Frame {
    let mut builder = BatchBuilder::new();
    for _ in 0..records {
        assert!(builder.push(&Record::new("x")));
    }
    let (id, sequence) = producer;
    let producer = ProducerStamp { id, epoch: 0, sequence };
    let mut batch = builder.finish(Compression::None, Some(producer));
    stamp(&mut batch, base_offset, 1);
    Frame {
        kind: Kind::Batch,
        term: 1,
        raft_index,
        base_offset,
        record_count: records,
        timestamp_ms: i64::try_from(raft_index).unwrap(),
        payload: batch.freeze(),
    }
}

fn frame(kind: Kind, raft_index: u64, base_offset: u64, payload: Bytes) -> Frame {
    let timestamp_ms = i64::try_from(raft_index).unwrap();
    Frame { kind, term: 1, raft_index, base_offset, record_count: 0, timestamp_ms, payload }
}

/// A log of batches of a few producers, with trims between them.
fn logs() -> impl Strategy<Value = Vec<Frame>> {
    vec((0..4_i64, 1..9_u32, 0..10_u32), 1..120).prop_map(|steps| {
        let mut frames = vec![frame(Kind::LeaderStart, 1, 0, Bytes::new())];
        let (mut end, mut start) = (0, 0);
        let mut sequences = [0; 4];
        for (producer, records, what) in steps {
            let raft_index = frames.len() as u64 + 1;
            if what == 0 {
                start = (start + end) / 2;
                let payload = trim_payload(start);
                frames.push(frame(Kind::Trim, raft_index, end, payload));
                continue;
            }
            let sequence = &mut sequences[usize::try_from(producer).unwrap()];
            frames.push(batch_frame(raft_index, end, (producer, *sequence), records));
            *sequence += i32::try_from(records).unwrap();
            end += u64::from(records);
        }
        frames
    })
}

fn apply_all(mut machine: StateMachine, frames: &[Frame]) -> StateMachine {
    for frame in frames {
        machine.apply(frame).unwrap();
    }
    machine
}

proptest! {
    #[test]
    fn a_checkpoint_anywhere_leads_to_the_same_end(frames in logs(), at in any::<u16>()) {
        let whole = apply_all(StateMachine::new(0, 0, 0), &frames);
        let (before, behind) = frames.split_at(usize::from(at) % (frames.len() + 1));
        let checkpoint = apply_all(StateMachine::new(0, 0, 0), before).checkpoint();
        let machine = StateMachine::from_checkpoint(&checkpoint).unwrap();
        prop_assert_eq!(apply_all(machine, behind), whole);
    }

    #[test]
    fn what_is_left_of_a_trimmed_log_leads_to_the_same_end(frames in logs()) {
        let whole = apply_all(StateMachine::new(0, 0, 0), &frames);
        let retained = frames.iter().position(|f| f.end_offset() > whole.start_offset);
        let left = &frames[retained.unwrap_or(frames.len())..];
        let Some(first) = left.first() else { return Ok(()) };
        let start = StateMachine::new(first.raft_index - 1, whole.start_offset, first.base_offset);
        prop_assert_eq!(apply_all(start, left), whole);
    }

    #[test]
    fn a_checkpoint_that_rotted_is_refused(frames in logs(), bit in any::<u32>()) {
        let mut checkpoint = apply_all(StateMachine::new(0, 0, 0), &frames).checkpoint();
        let mut state = checkpoint.state.to_vec();
        let bit = bit as usize % (state.len() * 8);
        state[bit / 8] ^= 1 << (bit % 8);
        checkpoint.state = state.into();
        prop_assert_eq!(StateMachine::from_checkpoint(&checkpoint), None);
    }

    #[test]
    fn garbage_is_no_checkpoint(state in vec(any::<u8>(), 0..100)) {
        let checkpoint = Checkpoint { state: state.into(), ..Checkpoint::default() };
        prop_assert_eq!(StateMachine::from_checkpoint(&checkpoint), None);
    }
}

#[test]
fn what_does_not_follow_is_refused_and_changes_nothing() {
    let good = batch_frame(1, 0, (1, 0), 2);
    let machine = apply_all(StateMachine::new(0, 0, 0), std::slice::from_ref(&good));
    for bad in [
        good,
        batch_frame(3, 2, (1, 2), 1),
        batch_frame(2, 3, (1, 2), 1),
        frame(Kind::Trim, 2, 2, trim_payload(3)),
        frame(Kind::Trim, 2, 2, Bytes::from_static(b"?")),
        frame(Kind::Batch, 2, 2, Bytes::from_static(b"no batch")),
    ] {
        let mut after = machine.clone();
        assert!(after.apply(&bad).is_err(), "{bad:?}");
        assert_eq!(after, machine);
    }
}
