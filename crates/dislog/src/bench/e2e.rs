//! `dislog bench e2e`: from when a record was to be sent to its arrival at a reader that follows
//! the end.

use std::sync::Arc;
use std::time::Instant;

use dislog_client::{Client, ConsumerOptions, End, ProducerOptions, Record, Start};
use tokio::sync::mpsc;

use super::CommonArgs;
use super::content::{Content, Verifier};
use super::produce::{BatchArgs, Pace, Tally, limits_after, limits_before, wrong};
use super::report::{Report, Share};
use super::schedule::Window;
use super::target::Target;
use crate::failure::Failure;
use crate::output::{Outcome, Output, note};

/// Records that are on their way from the producer to the reader; more hold the producer back.
const ON_THEIR_WAY_MAX: usize = 1 << 20;

/// Arguments of `dislog bench e2e`.
#[derive(Debug, clap::Args)]
pub(crate) struct E2eArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Records per second that are due, whatever the server does
    #[arg(long, value_name = "NUMBER", default_value = "1000", value_parser = super::parse_rate)]
    rate: f64,
    /// Add records as fast as the server takes them, instead of at a rate
    #[arg(long, conflicts_with = "rate")]
    flood: bool,
    #[command(flatten)]
    batches: BatchArgs,
}

/// Measures and reports.
pub(crate) async fn run(args: E2eArgs, output: &mut Output) -> Outcome {
    let common = &args.common;
    let target = Target::start(common).await?;
    let mut limits = limits_before(&target, common).await?;
    let content = Content::new(common.seed, common.record_bytes);

    note(&format!("adding records to {}, and following them", target.name()));
    let window = Window::from_now(common.warm_up, common.duration);
    let tally = Arc::new(Tally::new(window));
    let rate = (!args.flood).then_some(args.rate);
    let pace = Pace::new(rate, window);
    let (dues, arriving) = mpsc::channel(ON_THEIR_WAY_MAX);
    let client = target.client()?;
    let adding = add(&client, &target, &content, args.batches.options(), pace, dues);
    let following = follow(&target, &content, arriving, &tally);
    let (added, verified_records) = tokio::try_join!(adding, following)?;
    assert_eq!(added, verified_records, "every record added was waited for");
    limits_after(&mut limits, &target, common, None).await?;

    let shares = limits.as_ref().map(|limits| Share {
        of: "p50",
        limit: "(sync of 4 KiB + loopback round trip), p50 each".to_owned(),
        share: tally.latency().quantile(0.5).as_secs_f64() / limits.one_record().as_secs_f64(),
    });
    let report = Report {
        measured: "from producer to reader, 1 of each".to_owned(),
        server: target.name(),
        record_bytes: common.record_bytes,
        warm_up_seconds: common.warm_up.as_secs_f64(),
        seconds: window.seconds(),
        offered_per_second: rate,
        records_per_second: tally.rate(),
        bytes_per_second: tally.rate() * common.record_bytes as f64,
        latency: Some(tally.latency().summary()),
        records_per_sync: None,
        syncs_counted_by: None,
        verified_records,
        shares: shares.into_iter().collect(),
        limits: limits.map(|limits| limits.summary()),
    };
    target.end().await?;
    report.print(common.format, output)
}

/// Adds records at their pace, and tells when each was due. Returns how many there were.
async fn add(
    client: &Client,
    target: &Target,
    content: &Content,
    options: ProducerOptions,
    pace: Pace,
    dues: mpsc::Sender<Instant>,
) -> Result<u64, Failure> {
    let producer = client.producer(target.topic(), options)?;
    let mut number = 0;
    while let Some(due) = pace.next().await {
        if dues.send(due).await.is_err() {
            break; // The reader failed, and says why.
        }
        // `close` reports any failure.
        drop(producer.send(Record::new(content.record(0, number))).await?);
        number += 1;
    }
    drop(dues);
    producer.close().await?;
    Ok(number)
}

/// Waits for every record that was due. Returns how many came.
async fn follow(
    target: &Target,
    content: &Content,
    mut dues: mpsc::Receiver<Instant>,
    tally: &Tally,
) -> Result<u64, Failure> {
    let options =
        ConsumerOptions { start: Start::Offset(0), end: End::Never, ..ConsumerOptions::default() };
    let mut consumer = target.client()?.consumer(target.topic(), 0, options)?;
    let mut verifier = Verifier::new(content.clone(), 1);
    while let Some(due) = dues.recv().await {
        let Some(record) = consumer.next().await? else { break };
        tally.done(due);
        verifier.accept(&record).map_err(wrong)?;
    }
    Ok(verifier.records())
}
