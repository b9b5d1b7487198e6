//! When records are due. In an open loop they come at a fixed rate whatever the server does, and a
//! late one is late by all the time since it was due: nothing is left out because the server
//! stalled ("coordinated omission").

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

/// The highest rate that is paced.
pub(crate) const RATE_MAX: f64 = 10_000_000.0;

/// Records that are due and not taken yet. More than that wait in the schedule itself, which
/// forgets none.
const DUE_MAX: usize = 1 << 16;

/// A sleep shorter than this is not worth its wake-up: the record goes a little early into the
/// queue, not out of it.
const SLEEP_MIN: Duration = Duration::from_micros(20);

/// A fixed rate from a beginning on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    start: Instant,
    rate: f64,
}

impl Schedule {
    /// `rate` records a second from `start` on.
    pub(crate) fn new(start: Instant, rate: f64) -> Schedule {
        assert!(rate > 0.0, "a schedule needs a rate");
        Schedule { start, rate }
    }

    /// When the record with this number is due.
    pub(crate) fn due(&self, number: u64) -> Instant {
        self.start + Duration::from_secs_f64(number as f64 / self.rate)
    }

    /// How many records are due before `end`.
    pub(crate) fn count_before(&self, end: Instant) -> u64 {
        let seconds = end.saturating_duration_since(self.start).as_secs_f64();
        (seconds * self.rate).ceil() as u64
    }

    /// Tells when each record before `end` was due, as soon as it is, by a thread of its own: the
    /// timers of the runtime tick in milliseconds.
    pub(crate) fn pace(self, end: Instant) -> mpsc::Receiver<Instant> {
        let (sender, receiver) = mpsc::channel(DUE_MAX);
        std::thread::spawn(move || {
            for number in 0..self.count_before(end) {
                let due = self.due(number);
                let wait = due.saturating_duration_since(Instant::now());
                if wait > SLEEP_MIN {
                    std::thread::sleep(wait);
                }
                if sender.blocking_send(due).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

/// The part of a run that is measured: what is before it is the warm-up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Window {
    /// When the run, and so the warm-up, begins.
    pub(crate) begin: Instant,
    pub(crate) start: Instant,
    pub(crate) end: Instant,
}

impl Window {
    /// The window of a run that starts now.
    pub(crate) fn from_now(warm_up: Duration, duration: Duration) -> Window {
        let begin = Instant::now();
        let start = begin + warm_up;
        Window { begin, start, end: start + duration }
    }

    /// Whether something that happened `at` this moment is measured.
    pub(crate) fn contains(&self, at: Instant) -> bool {
        (self.start..self.end).contains(&at)
    }

    /// Its length, seconds.
    pub(crate) fn seconds(&self) -> f64 {
        (self.end - self.start).as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_due_at_even_distances_without_drift() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 3.0);
        assert_eq!(schedule.due(0), start);
        assert_eq!(schedule.due(3), start + Duration::from_secs(1));
        assert_eq!(schedule.due(3_000_000), start + Duration::from_secs(1_000_000));
    }

    #[test]
    fn the_count_matches_the_times() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 1_000.0);
        let end = start + Duration::from_millis(2_500);
        let count = schedule.count_before(end);
        assert_eq!(count, 2_500);
        assert!(schedule.due(count - 1) < end && schedule.due(count) >= end);
        assert_eq!(schedule.count_before(start), 0);
    }

    #[tokio::test]
    async fn a_late_taker_sees_when_records_were_due() {
        let start = Instant::now();
        let schedule = Schedule::new(start, 100_000.0);
        let mut pacer = schedule.pace(start + Duration::from_millis(20));
        let mut dues = Vec::new();
        while let Some(due) = pacer.recv().await {
            dues.push(due);
        }
        let expected: Vec<Instant> = (0..2_000).map(|number| schedule.due(number)).collect();
        assert_eq!(dues, expected);
    }

    #[test]
    fn the_warm_up_is_left_out() {
        let window = Window::from_now(Duration::from_secs(2), Duration::from_secs(10));
        assert!(!window.contains(window.start - Duration::from_millis(1)));
        assert!(window.contains(window.start));
        assert!(!window.contains(window.end));
        assert_eq!(window.seconds(), 10.0);
    }
}
