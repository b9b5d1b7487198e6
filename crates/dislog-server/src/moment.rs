//! Waiting for a moment of the wall clock.

use std::time::Duration;

use tokio::time::sleep;

use crate::append::now_ms;

/// The clock is looked at again after so long at most: it can be set, and timers stand still while
/// a machine sleeps.
const SLEEP_MAX: Duration = Duration::from_secs(600);

/// Returns once the clock shows this time or a later one, Unix milliseconds. Safe to cancel.
pub(crate) async fn reached(moment_ms: i64) {
    loop {
        let left_ms = moment_ms.saturating_sub(now_ms());
        if left_ms <= 0 {
            return;
        }
        sleep(Duration::from_millis(left_ms.unsigned_abs()).min(SLEEP_MAX)).await;
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_clock_is_looked_at_again_and_again() {
        let begun = Instant::now();
        reached(now_ms() - 1).await;
        reached(i64::MIN).await;
        assert_eq!(begun.elapsed(), Duration::ZERO, "what is over is not waited for");
        // The timers of this test run ahead of the clock, as they do when it is set back.
        let waiting = reached(now_ms() + 60_000);
        assert!(timeout(10 * SLEEP_MAX, waiting).await.is_err());
        assert!(timeout(10 * SLEEP_MAX, reached(i64::MAX)).await.is_err());
    }

    #[tokio::test]
    async fn a_moment_comes() {
        let moment_ms = now_ms() + 20;
        reached(moment_ms).await;
        assert!(now_ms() >= moment_ms);
    }
}
