//! Getting records back.
//!
//! ```text
//!  server ─► ConsumeStream, raw ─► HTTP/2 window ─► cursor ─► next
//!                                  (prefetch)       (verify, decode, cut)
//! ```
//! There is no task: the connection's window is the prefetch, and decoding happens where records
//! are taken. After a failure the stream is opened again at the next offset, at another server if
//! there is one, so nothing is lost or doubled.
//!
//! A replica may be behind what was read from another. That it does not have a record does not mean
//! that there is none: the consumer goes elsewhere, or waits. Where a start lies, and whether an
//! offset is outside of the log, is for the leader to say.

mod cursor;

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use dislog_proto::v1::{self, consume_request};
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Status, Streaming};

use crate::client::{Aim, Client};
use crate::connection::{Connection, READER_PROBE_AFTER, WINDOW_BYTES_MAX, WINDOW_BYTES_MIN};
use crate::directory::{Address, ReadFrom};
use crate::retry::{Backoff, Failure, Repeat, Verdict, later};
use crate::{Error, Header, PartitionId};
use cursor::Cursor;

/// The most bytes of one response, unless a single batch is larger.
const RESPONSE_BYTES_MAX: u32 = 1 << 20;

/// How long a server may take to begin a stream before another is tried.
const OPEN_TIMEOUT: Duration = Duration::from_secs(3);

/// How long a server waits before it says that there is no record yet: the shortest time there is.
const NO_WAIT_MS: u32 = 1;

/// Where a consumer starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// At this offset.
    Offset(u64),
    /// At the first record there is.
    Earliest,
    /// At the next record to be appended.
    Latest,
    /// At the last so many records.
    Last(u64),
    /// At the first record appended at or after this time, Unix milliseconds.
    Timestamp(i64),
}

/// Where a consumer ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// After the last record that is committed when reading begins.
    Committed,
    /// Before this offset, which may still have to be appended.
    Offset(u64),
    /// Never: it follows the end of the log.
    Never,
}

/// How a consumer behaves.
#[derive(Clone, Debug)]
pub struct ConsumerOptions {
    /// Where to start. [`Start::Earliest`].
    pub start: Start,
    /// Where to end. [`End::Committed`].
    pub end: End,
    /// Bytes that the server may send ahead of what was taken: 64 KiB to 2 GiB. 4 MiB.
    pub prefetch_bytes: u32,
    /// Which replicas to read from. [`ReadFrom::Followers`].
    pub read_from: ReadFrom,
    /// See every record acknowledged before reading begins, whichever server answers. Off.
    pub linearizable: bool,
    /// How long to try to reach a server again after a failure. 120 s.
    pub reconnect_timeout: Duration,
}

impl Default for ConsumerOptions {
    fn default() -> ConsumerOptions {
        ConsumerOptions {
            start: Start::Earliest,
            end: End::Committed,
            prefetch_bytes: 4 << 20,
            read_from: ReadFrom::default(),
            linearizable: false,
            reconnect_timeout: Duration::from_secs(120),
        }
    }
}

/// A record at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedRecord {
    /// Its offset.
    pub offset: u64,
    /// When it was appended, Unix milliseconds.
    pub timestamp_ms: i64,
    /// When its producer made it, Unix milliseconds.
    pub created_ms: i64,
    /// What it is about. No key and an empty key differ.
    pub key: Option<Bytes>,
    /// Its content.
    pub value: Bytes,
    /// Its metadata in order; keys may repeat.
    pub headers: Vec<Header>,
    /// The number that the book's clients may give a record; 0 if none.
    pub type_number: u32,
}

/// Records at dense offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumedBatch {
    /// The records, at least one.
    pub records: Vec<ConsumedRecord>,
    /// One past the last committed record when these were read: tells how far behind the consumer
    /// is.
    pub committed_offset: u64,
}

/// Where a start lies in the log at the moment.
pub(crate) struct Resolved {
    pub(crate) offset: u64,
    pub(crate) committed_offset: u64,
}

/// Reads one partition, in order.
///
/// Its methods are safe to cancel: no record is lost when the future of a `next` is dropped.
#[derive(Debug)]
pub struct Consumer {
    client: Client,
    id: PartitionId,
    options: ConsumerOptions,
    /// `None` until the start was found.
    cursor: Option<Cursor>,
    stream: Option<Opened>,
    /// The server that is read from, or was last.
    server: Option<Address>,
    /// Those that had a replica when a stream was opened last.
    replicas: Vec<Address>,
    /// A replica turned out to be behind: the leader is not.
    wants_leader: bool,
    /// Batches that arrived and are not decoded yet.
    arrived: VecDeque<v1::RawBatch>,
    committed_offset: u64,
    /// Records that are decoded and not taken yet.
    records: std::vec::IntoIter<ConsumedRecord>,
    trouble: Trouble,
}

/// A stream under way.
#[derive(Debug)]
struct Opened {
    responses: Streaming<v1::ConsumeResponse>,
    /// Held, because a channel that nobody holds stops probing its server.
    _connection: Connection,
}

/// What is known of failures since a response came last.
#[derive(Debug, Default)]
struct Trouble {
    backoff: Backoff,
    since: Option<Instant>,
    not_before: Option<Instant>,
    /// Those whose replica is damaged where it is read.
    damaged: Vec<Address>,
}

impl Consumer {
    pub(crate) fn new(
        client: Client,
        id: PartitionId,
        options: ConsumerOptions,
    ) -> Result<Consumer, Error> {
        if !(WINDOW_BYTES_MIN..=WINDOW_BYTES_MAX).contains(&options.prefetch_bytes) {
            let given = options.prefetch_bytes;
            let message = format!(
                "prefetch_bytes is {given}, it must be {WINDOW_BYTES_MIN} to {WINDOW_BYTES_MAX}"
            );
            return Err(Error::Options(message));
        }
        Ok(Consumer {
            client,
            id,
            options,
            cursor: None,
            stream: None,
            server: None,
            replicas: Vec::new(),
            wants_leader: false,
            arrived: VecDeque::new(),
            committed_offset: 0,
            records: Vec::new().into_iter(),
            trouble: Trouble::default(),
        })
    }

    /// The partition it reads.
    #[must_use]
    pub fn partition(&self) -> &PartitionId {
        &self.id
    }

    /// The next record; `None` at the end that was asked for.
    ///
    /// # Errors
    /// [`Error::Trimmed`], [`Error::Damaged`] or [`Error::OutOfRange`] if the next record is gone:
    /// asking again fails again, until [`Consumer::seek`]. [`Error::Timeout`] if no server answers
    /// in time; asking again tries again.
    pub async fn next(&mut self) -> Result<Option<ConsumedRecord>, Error> {
        loop {
            if let Some(record) = self.records.next() {
                return Ok(Some(record));
            }
            match self.decoded().await? {
                Some(records) => self.records = records.into_iter(),
                None => return Ok(None),
            }
        }
    }

    /// The records of a batch as its producer made it, at least one; `None` at the end. Several
    /// times faster than [`Consumer::next`], with which it may be mixed.
    ///
    /// # Errors
    /// As [`Consumer::next`].
    pub async fn next_batch(&mut self) -> Result<Option<ConsumedBatch>, Error> {
        let records = match self.records.len() {
            0 => self.decoded().await?,
            _ => Some(std::mem::take(&mut self.records).collect()),
        };
        let committed_offset = self.committed_offset;
        Ok(records.map(|records| ConsumedBatch { records, committed_offset }))
    }

    /// The offset of the record that comes next; `None` until the start was found.
    #[must_use]
    pub fn position(&self) -> Option<u64> {
        let undecoded = self.cursor.as_ref().map(Cursor::next_offset);
        self.records.as_slice().first().map(|record| record.offset).or(undecoded)
    }

    /// Goes on from another offset, e.g. behind a range that is gone. The end stays where it is.
    pub fn seek(&mut self, offset: u64) {
        self.stream = None;
        self.arrived.clear();
        self.records = Vec::new().into_iter();
        self.trouble = Trouble::default();
        match &mut self.cursor {
            Some(cursor) => cursor.seek(offset),
            None => self.options.start = Start::Offset(offset),
        }
    }

    /// The records of the next batch, at least one; `None` at the end.
    async fn decoded(&mut self) -> Result<Option<Vec<ConsumedRecord>>, Error> {
        if self.cursor.is_none() {
            self.cursor = Some(self.find_start().await?);
        }
        loop {
            let cursor = self.cursor.as_mut().expect("it was found above");
            if cursor.is_at_end() {
                self.stream = None;
                self.arrived.clear();
                return Ok(None);
            }
            if let Some(batch) = self.arrived.pop_front() {
                match cursor.accept(&self.id, &batch) {
                    Ok(records) if records.is_empty() => {}
                    Ok(records) => return Ok(Some(records)),
                    Err(error) => {
                        // What arrived behind it does not follow it any more.
                        self.stream = None;
                        self.arrived.clear();
                        return Err(error);
                    }
                }
                continue;
            }
            let from = cursor.next_offset();
            self.receive(from).await?;
        }
    }

    async fn find_start(&self) -> Result<Cursor, Error> {
        let ConsumerOptions { start, end, linearizable, .. } = self.options;
        if let (Start::Offset(offset), End::Offset(_) | End::Never) = (start, end) {
            let end = if let End::Offset(end) = end { Some(end) } else { None };
            return Ok(Cursor::new(offset, end));
        }
        let resolved = self.client.resolve(&self.id, start, linearizable).await?;
        let end = match end {
            End::Committed => Some(resolved.committed_offset),
            End::Offset(end) => Some(end),
            End::Never => None,
        };
        Ok(Cursor::new(resolved.offset, end))
    }

    /// Waits for a response and puts its batches into `arrived`, or waits out a failure.
    async fn receive(&mut self, from: u64) -> Result<(), Error> {
        if let Some(not_before) = self.trouble.not_before {
            sleep_until(not_before).await;
            self.trouble.not_before = None;
        }
        if self.stream.is_none() {
            match self.open(from).await {
                Ok(stream) => self.stream = Some(stream),
                Err(failure) if failure.is_of_absence() => self.confirm(&failure, from).await?,
                Err(failure) => return self.interrupted(&failure, from),
            }
            if self.stream.is_none() {
                return Ok(());
            }
            // A server was reached. How long the next search for one may take is counted anew.
            self.trouble.since = None;
        }
        let stream = self.stream.as_mut().expect("it was opened above");
        match stream.responses.message().await {
            Ok(Some(response)) => {
                self.trouble = Trouble::default();
                self.committed_offset = response.committed_offset;
                self.arrived.extend(response.batches);
                Ok(())
            }
            Ok(None) => self.interrupted(&Failure::broken("the server ended the stream"), from),
            Err(status) => self.interrupted(&Failure::new(&status), from),
        }
    }

    async fn open(&mut self, from: u64) -> Result<Opened, Failure> {
        let Consumer { client, id, options, .. } = self;
        let place = client.place(id).await?;
        let mut avoid = self.trouble.damaged.clone();
        avoid.extend(self.server.take());
        self.replicas = place.replicas.iter().chain(&place.leader).cloned().collect();
        let wish = match std::mem::take(&mut self.wants_leader) {
            true => ReadFrom::Leader,
            false => options.read_from,
        };
        let now = Instant::now();
        let server = client.known_servers().lock().reads_from(now, &place, wish, &avoid);
        self.server = Some(server.clone());
        client.keep_list_fresh(id);
        let request = v1::ConsumeRequest {
            offset: from,
            topic: id.topic.as_str().to_owned(),
            partition: id.partition,
            max_bytes: RESPONSE_BYTES_MAX.min(options.prefetch_bytes),
            linearizable: options.linearizable,
            raw: true,
            ..v1::ConsumeRequest::default()
        };
        // Dialled anew each time: a connection that was lost without a word would be lost still.
        let servers = client.known_servers();
        let connection = servers.connection(&server, options.prefetch_bytes, READER_PROBE_AFTER);
        tracing::debug!(partition = %id, %server, from, "reading from");
        match timeout(OPEN_TIMEOUT, connection.log().consume_stream(request)).await {
            Ok(Ok(response)) => {
                client.known_servers().lock().answered(&server);
                Ok(Opened { responses: response.into_inner(), _connection: connection })
            }
            Ok(Err(status)) => Err(Failure::new(&status)),
            Err(_) => Err(Failure::broken(&format!("no answer from {server} in {OPEN_TIMEOUT:?}"))),
        }
    }

    /// A server says that there is no such record or topic: it may only be behind. A leader with a
    /// majority behind it knows; one that was just elected does not, so it is asked to make sure.
    async fn confirm(&mut self, failure: &Failure, from: u64) -> Result<(), Error> {
        match self.client.resolve(&self.id, Start::Offset(from), true).await {
            Ok(_) | Err(Error::Timeout { .. }) => {}
            Err(error) => return Err(error),
        }
        self.wants_leader = true;
        let message = format!("a replica is behind: {}", failure.message());
        self.interrupted(&Failure::behind(message), from)
    }

    /// Its records are damaged, the server says: those of others need not be.
    fn damaged(&mut self, failure: Failure) -> Failure {
        self.trouble.damaged.extend(self.server.clone());
        let is_sound = |replica: &Address| !self.trouble.damaged.contains(replica);
        if !self.replicas.iter().any(is_sound) {
            return failure;
        }
        Failure::behind(format!("a replica is damaged: {}", failure.message()))
    }

    /// Prepares another attempt, or says that there will be none.
    fn interrupted(&mut self, failure: &Failure, from: u64) -> Result<(), Error> {
        self.stream = None;
        let failure = match failure.is_of_damage() {
            true => &self.damaged(failure.clone()),
            false => failure,
        };
        if !matches!(failure.verdict(Repeat::Harmless), Verdict::Retry { .. }) {
            self.trouble = Trouble::default();
            return Err(failure.clone().into_error(&self.id, Some(from)));
        }
        let now = Instant::now();
        let after = self.options.reconnect_timeout;
        if now >= later(*self.trouble.since.get_or_insert(now), after) {
            self.trouble = Trouble::default();
            let servers = self.client.known_servers().names();
            let what = format!("reading {} at {servers}", self.id);
            return Err(Error::Timeout { what, after, last: failure.message().to_owned() });
        }
        let wait = self.trouble.backoff.next();
        let (partition, message) = (&self.id, failure.message());
        tracing::warn!(%partition, failure = message, ?wait, "reading is interrupted");
        self.trouble.not_before = Some(now + wait);
        let mut directory = self.client.known_servers().lock();
        directory.forget_leader(&self.id);
        if let Some(server) = self.server.as_ref().filter(|_| failure.is_of_server()) {
            directory.failed(now, server);
        }
        Ok(())
    }
}

impl Client {
    /// Finds out where `start` lies, at the leader if it is known: to a follower the newest records
    /// may be news. That there is no such offset or topic, only a leader that has a majority behind
    /// it can say.
    pub(crate) async fn resolve(
        &self,
        id: &PartitionId,
        start: Start,
        linearizable: bool,
    ) -> Result<Resolved, Error> {
        match self.resolve_once(id, start, linearizable).await {
            Err(Error::OutOfRange { .. } | Error::TopicNotFound(_)) if !linearizable => {
                self.resolve_once(id, start, true).await
            }
            resolved => resolved,
        }
    }

    async fn resolve_once(
        &self,
        id: &PartitionId,
        start: Start,
        linearizable: bool,
    ) -> Result<Resolved, Error> {
        let (offset, start) = match start {
            Start::Offset(offset) => (offset, None),
            Start::Earliest => (0, Some(consume_request::Start::Earliest(true))),
            Start::Latest => (0, Some(consume_request::Start::Latest(true))),
            Start::Last(count) => (0, Some(consume_request::Start::Last(count))),
            Start::Timestamp(time_ms) => (0, Some(consume_request::Start::TimestampMs(time_ms))),
        };
        let request = v1::ConsumeRequest {
            offset,
            topic: id.topic.as_str().to_owned(),
            partition: id.partition,
            max_records: 1,
            wait_ms: NO_WAIT_MS,
            linearizable,
            start,
            ..v1::ConsumeRequest::default()
        };
        let what = "finding the start";
        let answer = self
            .call_at(Aim::Leader, id, Some(offset), what, Repeat::Harmless, |connection| {
                let (request, mut log) = (request.clone(), connection.log());
                async move {
                    let answer = timeout(OPEN_TIMEOUT, log.consume(request)).await;
                    answer.unwrap_or_else(|_| Err(Status::unavailable("no answer")))
                }
            })
            .await?;
        let offset = answer.records.first().map_or(answer.next_offset, |record| record.offset);
        Ok(Resolved { offset, committed_offset: answer.committed_offset })
    }
}
