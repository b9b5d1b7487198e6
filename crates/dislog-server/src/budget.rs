//! Bounds the bytes of requests that are in memory, over all connections.
//!
//! Without it, every one of a thousand streams on every one of a thousand connections could have
//! the server hold all but the last byte of an 8 MiB message. A request's bytes count from their
//! arrival until its handler is done with them; appends under way are counted by the partitions
//! after that. When the budget is used up, arriving requests wait (their senders are held back by
//! flow control), and are refused after the request timeout.
//!
//! No client may have more than a part of it, or who sends all but the last byte of many messages
//! would keep all others waiting.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use dislog_types::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{AcquireError, OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;

use crate::status::{Failure, kinds};

/// The bytes before each gRPC message: a flag and the length, big-endian.
/// Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
const PREFIX_BYTES: usize = 5;

/// Requests up to this size have a budget of their own, so that they are served while large ones
/// wait.
const SMALL_BYTES_MAX: u64 = 64 << 10;

/// One client may have this part of a budget.
const OF_CLIENT_ONE_IN: usize = 4;

/// The least that a client may have, if there is as much: what the largest request takes.
const OF_CLIENT_BYTES_MIN: usize = 2 * BATCH_BYTES_MAX;

/// Answers of one client that were made whole and that it has not taken yet: two of the largest.
const ANSWER_BYTES_MAX: usize = 4 * RECORD_BYTES_MAX;

/// Request bytes that may be in memory, of all clients or of one, and the answers to one. A cheap
/// handle.
#[derive(Clone)]
pub(crate) struct Budget(Arc<Bounds>);

struct Bounds {
    /// How much there is of each for all together.
    bytes: usize,
    all: Pools,
    /// What the client of these requests may have; none: all.
    own: Option<Pools>,
    /// Of the client's answers.
    answers: Arc<Semaphore>,
    timeout: Duration,
}

#[derive(Clone)]
struct Pools {
    small: Arc<Semaphore>,
    large: Arc<Semaphore>,
}

impl Pools {
    fn new(bytes: usize) -> Pools {
        let [small, large] = [(); 2].map(|()| Arc::new(Semaphore::new(bytes)));
        Pools { small, large }
    }

    fn of(&self, class: Class) -> Arc<Semaphore> {
        Arc::clone(match class {
            Class::Small => &self.small,
            Class::Large => &self.large,
        })
    }
}

/// Which budget a request is under.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// It has at most 64 KiB.
    Small,
    /// It has more, or does not say how much.
    Large,
}

impl Class {
    /// The class of a request that has at most so many bytes, if it says so.
    pub(crate) fn of(bytes_max: Option<u64>) -> Class {
        match bytes_max {
            Some(bytes) if bytes <= SMALL_BYTES_MAX => Class::Small,
            _ => Class::Large,
        }
    }
}

/// A part of the budget; given back when dropped.
pub(crate) struct Share {
    all: OwnedSemaphorePermit,
    own: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// Adds another part of the same budget and class.
    pub(crate) fn merge(&mut self, more: Share) {
        self.all.merge(more.all);
        if let (Some(own), Some(more)) = (&mut self.own, more.own) {
            own.merge(more);
        }
    }

    /// Gives back what is beyond so many bytes.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        for part in [Some(&mut self.all), self.own.as_mut()].into_iter().flatten() {
            drop(part.split(part.num_permits().saturating_sub(bytes)));
        }
    }
}

/// Room for an answer.
pub(crate) struct AnswerRoom(OwnedSemaphorePermit);

impl AnswerRoom {
    /// The answer, which takes what it needs of the room until it was sent.
    pub(crate) fn hold(mut self, answer: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        let unused = self.0.num_permits().saturating_sub(answer.as_ref().len());
        drop(self.0.split(unused));
        Bytes::from_owner(Held { answer, _room: self })
    }
}

struct Held<A> {
    answer: A,
    _room: AnswerRoom,
}

impl<A: AsRef<[u8]>> AsRef<[u8]> for Held<A> {
    fn as_ref(&self) -> &[u8] {
        self.answer.as_ref()
    }
}

impl Budget {
    /// A budget of so many bytes for small and as many for large requests, for which they wait so
    /// long.
    pub(crate) fn new(bytes: u64, timeout: Duration) -> Budget {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let answers = Arc::new(Semaphore::new(Semaphore::MAX_PERMITS));
        Budget(Arc::new(Bounds { bytes, all: Pools::new(bytes), own: None, answers, timeout }))
    }

    /// The same for one client, which may have a part of it only.
    pub(crate) fn of_client(&self) -> Budget {
        let Bounds { bytes, ref all, timeout, .. } = *self.0;
        let own = (bytes / OF_CLIENT_ONE_IN).max(OF_CLIENT_BYTES_MIN).min(bytes);
        let (all, own) = (all.clone(), Some(Pools::new(own)));
        let answers = Arc::new(Semaphore::new(ANSWER_BYTES_MAX));
        Budget(Arc::new(Bounds { bytes, all, own, answers, timeout }))
    }

    /// Room for an answer that is made whole, of so many bytes at most: it is there until the
    /// client has taken it, which nobody can make it do. Who leaves many keeps only himself
    /// waiting.
    pub(crate) async fn answer(&self, bytes_max: usize) -> Result<AnswerRoom, Failure> {
        let permits = permits(bytes_max.min(ANSWER_BYTES_MAX));
        let taking = Arc::clone(&self.0.answers).acquire_many_owned(permits);
        match tokio::time::timeout(self.0.timeout, taking).await {
            Ok(Ok(room)) => Ok(AnswerRoom(room)),
            _ => Err(Failure::new(
                &kinds::OVERLOADED,
                "the answers to this client that it has not taken are as many as there may be: \
                 take them first",
            )),
        }
    }

    /// How long a request may wait, and how long its bytes may take to arrive.
    pub(crate) fn timeout(&self) -> Duration {
        self.0.timeout
    }

    /// Takes so many bytes, waiting for them if need be. Safe to cancel.
    pub(crate) async fn take(&self, class: Class, bytes: usize) -> Result<Share, Failure> {
        match self.try_take(class, bytes) {
            Some(share) => Ok(share),
            None => self.clone().wait(class, bytes).await,
        }
    }

    fn try_take(&self, class: Class, bytes: usize) -> Option<Share> {
        let permits = permits(bytes);
        let own = self.0.own.as_ref().map(|own| own.of(class).try_acquire_many_owned(permits));
        let own = own.transpose().ok()?;
        let all = self.0.all.of(class).try_acquire_many_owned(permits).ok()?;
        Some(Share { all, own })
    }

    async fn wait(self, class: Class, bytes: usize) -> Result<Share, Failure> {
        // Its own first: what waits for that keeps nothing from others.
        let taking = async {
            let own = match &self.0.own {
                Some(own) => Some(own.of(class).acquire_many_owned(permits(bytes)).await?),
                None => None,
            };
            let all = self.0.all.of(class).acquire_many_owned(permits(bytes)).await?;
            Ok::<_, AcquireError>(Share { all, own })
        };
        match tokio::time::timeout(self.0.timeout, taking).await {
            Ok(Ok(share)) => Ok(share),
            _ => Err(Failure::new(
                &kinds::OVERLOADED,
                "the server holds as many request bytes as it may, of all clients or of this one: \
                 try again",
            )),
        }
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The share of one gRPC request. Its body and its handler both hold it: the body ends when the
/// last message has been decoded, the handler when it was dealt with.
pub(crate) type Hold = Arc<Mutex<Option<Share>>>;

/// How many messages a method takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    /// One: the request has to be there, to its end, within the budget's timeout.
    One,
    /// As many as the client likes, when it likes. Each has to arrive within the timeout, and
    /// whoever asks for the next is done with the one before.
    Stream,
}

/// The body of a gRPC request: as it comes, once the budget has room for the message it carries. A
/// message that takes longer than the budget's timeout to arrive ends it.
pub(crate) struct Budgeted<B> {
    inner: B,
    budget: Budget,
    messages: Messages,
    hold: Hold,
    framing: Framing,
    /// Data that waits for room.
    waiting: Option<(Bytes, Wait)>,
    /// When what is under way must have arrived.
    deadline: Option<Pin<Box<Sleep>>>,
    /// The length of a message that is larger than any may be: nothing behind it is passed on.
    too_large: Option<usize>,
}

type Wait = Pin<Box<dyn Future<Output = Result<Share, Failure>> + Send + Sync>>;

impl<B> Budgeted<B> {
    /// `inner` under `budget`, and what its handler must hold. A message longer than
    /// `message_bytes_max` ends it.
    pub(crate) fn new(
        inner: B,
        budget: Budget,
        messages: Messages,
        message_bytes_max: usize,
    ) -> (Budgeted<B>, Hold) {
        let hold = Hold::default();
        let framing = Framing { message_bytes_max, ..Framing::default() };
        let body = Budgeted {
            inner,
            budget,
            messages,
            hold: hold.clone(),
            framing,
            waiting: None,
            deadline: None,
            too_large: None,
        };
        (body, hold)
    }

    fn set_share(&self, share: Option<Share>) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = share;
    }

    /// Takes note of `data`; what it needs that is not at hand is waited for.
    fn admit(&mut self, mut data: Bytes) -> Option<Bytes> {
        let seen = self.framing.scan(&data);
        if let Some((position, bytes)) = seen.too_large {
            self.too_large = Some(bytes);
            data.truncate(position);
        }
        if self.messages == Messages::Stream && (seen.started > 0 || !seen.incomplete) {
            // The next one has its own time.
            self.deadline = None;
        }
        if seen.started == 0 {
            return Some(data);
        }
        // A new message means that the handler is done with those before it.
        self.set_share(None);
        let class = Class::of(Some(seen.bytes_max as u64));
        match self.budget.try_take(class, seen.bytes_max) {
            Some(share) => {
                self.set_share(Some(share));
                Some(data)
            }
            None => {
                self.waiting =
                    Some((data, Box::pin(self.budget.clone().wait(class, seen.bytes_max))));
                None
            }
        }
    }

    /// When nothing more has come: whether it is too late for that.
    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if self.messages == Messages::Stream && self.framing.is_between_messages() {
            self.set_share(None);
            return Poll::Pending;
        }
        let timeout = self.budget.timeout();
        let deadline = || Box::pin(tokio::time::sleep(timeout));
        self.deadline.get_or_insert_with(deadline).as_mut().poll(cx)
    }
}

impl<B> Body for Budgeted<B>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = self.get_mut();
        loop {
            if let Some((data, wait)) = &mut this.waiting {
                let share = ready!(wait.as_mut().poll(cx)).map_err(Status::from)?;
                let data = std::mem::take(data);
                this.waiting = None;
                this.set_share(Some(share));
                return Poll::Ready(Some(Ok(Frame::data(data))));
            }
            if let Some(bytes) = this.too_large {
                return Poll::Ready(Some(Err(Box::new(Status::from(too_large(bytes))))));
            }
            let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame.map_err(Into::into)?,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(this.poll_late(cx));
                    return Poll::Ready(Some(Err(Box::new(Status::from(slow())))));
                }
            };
            match frame.into_data() {
                Ok(data) => {
                    if let Some(data) = this.admit(data) {
                        return Poll::Ready(Some(Ok(Frame::data(data))));
                    }
                }
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.waiting.is_none() && self.too_large.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

/// The request did not arrive in time.
pub(crate) fn slow() -> Failure {
    Failure::new(
        &kinds::SLOW_REQUEST,
        "the request took too long to arrive: send it faster or smaller",
    )
}

fn too_large(bytes: usize) -> Failure {
    let limit = crate::grpc::MESSAGE_BYTES_MAX;
    let message = format!("the request has a message of {bytes} bytes, the limit is {limit}");
    Failure::new(&kinds::TOO_LARGE, message)
}

/// Finds the messages in a stream of gRPC data.
#[derive(Default)]
struct Framing {
    message_bytes_max: usize,
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    /// Bytes of the message under way that are still to come.
    rest_bytes: usize,
}

/// What a piece of data holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Seen {
    /// Messages that start in it.
    started: usize,
    /// The length of the longest of those.
    bytes_max: usize,
    /// Its last message goes on.
    incomplete: bool,
    /// Where a message begins that is too large, and its length. Nothing behind that was looked at.
    too_large: Option<(usize, usize)>,
}

impl Framing {
    fn scan(&mut self, mut data: &[u8]) -> Seen {
        let data_bytes = data.len();
        let mut seen = Seen::default();
        while !data.is_empty() {
            if self.rest_bytes > 0 {
                let taken = self.rest_bytes.min(data.len());
                data.advance(taken);
                self.rest_bytes -= taken;
                continue;
            }
            let position = data_bytes - data.len();
            let taken = (PREFIX_BYTES - self.prefix_bytes).min(data.len());
            self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&data[..taken]);
            data.advance(taken);
            self.prefix_bytes += taken;
            if self.prefix_bytes < PREFIX_BYTES {
                break;
            }
            self.prefix_bytes = 0;
            self.rest_bytes = message_bytes(self.prefix);
            if self.rest_bytes > self.message_bytes_max {
                seen.too_large = Some((position, self.rest_bytes));
                return seen;
            }
            seen.started += 1;
            seen.bytes_max = seen.bytes_max.max(self.rest_bytes);
        }
        seen.incomplete = !self.is_between_messages();
        seen
    }

    fn is_between_messages(&self) -> bool {
        self.rest_bytes == 0 && self.prefix_bytes == 0
    }
}

fn message_bytes(prefix: [u8; PREFIX_BYTES]) -> usize {
    let [_, length @ ..] = prefix;
    u32::from_be_bytes(length) as usize
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;
    use http_body_util::BodyExt;

    use super::*;

    fn message(bytes: usize) -> Vec<u8> {
        let mut message = vec![0];
        message.extend_from_slice(&u32::try_from(bytes).unwrap().to_be_bytes());
        message.resize(PREFIX_BYTES + bytes, 7);
        message
    }

    #[test]
    fn messages_are_found_however_they_are_cut() {
        let stream = [message(10), message(0), message(300), message(3)].concat();
        for piece in 1..stream.len() {
            let mut framing = Framing { message_bytes_max: 1_000, ..Framing::default() };
            let seen: Vec<Seen> = stream.chunks(piece).map(|data| framing.scan(data)).collect();
            assert_eq!(seen.iter().map(|seen| seen.started).sum::<usize>(), 4, "cut at {piece}");
            assert_eq!(seen.iter().map(|seen| seen.bytes_max).max(), Some(300));
            assert!(!seen.last().unwrap().incomplete);
        }
    }

    /// A body that is never finished: its data, then nothing.
    fn unfinished(data: Vec<u8>) -> impl Body<Data = Bytes, Error = Status> + Unpin {
        let first = futures_util::stream::iter([Ok(Frame::data(Bytes::from(data)))]);
        let body = futures_util::StreamExt::chain(first, futures_util::stream::pending());
        http_body_util::StreamBody::new(Box::pin(body))
    }

    const TIMEOUT: Duration = Duration::from_secs(1);

    /// What comes of waiting in vain, which must take as long as it may.
    async fn in_vain<T>(waiting: impl Future<Output = T>) -> T {
        let begun = tokio::time::Instant::now();
        let outcome = waiting.await;
        let waited = begun.elapsed();
        assert!(waited.abs_diff(TIMEOUT) <= Duration::from_millis(1), "{waited:?}");
        outcome
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_waits_until_the_handler_of_another_is_done() {
        let budget = Budget::new(1_000, TIMEOUT);
        let data = |bytes| message(bytes)[..10].to_vec();
        let (mut first, handler) =
            Budgeted::new(unfinished(data(600)), budget.clone(), Messages::One, 1_000);
        let (mut second, _) = Budgeted::new(unfinished(data(600)), budget, Messages::One, 1_000);
        assert!(first.frame().await.unwrap().is_ok());
        drop(first);
        assert!(second.frame().now_or_never().is_none(), "the handler still has its message");
        drop(handler);
        assert!(second.frame().await.unwrap().is_ok());
        // The rest of it never comes.
        let error = in_vain(second.frame()).await.unwrap().unwrap_err();
        let status = error.downcast::<Status>().unwrap();
        assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_message_that_waits_in_vain_is_refused() {
        let budget = Budget::new(1_000, TIMEOUT);
        let _all = budget.take(Class::Small, 1_000).await.unwrap();
        let (mut body, _) =
            Budgeted::new(unfinished(message(1)), budget.clone(), Messages::One, 1_000);
        let error = in_vain(body.frame()).await.unwrap().unwrap_err();
        let status = error.downcast::<Status>().unwrap();
        assert_eq!(status.code(), tonic::Code::ResourceExhausted);
        // Large requests have a budget of their own.
        assert!(budget.take(Class::Large, 1_000).await.is_ok());
    }

    #[tokio::test]
    async fn a_message_that_is_too_large_ends_the_body_behind_those_before_it() {
        let budget = Budget::new(1_000, TIMEOUT);
        let (before, large) = (message(10), message(101));
        for cut in 0..=PREFIX_BYTES {
            let data = [&before[..], &large[..cut]].concat();
            let rest = large[cut..].to_vec();
            let frames = [data, rest].map(|data| Ok::<_, Status>(Frame::data(Bytes::from(data))));
            let frames = http_body_util::StreamBody::new(futures_util::stream::iter(frames));
            let (mut body, _) = Budgeted::new(frames, budget.clone(), Messages::One, 100);
            let mut passed = Vec::new();
            let error = loop {
                match body.frame().await.unwrap() {
                    Ok(frame) => passed.extend_from_slice(&frame.into_data().unwrap()),
                    Err(error) => break error.downcast::<Status>().unwrap(),
                }
            };
            assert_eq!(error.code(), tonic::Code::ResourceExhausted);
            assert!(passed.starts_with(&before) && passed.len() < before.len() + PREFIX_BYTES);
        }
    }

    fn free(budget: &Budget) -> usize {
        budget.0.all.small.available_permits()
    }

    #[tokio::test(start_paused = true)]
    async fn one_message_has_to_end_in_time() {
        let budget = Budget::new(1_000, TIMEOUT);
        // Whole, but the end of the request is kept back; and nothing at all.
        for data in [message(600), Vec::new()] {
            let (mut body, handler) =
                Budgeted::new(unfinished(data), budget.clone(), Messages::One, 1_000);
            assert!(body.frame().await.unwrap().is_ok());
            let held = 1_000 - free(&budget);
            assert!(body.frame().now_or_never().is_none());
            assert_eq!(1_000 - free(&budget), held, "the handler still has it");
            let error = in_vain(body.frame()).await.unwrap().unwrap_err();
            let status = error.downcast::<Status>().unwrap();
            assert_eq!(status.code(), tonic::Code::DeadlineExceeded);
            drop((body, handler));
            assert_eq!(free(&budget), 1_000);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_at_rest_holds_nothing_and_may_rest() {
        let budget = Budget::new(1_000, TIMEOUT);
        let (mut body, _handler) =
            Budgeted::new(unfinished(message(600)), budget.clone(), Messages::Stream, 1_000);
        assert!(body.frame().await.unwrap().is_ok());
        assert_eq!(free(&budget), 400);
        let rest = tokio::time::timeout(Duration::from_secs(3_600), body.frame()).await;
        assert!(rest.is_err(), "it ended");
        assert_eq!(free(&budget), 1_000);
    }

    #[tokio::test(start_paused = true)]
    async fn no_client_has_all_of_it() {
        let all = 8 * OF_CLIENT_BYTES_MIN;
        let budget = Budget::new(all as u64, TIMEOUT);
        let (greedy, other) = (budget.of_client(), budget.of_client());
        let mut taken = Vec::new();
        while let Some(share) = greedy.try_take(Class::Large, OF_CLIENT_BYTES_MIN) {
            taken.push(share);
        }
        assert_eq!(taken.len(), 8 / OF_CLIENT_ONE_IN);
        assert!(in_vain(greedy.take(Class::Large, 1)).await.is_err());
        assert!(other.take(Class::Large, OF_CLIENT_BYTES_MIN).await.is_ok());
        taken[0].shrink_to(10);
        let more = greedy.take(Class::Large, OF_CLIENT_BYTES_MIN - 10).await.unwrap();
        taken[0].merge(more);
        drop(taken);
        assert_eq!(budget.0.all.large.available_permits(), all);
        assert!(greedy.take(Class::Large, all / OF_CLIENT_ONE_IN).await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn answers_that_are_not_taken_keep_their_client_waiting() {
        let budget = Budget::new(1_000, TIMEOUT);
        let (greedy, other) = (budget.of_client(), budget.of_client());
        let answer = greedy.answer(ANSWER_BYTES_MAX).await.unwrap().hold(vec![7; 10]);
        assert_eq!(answer, &[7; 10][..]);
        let piece = answer.slice(3..4);
        drop(answer);
        let refused = in_vain(greedy.answer(ANSWER_BYTES_MAX)).await;
        assert!(refused.is_err(), "a piece of it is on its way");
        assert!(greedy.answer(ANSWER_BYTES_MAX - 10).await.is_ok());
        assert!(other.answer(ANSWER_BYTES_MAX).await.is_ok());
        drop(piece);
        assert!(greedy.answer(ANSWER_BYTES_MAX).await.is_ok());
    }
}
