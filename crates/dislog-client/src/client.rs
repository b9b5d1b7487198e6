//! The client: the servers it knows, and what is made from it.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dislog_proto::v1;
use dislog_tls::ClientTls;
use dislog_types::limits::{RECORD_BYTES_MAX, RECORD_HEADERS_MAX};
use dislog_types::{PartitionId, TopicName};
use tokio::time::{Instant, sleep, timeout_at};
use tonic::{Response, Status};

use crate::connection::{Connection, Connections, Servers};
use crate::consumer::{Consumer, ConsumerOptions, Start};
use crate::directory::Address;
use crate::pool::Pool;
use crate::producer::{Producer, ProducerOptions};
use crate::retry::{Backoff, Failure, Repeat, Verdict, later};
use crate::{AccessToken, Error, NodeClient, Record};

/// How a client behaves.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// How long a call is tried in all, while servers cannot be reached or ask to come again. 30 s.
    pub request_timeout: Duration,
    /// How long one attempt to connect may take. 5 s.
    pub connect_timeout: Duration,
    /// How servers are known, and this client to them. None: nothing is encrypted.
    pub tls: Option<ClientTls>,
    /// The bearer token to show, which takes the place of who a certificate names. It is not sent
    /// over plaintext, but to this machine. None.
    pub token: Option<AccessToken>,
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            request_timeout: Duration::from_secs(30),
            connect_timeout: Duration::from_secs(5),
            tls: None,
            token: None,
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

/// A client of a cluster. A cheap handle: clones share what is known of the servers, and their
/// connections. Its [`Producer`]s share others, one for up to 64 partitions that they add to, and
/// every [`Consumer`] has its own.
#[derive(Clone, Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    servers: Arc<Servers>,
    options: ClientOptions,
    connections: Connections,
    /// The connections of producers.
    pool: Arc<Pool>,
    /// The server that calls go to which any can do, until it fails.
    current: Mutex<Option<Address>>,
}

/// Where a call is best sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Aim {
    /// To any server.
    Any,
    /// To the leader of the partition it concerns, if that is known.
    Leader,
}

impl Client {
    /// A client of the cluster that `servers` belong to: `host:port` each, where the host may be a
    /// name. `https://` in front of it insists on TLS, `http://` on plaintext.
    ///
    /// One server is enough: the others are learnt from it, and asked for again when something
    /// fails and now and then while calls are made. Those given here stay known, for when all
    /// others are gone. What a cluster of several servers advertises must be reachable from here,
    /// or requests take a detour by way of those that are; a server that is alone is reached as
    /// given.
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
        let servers = Servers::parse(servers, options.connect_timeout, options.tls.clone())?
            .showing(options.token.clone());
        let servers = Arc::new(servers);
        let connections = Connections::new(servers.clone());
        let pool = Arc::new(Pool::new(servers.clone()));
        let shared = Shared { servers, options, connections, pool, current: Mutex::new(None) };
        Ok(Client { shared: Arc::new(shared) })
    }

    /// How it behaves.
    pub(crate) fn options(&self) -> &ClientOptions {
        &self.shared.options
    }

    /// One node of the cluster, asked by itself: see [`NodeClient`].
    ///
    /// # Errors
    /// [`Error::Address`] if the address cannot be used.
    pub fn node(&self, address: &str, timeout: Duration) -> Result<NodeClient, Error> {
        let ClientOptions { tls, token, .. } = self.options();
        NodeClient::new(address, timeout, tls.clone(), token.clone())
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
            .call_at(
                Aim::Leader,
                &id,
                expected_offset,
                "producing",
                Repeat::Doubles,
                |connection| {
                    let request = request.clone();
                    async move { connection.log().produce(request).await }
                },
            )
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

    /// How many partitions a topic has, asked of a server that surely knows if there is such a
    /// topic: to others it may be news.
    pub(crate) async fn partition_count(&self, topic: &TopicName) -> Result<u32, Error> {
        let id = whole_topic(Some(topic.clone()));
        let what = "finding the partitions";
        let answer = self
            .call_at(Aim::Leader, &id, None, what, Repeat::Harmless, |connection| {
                let request = v1::DescribeTopicRequest { topic: id.topic.to_string() };
                async move { connection.admin().describe_topic(request).await }
            })
            .await?;
        let count = answer.topic.map_or(0, |topic| topic.partitions.len());
        Ok(u32::try_from(count).unwrap_or(u32::MAX))
    }

    /// The servers known.
    pub(crate) fn known_servers(&self) -> &Arc<Servers> {
        &self.shared.servers
    }

    /// The connections for streams of appends.
    pub(crate) fn pool(&self) -> &Arc<Pool> {
        &self.shared.pool
    }

    /// The connections for calls.
    pub(crate) fn connections(&self) -> &Connections {
        &self.shared.connections
    }

    /// Calls `attempt` at any server until it succeeds, fails for good, or `request_timeout` has
    /// passed.
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
        self.call_at(Aim::Any, id, offset, what, repeat, attempt).await
    }

    /// As `call`, at the servers that are aimed at.
    pub(crate) async fn call_at<T, F>(
        &self,
        aim: Aim,
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
        let deadline = later(Instant::now(), after);
        let mut backoff = Backoff::default();
        let mut failed = None;
        let mut before = None;
        loop {
            let finding = timeout_at(deadline, self.server_for(aim, id, failed.as_deref()));
            let server = finding.await.unwrap_or_else(|_| self.any(failed.as_deref()));
            self.keep_list_fresh(id);
            let connection = self.connections().to(&server);
            let failure = match timeout_at(deadline, attempt(connection)).await {
                Ok(Ok(response)) => {
                    self.shared.servers.lock().answered(&server);
                    return Ok(response.into_inner());
                }
                Ok(Err(status)) => Failure::new(&status),
                Err(_) => Failure::broken(&unanswered(before.as_deref())),
            };
            let wait = backoff.next();
            match failure.verdict(repeat) {
                Verdict::Retry { .. } if Instant::now() + wait < deadline => {
                    tracing::debug!(what, failure = failure.message(), ?wait, "retrying a call");
                    self.move_on(id, &server, &failure);
                    failed = Some(server);
                    before = Some(failure.message().to_owned());
                    sleep(wait).await;
                }
                Verdict::Retry { .. } => {
                    let servers = self.shared.servers.names();
                    let what = format!("{what} at {servers}");
                    let last = failure.message().to_owned();
                    return Err(Error::Timeout { what, after, last });
                }
                Verdict::FailUnknown => {
                    self.move_on(id, &server, &failure);
                    let last = failure.message().to_owned();
                    return Err(Error::UnknownOutcome { id: id.clone(), last });
                }
                _ => return Err(failure.into_error(id, offset)),
            }
        }
    }

    /// The server that an attempt goes to, behind one that failed.
    async fn server_for(&self, aim: Aim, id: &PartitionId, failed: Option<&str>) -> Address {
        if aim == Aim::Leader {
            let place = match failed {
                None => self.place(id).await,
                Some(_) => self.locate(id, failed).await,
            };
            if let Ok(place) = place {
                return self.shared.servers.lock().writes_to(Instant::now(), &place);
            }
        }
        self.any(failed)
    }

    /// A server that any call can go to: the same until it fails.
    fn any(&self, failed: Option<&str>) -> Address {
        let best = || self.shared.servers.lock().any(Instant::now(), failed).swap_remove(0);
        self.lock_current().get_or_insert_with(best).clone()
    }

    /// Lets the next attempt go to another server.
    fn move_on(&self, id: &PartitionId, server: &Address, failure: &Failure) {
        let mut directory = self.shared.servers.lock();
        directory.forget_leader(id);
        if failure.is_of_server() {
            directory.failed(Instant::now(), server);
        }
        drop(directory);
        let mut current = self.lock_current();
        if current.as_ref() == Some(server) {
            *current = None;
        }
    }

    fn lock_current(&self) -> std::sync::MutexGuard<'_, Option<Address>> {
        self.shared.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is said of an attempt that came to no end in time, behind one that failed so.
fn unanswered(before: Option<&str>) -> String {
    match before {
        Some(before) => format!("no answer; before that: {before}"),
        None => "no answer".to_owned(),
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
