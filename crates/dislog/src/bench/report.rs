//! What a measurement found, for people and for programs.

use serde::Serialize;

use super::latency::LatencySummary;
use super::limits::LimitsSummary;
use super::metrics::CountedBy;
use crate::output::{Format, Outcome, Output};

/// A measurement of a server.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Report {
    /// What was measured, in words.
    pub(crate) measured: String,
    /// Which server.
    pub(crate) server: String,
    pub(crate) record_bytes: usize,
    pub(crate) warm_up_seconds: f64,
    pub(crate) seconds: f64,
    /// The rate at which records were due, in an open loop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) offered_per_second: Option<f64>,
    pub(crate) records_per_second: f64,
    pub(crate) bytes_per_second: f64,
    /// From when a record was to be sent to its acknowledgement, or its arrival at the reader.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) latency: Option<LatencySummary>,
    /// How many records shared a sync, on average, warm-up included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) records_per_sync: Option<f64>,
    /// Who counted the syncs.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) syncs_counted_by: Option<CountedBy>,
    /// Records read back and found to be those acknowledged, warm-up included.
    pub(crate) verified_records: u64,
    /// What this machine can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) limits: Option<LimitsSummary>,
    /// Results as shares of that.
    pub(crate) shares: Vec<Share>,
}

/// A result as a share of a limit.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Share {
    /// The result.
    pub(crate) of: &'static str,
    /// The limit.
    pub(crate) limit: String,
    /// The one divided by the other.
    pub(crate) share: f64,
}

impl Report {
    /// Prints it.
    pub(crate) fn print(&self, format: Format, output: &mut Output) -> Outcome {
        match format {
            Format::Json => output.json(self),
            Format::Table => self.table(output),
        }
    }

    fn table(&self, output: &mut Output) -> Outcome {
        let bytes = size(self.record_bytes);
        line(output, "measured", &format!("{}, records of {bytes}", self.measured))?;
        line(output, "server", &self.server)?;
        let (seconds, warm_up) = (self.seconds, self.warm_up_seconds);
        line(output, "time", &format!("{seconds:.1} s, after a warm-up of {warm_up:.1} s"))?;
        if let Some(offered) = self.offered_per_second {
            line(output, "offered", &format!("{} records/s", grouped(offered)))?;
        }
        let rate = grouped(self.records_per_second);
        line(output, "rate", &format!("{rate} records/s, {}", bytes_rate(self.bytes_per_second)))?;
        if let Some(latency) = &self.latency {
            line(output, "latency", &quantiles(latency))?;
        }
        if let Some(records) = self.records_per_sync {
            let at_least = match self.syncs_counted_by {
                Some(CountedBy::Disk) => "at least ",
                Some(CountedBy::Server) | None => "",
            };
            line(output, "per sync", &format!("{at_least}{records:.1} records"))?;
        }
        let verified = grouped(self.verified_records as f64);
        line(output, "verified", &format!("{verified} records: all there, once, unchanged"))?;
        if let Some(limits) = &self.limits {
            output.line("")?;
            self::limits(limits, output)?;
        }
        if !self.shares.is_empty() {
            output.line("")?;
        }
        for Share { of, limit, share } in &self.shares {
            let times = if *share < 10.0 { format!("{share:.2}") } else { format!("{share:.0}") };
            line(output, of, &format!("{times} × {limit}"))?;
        }
        Ok(())
    }
}

/// Prints this machine's limits.
pub(crate) fn limits(limits: &LimitsSummary, output: &mut Output) -> Outcome {
    for writes in &limits.synced_writes {
        let rate = grouped(writes.syncs_per_second);
        let bytes_rate = bytes_rate(writes.bytes_per_second);
        let text = format!("{rate}/s, {bytes_rate}, {}", quantiles(&writes.latency));
        line(output, &format!("sync {}", size(writes.write_bytes)), &text)?;
    }
    line(output, "round trip", &quantiles(&limits.round_trip))?;
    line(output, "loopback", &bytes_rate(limits.loopback_bytes_per_second))
}

fn line(output: &mut Output, name: &str, text: &str) -> Outcome {
    output.line(&format!("{name:<16}{text}"))
}

fn quantiles(latency: &LatencySummary) -> String {
    let LatencySummary { p50_us, p90_us, p99_us, p99_9_us, p99_99_us, max_us, .. } = latency;
    let [p50, p90, p99] = [p50_us, p90_us, p99_us].map(|us| time(*us));
    let [p99_9, p99_99, max] = [p99_9_us, p99_99_us, max_us].map(|us| time(*us));
    format!("p50 {p50}, p90 {p90}, p99 {p99}, p99.9 {p99_9}, p99.99 {p99_99}, max {max}")
}

/// A time of so many microseconds, with three figures.
fn time(microseconds: f64) -> String {
    match microseconds {
        us if us < 1_000.0 => format!("{us:.0} µs"),
        us if us < 10_000.0 => format!("{:.2} ms", us / 1e3),
        us if us < 100_000.0 => format!("{:.1} ms", us / 1e3),
        us if us < 1_000_000.0 => format!("{:.0} ms", us / 1e3),
        us => format!("{:.2} s", us / 1e6),
    }
}

fn bytes_rate(bytes_per_second: f64) -> String {
    match bytes_per_second {
        rate if rate < 1e6 => format!("{:.1} kB/s", rate / 1e3),
        rate if rate < 1e9 => format!("{:.1} MB/s", rate / 1e6),
        rate => format!("{:.2} GB/s", rate / 1e9),
    }
}

/// A number of bytes, in the unit that suits it.
pub(crate) fn size(bytes: usize) -> String {
    match bytes {
        bytes if bytes >= 1 << 20 && bytes.is_multiple_of(1 << 20) => {
            format!("{} MiB", bytes >> 20)
        }
        bytes if bytes >= 1 << 10 && bytes.is_multiple_of(1 << 10) => {
            format!("{} KiB", bytes >> 10)
        }
        bytes if bytes >= 10 << 10 => format!("{:.1} KiB", bytes as f64 / 1024.0),
        bytes => format!("{bytes} B"),
    }
}

/// A whole number with its digits in groups of three; with a decimal if it is small.
fn grouped(number: f64) -> String {
    if number < 100.0 {
        return format!("{number:.1}");
    }
    let digits = format!("{number:.0}");
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!(grouped(1_234_567.4), "1,234,567");
        assert_eq!(grouped(999.0), "999");
        assert_eq!(grouped(12.34), "12.3");
        assert_eq!(time(850.2), "850 µs");
        assert_eq!(time(1_234.0), "1.23 ms");
        assert_eq!(time(2_500_000.0), "2.50 s");
        assert_eq!(bytes_rate(1_234_567.0), "1.2 MB/s");
        assert_eq!(size(4096), "4 KiB");
        assert_eq!(size(1000), "1000 B");
        assert_eq!(size(300_000), "293.0 KiB");
    }
}
