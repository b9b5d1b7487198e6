//! Time as a parameter: a [`Clock`] is passed in, so that the simulator can own it.

use std::sync::LazyLock;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// What the machine's own elapsed time counts from.
static BEGINNING: LazyLock<Instant> = LazyLock::new(Instant::now);

/// Tells the time of day, and how time passes.
pub trait Clock: Send + Sync {
    /// Unix time in milliseconds. It may jump either way: nothing may rely on it to advance.
    fn now_ms(&self) -> i64;

    /// Milliseconds since some moment. Never goes back and never jumps: for intervals, and for all
    /// that waits. That of the machine, unless the clock has its own.
    fn elapsed_ms(&self) -> u64 {
        u64::try_from(BEGINNING.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// The clock of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now_ms(&self) -> i64 {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
    }
}
