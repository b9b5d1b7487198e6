//! `dislog produce`, or `dislog add`: adds records from standard input or files.
//!
//! Three parties, each waiting for the next when it is full: a thread reads and splits
//! ([`source`]), this task hands records to the client's producer, and another counts what was
//! confirmed ([`tally`]). The client batches, retries and survives a restart of the server; nothing
//! is added twice.

mod source;
mod split;
mod tally;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dislog_client::{Compression, Delivery, Header, Producer, ProducerOptions, Record};
use serde::Serialize;
use tokio::sync::{mpsc, oneshot};

use crate::escape::unescape;
use crate::failure::{Exit, Failure};
use crate::output::{Format, Outcome, Output, note};
use crate::produce::source::{Group, Key, Layout};
use crate::produce::split::Ending;
use crate::produce::tally::{GROUPS_UNDER_WAY_MAX, Sent, Span, Tally};
use crate::quantity::{parse_duration, show_duration};
use crate::servers::ServersArg;
use crate::signals::Signals;

const NOTES: &str = "\
Every line is a record, an empty one too, and so is a last line without a newline. Values are
bytes: anything goes. What is reported as added is on stable storage. If the server restarts
meanwhile, this goes on without losing or doubling a record.

Examples:
  echo hi | dislog add demo
  dislog add demo *.log
  tail -f app.log | dislog add logs -H host:$(hostname)
  dislog add demo --key-delimiter : < pairs.txt    key:value lines
  dislog add images --whole *.png                  a record a file
  find . -print0 | dislog add names --delimiter '\\0'";

/// Arguments of `dislog produce`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct ProduceArgs {
    /// The topic; unless the server says otherwise, it is created if it does not exist
    topic: String,
    /// Files with records; standard input if there are none, or for -
    files: Vec<PathBuf>,
    /// What ends a record, with the escapes \n \r \t \0 \xHH
    #[arg(short, long, value_name = "BYTES", default_value = r"\n", value_parser = parse_bytes)]
    delimiter: Sequence,
    /// Each file is one record
    #[arg(short, long, conflicts_with = "delimiter")]
    whole: bool,
    /// The key of every record
    #[arg(short, long)]
    key: Option<String>,
    /// What stands between key and value in each record, with the same escapes
    #[arg(long, value_name = "BYTES", value_parser = parse_bytes, conflicts_with = "key")]
    key_delimiter: Option<Sequence>,
    /// A header of every record, as name:value; may be given again
    #[arg(short = 'H', long = "header", value_name = "NAME:VALUE", value_parser = parse_header)]
    headers: Vec<Header>,
    /// Add to this partition [default: by the key, else any]
    #[arg(short, long, value_name = "N")]
    partition: Option<u32>,
    /// How records travel and are stored: none, lz4 or zstd
    #[arg(short = 'z', long, value_name = "CODEC", default_value = "none")]
    compression: Compression,
    /// How long to go on trying while no server takes a record
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = parse_duration)]
    timeout: Duration,
    /// Say nothing about what was added
    #[arg(short, long)]
    quiet: bool,
    /// How what was added is shown: table on standard error, json on standard output
    #[arg(short = 'o', long, value_enum, default_value_t)]
    format: Format,
    #[command(flatten)]
    servers: ServersArg,
}

/// A sequence of at least one byte; a type of its own because `clap` takes a `Vec` for a list of
/// values.
#[derive(Clone, Debug)]
struct Sequence(Vec<u8>);

fn parse_bytes(text: &str) -> Result<Sequence, String> {
    match unescape(text)? {
        bytes if bytes.is_empty() => Err("it needs at least one byte".to_owned()),
        bytes => Ok(Sequence(bytes)),
    }
}

/// As curl has it: spaces behind the colon are no part of the value.
fn parse_header(text: &str) -> Result<Header, String> {
    match text.split_once(':') {
        Some((key, value)) if !key.is_empty() => {
            let value = Bytes::copy_from_slice(value.trim_start().as_bytes());
            Ok(Header { key: key.to_owned(), value })
        }
        _ => Err("give name:value".to_owned()),
    }
}

/// Adds records until the input or the patience of somebody ends.
pub(crate) async fn run(args: ProduceArgs, output: &mut Output) -> Outcome {
    let input_bytes = source::check(&args.files)?;
    let options = ProducerOptions {
        partition: args.partition,
        compression: args.compression,
        delivery_timeout: args.timeout,
        ..ProducerOptions::default()
    };
    let client = args.servers.resolve()?.client().await?;
    let producer = client.producer(&args.topic, options).map_err(Failure::from)?;
    let is_typed = io::stdin().is_terminal() && input_bytes.is_none();
    if is_typed && !args.quiet {
        note(&"every line is a record; Ctrl-D ends");
    }
    let started = Instant::now();
    let layout = layout(&args);
    let progress = tally::progress(input_bytes, is_typed || args.quiet);
    let groups = source::read(args.files, layout)?;
    let (tally, input_bytes, end) = add(producer, groups, progress).await?;
    let elapsed = started.elapsed();
    let report = Report::new(&args.topic, &tally, input_bytes, elapsed);
    let summary = tally::summary(&args.topic, &tally, input_bytes, &show_duration(elapsed));
    let added = tally.records();
    let verdict = verdict(tally, end);
    match args.format {
        Format::Json => output.json(&report)?,
        // That nothing was added is clear from the error.
        Format::Table if args.quiet || (added == 0 && verdict.is_err()) => {}
        Format::Table => note(&summary),
    }
    Ok(verdict?)
}

fn layout(args: &ProduceArgs) -> Layout {
    let ending = match args.whole {
        true => Ending::Input,
        false => Ending::Delimiter(args.delimiter.0.clone()),
    };
    let key = match (&args.key, &args.key_delimiter) {
        (Some(key), _) => Key::Fixed(Bytes::copy_from_slice(key.as_bytes())),
        (None, Some(separator)) => Key::Before(separator.0.clone()),
        (None, None) => Key::None,
    };
    Layout { ending, key, headers: args.headers.clone() }
}

/// Why no more records were sent.
#[derive(Debug)]
enum End {
    /// The input ended.
    Input,
    /// The input has something that is no record, or cannot be read.
    Refused(Failure),
    /// A delivery failed; the tally says why.
    Delivery,
    /// The producer takes no more; the tally says why, unless it was this very record.
    Producer(dislog_client::Error),
    /// A signal.
    Signal(Exit),
}

/// Sends everything, and waits until everything sent was confirmed or failed. The first signal ends
/// the input, the second the waiting.
async fn add(
    producer: Producer,
    groups: mpsc::Receiver<Result<Group, Failure>>,
    progress: indicatif::ProgressBar,
) -> Result<(Tally, u64, End), Failure> {
    let mut signals = Signals::listen()?;
    let (sent, deliveries) = mpsc::channel(GROUPS_UNDER_WAY_MAX);
    let (tell, failed) = oneshot::channel();
    let counting = tokio::spawn(tally::count(deliveries, tell, progress.clone()));
    let end = tokio::select! {
        end = send(&producer, groups, sent, &mut signals) => end,
        // Its input may be silent for long.
        Ok(()) = failed => End::Delivery,
    };
    let confirmed = async {
        // Whatever fails here fails a delivery as well, and is counted there.
        let _ = producer.close().await;
        counting.await.expect("counting does not panic")
    };
    tokio::select! {
        (tally, input_bytes) = confirmed => Ok((tally, input_bytes, end)),
        exit = signals.next() => {
            progress.finish_and_clear();
            Err(Failure::new(exit, "ended before everything sent was confirmed")
                .hint("some of the last records may have been added all the same"))
        }
    }
}

async fn send(
    producer: &Producer,
    mut groups: mpsc::Receiver<Result<Group, Failure>>,
    sent: mpsc::Sender<Sent>,
    signals: &mut Signals,
) -> End {
    loop {
        let group = tokio::select! {
            biased;
            exit = signals.next() => return End::Signal(exit),
            group = groups.recv() => group,
        };
        let group = match group {
            None => return End::Input,
            Some(Err(failure)) => return End::Refused(failure),
            Some(Ok(group)) => group,
        };
        let (deliveries, end) = send_group(producer, group.records, signals).await;
        // Counting ends only after the sender is gone, or by a panic that is seen when it is waited
        // for.
        let _ = sent.send(Sent { deliveries, input_bytes: group.input_bytes }).await;
        if let Some(end) = end {
            return end;
        }
    }
}

async fn send_group(
    producer: &Producer,
    records: Vec<Record>,
    signals: &mut Signals,
) -> (Vec<Delivery>, Option<End>) {
    let mut deliveries = Vec::with_capacity(records.len());
    for record in records {
        // Sending first: a signal matters only while there is no room for the record.
        tokio::select! {
            biased;
            accepted = producer.send(record) => match accepted {
                Ok(delivery) => deliveries.push(delivery),
                Err(error) => return (deliveries, Some(End::Producer(error))),
            },
            exit = signals.next() => return (deliveries, Some(End::Signal(exit))),
        }
    }
    (deliveries, None)
}

/// What was added, as JSON shows it.
#[derive(Debug, Serialize)]
struct Report<'a> {
    topic: &'a str,
    records: u64,
    input_bytes: u64,
    elapsed_ms: u64,
    unknown: u64,
    partitions: Vec<PartitionReport>,
}

#[derive(Debug, Serialize)]
struct PartitionReport {
    partition: u32,
    #[serde(flatten)]
    span: Span,
}

impl Report<'_> {
    fn new<'a>(topic: &'a str, tally: &Tally, input_bytes: u64, elapsed: Duration) -> Report<'a> {
        let spans = tally.partitions.iter();
        Report {
            topic,
            records: tally.records(),
            input_bytes,
            elapsed_ms: u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX),
            unknown: tally.unknown,
            partitions: spans
                .map(|(&partition, &span)| PartitionReport { partition, span })
                .collect(),
        }
    }
}

fn verdict(tally: Tally, end: End) -> Result<(), Failure> {
    let added = tally.records();
    let not_all = |failure: Failure| match tally.unknown {
        0 => failure,
        unknown => Failure {
            message: format!(
                "{}; {} may or may not have been added",
                failure.message,
                crate::topic::count(unknown, "record")
            ),
            ..failure
        },
    };
    match (tally.failure, end) {
        (Some(error), _) => Err(not_all(Failure::from(error))),
        (None, End::Input | End::Delivery) => Ok(()),
        (None, End::Refused(failure)) => Err(failure),
        (None, End::Producer(error)) => Err(Failure::from(error)),
        (None, End::Signal(exit)) => {
            let added = crate::topic::count(added, "record");
            Err(Failure::new(exit, format!("ended by a signal; {added} had been added")))
        }
    }
}
