//! Bounds the bytes of requests that are in memory, over all connections.
//!
//! Without it, every one of a thousand streams on every one of a thousand connections could have the server hold all but
//! the last byte of an 8 MiB message. A request's bytes count from their arrival until its handler is done with
//! them; appends under way are counted by the partitions after that. When the budget is used up, arriving requests
//! wait (their senders are held back by flow control), and are refused after the request timeout.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Sleep;
use tonic::Status;

use crate::status::{Failure, kinds};

/// The bytes before each gRPC message: a flag and the length, big-endian.
/// Source: <https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md>.
const PREFIX_BYTES: usize = 5;

/// Request bytes that may be in memory. A cheap handle.
#[derive(Clone)]
pub(crate) struct Budget {
    bytes: Arc<Semaphore>,
    timeout: Duration,
}

/// A part of the budget; given back when dropped.
pub(crate) type Share = OwnedSemaphorePermit;

impl Budget {
    /// A budget of so many bytes, for which requests wait so long.
    pub(crate) fn new(bytes: u64, timeout: Duration) -> Budget {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Budget { bytes: Arc::new(Semaphore::new(bytes)), timeout }
    }

    /// Takes so many bytes, waiting for them if need be. Safe to cancel.
    pub(crate) async fn take(&self, bytes: usize) -> Result<Share, Failure> {
        match self.try_take(bytes) {
            Some(share) => Ok(share),
            None => self.clone().wait(bytes).await,
        }
    }

    fn try_take(&self, bytes: usize) -> Option<Share> {
        self.bytes.clone().try_acquire_many_owned(permits(bytes)).ok()
    }

    async fn wait(self, bytes: usize) -> Result<Share, Failure> {
        let taking = self.bytes.acquire_many_owned(permits(bytes));
        match tokio::time::timeout(self.timeout, taking).await {
            Ok(Ok(share)) => Ok(share),
            _ => Err(Failure::new(
                &kinds::OVERLOADED,
                "the server holds as many request bytes as it may: try again",
            )),
        }
    }
}

fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// The share of one gRPC request. Its body and its handler both hold it: the body ends when the last message has
/// been decoded, the handler when it was dealt with.
pub(crate) type Hold = Arc<Mutex<Option<Share>>>;

/// The body of a gRPC request: as it comes, once the budget has room for the message it carries. A message that
/// takes longer than the budget's timeout to arrive ends it.
pub(crate) struct Budgeted<B> {
    inner: B,
    budget: Budget,
    hold: Hold,
    framing: Framing,
    /// Data that waits for room.
    waiting: Option<(Bytes, Wait)>,
    /// When the message under way must have arrived.
    deadline: Option<Pin<Box<Sleep>>>,
}

type Wait = Pin<Box<dyn Future<Output = Result<Share, Failure>> + Send + Sync>>;

impl<B> Budgeted<B> {
    /// `inner` under `budget`, and what its handler must hold. Messages longer than `message_bytes_max` are not
    /// counted, because the decoder refuses them by their prefix.
    pub(crate) fn new(inner: B, budget: Budget, message_bytes_max: usize) -> (Budgeted<B>, Hold) {
        let hold = Hold::default();
        let framing = Framing { message_bytes_max, ..Framing::default() };
        let body = Budgeted {
            inner,
            budget,
            hold: hold.clone(),
            framing,
            waiting: None,
            deadline: None,
        };
        (body, hold)
    }

    fn set_share(&self, share: Option<Share>) {
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = share;
    }

    /// Takes note of `data`; what it needs that is not at hand is waited for.
    fn admit(&mut self, data: Bytes) -> Option<Bytes> {
        let seen = self.framing.scan(&data);
        if !seen.incomplete {
            self.deadline = None;
        } else if seen.started > 0 || self.deadline.is_none() {
            self.deadline = Some(Box::pin(tokio::time::sleep(self.budget.timeout)));
        }
        if seen.started == 0 {
            return Some(data);
        }
        // A new message means that the handler is done with those before it.
        self.set_share(None);
        match self.budget.try_take(seen.bytes_max) {
            Some(share) => {
                self.set_share(Some(share));
                Some(data)
            }
            None => {
                self.waiting = Some((data, Box::pin(self.budget.clone().wait(seen.bytes_max))));
                None
            }
        }
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
            let frame = match Pin::new(&mut this.inner).poll_frame(cx) {
                Poll::Ready(Some(frame)) => frame.map_err(Into::into)?,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => {
                    ready!(poll_deadline(&mut this.deadline, cx));
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
        self.waiting.is_none() && self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

fn poll_deadline(deadline: &mut Option<Pin<Box<Sleep>>>, cx: &mut Context<'_>) -> Poll<()> {
    match deadline {
        Some(deadline) => deadline.as_mut().poll(cx),
        None => Poll::Pending,
    }
}

/// The request did not arrive in time.
pub(crate) fn slow() -> Failure {
    Failure::new(&kinds::SLOW_REQUEST, "the request took too long to arrive: send it faster or smaller")
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
}

impl Framing {
    fn scan(&mut self, mut data: &[u8]) -> Seen {
        let mut seen = Seen::default();
        while !data.is_empty() {
            if self.rest_bytes > 0 {
                let taken = self.rest_bytes.min(data.len());
                data.advance(taken);
                self.rest_bytes -= taken;
                continue;
            }
            let taken = (PREFIX_BYTES - self.prefix_bytes).min(data.len());
            self.prefix[self.prefix_bytes..][..taken].copy_from_slice(&data[..taken]);
            data.advance(taken);
            self.prefix_bytes += taken;
            if self.prefix_bytes == PREFIX_BYTES {
                self.start(&mut seen);
            }
        }
        seen.incomplete = self.rest_bytes > 0 || self.prefix_bytes > 0;
        seen
    }

    fn start(&mut self, seen: &mut Seen) {
        let length = u32::from_be_bytes([self.prefix[1], self.prefix[2], self.prefix[3], self.prefix[4]]);
        self.prefix_bytes = 0;
        self.rest_bytes = length as usize;
        seen.started += 1;
        if self.rest_bytes <= self.message_bytes_max {
            seen.bytes_max = seen.bytes_max.max(self.rest_bytes);
        }
    }
}

#[cfg(test)]
mod tests {
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

    #[test]
    fn what_the_decoder_refuses_is_not_counted() {
        let mut framing = Framing { message_bytes_max: 100, ..Framing::default() };
        let seen = framing.scan(&message(101)[..50]);
        assert_eq!(seen, Seen { started: 1, bytes_max: 0, incomplete: true });
    }
}
