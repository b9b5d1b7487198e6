//! The log against a model, on a disk that loses unsynced writes and names, tears writes, fails
//! syncs and fills up.
//!
//! One seed is one life: random work, ended by a power cut or a killed process at a random
//! operation of the disk (also in the middle of recovery), then recovery, then more work. After
//! each recovery every acknowledged record must be there, dense and unchanged; behind them only
//! what was staged may follow, in its order; and nothing may be reported as damaged. `DISLOG_SEEDS`
//! says how many lives (`docs/testing.md`); `DISLOG_SEED` replays one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod support;

use bytes::Bytes;
use dislog_log::fs::{SimFaults, SimFs};
use dislog_log::{Checkpoint, Log, LogError, verify};
use support::{dir, next_batch, try_open, value, values_of};

const SEEDS_BY_DEFAULT: u64 = 2_000;
const LIVES_PER_SEED: u64 = 4;
const STEPS_PER_LIFE: u64 = 40;

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}

/// What must be true of the log.
#[derive(Default)]
struct Model {
    /// Every value staged and not cut away since, by offset.
    values: Vec<String>,
    /// One past the last acknowledged offset.
    acknowledged: u64,
    /// The start that was acknowledged, and the one that was last asked for.
    start: u64,
    start_asked: u64,
    attempt: u64,
}

impl Model {
    fn stage(&mut self, log: &Log, random: &mut Random) -> Result<(), LogError> {
        let mut frames = Vec::new();
        for _ in 0..=random.below(3) {
            self.attempt += 1;
            let count = 1 + random.below(3);
            let end = self.values.len() as u64;
            let values: Vec<String> =
                (end..end + count).map(|offset| value(offset, self.attempt)).collect();
            frames.push(next_batch(log, &frames, &values));
            self.values.extend(values);
        }
        log.stage(frames)
    }

    fn flush(&mut self, log: &Log) -> Result<(), LogError> {
        match log.flush() {
            Ok(_) => {
                self.acknowledged = self.values.len() as u64;
                Ok(())
            }
            Err(LogError::DiskFull { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn trim(&mut self, log: &Log, random: &mut Random) -> Result<(), LogError> {
        let bounds = log.bounds();
        self.start_asked = self.start + random.below(self.acknowledged - self.start + 1);
        let raft_index = bounds.durable_raft_index;
        let state = Bytes::from(vec![7; random.below(900) as usize]);
        log.trim(&Checkpoint { raft_index, start_offset: self.start_asked, state })?;
        self.start = self.start_asked;
        Ok(())
    }

    /// Cuts off some of what is not acknowledged.
    fn truncate(&mut self, log: &Log, random: &mut Random) -> Result<(), LogError> {
        let bounds = log.bounds();
        let unacknowledged = bounds.last_raft_index - bounds.durable_raft_index;
        if unacknowledged == 0 {
            return Ok(());
        }
        let cut = bounds.durable_raft_index + 1 + random.below(unacknowledged);
        log.truncate(cut)?;
        self.values.truncate(log.bounds().end_offset as usize);
        Ok(())
    }

    fn step(&mut self, log: &Log, random: &mut Random) -> Result<(), LogError> {
        match random.below(22) {
            0..8 => self.stage(log, random),
            8..15 => self.flush(log),
            15 => self.truncate(log, random),
            16 => self.trim(log, random),
            17 => {
                let bounds = log.bounds();
                let raft_index = bounds.durable_raft_index;
                let start_offset = bounds.start_offset;
                let state = Bytes::from_static(b"state");
                log.write_checkpoint(&Checkpoint { raft_index, start_offset, state })
            }
            18..20 => {
                log.write_ahead(u64::MAX);
                // It does not tell of failures; whoever stages next hears of those that last.
                log.stage(Vec::new())
            }
            _ => self.check_reads(log, random).map_or(Ok(()), |wrong| panic!("{wrong}")),
        }
    }

    /// Reads from anywhere see what was written; `Some` says what is wrong.
    fn check_reads(&self, log: &Log, random: &mut Random) -> Option<String> {
        let end = log.bounds().end_offset;
        let mut offset = self.start + random.below(end - self.start + 1);
        for _ in 0..5 {
            let frames = match log.read(offset, end, random.below(2_000) as usize) {
                Ok(frames) => frames,
                Err(error) => return Some(format!("offset {offset}: {error}")),
            };
            for frame in frames {
                let expected =
                    &self.values[frame.base_offset as usize..frame.end_offset() as usize];
                if values_of(&frame) != expected {
                    return Some(format!("offset {offset} holds other values"));
                }
                offset = frame.end_offset();
            }
        }
        None
    }

    /// Compares a recovered log with what was acknowledged, and goes on from what it holds.
    fn recovered(&mut self, log: &Log) -> Result<(), String> {
        let bounds = log.bounds();
        let (start, end) = (bounds.start_offset, bounds.end_offset);
        if end < self.acknowledged {
            return Err(format!("{} acknowledged, the log ends at {end}", self.acknowledged));
        }
        if start != self.start && start != self.start_asked {
            return Err(format!("trimmed to {}, the log starts at {start}", self.start));
        }
        if end > self.values.len() as u64 {
            return Err(format!("{} staged, the log ends at {end}", self.values.len()));
        }
        let mut next = start;
        while next < end {
            let frames = log.read(next, end, 1_500).map_err(|error| error.to_string())?;
            for frame in &frames {
                let expected =
                    &self.values[frame.base_offset as usize..frame.end_offset() as usize];
                if values_of(frame) != expected {
                    return Err(format!("offsets from {} hold other values", frame.base_offset));
                }
                next = frame.end_offset();
            }
            if frames.is_empty() {
                return Err(format!("nothing at {next}, below the end {end}"));
            }
        }
        self.values.truncate(end as usize);
        self.acknowledged = end;
        (self.start, self.start_asked) = (start, start);
        Ok(())
    }
}

fn faults(random: &mut Random, lying_syncs: bool) -> SimFaults {
    let mut one_in = |chances: u64, limit: u64| {
        let value = random.below(limit);
        (random.below(chances) == 0).then_some(value)
    };
    SimFaults {
        crash_after: one_in(2, 150),
        fail_sync_after: one_in(4, 30),
        space_bytes: one_in(5, 20_000),
        lying_syncs,
    }
}

fn live(seed: u64, lying_syncs: bool) -> Result<(), String> {
    let mut random = Random(seed);
    let fs = SimFs::new(seed ^ 0xd15c);
    let mut model = Model::default();
    for _ in 0..LIVES_PER_SEED {
        let (log, recovery) = loop {
            // A power cut during recovery, now and then.
            let crash_after = (random.below(4) == 0).then(|| random.below(12));
            fs.arm(SimFaults { crash_after, lying_syncs, ..SimFaults::default() });
            match try_open(&fs) {
                Ok(opened) if !fs.is_down() => break opened,
                Err(error) if !fs.is_down() => return Err(format!("opening: {error}")),
                _ => fs.crash(),
            }
        };
        if let Some(damage) = recovery.damage {
            return Err(format!("damage reported: {damage:?}"));
        }
        fs.arm(SimFaults { lying_syncs, ..SimFaults::default() });
        model.recovered(&log)?;
        fs.arm(faults(&mut random, lying_syncs));
        for _ in 0..STEPS_PER_LIFE {
            if model.step(&log, &mut random).is_err() {
                break;
            }
        }
        // A killed process leaves the page cache, a power cut takes it.
        if fs.is_down() || random.below(3) > 0 {
            fs.crash();
        }
    }
    fs.crash();
    let report = verify(&fs, &dir()).map_err(|error| error.to_string())?;
    if report.is_damaged() { Err(format!("{report:?}")) } else { Ok(()) }
}

fn number_of(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().map(|text| text.parse().expect("a number"))
}

#[test]
fn every_acknowledged_record_survives() {
    let seeds = match number_of("DISLOG_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number_of("DISLOG_SEEDS").unwrap_or(SEEDS_BY_DEFAULT),
    };
    for seed in seeds {
        if let Err(wrong) = live(seed, false) {
            panic!("DISLOG_SEED={seed}: {wrong}");
        }
    }
}

#[test]
fn without_syncs_the_check_fails() {
    let failures = (0..100).filter(|&seed| live(seed, true).is_err()).count();
    assert!(failures > 50, "only {failures} of 100 lives noticed that nothing was synced");
}
