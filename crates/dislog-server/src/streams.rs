//! The requests of one HTTP/2 connection, answered within the task of that connection.
//!
//! A task for each would be woken by itself when its append is acknowledged. Appends that shared a
//! sync are acknowledged one right after the other, from another thread: here the first of them
//! wakes the connection, the others only join the list of what it has to do, and the answers leave
//! in one write.
//!
//! What a request does between two waits therefore holds back the others of its connection, and
//! only those; what takes long runs elsewhere ([`tokio::task::spawn_blocking`]).

use std::future::{Future, poll_fn};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use futures_util::FutureExt as _;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use hyper::rt::Executor;

type Stream = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where hyper puts the streams that a client opens.
#[derive(Clone, Default)]
pub(crate) struct Opened(Arc<Mutex<Vec<Stream>>>);

impl<F> Executor<F> for Opened
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // A panic ends the stream and not the others.
        let stream = AssertUnwindSafe(stream).catch_unwind().map(drop);
        self.lock().push(Box::pin(stream));
    }
}

impl Opened {
    fn lock(&self) -> MutexGuard<'_, Vec<Stream>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The streams of a connection that are under way. Their number is bounded by the connection.
pub(crate) struct Streams {
    opened: Opened,
    under_way: FuturesUnordered<Stream>,
}

impl Streams {
    /// None yet; hyper puts them into `opened`.
    pub(crate) fn new(opened: Opened) -> Streams {
        Streams { opened, under_way: FuturesUnordered::new() }
    }

    /// Drives the connection and its streams until the connection ends. Safe to cancel.
    pub(crate) async fn drive<C: Future>(&mut self, mut connection: Pin<&mut C>) -> C::Output {
        poll_fn(|cx| {
            // Answers first, so that they leave with this turn of the connection.
            self.poll(cx);
            let ended = connection.as_mut().poll(cx);
            // Also if it ended: who sent a whole request and left is served all the same.
            self.under_way.extend(self.opened.lock().drain(..));
            self.poll(cx);
            ended
        })
        .await
    }

    fn poll(&mut self, cx: &mut Context<'_>) {
        while let Poll::Ready(Some(())) = self.under_way.poll_next_unpin(cx) {}
    }
}
