//! `dislog bench disk`, and the measurement of synced writes behind it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::latency::Latency;
use super::limits::{Limits, LimitsSummary};
use super::report;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Outcome, Output};
use crate::quantity::parse_duration;

/// The most bytes that one measurement writes: disks of small machines must not fill up.
const WRITTEN_BYTES_MAX: u64 = 2 << 30;

/// Arguments of `dislog bench disk`.
#[derive(Debug, clap::Args)]
pub(crate) struct DiskArgs {
    /// A directory on the disk to measure
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// How much is written between syncs in one more measurement
    #[arg(long, value_name = "BYTES", value_parser = super::parse_memory_bytes)]
    group_bytes: Option<usize>,
    /// The size of a request over loopback
    #[arg(long, value_name = "BYTES", default_value = "1KiB",
        value_parser = super::parse_record_bytes)]
    record_bytes: usize,
    /// How long each limit is measured
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    duration: Duration,
    /// How results are shown
    #[arg(short = 'o', long, value_enum, default_value_t)]
    format: Format,
}

/// Measures and prints this machine's limits.
pub(crate) async fn run(args: DiskArgs, output: &mut Output) -> Outcome {
    let mut limits = Limits::measure(&args.dir, args.record_bytes, args.duration).await?;
    if let Some(bytes) = args.group_bytes {
        limits.measure_group(&args.dir, bytes, args.duration).await?;
    }
    let summary: LimitsSummary = limits.summary();
    match args.format {
        Format::Json => output.json(&summary),
        Format::Table => report::limits(&summary, output),
    }
}

/// Appends to a growing file, each followed by a sync of its data.
#[derive(Clone, Debug)]
pub(crate) struct SyncedWrites {
    /// The bytes of each.
    pub(crate) write_bytes: usize,
    /// How long each took, sync included.
    pub(crate) latency: Latency,
    elapsed: Duration,
}

impl SyncedWrites {
    /// Measures for `duration`, in a new file in `dir` that is removed afterwards. Blocks.
    pub(crate) fn measure(dir: &Path, bytes: usize, duration: Duration) -> Result<Self, Failure> {
        let file = Scratch::create(dir)?;
        file.append(bytes, duration).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write in {}: {error}", dir.display()))
        })
    }

    /// Adds another measurement of the same size.
    pub(crate) fn merge(&mut self, other: &SyncedWrites) {
        assert_eq!(self.write_bytes, other.write_bytes, "only the same can be added");
        self.latency.merge(&other.latency);
        self.elapsed += other.elapsed;
    }

    /// Syncs per second.
    pub(crate) fn rate(&self) -> f64 {
        self.latency.count() as f64 / self.elapsed.as_secs_f64()
    }

    /// Bytes per second.
    pub(crate) fn bytes_rate(&self) -> f64 {
        self.rate() * self.write_bytes as f64
    }
}

/// A file that goes when it is dropped.
struct Scratch {
    path: PathBuf,
    file: File,
}

impl Scratch {
    fn create(dir: &Path) -> Result<Scratch, Failure> {
        let path = dir.join(format!("dislog-bench-{:016x}.tmp", rand::random::<u64>()));
        let file =
            OpenOptions::new().write(true).create_new(true).open(&path).map_err(|error| {
                Failure::usage(format!("cannot write in {}: {error}", dir.display()))
                    .hint("name a directory that can be written: --dir, or --disk")
            })?;
        Ok(Scratch { path, file })
    }

    fn append(&self, bytes: usize, duration: Duration) -> io::Result<SyncedWrites> {
        // Not zeros: some file systems do not store those.
        let block: Vec<u8> = (0..bytes).map(|_| rand::random()).collect();
        let mut file = &self.file;
        let mut latency = Latency::new();
        let started = Instant::now();
        let writes_max = WRITTEN_BYTES_MAX / bytes.max(1) as u64;
        while started.elapsed() < duration && latency.count() < writes_max.max(1) {
            let begun = Instant::now();
            file.write_all(&block)?;
            file.sync_data()?;
            latency.record(begun.elapsed());
        }
        Ok(SyncedWrites { write_bytes: bytes, latency, elapsed: started.elapsed() })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Its name tells what it is, if it stays.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_are_counted_and_the_file_goes() {
        let dir = tempfile::tempdir().unwrap();
        let one = SyncedWrites::measure(dir.path(), 4096, Duration::from_millis(5)).unwrap();
        let mut both = SyncedWrites::measure(dir.path(), 4096, Duration::from_millis(5)).unwrap();
        let counts = (one.latency.count(), both.latency.count());
        assert!(counts.0 > 0);
        both.merge(&one);
        assert_eq!(both.latency.count(), counts.0 + counts.1);
        let counted = both.elapsed.as_secs_f64() * both.rate();
        assert!((counted - (counts.0 + counts.1) as f64).abs() < 1e-6, "{counted}");
        assert_eq!(both.bytes_rate(), both.rate() * 4096.0);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_directory_that_is_none_is_named() {
        let error = SyncedWrites::measure(Path::new("/no/such"), 1, Duration::ZERO).unwrap_err();
        assert!(error.message.contains("/no/such"), "{error}");
    }
}
