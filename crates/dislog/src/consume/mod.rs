//! `dislog consume`, or `dislog get`: gets records back.
//!
//! Without `-f` it reads to the end as of now, one partition after the other. With `-f` it goes on,
//! from all partitions at once; the order within a partition stays. What was read is written out
//! before it waits.

pub(crate) mod format;
pub(crate) mod range;
mod template;

use dislog_client::{
    Client, ConsumedBatch, Consumer, ConsumerOptions, End, Error, PartitionInfo, Start,
};
use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::sync::mpsc;

use crate::consume::format::{Located, RecordFormat};
use crate::consume::range::{Bound, Range};
use crate::escape::unescape;
use crate::failure::{Exit, Failure};
use crate::output::{Outcome, Output, Stop, reader_gone};
use crate::servers::ServersArg;

/// How many batches of a followed partition may wait to be written, each at most as large as the
/// server sends them.
const BATCHES_WAITING_MAX: usize = 2;

/// How much text is gathered before it is handed to the output, which writes that much without
/// copying it.
const TEXT_BYTES: usize = 1 << 20;

const NOTES: &str = r"RANGE is a first record, and one past the last if there is an end:
  start  end        the first record; behind the last one, as of now
  N  N:M  :M        offset N; N up to M, M not included; up to M
  +N  -N            N records after the start; N before the end, so -1 is the last record
  @TIME  @T1:T2     by time: Unix seconds or milliseconds, 2026-01-31T12:00:00Z, 2026-01-31 (UTC),
                    -1h or -7d (ago), now

FORMAT is value, json (one object a line), or a template with these verbs and \n \t \0 \xHH:
  %v value  %k key  %h headers  %t topic  %p partition  %o offset
  %d time   %T Unix milliseconds  %V %K lengths  %H how many headers  %% a percent sign

Examples:
  dislog get demo                        everything, a value a line
  dislog get demo -o -10                 the last ten
  dislog get demo -o @-1h:               the last hour
  dislog get demo -f -o end              only what comes from now on
  dislog get demo --format '%o %k %v\n'
  dislog get demo --delimiter '' > file  values as they are, nothing between them

Ctrl-C ends it like any other program; what was received has been written.";

/// Arguments of `dislog consume`.
#[derive(Debug, clap::Args)]
#[command(after_help = NOTES)]
pub(crate) struct ConsumeArgs {
    /// The topic
    topic: String,
    /// Which records, by offset or time
    #[arg(short = 'o', long = "offset", value_name = "RANGE", allow_hyphen_values = true)]
    #[arg(value_parser = parse_range, default_value = "start")]
    range: Range,
    /// End after so many records
    #[arg(short = 'n', long = "num", value_name = "N")]
    count: Option<u64>,
    /// Go on and wait for new records
    #[arg(short, long)]
    follow: bool,
    /// Only this partition [default: all]
    #[arg(short, long, value_name = "N")]
    partition: Option<u32>,
    /// What is written for each record
    #[arg(long, default_value = "value", value_name = "FORMAT")]
    format: RecordFormat,
    /// What ends each value, with the escapes \n \t \0 \xHH; may be empty [default: \n]
    #[arg(short, long, value_name = "BYTES", value_parser = parse_delimiter)]
    delimiter: Option<Delimiter>,
    #[command(flatten)]
    servers: ServersArg,
}

/// Bytes behind each value; a type of its own because `clap` takes a `Vec` for a list of values.
#[derive(Clone, Debug)]
struct Delimiter(Vec<u8>);

fn parse_delimiter(text: &str) -> Result<Delimiter, String> {
    unescape(text).map(Delimiter)
}

fn parse_range(text: &str) -> Result<Range, String> {
    Range::parse(text, Timestamp::now())
}

/// Gets records and writes them.
pub(crate) async fn run(args: ConsumeArgs, output: &mut Output) -> Outcome {
    if args.delimiter.is_some() && args.format != RecordFormat::Value {
        return Err(Failure::usage("--delimiter goes with the format value only")
            .hint(r"end a template with what is to stand between records, such as '%v\n'")
            .into());
    }
    let client = args.servers.resolve()?.client().await?;
    let consumers = consumers(&client, &args).await?;
    let delimiter = args.delimiter.map_or_else(|| b"\n".to_vec(), |delimiter| delimiter.0);
    let is_terminal = output.is_terminal();
    let writer = Writer {
        topic: args.topic,
        format: args.format,
        delimiter,
        left: args.count,
        text: Vec::new(),
        output,
    };
    let is_watched = args.follow && !is_terminal;
    let writing = async {
        match args.follow && consumers.len() > 1 {
            true => follow_all(consumers, writer).await,
            false => one_by_one(consumers, writer).await,
        }
    };
    tokio::select! {
        outcome = writing => outcome,
        () = reader_gone(), if is_watched => Err(Stop::Closed),
    }
}

/// A consumer for each partition that has something in the range.
async fn consumers(client: &Client, args: &ConsumeArgs) -> Result<Vec<Consumer>, Failure> {
    let topic =
        client.describe_topic(&args.topic).await.map_err(|error| missing(error, &args.topic))?;
    let chosen = |info: &&PartitionInfo| args.partition.is_none_or(|p| p == info.partition);
    let mut consumers = Vec::new();
    let mut is_known = false;
    for info in topic.partitions.iter().filter(chosen) {
        is_known = true;
        let Some(end) = end(client, args, info).await? else { continue };
        let options =
            ConsumerOptions { start: start(args.range.from, info), end, ..Default::default() };
        consumers.push(client.consumer(&args.topic, info.partition, options)?);
    }
    match args.partition {
        Some(partition) if !is_known => {
            let message = format!("topic {} has no partition {partition}", args.topic);
            let count = topic.partitions.len();
            Err(Failure::new(Exit::NotFound, message)
                .hint(format!("it has {count}, counted from 0")))
        }
        _ => Ok(consumers),
    }
}

fn missing(error: Error, topic: &str) -> Failure {
    let is_missing = matches!(error, Error::TopicNotFound(_));
    let failure = Failure::from(error);
    match is_missing {
        true => failure.hint(format!(
            "`dislog topic list` shows the topics there are; adding a record creates one: \
             echo hi | dislog add {topic}"
        )),
        false => failure,
    }
}

fn start(from: Bound, info: &PartitionInfo) -> Start {
    match from {
        // Retention may move the start meanwhile; this is the start whenever reading begins.
        Bound::Start => Start::Earliest,
        Bound::Time(ms) => Start::Timestamp(ms),
        bound => Start::Offset(
            bound
                .offset(info.start_offset, info.committed_offset)
                .expect("only a time has to be asked for"),
        ),
    }
}

/// Where reading a partition ends; `None` if the range has nothing in it.
async fn end(
    client: &Client,
    args: &ConsumeArgs,
    info: &PartitionInfo,
) -> Result<Option<End>, Failure> {
    let (first, committed) = (info.start_offset, info.committed_offset);
    let to = match args.range.to {
        None if args.follow => return Ok(Some(End::Never)),
        None => return Ok(Some(End::Committed)),
        Some(Bound::Time(ms)) if args.follow && ms > Timestamp::now().as_millisecond() => {
            return Err(Failure::usage("with -f, a range cannot end at a time to come")
                .hint("leave the end out, or leave -f out"));
        }
        Some(Bound::Time(ms)) => {
            client.offset_of(&args.topic, info.partition, Start::Timestamp(ms)).await?
        }
        Some(bound) => bound.offset(first, committed).expect("only a time has to be asked for"),
    };
    let to = if args.follow { to } else { to.min(committed) };
    let from = args.range.from.offset(first, committed);
    // An offset that is not there is an error even if nothing is to be read from it.
    let is_empty = from.is_some_and(|from| from >= to && (first..=committed).contains(&from));
    Ok((!is_empty).then_some(End::Offset(to)))
}

/// Formats records and counts them.
struct Writer<'a> {
    topic: String,
    format: RecordFormat,
    delimiter: Vec<u8>,
    /// How many records may still be written.
    left: Option<u64>,
    /// What is to be written; kept for its memory.
    text: Vec<u8>,
    output: &'a mut Output,
}

impl Writer<'_> {
    fn is_done(&self) -> bool {
        self.left == Some(0)
    }

    fn batch(&mut self, partition: u32, batch: &ConsumedBatch) -> Outcome {
        let limit =
            self.left.map_or(usize::MAX, |left| usize::try_from(left).unwrap_or(usize::MAX));
        for record in batch.records.iter().take(limit) {
            let located = Located { topic: &self.topic, partition, record };
            self.format.write(&located, &self.delimiter, &mut self.text);
            if self.text.len() >= TEXT_BYTES {
                self.output.bytes(&self.text)?;
                self.text.clear();
            }
        }
        self.output.bytes(&self.text)?;
        self.text.clear();
        let written = batch.records.len().min(limit) as u64;
        self.left = self.left.map(|left| left - written);
        Ok(())
    }
}

async fn one_by_one(consumers: Vec<Consumer>, mut writer: Writer<'_>) -> Outcome {
    for mut consumer in consumers {
        let partition = consumer.partition().partition;
        while !writer.is_done() {
            let arrived = match consumer.next_batch().now_or_never() {
                Some(arrived) => arrived,
                None => {
                    writer.output.flush()?;
                    consumer.next_batch().await
                }
            };
            match arrived.map_err(Failure::from)? {
                Some(batch) => writer.batch(partition, &batch)?,
                None => break,
            }
        }
    }
    writer.output.flush()
}

type Arrived = (u32, Result<ConsumedBatch, Error>);

async fn follow_all(consumers: Vec<Consumer>, mut writer: Writer<'_>) -> Outcome {
    let (arrived, mut arrivals) = mpsc::channel(BATCHES_WAITING_MAX);
    for consumer in consumers {
        tokio::spawn(follow(consumer, arrived.clone()));
    }
    drop(arrived);
    while !writer.is_done() {
        let next = match arrivals.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                writer.output.flush()?;
                arrivals.recv().await
            }
        };
        let Some((partition, batch)) = next else { break };
        writer.batch(partition, &batch.map_err(|error| Stop::Failed(error.into()))?)?;
    }
    writer.output.flush()
}

/// Hands on what a consumer yields until its end, an error, or until nobody wants it.
async fn follow(mut consumer: Consumer, arrived: mpsc::Sender<Arrived>) {
    let partition = consumer.partition().partition;
    loop {
        let next = match consumer.next_batch().await {
            Ok(None) => return,
            Ok(Some(batch)) => Ok(batch),
            Err(error) => Err(error),
        };
        let is_last = next.is_err();
        if arrived.send((partition, next)).await.is_err() || is_last {
            return;
        }
    }
}
