//! `Consume` and `ConsumeStream`.

use std::pin::Pin;
use std::time::Duration;

use dislog_cluster::Progress;
use dislog_proto::v1;
use dislog_proto::v1::consume_request::Start as WireStart;
use futures_util::Stream;
use tonic::Status;

use crate::node::{Closing, Node};
use crate::read::{Limits, Reader, Start};
use crate::status::Failure;

/// The messages of a stream.
pub(super) type Pages =
    Pin<Box<dyn Stream<Item = Result<v1::ConsumeResponse, Status>> + Send + 'static>>;

/// Reads one page.
pub(super) async fn consume(
    node: &Node,
    request: &v1::ConsumeRequest,
) -> Result<v1::ConsumeResponse, Failure> {
    let mut follower = Follower::open(node, request).await?;
    if request.wait_ms > 0 {
        let patience = Duration::from_millis(request.wait_ms.into());
        follower.wait_at_most(patience).await?;
    }
    follower.reader.check_range()?;
    let response = follower.page().await?;
    let by_offset = matches!(start(request), Start::Offset(_));
    let nothing = response.records.is_empty() && response.batches.is_empty();
    if nothing && by_offset && request.wait_ms == 0 {
        return Err(follower.reader.beyond_end());
    }
    Ok(response)
}

/// Reads page after page and waits at the end of the log, until it is cancelled or the records are
/// gone.
pub(super) async fn stream(node: Node, request: &v1::ConsumeRequest) -> Result<Pages, Failure> {
    let mut follower = Follower::open(&node, request).await?;
    follower.reader = follower.reader.following();
    follower.reader.check_range()?;
    Ok(Box::pin(futures_util::stream::unfold(Some(follower), |follower| async move {
        let mut follower = follower?;
        match follower.next().await {
            Ok(page) => Some((Ok(page), Some(follower))),
            Err(failure) => Some((Err(Status::from(failure)), None)),
        }
    })))
}

/// A reader, and what its client wants of it.
struct Follower {
    reader: Reader,
    limits: Limits,
    raw: bool,
    closing: Closing,
}

impl Follower {
    async fn open(node: &Node, request: &v1::ConsumeRequest) -> Result<Follower, Failure> {
        // consume 1: the partition is found and the start becomes an offset.
        let partition = node.partition(&request.topic, request.partition).await?;
        if request.linearizable {
            partition.linearize().await?;
        }
        let limits = Limits::asked(request.max_records as usize, request.max_bytes as usize);
        let reader = Reader::open(partition, start(request)).await?;
        Ok(Follower { reader, limits, raw: request.raw, closing: node.closing.clone() })
    }

    /// The next page, once there is one.
    async fn next(&mut self) -> Result<v1::ConsumeResponse, Failure> {
        loop {
            if self.closing.is_closing() {
                return Err(Failure::shutting_down());
            }
            let page = self.page().await?;
            if !page.records.is_empty() || !page.batches.is_empty() {
                return Ok(page);
            }
            tokio::select! {
                waited = self.reader.wait() => waited?,
                () = self.closing.wait() => return Err(Failure::shutting_down()),
            }
        }
    }

    async fn wait_at_most(&self, patience: Duration) -> Result<(), Failure> {
        tokio::select! {
            waited = tokio::time::timeout(patience, self.reader.wait()) => waited.unwrap_or(Ok(())),
            () = self.closing.wait() => Err(Failure::shutting_down()),
        }
    }

    /// What there is now: nothing at the end of the log.
    async fn page(&mut self) -> Result<v1::ConsumeResponse, Failure> {
        // consume 4: what was read is cut to the limits; raw batches go out as they are.
        let mut response = v1::ConsumeResponse::default();
        if self.raw {
            let batches = self.reader.raw_page(self.limits).await?;
            response.batches = batches
                .into_iter()
                .map(|stored| v1::RawBatch {
                    batch: stored.batch,
                    timestamp_ms: stored.timestamp_ms,
                })
                .collect();
        } else {
            let records = self.reader.page(self.limits).await?;
            response.records = records
                .into_iter()
                .map(|at| dislog_proto::to_record(at.record, at.offset, at.term, at.timestamp_ms))
                .collect();
        }
        let Progress { start_offset, committed_offset, .. } = self.reader.progress();
        response.start_offset = start_offset;
        response.committed_offset = committed_offset;
        response.next_offset = self.reader.next_offset();
        Ok(response)
    }
}

fn start(request: &v1::ConsumeRequest) -> Start {
    match request.start {
        Some(WireStart::TimestampMs(timestamp_ms)) => Start::Timestamp(timestamp_ms),
        Some(WireStart::Earliest(true)) => Start::Earliest,
        Some(WireStart::Latest(true)) => Start::Latest,
        Some(WireStart::Last(count)) => Start::Last(count),
        Some(WireStart::Earliest(false) | WireStart::Latest(false)) | None => {
            Start::Offset(request.offset)
        }
    }
}
