//! The task that carries the batches of one partition to the servers: the rim around [`Pipeline`].
//!
//! It ends once the producer is closed and everything was resolved. It sleeps on four things only:
//! something new in the accumulator, an answer, word of the leader, and the next moment at which
//! something is due.

use std::future::pending;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dislog_proto::v1;
use dislog_types::PartitionId;
use futures_util::stream::{self, Stream, StreamExt, TryStreamExt};
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::{Response, Status};

use super::ProducerOptions;
use super::accumulator::Accumulator;
use super::batch::{Appended, Batch};
use super::pipeline::{self, Identity, Pipeline};
use super::requests::{Requests, WithBody};
use super::route::Route;
use crate::Error;
use crate::connection::Connection;
use crate::directory::{Address, Place};
use crate::pool::Pool;
use crate::retry::{Backoff, Failure, Repeat, Verdict, later};

/// How long the end of a stream is waited for after everything was answered.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);

/// How often in a row everything is sent again because the oldest batch came out of turn: once a
/// server sent requests on one by one, which another server got in another order. If it were for
/// ever, acknowledged records would be gone.
const REORDERS_MAX: u32 = 3;

/// How often the task lets others run before it takes a batch that is not full. Those whose records
/// were acknowledged together each have their next record ready in a moment: taken one by one as
/// they come, the first would travel alone.
const TURNS_LET: u32 = 4;

/// How often the time for an answer doubles at most.
const SILENCES_MAX: u32 = 4;

/// What the producer's handles and the sender task of a partition share.
#[derive(Debug)]
pub(super) struct Shared {
    accumulator: Mutex<Accumulator>,
    /// Something is new in the accumulator.
    pub(super) wake: Notify,
}

impl Shared {
    pub(super) fn new(batch_bytes_max: usize) -> Shared {
        Shared { accumulator: Mutex::new(Accumulator::new(batch_bytes_max)), wake: Notify::new() }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Accumulator> {
        self.accumulator.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A `ProduceStream` under way. Dropping the requests' half ends it.
struct Exchange {
    server: Address,
    /// Of the pool, which counts its streams.
    connection: Arc<Connection>,
    requests: mpsc::Sender<Bytes>,
    responses: Pin<Box<dyn Stream<Item = Result<v1::ProduceResponse, Status>> + Send>>,
}

impl Exchange {
    fn begin(
        server: Address,
        connection: Arc<Connection>,
        id: &PartitionId,
        in_flight_max: usize,
    ) -> Exchange {
        let (requests, receiver) = mpsc::channel(in_flight_max);
        let body = Requests::new(id, receiver);
        let mut log = connection.log_over(|channel| WithBody::new(channel, body));
        let call =
            async move { log.produce_stream(stream::empty()).await.map(Response::into_inner) };
        let responses = stream::once(call).try_flatten().boxed();
        Exchange { server, connection, requests, responses }
    }
}

/// The task.
pub(super) struct Sender {
    id: PartitionId,
    options: ProducerOptions,
    shared: Arc<Shared>,
    /// The producer's buffer, given back as batches are resolved.
    room: Arc<Semaphore>,
    pipeline: Pipeline,
    route: Route,
    pool: Arc<Pool>,
    exchange: Option<Exchange>,
    backoff: Backoff,
    /// Since when an answer is outstanding, and none came.
    silent_since: Option<Instant>,
    /// Answers that did not come, since one came soon.
    silences: u32,
    /// The batch that was acknowledged last had several records.
    answered_several: bool,
    /// Batches that came out of turn, since one was acknowledged.
    reorders: u32,
    /// No attempt before this, after a failure.
    not_before: Option<Instant>,
    /// What failed last, for the message of a timeout.
    last_failure: String,
    /// The epoch was raised, and nothing was acknowledged since.
    raised: bool,
}

impl Sender {
    pub(super) fn new(
        id: PartitionId,
        options: ProducerOptions,
        shared: Arc<Shared>,
        room: Arc<Semaphore>,
        route: Route,
        pool: Arc<Pool>,
    ) -> Sender {
        let identity = options.idempotent.then(Identity::random);
        Sender {
            pipeline: Pipeline::new(options.in_flight_max, options.compression, identity),
            id,
            options,
            shared,
            room,
            route,
            pool,
            exchange: None,
            backoff: Backoff::default(),
            silent_since: None,
            silences: 0,
            answered_several: false,
            reorders: 0,
            not_before: None,
            last_failure: "no server has answered".to_owned(),
            raised: false,
        }
    }

    /// Runs until the producer is closed and everything was resolved.
    pub(super) async fn run(mut self) {
        loop {
            if self.may_grow() {
                for _ in 0..TURNS_LET {
                    yield_now().await;
                }
            }
            let now = Instant::now();
            self.expire(now);
            self.lose_patience(now);
            let ready_at = self.gather(now);
            self.send(now);
            if self.pipeline.sent() > 0 {
                self.route.look_again(now);
            }
            if self.pipeline.is_empty() && self.shared.lock().is_finished() {
                break;
            }
            let due = self.due(ready_at);
            tokio::select! {
                () = self.shared.wake.notified() => {}
                answer = next_answer(self.exchange.as_mut()) => self.answered(answer),
                place = self.route.answer() => self.located(place),
                () = sleep_until_some(due) => {}
            }
        }
        self.say_goodbye().await;
    }

    /// Whether a batch would be taken that is not full, and callers may be about to add to it.
    fn may_grow(&self) -> bool {
        let several = self.answered_several || !self.pipeline.is_empty();
        several && !self.pipeline.is_busy() && self.shared.lock().is_filling()
    }

    /// Takes what is ready from the accumulator while there is room. Returns when more becomes
    /// ready by itself.
    fn gather(&mut self, now: Instant) -> Option<Instant> {
        let shared = self.shared.clone();
        let mut accumulator = shared.lock();
        while self.pipeline.has_room() {
            let at_once = !self.pipeline.is_busy();
            match accumulator.take_ready(now, self.options.linger, at_once) {
                Some(batch) => self.pipeline.push(batch),
                None => return accumulator.ready_at(self.options.linger),
            }
        }
        // Without room, an acknowledgement has to come first.
        None
    }

    /// Puts on the wire what may be there.
    fn send(&mut self, now: Instant) {
        if self.not_before.is_some_and(|not_before| now < not_before) {
            return;
        }
        self.not_before = None;
        while self.pipeline.has_to_send() {
            let under_way = self.pipeline.sent();
            let Some(server) = self.route.server(now, under_way) else { return };
            if under_way == 0 && self.exchange.as_ref().is_some_and(|e| e.server != server) {
                self.exchange = None;
            }
            let Some(batch) = self.pipeline.next_to_send() else { return };
            let exchange = self.exchange.get_or_insert_with(|| {
                let connection = self.pool.to(&server);
                Exchange::begin(server, connection, &self.id, self.options.in_flight_max)
            });
            self.silent_since.get_or_insert(now);
            // The channel has room for all that may be in flight. If it is closed, the answers say
            // why.
            if exchange.requests.try_send(batch).is_err() {
                return;
            }
        }
    }

    fn due(&self, ready_at: Option<Instant>) -> Option<Instant> {
        let expires_at = self.pipeline.expires_at(self.options.delivery_timeout);
        let look_again_at = self.route.look_again_at().filter(|_| self.pipeline.sent() > 0);
        [ready_at, expires_at, self.answer_due(), look_again_at, self.not_before]
            .into_iter()
            .flatten()
            .min()
    }

    /// When an answer should have come. Without idempotence nothing can be sent elsewhere, so there
    /// is only the end of the delivery to wait for, or of the connection.
    fn answer_due(&self) -> Option<Instant> {
        let since = self.silent_since.filter(|_| self.options.idempotent);
        since.map(|since| later(since, self.patience()))
    }

    /// How long an answer may take.
    fn patience(&self) -> Duration {
        self.options.answer_timeout.saturating_mul(1 << self.silences.min(SILENCES_MAX))
    }

    /// Looks for the leader elsewhere if the server has been silent for too long: it may be
    /// stopped, or cut off.
    fn lose_patience(&mut self, now: Instant) {
        if self.answer_due().is_none_or(|due| now < due) {
            return;
        }
        let Some(Exchange { server, .. }) = &self.exchange else {
            self.silent_since = None;
            return;
        };
        let patience = self.patience();
        let failure = Failure::broken(&format!("no answer from {server} in {patience:?}"));
        self.silences += 1;
        self.broken(&failure);
    }

    fn located(&mut self, place: Result<Place, Failure>) {
        let now = Instant::now();
        match place {
            Ok(place) => {
                let another_leads = self.route.found(now, &place);
                // Without idempotence nothing can be sent twice.
                if another_leads && self.options.idempotent {
                    self.leave_unanswered();
                }
            }
            Err(failure) => {
                if self.route.found_nobody(now) {
                    self.last_failure = failure.message().to_owned();
                    self.not_before = Some(now + self.backoff.next());
                }
            }
        }
    }

    fn answered(&mut self, answer: Option<Result<v1::ProduceResponse, Status>>) {
        match answer {
            Some(Ok(response)) => match self.pipeline.answered() {
                Some(batch) => self.acknowledge(batch, &response),
                None => self.broken(&Failure::broken("the server answered what nobody asked")),
            },
            Some(Err(status)) => self.broken(&Failure::new(&status)),
            None => self.broken(&Failure::broken("the server ended the stream")),
        }
    }

    fn acknowledge(&mut self, batch: Batch, response: &v1::ProduceResponse) {
        self.backoff.reset();
        self.route.did();
        self.answered_several = batch.record_count() > 1;
        (self.raised, self.reorders) = (false, 0);
        let now = Instant::now();
        // A server that takes longer needs the patience that it got, or all is sent over and over.
        let is_prompt = |since: Instant| now - since <= self.options.answer_timeout / 2;
        if self.silent_since.is_none_or(is_prompt) {
            self.silences = 0;
        }
        self.silent_since = (self.pipeline.sent() > 0).then_some(now);
        let appended = Appended {
            partition: self.id.partition,
            offset: response.offset,
            timestamp_ms: response.timestamp_ms,
        };
        self.resolve(batch, Ok(appended));
    }

    fn resolve(&self, batch: Batch, outcome: Result<Appended, Error>) {
        self.room.add_permits(batch.resolve(outcome));
    }

    /// The stream ended before everything was answered, or failed the oldest batch.
    fn broken(&mut self, failure: &Failure) {
        if let Some(exchange) = self.exchange.take()
            && failure.is_of_server()
        {
            self.pool.discard(&exchange.connection);
        }
        self.silent_since = None;
        self.route.lost(Instant::now(), failure);
        let unanswered = self.pipeline.sent();
        if unanswered == 0 {
            // Idle streams end when servers stop. The next batch looks for the leader again.
            return;
        }
        self.last_failure = failure.message().to_owned();
        let verdict = failure.verdict(Repeat::Harmless);
        self.pipeline.interrupted(self.appended(failure, verdict));
        let oldest_may_be_appended = self.pipeline.oldest_may_be_appended();
        match verdict {
            Verdict::Retry { .. } if !self.pipeline.could_double() => self.try_later(unanswered),
            Verdict::RaiseEpoch if !self.raised && !oldest_may_be_appended => {
                self.pipeline.start_again();
                self.raised = true;
            }
            Verdict::Forgotten => {
                if let Some(batch) = self.pipeline.found_appended() {
                    self.resolve(batch, Err(Error::OffsetUnknown { id: self.id.clone() }));
                }
            }
            Verdict::Reorder if self.reorders < REORDERS_MAX => {
                self.reorders += 1;
                self.try_later(unanswered);
            }
            // This attempt may have had no effect, but that says nothing of an earlier one.
            _ if oldest_may_be_appended => self.fail_unknown(),
            _ => self.fail(&failure.clone().into_error(&self.id, None)),
        }
    }

    /// What a failed attempt may have appended.
    fn appended(&self, failure: &Failure, verdict: Verdict) -> pipeline::Appended {
        match verdict {
            // Those behind the oldest may have found their turn.
            Verdict::Reorder | Verdict::FailUnknown | Verdict::Retry { nothing_done: false } => {
                pipeline::Appended::Perhaps
            }
            _ if self.options.idempotent || failure.is_unserved() => pipeline::Appended::Nothing,
            _ => pipeline::Appended::PerhapsBehindOldest,
        }
    }

    fn try_later(&mut self, unanswered: usize) {
        let wait = self.backoff.next();
        let (partition, failure) = (&self.id, &self.last_failure);
        tracing::warn!(%partition, unanswered, failure, ?wait, "producing is interrupted");
        self.not_before = Some(Instant::now() + wait);
    }

    /// Ends the stream, whatever became of what is on its way.
    fn leave_unanswered(&mut self) {
        self.exchange = None;
        self.silent_since = None;
        self.pipeline.interrupted(pipeline::Appended::Perhaps);
    }

    /// Gives up what was tried for too long, and what came after it.
    fn expire(&mut self, now: Instant) {
        let after = self.options.delivery_timeout;
        if self.pipeline.expires_at(after).is_none_or(|expires_at| now < expires_at) {
            return;
        }
        self.leave_unanswered();
        let last = format!("no answer within {after:?}; before that: {}", self.last_failure);
        if self.pipeline.oldest_may_be_appended() {
            self.last_failure = last;
            return self.fail_unknown();
        }
        let what = format!("delivery to {} at {}", self.id, self.route.names());
        self.fail(&Error::Timeout { what, after, last: self.last_failure.clone() });
    }

    fn fail_unknown(&mut self) {
        self.fail(&self.unknown_outcome());
    }

    fn unknown_outcome(&self) -> Error {
        Error::UnknownOutcome { id: self.id.clone(), last: self.last_failure.clone() }
    }

    /// Fails the oldest batch with `error`, and everything accepted after it: what follows must not
    /// be appended without it.
    fn fail(&mut self, error: &Error) {
        tracing::warn!(partition = %self.id, %error, "a delivery failed");
        self.not_before = None;
        let unknown = self.unknown_outcome();
        let abandoned = Error::Abandoned { cause: Box::new(error.clone()) };
        let accumulated = self.shared.lock().fail(error.clone());
        let batches = self.pipeline.give_up().into_iter().chain(accumulated);
        for (number, batch) in batches.enumerate() {
            let outcome = match number {
                0 => error,
                _ if batch.maybe_appended => &unknown,
                _ => &abandoned,
            };
            self.resolve(batch, Err(outcome.clone()));
        }
    }

    /// Ends the stream properly: the server sees a half-close, not a reset.
    async fn say_goodbye(mut self) {
        let Some(exchange) = self.exchange.take() else { return };
        let Exchange { requests, mut responses, connection: _connection, .. } = exchange;
        drop(requests);
        let ended = async { while let Some(Ok(_)) = responses.next().await {} };
        if timeout(GOODBYE_TIMEOUT, ended).await.is_err() {
            tracing::debug!(partition = %self.id, "the server did not end a finished stream");
        }
    }
}

/// Whatever ends the task, nobody waits for ever for what it leaves behind.
impl Drop for Sender {
    fn drop(&mut self) {
        self.shared.lock().close();
        if self.pipeline.is_empty() && self.shared.lock().is_finished() {
            return;
        }
        "the task that sends ended, with its runtime or by a panic"
            .clone_into(&mut self.last_failure);
        self.pipeline.interrupted(pipeline::Appended::Perhaps);
        match self.pipeline.oldest_may_be_appended() {
            true => self.fail_unknown(),
            false => self.fail(&Error::Closed),
        }
    }
}

async fn next_answer(
    exchange: Option<&mut Exchange>,
) -> Option<Result<v1::ProduceResponse, Status>> {
    match exchange {
        Some(exchange) => exchange.responses.next().await,
        None => pending().await,
    }
}

async fn sleep_until_some(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due).await,
        None => pending().await,
    }
}
