//! `dislog bench`: measures a server and this machine, and says what share of the machine the
//! server reaches.
//!
//! ```text
//!   limits ─► warm-up ─► measurement ─► read back and verify ─► limits again ─► report
//! ```
//! - Every record carries who made it and its number, and is generated from a seed; everything that
//!   was acknowledged is read back and compared with what is generated anew. A figure without that
//!   proof is not printed.
//! - Open-loop latency counts from when a record *should* have been sent, so a stall is counted by
//!   everybody who would have waited for it.
//! - Limits are measured in the same run, before and after: disks and machines vary too much for
//!   anything else.
//!
//! Left out: profiles over time and comparing runs. `--format json` is for programs that do that.

mod consume;
mod content;
mod disk;
mod e2e;
mod gathered;
mod latency;
mod limits;
mod loopback;
mod metrics;
mod produce;
mod report;
mod schedule;
mod target;
mod unary;

use std::path::PathBuf;
use std::time::Duration;

use crate::failure::Failure;
use crate::output::{Format, Outcome, Output};
use crate::quantity::{parse_bytes, parse_duration};
use crate::servers::TlsArg;
use crate::signals::Signals;

/// The smallest record: it carries its maker and number.
const RECORD_BYTES_MIN: u64 = content::HEAD_BYTES as u64;

/// Arguments of `dislog bench`.
#[derive(Debug, clap::Args)]
pub(crate) struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

/// What is measured.
#[derive(Debug, clap::Subcommand)]
enum BenchCommand {
    /// Add records: one request at a time per client, at a fixed rate, or in batches
    Produce(produce::ProduceArgs),
    /// Get records that the server has in its memory
    Consume(consume::ConsumeArgs),
    /// Follow the end of a topic while records are added to it
    E2e(e2e::E2eArgs),
    /// Measure this machine: syncs, sequential writes, loopback
    Disk(disk::DiskArgs),
}

/// Arguments of every measurement of a server.
#[derive(Clone, Debug, clap::Args)]
struct CommonArgs {
    /// Servers to measure, as host:port [default: a server of its own, on a new directory in the
    /// current one]
    #[arg(long, value_name = "HOST:PORT,…", value_delimiter = ',')]
    servers: Vec<String>,
    #[command(flatten)]
    tls: TlsArg,
    /// Measure this machine's limits in this directory: one on the disk that the servers use
    /// [default: beside the data of the server of its own; none with --servers]
    #[arg(long, value_name = "DIR")]
    disk: Option<PathBuf>,
    /// How long each limit of this machine is measured, before and after; 0s leaves them out
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = parse_duration)]
    probe: Duration,
    /// The size of a record's value
    #[arg(long, value_name = "BYTES", default_value = "1KiB", value_parser = parse_record_bytes)]
    record_bytes: usize,
    /// How long is measured
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = parse_duration)]
    duration: Duration,
    /// How long runs before that and is left out
    #[arg(long, value_name = "TIME", default_value = "2s", value_parser = parse_duration)]
    warm_up: Duration,
    /// What records are generated from
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    seed: u64,
    /// How results are shown
    #[arg(short = 'o', long, value_enum, default_value_t)]
    format: Format,
}

fn parse_record_bytes(text: &str) -> Result<usize, String> {
    let max = dislog_types::limits::RECORD_BYTES_MAX as u64;
    match parse_bytes(text)? {
        bytes if (RECORD_BYTES_MIN..=max).contains(&bytes) => Ok(bytes as usize),
        bytes => Err(format!("{bytes} bytes: a record has {RECORD_BYTES_MIN} to {max}")),
    }
}

/// A number of bytes that fits memory.
fn parse_memory_bytes(text: &str) -> Result<usize, String> {
    usize::try_from(parse_bytes(text)?).map_err(|_| format!("{text:?} is too large"))
}

/// A rate per second above 0.
fn parse_rate(text: &str) -> Result<f64, String> {
    match text.replace('_', "").parse::<f64>() {
        Ok(rate) if rate > 0.0 && rate <= schedule::RATE_MAX => Ok(rate),
        _ => Err(format!("{text:?} is no rate: give records per second, up to 10 million")),
    }
}

/// Runs a measurement and prints its result. Ctrl-C ends it and cleans up.
pub(crate) async fn run(args: BenchArgs, output: &mut Output) -> Outcome {
    let mut signals = Signals::listen()?;
    tokio::select! {
        outcome = measure(args.command, output) => outcome,
        exit = signals.next() => Err(Failure::new(exit, "interrupted").into()),
    }
}

async fn measure(command: BenchCommand, output: &mut Output) -> Outcome {
    match command {
        BenchCommand::Produce(args) => Box::pin(produce::run(args, output)).await,
        BenchCommand::Consume(args) => Box::pin(consume::run(args, output)).await,
        BenchCommand::E2e(args) => Box::pin(e2e::run(args, output)).await,
        BenchCommand::Disk(args) => Box::pin(disk::run(args, output)).await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_checked() {
        assert_eq!(parse_record_bytes("1KiB"), Ok(1024));
        assert!(parse_record_bytes("15").is_err());
        assert!(parse_record_bytes("1GiB").is_err());
        assert_eq!(parse_rate("10_000"), Ok(10_000.0));
        assert_eq!(parse_rate("0.5"), Ok(0.5));
        for wrong in ["0", "-1", "x", "1e99", "NaN"] {
            assert!(parse_rate(wrong).is_err(), "{wrong}");
        }
    }
}
