//! An append as its caller sees it: what goes in, what comes out, and the wait between.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BytesMut;
use dislog_types::BatchHeader;
use tokio::sync::oneshot;

use crate::error::AppendError;

/// A batch to append.
#[derive(Debug)]
pub struct Append {
    /// A verified batch, whose records were checked to decode.
    pub batch: BytesMut,
    /// Its header.
    pub header: BatchHeader,
    /// Append only at this offset.
    pub expected_offset: Option<u64>,
}

/// Where a batch was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Appended {
    /// The offset of its first record.
    pub base_offset: u64,
    /// How many records it has.
    pub record_count: u32,
    /// Its timestamp, Unix milliseconds.
    pub timestamp_ms: i64,
    /// It was appended before, by an earlier attempt.
    pub duplicate: bool,
}

/// An append under way. Dropping it does not cancel the append.
#[must_use]
#[derive(Debug)]
pub struct PendingAppend {
    pub(super) outcome: oneshot::Receiver<Result<Appended, AppendError>>,
}

impl Future for PendingAppend {
    type Output = Result<Appended, AppendError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        // Without an answer the driver is gone, and what it had taken on may be in the log.
        let answer = Pin::new(&mut self.outcome).poll(context);
        answer.map(|answer| answer.unwrap_or(Err(AppendError::UnknownOutcome)))
    }
}
