//! `dislog bench consume`: getting records that the server has in its memory, again and again.

use std::time::{Duration, Instant};

use dislog_client::{ConsumerOptions, Record};

use super::CommonArgs;
use super::content::{Content, Verifier};
use super::produce::{BatchArgs, limits_after, limits_before, verify, wrong};
use super::report::{Report, Share};
use super::target::Target;
use crate::failure::Failure;
use crate::output::{Outcome, Output, note};

/// Arguments of `dislog bench consume`.
#[derive(Debug, clap::Args)]
pub(crate) struct ConsumeArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// How much is added first, and then read in every round
    #[arg(long, value_name = "BYTES", default_value = "256MiB",
        value_parser = super::parse_memory_bytes)]
    bytes: usize,
    /// Bytes that the server may send ahead of what was taken
    #[arg(long, value_name = "BYTES", default_value = "4MiB",
        value_parser = super::parse_memory_bytes)]
    prefetch: usize,
    #[command(flatten)]
    batches: BatchArgs,
}

/// Measures and reports.
pub(crate) async fn run(args: ConsumeArgs, output: &mut Output) -> Outcome {
    let common = &args.common;
    let target = Target::start(common).await?;
    let mut limits = limits_before(&target, common).await?;
    let content = Content::new(common.seed, common.record_bytes);
    let records = (args.bytes / common.record_bytes).max(1) as u64;
    note(&format!("adding {records} records to {}", target.name()));
    fill(&args, &target, &content, records).await?;

    note(&"reading them, again and again");
    let warm_up = read_rounds(&args, &target, &content, records, common.warm_up).await?;
    let measured = read_rounds(&args, &target, &content, records, common.duration).await?;
    limits_after(&mut limits, &target, common, None).await?;

    let rate = measured.records as f64 / measured.elapsed.as_secs_f64();
    let bytes_rate = rate * common.record_bytes as f64;
    let shares = limits.as_ref().map(|limits| Share {
        of: "rate",
        limit: "raw TCP over loopback, one way".to_owned(),
        share: bytes_rate / limits.loopback_rate(),
    });
    let report = Report {
        measured: "consume, 1 client, records verified as they arrive".to_owned(),
        server: target.name(),
        record_bytes: common.record_bytes,
        warm_up_seconds: warm_up.elapsed.as_secs_f64(),
        seconds: measured.elapsed.as_secs_f64(),
        offered_per_second: None,
        records_per_second: rate,
        bytes_per_second: bytes_rate,
        latency: None,
        records_per_sync: None,
        syncs_counted_by: None,
        verified_records: warm_up.records + measured.records,
        shares: shares.into_iter().collect(),
        limits: limits.map(|limits| limits.summary()),
    };
    target.end().await?;
    report.print(common.format, output)
}

async fn fill(
    args: &ConsumeArgs,
    target: &Target,
    content: &Content,
    records: u64,
) -> Result<(), Failure> {
    let producer = target.client()?.producer(target.topic(), args.batches.options())?;
    for number in 0..records {
        // `close` reports any failure.
        drop(producer.send(Record::new(content.record(0, number))).await?);
    }
    Ok(producer.close().await?)
}

/// Whole rounds of reading.
struct Rounds {
    records: u64,
    elapsed: Duration,
}

/// Reads the topic from beginning to end until `at_least` has passed, once at least.
async fn read_rounds(
    args: &ConsumeArgs,
    target: &Target,
    content: &Content,
    records: u64,
    at_least: Duration,
) -> Result<Rounds, Failure> {
    let prefetch_bytes = u32::try_from(args.prefetch).unwrap_or(u32::MAX);
    let options = ConsumerOptions { prefetch_bytes, ..ConsumerOptions::default() };
    let client = target.client()?;
    let (started, mut read) = (Instant::now(), 0);
    while read == 0 || started.elapsed() < at_least {
        let mut consumer = client.consumer(target.topic(), 0, options.clone())?;
        let mut verifier = Verifier::new(content.clone(), 1);
        verify(&mut consumer, &mut verifier).await?;
        read += verifier.finish(&[records]).map_err(wrong)?;
    }
    Ok(Rounds { records: read, elapsed: started.elapsed() })
}
