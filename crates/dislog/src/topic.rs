//! `dislog topic`: manages topics.

use std::io::{self, BufRead, IsTerminal, Write};

use dislog_client::{Client, Error, PartitionInfo, Start, Topic, TopicSettings};
use indicatif::{HumanBytes, HumanCount};
use jiff::Timestamp;
use serde::Serialize;

use crate::args::FormatArg;
use crate::consume::format::rfc3339;
use crate::consume::range::{Bound, Range};
use crate::failure::{Exit, Failure};
use crate::output::{Format, Outcome, Output, note};
use crate::quantity::{parse_bytes, parse_duration, show_whole_ms};
use crate::servers::ServersArg;

const NO_TOPICS: &str =
    "there are no topics yet; adding a record creates one: echo hi | dislog add demo";

/// Arguments of `dislog topic`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopicArgs {
    #[command(subcommand)]
    command: TopicCommand,
}

#[derive(Debug, clap::Subcommand)]
enum TopicCommand {
    /// Create topics
    Create {
        /// Their names
        #[arg(required = true)]
        topics: Vec<String>,
        /// How many partitions each has
        #[arg(short, long, default_value_t = 1)]
        partitions: u32,
        /// Do nothing for a topic that exists
        #[arg(long)]
        if_not_exists: bool,
        #[command(flatten)]
        settings: SettingsArg,
        #[command(flatten)]
        common: Common,
    },
    /// List all topics
    #[command(visible_alias = "ls")]
    List {
        #[command(flatten)]
        common: Common,
    },
    /// Show a topic: its settings and its partitions
    Describe {
        /// Its name
        topic: String,
        #[command(flatten)]
        common: Common,
    },
    /// Change settings of a topic; those not given stay as they are
    Alter {
        /// Its name
        topic: String,
        #[command(flatten)]
        settings: SettingsArg,
        #[command(flatten)]
        common: Common,
    },
    /// Drop the records of a topic below an offset or time
    Trim {
        /// Its name
        topic: String,
        /// The first record to keep: an offset, end, -N (the last N), or @TIME (as for `consume
        /// -o`)
        #[arg(value_name = "BOUND", allow_hyphen_values = true)]
        keep_from: String,
        /// Only of this partition
        #[arg(short, long, value_name = "N")]
        partition: Option<u32>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Delete topics with all their records
    Delete {
        /// Their names
        #[arg(required = true)]
        topics: Vec<String>,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
        /// Do nothing for a topic that does not exist
        #[arg(long)]
        if_exists: bool,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct Common {
    #[command(flatten)]
    servers: ServersArg,
    #[command(flatten)]
    format: FormatArg,
}

#[derive(Debug, clap::Args)]
struct SettingsArg {
    /// Keep about this much per partition, as 10GiB; 0 keeps everything
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    retention_bytes: Option<u64>,
    /// Keep records about this long, as 7d or 12h; 0 keeps them for ever
    #[arg(long, value_name = "TIME", value_parser = parse_retention_ms)]
    retention_time: Option<u64>,
    /// Seal a segment at this size: retention drops whole segments
    #[arg(long, value_name = "SIZE", value_parser = parse_bytes)]
    segment_bytes: Option<u64>,
    /// Have so many replicas of each partition, or as many as there are nodes
    #[arg(long, value_name = "NUMBER")]
    replicas: Option<u32>,
}

fn parse_retention_ms(text: &str) -> Result<u64, String> {
    if text == "0" {
        return Ok(0);
    }
    let ms = parse_duration(text)?.as_millis();
    u64::try_from(ms).map_err(|_| format!("{text:?} is too long"))
}

impl SettingsArg {
    fn settings(&self) -> TopicSettings {
        TopicSettings {
            retention_bytes: self.retention_bytes,
            retention_ms: self.retention_time,
            segment_bytes: self.segment_bytes,
            replicas: self.replicas,
        }
    }
}

/// Runs one of the topic commands.
pub(crate) async fn run(args: TopicArgs, output: &mut Output) -> Outcome {
    match args.command {
        TopicCommand::Create { topics, partitions, if_not_exists, settings, common } => {
            let client = common.client().await?;
            let mut shown = Vec::new();
            for name in &topics {
                let created = create(&client, name, partitions, &settings, if_not_exists).await;
                shown.push(created.map_err(Failure::from)?);
            }
            show_all(&shown, common.format.format, output)
        }
        TopicCommand::List { common } => {
            let topics = common.client().await?.list_topics().await.map_err(Failure::from)?;
            if topics.is_empty() {
                note(&NO_TOPICS);
            }
            show_all(&topics, common.format.format, output)
        }
        TopicCommand::Describe { topic, common } => {
            let topic = common.client().await?.describe_topic(&topic).await;
            show_one(&topic.map_err(Failure::from)?, common.format.format, output)
        }
        TopicCommand::Alter { topic, settings, common } => {
            let settings = settings.settings();
            if settings == TopicSettings::default() {
                return Err(Failure::usage("nothing to change")
                    .hint("give --retention-bytes, --retention-time, --segment-bytes or --replicas")
                    .into());
            }
            let topic = common.client().await?.alter_topic(&topic, settings).await;
            show_one(&topic.map_err(Failure::from)?, common.format.format, output)
        }
        TopicCommand::Trim { topic, keep_from, partition, yes, common } => {
            let keep_from = parse_keep_from(&keep_from)?;
            let client = common.client().await?;
            let trims = plan_trims(&client, &topic, keep_from, partition).await?;
            trim(&client, &topic, &trims, yes, common.format.format, output).await
        }
        TopicCommand::Delete { topics, yes, if_exists, common } => {
            let client = common.client().await?;
            delete(&client, &topics, yes, if_exists, common.format.format, output).await
        }
    }
}

impl Common {
    async fn client(&self) -> Result<Client, Failure> {
        self.servers.resolve()?.client().await
    }
}

async fn create(
    client: &Client,
    name: &str,
    partitions: u32,
    settings: &SettingsArg,
    if_not_exists: bool,
) -> Result<Topic, Error> {
    match client.create_topic(name, partitions, settings.settings()).await {
        Err(Error::TopicExists(_)) if if_not_exists => client.describe_topic(name).await,
        result => result,
    }
}

fn parse_keep_from(text: &str) -> Result<Bound, Failure> {
    match Range::parse(text, Timestamp::now()) {
        Ok(Range { from, to: None }) => Ok(from),
        Ok(_) => Err(Failure::usage(format!("{text:?} is a range; give its end alone"))),
        Err(message) => Err(Failure::usage(message)),
    }
}

/// What is to be dropped from one partition.
#[derive(Debug, Serialize)]
struct Trim {
    partition: u32,
    records: u64,
    start_offset: u64,
}

async fn plan_trims(
    client: &Client,
    topic: &str,
    keep_from: Bound,
    partition: Option<u32>,
) -> Result<Vec<Trim>, Failure> {
    let described = client.describe_topic(topic).await?;
    let count = described.partitions.len();
    if matches!((keep_from, partition), (Bound::Offset(_), None)) && count > 1 {
        return Err(Failure::usage(format!(
            "topic {topic} has {count} partitions, and an offset belongs to one of them"
        ))
        .hint("say which with --partition"));
    }
    let chosen = |info: &&PartitionInfo| partition.is_none_or(|chosen| chosen == info.partition);
    let mut trims = Vec::new();
    for info in described.partitions.iter().filter(chosen) {
        let start_offset = match keep_from {
            Bound::Time(ms) => {
                client.offset_of(topic, info.partition, Start::Timestamp(ms)).await?
            }
            bound => bound
                .offset(info.start_offset, info.committed_offset)
                .expect("only a time has to be asked for"),
        };
        if start_offset > info.committed_offset {
            return Err(Failure::new(
                Exit::NotFound,
                format!(
                    "offset {start_offset} is beyond the end of {topic}-{}, which is {}",
                    info.partition, info.committed_offset
                ),
            )
            .hint("give `end` to drop everything there is"));
        }
        let records = start_offset.saturating_sub(info.start_offset);
        trims.push(Trim { partition: info.partition, records, start_offset });
    }
    if trims.is_empty() {
        let wanted = partition.unwrap_or_default();
        return Err(Failure::new(
            Exit::NotFound,
            format!("topic {topic} has no partition {wanted}"),
        )
        .hint(format!("it has {count}, counted from 0")));
    }
    Ok(trims)
}

async fn trim(
    client: &Client,
    topic: &str,
    trims: &[Trim],
    yes: bool,
    format: Format,
    output: &mut Output,
) -> Outcome {
    let records: u64 = trims.iter().map(|trim| trim.records).sum();
    if records > 0 {
        confirm(yes, &format!("drop {} of topic {topic}", count(records, "record")))?;
    }
    for trim in trims.iter().filter(|trim| trim.records > 0) {
        let trimmed = client.trim_topic(topic, trim.partition, trim.start_offset).await;
        trimmed.map_err(Failure::from)?;
    }
    match format {
        Format::Json => output.json(&trims),
        Format::Table => trims.iter().try_for_each(|trim| output.line(&trim_line(topic, trim))),
    }
}

fn trim_line(topic: &str, trim: &Trim) -> String {
    match trim.records {
        0 => format!("{topic}-{}: nothing to drop", trim.partition),
        records => format!(
            "{topic}-{}: dropped {}, it starts at offset {} now",
            trim.partition,
            count(records, "record"),
            trim.start_offset
        ),
    }
}

async fn delete(
    client: &Client,
    names: &[String],
    yes: bool,
    if_exists: bool,
    format: Format,
    output: &mut Output,
) -> Outcome {
    let mut topics = Vec::new();
    for name in names {
        match client.describe_topic(name).await {
            Ok(topic) => topics.push(topic),
            Err(Error::TopicNotFound(_)) if if_exists => {}
            Err(error) => return Err(Failure::from(error).into()),
        }
    }
    for topic in &topics {
        let records = count(records(topic), "record");
        confirm(yes, &format!("delete topic {} with {records}", topic.name))?;
        client.delete_topic(&topic.name).await.map_err(Failure::from)?;
        if format == Format::Table {
            output.line(&format!("deleted topic {} with {records}", topic.name))?;
            output.flush()?;
        }
    }
    match format {
        Format::Json => output.json(&topics.iter().map(TopicShown::new).collect::<Vec<_>>()),
        Format::Table => Ok(()),
    }
}

/// Asks a person whether to do what cannot be undone; a program has to say `--yes`.
pub(crate) fn confirm(yes: bool, what: &str) -> Result<(), Failure> {
    if yes {
        return Ok(());
    }
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Err(Failure::usage(format!("will not {what} unasked"))
            .hint("there is no terminal to ask on: add --yes if you mean it"));
    }
    let mut answer = String::new();
    let asked = write!(io::stderr(), "About to {what}. This cannot be undone. Go on? [y/N] ");
    asked
        .and_then(|()| io::stdin().lock().read_line(&mut answer))
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot ask: {error}")))?;
    match answer.trim() {
        "y" | "Y" | "yes" => Ok(()),
        _ => Err(Failure::new(Exit::Failed, format!("did not {what}"))),
    }
}

/// A topic as JSON shows it.
#[derive(Debug, Serialize)]
struct TopicShown<'a> {
    name: &'a str,
    created: String,
    retention_bytes: u64,
    retention_ms: u64,
    segment_bytes: u64,
    replicas: u32,
    partitions: Vec<PartitionShown<'a>>,
}

#[derive(Debug, Serialize)]
struct PartitionShown<'a> {
    partition: u32,
    start_offset: u64,
    committed_offset: u64,
    size_bytes: u64,
    segments: u32,
    leader: Option<&'a str>,
    fault: Option<&'a str>,
}

impl TopicShown<'_> {
    fn new(topic: &Topic) -> TopicShown<'_> {
        TopicShown {
            name: &topic.name,
            created: rfc3339(topic.created_ms),
            retention_bytes: topic.settings.retention_bytes.unwrap_or_default(),
            retention_ms: topic.settings.retention_ms.unwrap_or_default(),
            segment_bytes: topic.settings.segment_bytes.unwrap_or_default(),
            replicas: topic.settings.replicas.unwrap_or(1),
            partitions: topic.partitions.iter().map(PartitionShown::new).collect(),
        }
    }
}

impl PartitionShown<'_> {
    fn new(partition: &PartitionInfo) -> PartitionShown<'_> {
        PartitionShown {
            partition: partition.partition,
            start_offset: partition.start_offset,
            committed_offset: partition.committed_offset,
            size_bytes: partition.size_bytes,
            segments: partition.segments,
            leader: partition.leader.as_deref(),
            fault: partition.fault.as_deref(),
        }
    }
}

fn show_all(topics: &[Topic], format: Format, output: &mut Output) -> Outcome {
    if format == Format::Json {
        return output.json(&topics.iter().map(TopicShown::new).collect::<Vec<_>>());
    }
    let row = |topic: &Topic| {
        let size = topic.partitions.iter().map(|partition| partition.size_bytes).sum();
        vec![
            topic.name.clone(),
            topic.partitions.len().to_string(),
            HumanCount(records(topic)).to_string(),
            HumanBytes(size).to_string(),
        ]
    };
    let header = ["TOPIC", "PARTITIONS", "RECORDS", "SIZE"];
    output.table(&header, &header[1..], topics.iter().map(row).collect())
}

fn show_one(topic: &Topic, format: Format, output: &mut Output) -> Outcome {
    if format == Format::Json {
        return output.json(&TopicShown::new(topic));
    }
    let shown = TopicShown::new(topic);
    let retention_time = match shown.retention_ms {
        0 => "for ever".to_owned(),
        ms => show_whole_ms(ms),
    };
    let retention_bytes = match shown.retention_bytes {
        0 => "everything".to_owned(),
        bytes => HumanBytes(bytes).to_string(),
    };
    output.line(&format!("topic            {}", shown.name))?;
    output.line(&format!("created          {}", shown.created))?;
    output.line(&format!("retention bytes  {retention_bytes}"))?;
    output.line(&format!("retention time   {retention_time}"))?;
    output.line(&format!("segment bytes    {}", HumanBytes(shown.segment_bytes)))?;
    output.line(&format!("replicas         {}", shown.replicas))?;
    output.line("")?;
    let row = |partition: &PartitionShown<'_>| {
        vec![
            partition.partition.to_string(),
            partition.start_offset.to_string(),
            partition.committed_offset.to_string(),
            HumanBytes(partition.size_bytes).to_string(),
            partition.segments.to_string(),
            partition.leader.unwrap_or("none").to_owned(),
            partition.fault.unwrap_or_default().to_owned(),
        ]
    };
    let header = ["PARTITION", "START", "END", "SIZE", "SEGMENTS", "LEADER", "FAULT"];
    output.table(&header, &header[..5], shown.partitions.iter().map(row).collect())
}

fn records(topic: &Topic) -> u64 {
    let records = |p: &PartitionInfo| p.committed_offset.saturating_sub(p.start_offset);
    topic.partitions.iter().map(records).sum()
}

/// A number with the thing it counts: `1 record`, `2 records`.
pub(crate) fn count(number: u64, thing: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", HumanCount(number))
}
