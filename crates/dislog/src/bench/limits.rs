//! The limits of this machine that results are compared with.

use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use super::disk::SyncedWrites;
use super::latency::{Latency, LatencySummary};
use super::loopback;
use crate::failure::{Exit, Failure};

/// The smallest write a disk does: what one small record costs at least.
const SMALL_BYTES: usize = 4 << 10;

/// A group of records as it is worth syncing when a server is busy.
const GROUP_BYTES: usize = 64 << 10;

/// Writes so large that only the disk's throughput counts.
const SEQUENTIAL_BYTES: usize = 1 << 20;

/// What this machine can do.
#[derive(Clone, Debug)]
pub(crate) struct Limits {
    small: SyncedWrites,
    medium: SyncedWrites,
    sequential: SyncedWrites,
    /// With the size that a server's groups had.
    group: Option<SyncedWrites>,
    round_trip: Latency,
    /// One measurement each.
    loopback_rates: Vec<f64>,
}

/// Limits as they are reported.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LimitsSummary {
    /// Synced appends to a growing file, by size.
    pub(crate) synced_writes: Vec<SyncedWritesSummary>,
    /// Round trips over loopback TCP.
    pub(crate) round_trip: LatencySummary,
    /// Bytes per second over loopback TCP, one way.
    pub(crate) loopback_bytes_per_second: f64,
}

/// Synced appends of one size as they are reported.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SyncedWritesSummary {
    pub(crate) write_bytes: usize,
    pub(crate) syncs_per_second: f64,
    pub(crate) bytes_per_second: f64,
    pub(crate) latency: LatencySummary,
}

impl Limits {
    /// Measures everything, each for `duration`: the disk that `dir` is on, loopback with requests
    /// of `request_bytes`.
    pub(crate) async fn measure(
        dir: &Path,
        request_bytes: usize,
        duration: Duration,
    ) -> Result<Limits, Failure> {
        let dir = dir.to_owned();
        blocking(move || {
            let network = |error: std::io::Error| {
                Failure::new(Exit::Failed, format!("cannot measure loopback: {error}"))
            };
            Ok(Limits {
                small: SyncedWrites::measure(&dir, SMALL_BYTES, duration)?,
                medium: SyncedWrites::measure(&dir, GROUP_BYTES, duration)?,
                sequential: SyncedWrites::measure(&dir, SEQUENTIAL_BYTES, duration)?,
                group: None,
                round_trip: loopback::round_trips(request_bytes, duration).map_err(network)?,
                loopback_rates: vec![loopback::throughput(duration).map_err(network)?],
            })
        })
        .await
    }

    /// Measures synced writes of one more size.
    pub(crate) async fn measure_group(
        &mut self,
        dir: &Path,
        bytes: usize,
        duration: Duration,
    ) -> Result<(), Failure> {
        let dir = dir.to_owned();
        self.group =
            Some(blocking(move || SyncedWrites::measure(&dir, bytes.max(1), duration)).await?);
        Ok(())
    }

    /// Adds what was measured at another time.
    pub(crate) fn merge(&mut self, other: &Limits) {
        self.small.merge(&other.small);
        self.medium.merge(&other.medium);
        self.sequential.merge(&other.sequential);
        self.round_trip.merge(&other.round_trip);
        self.loopback_rates.extend(&other.loopback_rates);
    }

    /// The least time in which one small record can be stored and acknowledged, usually.
    pub(crate) fn one_record(&self) -> Duration {
        self.small.latency.quantile(0.5) + self.round_trip.quantile(0.5)
    }

    /// Small syncs per second, one after the other.
    pub(crate) fn sync_rate(&self) -> f64 {
        self.small.rate()
    }

    /// Synced writes of the size that the server's groups had.
    pub(crate) fn group(&self) -> Option<&SyncedWrites> {
        self.group.as_ref()
    }

    /// Bytes per second over loopback.
    pub(crate) fn loopback_rate(&self) -> f64 {
        self.loopback_rates.iter().sum::<f64>() / self.loopback_rates.len() as f64
    }

    /// What is reported.
    pub(crate) fn summary(&self) -> LimitsSummary {
        let writes = [Some(&self.small), Some(&self.medium), Some(&self.sequential), self.group()];
        LimitsSummary {
            synced_writes: writes.into_iter().flatten().map(summary).collect(),
            round_trip: self.round_trip.summary(),
            loopback_bytes_per_second: self.loopback_rate(),
        }
    }
}

fn summary(writes: &SyncedWrites) -> SyncedWritesSummary {
    SyncedWritesSummary {
        write_bytes: writes.write_bytes,
        syncs_per_second: writes.rate(),
        bytes_per_second: writes.bytes_rate(),
        latency: writes.latency.summary(),
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    let ended = |_| Failure::new(Exit::Failed, "the measurement of this machine failed");
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(ended(error)))
}
