//! The client: the servers it knows, and what is made from it.

use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use dislog_proto::v1;
use dislog_types::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use dislog_types::{PartitionId, TopicName};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Response, Status};

use crate::connection::{ANSWERS_WINDOW_BYTES, Connection, Servers};
use crate::consumer::{Consumer, ConsumerOptions, Start};
use crate::producer::{Producer, ProducerOptions};
use crate::retry::{Backoff, Failure, Repeat, Verdict};
use crate::{Error, Record};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long a call is tried in all, while servers cannot be reached or ask to come again. 30 s.
    pub request_timeout: Duration,
    /// How long one attempt to connect may take. 5 s.
    pub connect_timeout: Duration,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
        }
    }
}

/// Where records were appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Produced {
    /// The offset of the first record; the others follow densely.
    pub offset: u64,
    /// How many records were appended.
    pub count: u32,
    /// When they were appended, Unix milliseconds.
    pub timestamp_ms: i64,
}

/// A client of a cluster. A cheap handle: clones share one connection, beside which every
/// [`Producer`] and [`Consumer`] has its own.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    servers: Arc<Servers>,
    options: ClientOptions,
    /// Made at the first call, because a channel needs a runtime to live in.
    connection: OnceLock<Mutex<Connection>>,
}

impl Client {
    /// A client of the cluster that `servers` belong to: `host:port` or `http://host:port` each.
    ///
    /// Nothing is dialled yet: the first call connects, to the first server that answers, and goes
    /// on trying while servers are (re)starting, up to [`ClientOptions::request_timeout`].
    ///
    /// # Errors
    /// [`Error::Address`] if an address cannot be used, or there is none.
    pub fn connect<S: AsRef<str>>(
        servers: impl IntoIterator<Item = S>,
        options: ClientOptions,
    ) -> Result<Client, Error> {
        let servers = Arc::new(Servers::parse(servers, options.connect_timeout)?);
        Ok(Client { shared: Arc::new(Shared { servers, options, connection: OnceLock::new() }) })
    }

    /// A producer to `topic`. Needs a Tokio runtime when records are sent.
    ///
    /// # Errors
    /// If the topic's name or an option cannot be used.
    pub fn producer(&self, topic: &str, options: ProducerOptions) -> Result<Producer, Error> {
        Producer::new(self.clone(), topic.parse()?, options)
    }

    /// A consumer of one partition of `topic`. Needs a Tokio runtime when records are read.
    ///
    /// # Errors
    /// If the topic's name or an option cannot be used.
    pub fn consumer(
        &self,
        topic: &str,
        partition: u32,
        options: ConsumerOptions,
    ) -> Result<Consumer, Error> {
        let id = PartitionId { topic: topic.parse()?, partition };
        Consumer::new(self.clone(), id, options)
    }

    /// Appends records in one request, all or none, and waits for stable storage: for a program
    /// that adds a few records and for conditional appends. A [`Producer`] is many times faster,
    /// and retries without doubling.
    ///
    /// With `expected_offset` the records are appended only if that is the offset the first one
    /// would get.
    ///
    /// # Errors
    /// See [`Error`]. This call is repeated only where it is sure that nothing was appended.
    pub async fn produce(
        &self,
        topic: &str,
        partition: u32,
        records: Vec<Record>,
        expected_offset: Option<u64>,
    ) -> Result<Produced, Error> {
        let id = PartitionId { topic: topic.parse()?, partition };
        records.iter().try_for_each(check_record)?;
        let request = v1::ProduceRequest {
            records: records.into_iter().map(to_wire).collect(),
            topic: topic.to_owned(),
            partition,
            expected_offset,
            ..v1::ProduceRequest::default()
        };
        let answer = self
            .call(&id, expected_offset, "producing", Repeat::Doubles, |connection| {
                let request = request.clone();
                async move { connection.log().produce(request).await }
            })
            .await?;
        let (offset, timestamp_ms) = (answer.offset, answer.timestamp_ms);
        Ok(Produced { offset, count: answer.count, timestamp_ms })
    }

    /// The offset that `start` means at the moment, e.g. of the first record at or after a time. It
    /// is the committed offset if no such record exists yet.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], [`Error::OutOfRange`], or [`Error::Timeout`] if no server answers.
    pub async fn offset_of(&self, topic: &str, partition: u32, start: Start) -> Result<u64, Error> {
        let id = PartitionId { topic: topic.parse()?, partition };
        Ok(self.resolve(&id, start, false).await?.offset)
    }

    /// A connection for a producer or consumer of its own.
    pub(crate) fn connection(&self, window_bytes: u32) -> Connection {
        Connection::new(self.shared.servers.clone(), window_bytes)
    }

    /// Calls `attempt` until it succeeds, fails for good, or `request_timeout` has passed.
    pub(crate) async fn call<T, F>(
        &self,
        id: &PartitionId,
        offset: Option<u64>,
        what: &str,
        repeat: Repeat,
        attempt: impl Fn(Connection) -> F,
    ) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let after = self.shared.options.request_timeout;
        let deadline = Instant::now() + after;
        let mut backoff = Backoff::default();
        loop {
            let connection = self.lock().clone();
            let failure = match timeout_at(deadline, attempt(connection)).await {
                Ok(Ok(response)) => return Ok(response.into_inner()),
                Ok(Err(status)) => Failure::new(&status),
                Err(_) => Failure::broken("no answer"),
            };
            let wait = backoff.next();
            match failure.verdict(repeat) {
                Verdict::Retry { .. } if Instant::now() + wait < deadline => {
                    tracing::debug!(what, failure = failure.message(), ?wait, "retrying a call");
                    self.lock().move_on();
                    sleep(wait).await;
                }
                Verdict::Retry { .. } => {
                    let servers = self.shared.servers.names();
                    let what = format!("{what} at {servers}");
                    let last = failure.message().to_owned();
                    return Err(Error::Timeout { what, after, last });
                }
                Verdict::FailUnknown => {
                    let last = failure.message().to_owned();
                    return Err(Error::UnknownOutcome { id: id.clone(), last });
                }
                _ => return Err(failure.into_error(id, offset)),
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Connection> {
        self.shared
            .connection
            .get_or_init(|| Mutex::new(self.connection(ANSWERS_WINDOW_BYTES)))
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

/// Refuses a record that no server takes, before it costs anything.
pub(crate) fn check_record(record: &Record) -> Result<(), Error> {
    let (bytes, count) = (record.content_bytes(), record.headers.len());
    if bytes > RECORD_BYTES_MAX {
        return Err(Error::RecordTooLarge { bytes, bytes_max: RECORD_BYTES_MAX });
    }
    if count > RECORD_HEADERS_MAX {
        return Err(Error::TooManyHeaders { count, count_max: RECORD_HEADERS_MAX });
    }
    Ok(())
}

/// The partition named in errors of calls that concern a whole topic or none.
pub(crate) fn whole_topic(topic: Option<TopicName>) -> PartitionId {
    PartitionId { topic: topic.unwrap_or_else(TopicName::default_topic), partition: 0 }
}

fn to_wire(record: Record) -> v1::Record {
    let headers = record.headers.into_iter();
    v1::Record {
        value: record.value,
        key: record.key,
        headers: headers.map(|h| v1::Header { key: h.key, value: h.value }).collect(),
        created_ms: record.created_ms,
        ..v1::Record::default()
    }
}
