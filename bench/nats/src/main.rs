//! Publishes to a replicated stream of NATS JetStream as `dislog bench produce` adds records to
//! Dislog: each client publishes its next message when the last one is acknowledged, after a
//! warm-up, and everything is read back and compared at the end.

mod content;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use async_nats::jetstream::context::PublishErrorKind;
use async_nats::jetstream::{self, consumer, stream};
use clap::Parser;
use futures_util::StreamExt as _;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

use content::{Content, Verifier};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const STREAM: &str = "bench";
const SUBJECT: &str = "bench.records";

/// Clients that share a connection, as with `dislog bench produce`.
const CLIENTS_PER_CONNECTION: usize = 64;

/// What a server says that has not heard of the stream yet.
const NOT_FOUND: PublishErrorKind = PublishErrorKind::StreamNotFound;

/// How long the cluster may take to make the stream.
const FORM_MAX: Duration = Duration::from_secs(30);

#[derive(Debug, Parser)]
struct Args {
    /// Addresses of the cluster, as host:port
    #[arg(long, value_delimiter = ',', required = true)]
    servers: Vec<String>,
    /// Clients, each of which waits for its acknowledgement
    #[arg(long, default_value_t = 1)]
    clients: usize,
    /// Let all clients share one connection
    #[arg(long)]
    one_connection: bool,
    #[arg(long, default_value_t = 1024)]
    record_bytes: usize,
    /// Seconds that are measured
    #[arg(long, default_value_t = 5.0)]
    duration: f64,
    /// Seconds that run before that and are left out
    #[arg(long, default_value_t = 2.0)]
    warm_up: f64,
}

/// The time that counts.
#[derive(Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

/// What one client did.
struct Done {
    acknowledged: u64,
    completed_in_window: u64,
    nanoseconds: Histogram<u64>,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let stream = make_stream(&args).await?;
    let content = Content::new(args.record_bytes);
    let begin = Instant::now() + Duration::from_secs_f64(args.warm_up);
    let window = Window { begin, end: begin + Duration::from_secs_f64(args.duration) };

    let per_connection = if args.one_connection { args.clients } else { CLIENTS_PER_CONNECTION };
    let mut clients = JoinSet::new();
    let mut jetstream = None;
    for maker in 0..args.clients {
        if maker % per_connection == 0 {
            jetstream = Some(jetstream::new(connect(&args).await?));
        }
        let jetstream = jetstream.clone().expect("the first client connects");
        let content = content.clone();
        clients
            .spawn(async move { (maker, produce(jetstream, content, maker as u64, window).await) });
    }

    let mut acknowledged = vec![0; args.clients];
    let mut completed = 0;
    let mut nanoseconds = Histogram::<u64>::new(3)?;
    while let Some(done) = clients.join_next().await {
        let (maker, done) = done?;
        let done = done?;
        acknowledged[maker] = done.acknowledged;
        completed += done.completed_in_window;
        nanoseconds.add(&done.nanoseconds)?;
    }
    let verified = read_back(stream, content, &acknowledged).await?;
    report(&args, completed, &nanoseconds, verified);
    Ok(())
}

async fn connect(args: &Args) -> anyhow::Result<async_nats::Client> {
    async_nats::connect(args.servers.clone()).await.context("cannot connect")
}

/// Makes the stream anew: three replicas, in files. The cluster may still be choosing a leader.
async fn make_stream(args: &Args) -> anyhow::Result<stream::Stream> {
    let jetstream = jetstream::new(connect(args).await?);
    let begun = Instant::now();
    loop {
        let _ = jetstream.delete_stream(STREAM).await;
        let made = jetstream
            .create_stream(stream::Config {
                name: STREAM.to_owned(),
                subjects: vec![SUBJECT.to_owned()],
                num_replicas: 3,
                storage: stream::StorageType::File,
                ..stream::Config::default()
            })
            .await;
        match made {
            Ok(stream) => return Ok(stream),
            Err(error) if begun.elapsed() > FORM_MAX => bail!("cannot make the stream: {error}"),
            Err(_) => tokio::time::sleep(Duration::from_millis(200)).await,
        }
    }
}

async fn produce(
    jetstream: jetstream::Context,
    content: Content,
    maker: u64,
    window: Window,
) -> anyhow::Result<Done> {
    let mut done =
        Done { acknowledged: 0, completed_in_window: 0, nanoseconds: Histogram::new(3)? };
    loop {
        let begun = Instant::now();
        if begun >= window.end {
            return Ok(done);
        }
        let record = content.record(maker, done.acknowledged);
        let acknowledgement = match jetstream.publish(SUBJECT, record).await?.await {
            Err(error) if begun < window.begin && error.kind() == NOT_FOUND => continue,
            published => published?,
        };
        ensure!(!acknowledgement.duplicate, "a message was taken for a duplicate");
        done.acknowledged += 1;
        let now = Instant::now();
        if now >= window.begin && now < window.end {
            done.completed_in_window += 1;
        }
        if begun >= window.begin {
            done.nanoseconds.record((now - begun).as_nanos() as u64)?;
        }
    }
}

/// Reads the stream from its start and compares.
async fn read_back(
    stream: stream::Stream,
    content: Content,
    acknowledged: &[u64],
) -> anyhow::Result<u64> {
    let config = consumer::pull::OrderedConfig::default();
    let mut messages = stream.create_consumer(config).await?.messages().await?;
    let total: u64 = acknowledged.iter().sum();
    let mut verifier = Verifier::new(Arc::new(content), acknowledged.len());
    for _ in 0..total {
        let message = messages.next().await.context("the stream ends early")??;
        verifier.next(&message.payload)?;
    }
    verifier.end(acknowledged)?;
    Ok(total)
}

fn report(args: &Args, completed: u64, nanoseconds: &Histogram<u64>, verified: u64) {
    let microseconds = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1_000.0;
    let report = serde_json::json!({
        "clients": args.clients,
        "records_per_second": completed as f64 / args.duration,
        "latency": {
            "p50_us": microseconds(0.5),
            "p90_us": microseconds(0.9),
            "p99_us": microseconds(0.99),
            "p99_9_us": microseconds(0.999),
        },
        "verified_records": verified,
    });
    println!("{report}");
}
