//! `dislog bench produce`: adding records, one at a time or in batches, as fast as they are
//! acknowledged or at a rate.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use dislog_client::{Compression, Consumer, Delivery, Error, Producer, ProducerOptions, Record};
use futures_util::future::poll_immediate;
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::CommonArgs;
use super::content::{Content, Verifier, Wrong};
use super::latency::Latency;
use super::limits::Limits;
use super::report::{Report, Share, size};
use super::schedule::{Schedule, Window};
use super::target::Target;
use super::unary;
use crate::failure::{Exit, Failure};
use crate::output::{Outcome, Output, note};
use crate::quantity::parse_duration;

/// Records that may be under way at once in an open loop, unless `--clients` says otherwise.
/// Those that are due beyond that wait, and their waiting counts.
const OPEN_LOOP_CLIENTS: usize = 256;

/// The most clients: each is a task.
const CLIENTS_MAX: u64 = 100_000;

/// Clients whose requests share a connection, as those of a busy program do.
const CLIENTS_PER_CONNECTION: usize = 64;

/// Deliveries whose outcome is awaited; far more than fit a producer's buffer.
const DELIVERIES_MAX: usize = 1 << 20;

/// Deliveries that are handed over together, as long as sending does not have to wait.
const DELIVERIES_AT_ONCE: usize = 64;

/// Arguments of `dislog bench produce`.
#[derive(Debug, clap::Args)]
pub(crate) struct ProduceArgs {
    #[command(flatten)]
    common: CommonArgs,
    /// Clients that add records at the same time [default: 1; 256 with --rate]
    #[arg(long, value_name = "NUMBER",
        value_parser = clap::value_parser!(u64).range(1..=CLIENTS_MAX))]
    clients: Option<u64>,
    /// Records per second that are due, whatever the server does (open loop) [default: a client
    /// adds its next record when the last one is acknowledged (closed loop)]
    #[arg(long, value_name = "NUMBER", value_parser = super::parse_rate)]
    rate: Option<f64>,
    /// Let clients send a gRPC request for each record, instead of keeping a stream open; they are
    /// clients made for this, which leave the processors to the server
    #[arg(long)]
    unary: bool,
    /// Let clients add records in batches, many at once
    #[arg(long, conflicts_with = "unary")]
    batched: bool,
    /// Let all clients be parts of one program: they share a connection and a producer, and each
    /// waits for its record
    #[arg(long, conflicts_with_all = ["unary", "batched"])]
    shared: bool,
    #[command(flatten)]
    batches: BatchArgs,
}

/// How a batching producer is set up.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct BatchArgs {
    /// The size of a full batch
    #[arg(long, value_name = "BYTES", default_value = "1MiB",
        value_parser = super::parse_memory_bytes)]
    batch_bytes: usize,
    /// How long a batch waits for more records while others are under way
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = parse_duration)]
    linger: Duration,
    /// Batches under way at once
    #[arg(long, value_name = "NUMBER", default_value_t = 16)]
    in_flight: usize,
    /// How batches are compressed: none, lz4 or zstd
    #[arg(long, value_name = "NAME", default_value = "none")]
    compression: Compression,
}

impl BatchArgs {
    pub(crate) fn options(&self) -> ProducerOptions {
        ProducerOptions {
            batch_bytes_max: self.batch_bytes,
            linger: self.linger,
            in_flight_max: self.in_flight,
            compression: self.compression,
            ..ProducerOptions::default()
        }
    }
}

/// When the next record is to be sent.
#[derive(Clone)]
pub(crate) enum Pace {
    /// When the last one is done, until the end.
    Closed(Instant),
    /// When it is due.
    Open(Arc<tokio::sync::Mutex<mpsc::Receiver<Instant>>>),
}

impl Pace {
    /// `rate` records per second from the beginning of the run to its end, or as many as go.
    pub(crate) fn new(rate: Option<f64>, window: Window) -> Pace {
        match rate {
            None => Pace::Closed(window.end),
            Some(rate) => {
                let pacer = Schedule::new(window.begin, rate).pace(window.end);
                Pace::Open(Arc::new(tokio::sync::Mutex::new(pacer)))
            }
        }
    }

    /// When the next record is, or was, due. `None` at the end.
    pub(crate) async fn next(&self) -> Option<Instant> {
        match self {
            Pace::Closed(end) => Some(Instant::now()).filter(|now| now < end),
            Pace::Open(pacer) => pacer.lock().await.recv().await,
        }
    }
}

/// What was done.
#[derive(Debug)]
pub(crate) struct Tally {
    window: Window,
    completed: AtomicU64,
    latency: Mutex<Latency>,
}

impl Tally {
    pub(crate) fn new(window: Window) -> Tally {
        Tally { window, completed: AtomicU64::new(0), latency: Mutex::new(Latency::new()) }
    }

    /// A record that was due is done now.
    pub(crate) fn done(&self, due: Instant) {
        self.done_at(due, Instant::now());
    }

    /// A record that was due is done.
    fn done_at(&self, due: Instant, now: Instant) {
        if self.window.contains(now) {
            self.completed.fetch_add(1, Ordering::Relaxed);
        }
        if self.window.contains(due) {
            let mut latency = self.latency.lock().unwrap_or_else(PoisonError::into_inner);
            latency.record(now - due);
        }
    }

    /// When the run ends.
    pub(crate) fn end(&self) -> Instant {
        self.window.end
    }

    /// Records done per second of the window.
    pub(crate) fn rate(&self) -> f64 {
        self.completed.load(Ordering::Relaxed) as f64 / self.window.seconds()
    }

    /// The latencies so far.
    pub(crate) fn latency(&self) -> Latency {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Measures and reports.
pub(crate) async fn run(args: ProduceArgs, output: &mut Output) -> Outcome {
    let common = &args.common;
    let target = Target::start(common).await?;
    let mut limits = limits_before(&target, common).await?;
    let content = Content::new(common.seed, common.record_bytes);

    note(&format!("adding records to {}", target.name()));
    let syncs_before = target.syncs().await;
    let window = Window::from_now(common.warm_up, common.duration);
    let tally = Arc::new(Tally::new(window));
    let acknowledged = drive(&args, &target, &content, &tally).await?;
    let syncs = target.syncs().await.zip(syncs_before).and_then(|(now, then)| now.since(then));

    note(&"reading everything back");
    let verified_records = read_back(&target, &content, &acknowledged).await?;
    let records_per_sync = syncs.map(|(count, _)| verified_records as f64 / count as f64);
    let group_bytes = match records_per_sync {
        Some(records) if args.batched => (records * common.record_bytes as f64) as usize,
        _ => args.batches.batch_bytes,
    };
    limits_after(&mut limits, &target, common, args.batched.then_some(group_bytes)).await?;

    let report = Report {
        measured: title(&args),
        server: target.name(),
        record_bytes: common.record_bytes,
        warm_up_seconds: common.warm_up.as_secs_f64(),
        seconds: window.seconds(),
        offered_per_second: args.rate,
        records_per_second: tally.rate(),
        bytes_per_second: tally.rate() * common.record_bytes as f64,
        latency: Some(tally.latency().summary()),
        records_per_sync,
        syncs_counted_by: syncs.map(|(_, counted_by)| counted_by),
        verified_records,
        shares: limits.as_ref().map(|limits| shares(&args, &tally, limits)).unwrap_or_default(),
        limits: limits.map(|limits| limits.summary()),
    };
    target.end().await?;
    report.print(common.format, output)
}

fn title(args: &ProduceArgs) -> String {
    let clients = match clients(args) {
        1 => "1 client".to_owned(),
        clients => format!("{clients} clients"),
    };
    let how = match () {
        () if args.batched => "in batches",
        () if args.unary => "a request for each record",
        () if args.shared => "sharing a producer, one record after the other",
        () => "one record after the other",
    };
    let pace = if args.rate.is_some() { "open loop" } else { "closed loop" };
    format!("produce, {clients}, {how}, {pace}")
}

fn clients(args: &ProduceArgs) -> usize {
    let usual = if args.rate.is_some() && !args.batched { OPEN_LOOP_CLIENTS } else { 1 };
    args.clients.map_or(usual, |clients| clients as usize)
}

fn shares(args: &ProduceArgs, tally: &Tally, limits: &Limits) -> Vec<Share> {
    let rate = tally.rate();
    if args.batched {
        let bytes_rate = rate * args.common.record_bytes as f64;
        let of_group = limits.group().map(|group| Share {
            of: "rate",
            limit: format!("synced writes of {}", size(group.write_bytes)),
            share: bytes_rate / group.bytes_rate(),
        });
        return of_group.into_iter().collect();
    }
    let p50 = tally.latency().quantile(0.5);
    vec![
        Share {
            of: "p50",
            limit: "(sync of 4 KiB + loopback round trip), p50 each".to_owned(),
            share: p50.as_secs_f64() / limits.one_record().as_secs_f64(),
        },
        Share {
            of: "rate",
            limit: "syncs of 4 KiB, one after the other".to_owned(),
            share: rate / limits.sync_rate(),
        },
    ]
}

/// Lets all clients add records. Returns how many each had acknowledged.
async fn drive(
    args: &ProduceArgs,
    target: &Target,
    content: &Content,
    tally: &Arc<Tally>,
) -> Result<Vec<u64>, Failure> {
    let clients = clients(args);
    let pace = Pace::new(args.rate, tally.window);
    let source = |maker| Source { content: content.clone(), maker, pace: pace.clone() };
    let mut tasks = JoinSet::new();
    let leader = if args.unary { target.leader().await? } else { String::new() };
    let mut shared = None;
    for first in (0..clients as u64).step_by(CLIENTS_PER_CONNECTION) {
        let makers = first..(clients as u64).min(first + CLIENTS_PER_CONNECTION as u64);
        if args.unary {
            let (server, topic) = (leader.clone(), target.topic().to_owned());
            let (sources, tally) = (makers.map(source).collect(), tally.clone());
            let tls = target.tls().cloned();
            tasks.spawn(
                async move { unary::run(&server, tls.as_ref(), &topic, sources, &tally).await },
            );
            continue;
        }
        let connection = target.client()?;
        for maker in makers {
            let own = || connection.producer(target.topic(), args.batches.options()).map(Arc::new);
            let producer = match &shared {
                Some(producer) => Arc::clone(producer),
                None => own()?,
            };
            if args.shared {
                shared = Some(Arc::clone(&producer));
            }
            let (source, tally, batched) = (source(maker), tally.clone(), args.batched);
            tasks.spawn(async move {
                let made = match batched {
                    true => in_batches(&producer, source, tally).await,
                    false => one_by_one(producer, source, &tally).await,
                };
                Ok(vec![(maker, made?)])
            });
        }
    }
    drop((pace, shared));
    let mut acknowledged = vec![0; clients];
    while let Some(joined) = tasks.join_next().await {
        let made = joined.map_err(|_| Failure::new(Exit::Failed, "a client failed"))?;
        for (maker, records) in made? {
            acknowledged[maker as usize] = records;
        }
    }
    Ok(acknowledged)
}

/// What one client adds, and when.
pub(super) struct Source {
    pub(super) content: Content,
    pub(super) maker: u64,
    pub(super) pace: Pace,
}

impl Source {
    /// The client's record `number`, and when it is due. `None` at the end.
    pub(super) async fn next(&self, number: u64) -> Option<(Instant, Record)> {
        let due = self.pace.next().await?;
        Some((due, Record::new(self.content.record(self.maker, number))))
    }
}

async fn one_by_one(producer: Arc<Producer>, source: Source, tally: &Tally) -> Result<u64, Error> {
    let mut number = 0;
    while let Some((due, record)) = source.next(number).await {
        producer.send(record).await?.await?;
        tally.done(due);
        number += 1;
    }
    // Whoever shares it and is the last to end closes it.
    if let Some(producer) = Arc::into_inner(producer) {
        producer.close().await?;
    }
    Ok(number)
}

async fn in_batches(producer: &Producer, source: Source, tally: Arc<Tally>) -> Result<u64, Error> {
    let (queue, deliveries) = mpsc::channel(DELIVERIES_MAX / DELIVERIES_AT_ONCE);
    let collecting = tokio::spawn(collect(deliveries, tally));
    let (mut number, mut sent) = (0, Vec::with_capacity(DELIVERIES_AT_ONCE));
    loop {
        let next = at_once(source.next(number), &mut sent, &queue).await;
        let Some((due, record)) = next else { break };
        let delivery = at_once(producer.send(record), &mut sent, &queue).await?;
        number += 1;
        sent.push((due, delivery));
        if sent.len() == DELIVERIES_AT_ONCE {
            hand_on(&mut sent, &queue).await;
        }
        if queue.is_closed() {
            break; // A delivery failed, and `close` says why.
        }
    }
    hand_on(&mut sent, &queue).await;
    drop(queue);
    producer.close().await?;
    if let Ok(outcome) = collecting.await {
        outcome?;
    }
    Ok(number)
}

/// Records that were sent, and when they were due.
type Sent = Vec<(Instant, Delivery)>;

/// What comes of `work`. If it has to wait, those that were sent do not wait with it.
async fn at_once<F: Future>(work: F, sent: &mut Sent, queue: &mpsc::Sender<Sent>) -> F::Output {
    let mut work = pin!(work);
    if let Some(done) = poll_immediate(&mut work).await {
        return done;
    }
    hand_on(sent, queue).await;
    work.await
}

async fn hand_on(sent: &mut Sent, queue: &mpsc::Sender<Sent>) {
    if !sent.is_empty() {
        let next = Vec::with_capacity(DELIVERIES_AT_ONCE);
        // Whoever is gone had a failure.
        let _ = queue.send(std::mem::replace(sent, next)).await;
    }
}

async fn collect(mut deliveries: mpsc::Receiver<Sent>, tally: Arc<Tally>) -> Result<(), Error> {
    while let Some(sent) = deliveries.recv().await {
        let mut now = Instant::now();
        for (due, mut delivery) in sent {
            // What need not be waited for was done before.
            match poll_immediate(&mut delivery).await {
                Some(outcome) => outcome.map(drop)?,
                None => {
                    delivery.await?;
                    now = Instant::now();
                }
            }
            tally.done_at(due, now);
        }
    }
    Ok(())
}

/// The limits before a measurement, if they are wanted.
pub(crate) async fn limits_before(
    target: &Target,
    common: &CommonArgs,
) -> Result<Option<Limits>, Failure> {
    let Some(dir) = target.disk() else { return Ok(None) };
    note(&format!("measuring this machine's limits in {}", dir.display()));
    Ok(Some(Limits::measure(dir, common.record_bytes, common.probe).await?))
}

/// Adds the limits after a measurement, with those of synced writes of `group_bytes`.
pub(crate) async fn limits_after(
    limits: &mut Option<Limits>,
    target: &Target,
    common: &CommonArgs,
    group_bytes: Option<usize>,
) -> Result<(), Failure> {
    let (Some(limits), Some(dir)) = (limits, target.disk()) else { return Ok(()) };
    note(&"measuring the limits again");
    limits.merge(&Limits::measure(dir, common.record_bytes, common.probe).await?);
    if let Some(bytes) = group_bytes {
        limits.measure_group(dir, bytes, 2 * common.probe).await?;
    }
    Ok(())
}

/// Reads the topic and compares it with what was acknowledged.
pub(crate) async fn read_back(
    target: &Target,
    content: &Content,
    acknowledged: &[u64],
) -> Result<u64, Failure> {
    let mut consumer = target.client()?.consumer(target.topic(), 0, Default::default())?;
    let mut verifier = Verifier::new(content.clone(), acknowledged.len());
    verify(&mut consumer, &mut verifier).await?;
    verifier.finish(acknowledged).map_err(wrong)
}

/// Checks records up to the consumer's end.
pub(crate) async fn verify(
    consumer: &mut Consumer,
    verifier: &mut Verifier,
) -> Result<(), Failure> {
    while let Some(batch) = consumer.next_batch().await? {
        batch.records.iter().try_for_each(|record| verifier.accept(record)).map_err(wrong)?;
    }
    Ok(())
}

/// The one thing that must not happen.
pub(crate) fn wrong(wrong: Wrong) -> Failure {
    Failure::new(Exit::Failed, format!("the server gave back other records than it took: {wrong}"))
        .hint("this is a defect: keep the data directory and report it")
}
