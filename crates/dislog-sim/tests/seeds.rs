//! Seeds, as many as fit a test; `DISLOG_SEEDS` asks for more, `DISLOG_SEED` for one.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use dislog_sim::{Options, run};

/// `cargo xtask sim` runs more: see docs/testing.md.
const SEEDS_BY_DEFAULT: u64 = 8;
const THREADS: usize = 2;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap())
}

#[test]
fn every_seed_holds() {
    let (first, count) = match number("DISLOG_SEED") {
        Some(seed) => (seed, 1),
        None => (0, number("DISLOG_SEEDS").unwrap_or(SEEDS_BY_DEFAULT)),
    };
    let (next, rests) = (AtomicU64::new(first), AtomicU64::new(0));
    let violations = Mutex::new(Vec::new());
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + count {
                return;
            }
            let outcome = run(seed, Options::default());
            rests.fetch_add(outcome.rests, Ordering::Relaxed);
            if let Some(violation) = outcome.violation {
                violations.lock().unwrap().push((seed, violation));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(work);
        }
    });
    let violations = violations.into_inner().unwrap();
    assert!(violations.is_empty(), "{violations:#?}");
    assert!(rests.into_inner() > 0, "no group ever rested");
}

#[test]
fn a_seed_does_the_same_each_time() {
    for seed in [3, 8] {
        let (once, again) = (run(seed, Options::default()), run(seed, Options::default()));
        assert_eq!(once, again, "seed {seed}");
        assert!(once.acknowledged > 20 && once.reads > 20, "seed {seed} did little: {once:?}");
    }
}
