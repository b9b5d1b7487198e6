//! Latencies, in a histogram of three significant figures (HdrHistogram).

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// The longest latency that is told apart from longer ones.
const LATENCY_MAX: Duration = Duration::from_secs(600);

/// Latencies of a measurement.
#[derive(Clone, Debug)]
pub(crate) struct Latency {
    nanoseconds: Histogram<u64>,
}

impl Latency {
    /// None yet.
    pub(crate) fn new() -> Latency {
        Latency { nanoseconds: Histogram::new(3).expect("three figures are supported") }
    }

    /// Counts one.
    pub(crate) fn record(&mut self, latency: Duration) {
        let nanoseconds = latency.min(LATENCY_MAX).as_nanos() as u64;
        self.nanoseconds.record(nanoseconds).expect("the histogram grows");
    }

    /// Adds those of another measurement.
    pub(crate) fn merge(&mut self, other: &Latency) {
        self.nanoseconds.add(&other.nanoseconds).expect("the histogram grows");
    }

    /// The latency that this share of all do not exceed.
    pub(crate) fn quantile(&self, quantile: f64) -> Duration {
        Duration::from_nanos(self.nanoseconds.value_at_quantile(quantile))
    }

    /// How many were counted.
    pub(crate) fn count(&self) -> u64 {
        self.nanoseconds.len()
    }

    /// What is reported.
    pub(crate) fn summary(&self) -> LatencySummary {
        let at = |quantile: f64| microseconds(self.quantile(quantile));
        LatencySummary {
            count: self.count(),
            mean_us: self.nanoseconds.mean() / 1_000.0,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: self.nanoseconds.max() as f64 / 1_000.0,
        }
    }
}

/// Latencies as they are reported, in microseconds.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LatencySummary {
    pub(crate) count: u64,
    pub(crate) mean_us: f64,
    pub(crate) p50_us: f64,
    pub(crate) p90_us: f64,
    pub(crate) p99_us: f64,
    pub(crate) p99_9_us: f64,
    pub(crate) p99_99_us: f64,
    pub(crate) max_us: f64,
}

fn microseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1_000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(microseconds: impl IntoIterator<Item = u64>) -> Latency {
        let mut latency = Latency::new();
        microseconds.into_iter().for_each(|us| latency.record(Duration::from_micros(us)));
        latency
    }

    fn assert_close(actual: f64, expected: f64) {
        assert!((actual / expected - 1.0).abs() < 0.002, "{actual} is not {expected}");
    }

    #[test]
    fn quantiles_are_exact_to_three_figures() {
        let summary = of(1..=10_000).summary();
        assert_eq!(summary.count, 10_000);
        assert_close(summary.p50_us, 5_000.0);
        assert_close(summary.p99_us, 9_900.0);
        assert_close(summary.p99_9_us, 9_990.0);
        assert_close(summary.p99_99_us, 9_999.0);
        assert_close(summary.max_us, 10_000.0);
        assert_close(summary.mean_us, 5_000.5);
    }

    #[test]
    fn merging_equals_measuring_together() {
        let mut merged = of((1..=10_000).step_by(2));
        merged.merge(&of((2..=10_000).step_by(2)));
        let together = of(1..=10_000);
        for quantile in [0.1, 0.5, 0.9, 0.999, 1.0] {
            assert_eq!(merged.quantile(quantile), together.quantile(quantile));
        }
        assert_eq!(merged.count(), together.count());
    }

    #[test]
    fn absurd_latencies_are_counted_as_the_longest() {
        let summary = of([1, 3_600_000_000]).summary();
        assert_close(summary.max_us, LATENCY_MAX.as_secs_f64() * 1e6);
    }
}
