//! `Consume` and `ConsumeStream`.
//!
//! Both have bodies of their own in place of tonic's, which encodes a message whole, into a buffer
//! that grows, and the next one while the client has yet to take the first.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dislog_cluster::Progress;
use dislog_proto::v1;
use dislog_proto::v1::consume_request::Start as WireStart;
use http::HeaderMap;
use http_body::Frame;
use http_body_util::StreamBody;
use tonic::Status;
use tonic::body::Body;

use super::message::page_of;
use crate::access::{Action, Asking, Guard};
use crate::node::Node;
use crate::outflow::{Outflow, Source, Waited};
use crate::page::Page;
use crate::read::{Limits, Reader, Start};
use crate::status::Failure;

/// The most bytes of one message of a stream, unless one record or batch alone is larger: messages
/// follow each other, so larger ones would not be faster.
const STREAM_PAGE_BYTES_MAX: usize = 1 << 20;

/// A body that takes the place of the one that tonic makes; goes with the response as its
/// extension.
#[derive(Clone)]
pub(crate) struct OwnBody(Arc<Mutex<Option<Body>>>);

impl OwnBody {
    fn new(node: Node, pages: Outflow<Follower>) -> OwnBody {
        let frames = futures_util::stream::unfold(Some((node, pages)), |state| async {
            let (node, mut pages) = state?;
            let (frame, rest) = match pages.next(&node.outlet).await {
                Ok(Some(piece)) => (Frame::data(piece), Some((node, pages))),
                Ok(None) => (trailers(&Status::ok("")), None),
                Err(failure) => (trailers(&Status::from(failure)), None),
            };
            Some((Ok::<_, Infallible>(frame), rest))
        });
        OwnBody(Arc::new(Mutex::new(Some(Body::new(StreamBody::new(frames))))))
    }

    /// As given, with its own body if it has one.
    pub(crate) fn unpack(mut response: http::Response<Body>) -> http::Response<Body> {
        let own = response.extensions_mut().remove::<OwnBody>();
        let body = own.and_then(|own| own.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        match body {
            Some(body) => response.map(|_| body),
            None => response,
        }
    }
}

fn trailers(status: &Status) -> Frame<Bytes> {
    let mut trailers = HeaderMap::new();
    if status.add_header(&mut trailers).is_err() {
        // What cannot be said in a header is left out: the code always can.
        let code = Status::new(status.code(), "");
        code.add_header(&mut trailers).expect("a code is a header");
    }
    Frame::trailers(trailers)
}

/// Reads one page.
pub(super) async fn consume(
    node: &Node,
    asking: &Asking,
    request: &v1::ConsumeRequest,
) -> Result<OwnBody, Failure> {
    let mut follower = Follower::open(node, asking, request).await?;
    follower.is_single = true;
    if request.wait_ms > 0 {
        let patience = Duration::from_millis(request.wait_ms.into());
        follower.wait_at_most(patience).await?;
    }
    follower.reader.check_range()?;
    let mut pages = Outflow::new(follower);
    pages.prepare(&node.outlet).await?;
    let by_offset = matches!(start(request), Start::Offset(_));
    let follower = pages.source();
    if follower.is_at_end && by_offset && request.wait_ms == 0 {
        return Err(follower.reader.beyond_end());
    }
    Ok(OwnBody::new(node.clone(), pages))
}

/// Reads page after page and waits at the end of the log, until it is cancelled or the records are
/// gone.
pub(super) async fn stream(
    node: &Node,
    asking: &Asking,
    request: &v1::ConsumeRequest,
) -> Result<OwnBody, Failure> {
    let mut follower = Follower::open(node, asking, request).await?;
    follower.reader = follower.reader.following();
    follower.limits.bytes = follower.limits.bytes.min(STREAM_PAGE_BYTES_MAX);
    follower.reader.check_range()?;
    Ok(OwnBody::new(node.clone(), Outflow::new(follower)))
}

/// A reader, and what its client wants of it.
struct Follower {
    node: Node,
    /// The right to read.
    guard: Guard,
    reader: Reader,
    limits: Limits,
    raw: bool,
    /// There is one page, whatever it holds.
    is_single: bool,
    /// That page was made.
    is_done: bool,
    /// The last page was empty.
    is_at_end: bool,
    /// The last page without its records.
    last: v1::ConsumeResponse,
}

impl Follower {
    async fn open(
        node: &Node,
        asking: &Asking,
        request: &v1::ConsumeRequest,
    ) -> Result<Follower, Failure> {
        asking.may(Action::Consume, &request.topic)?;
        // consume 1: the partition is found and the start becomes an offset.
        let replica = node.replica(&request.topic, request.partition, &asking.hops).await?;
        let limits = Limits::asked(request.max_records as usize, request.max_bytes as usize);
        let reader = Reader::open(replica, start(request), request.linearizable).await?;
        Ok(Follower {
            node: node.clone(),
            guard: asking.guard(Action::Consume, &request.topic),
            reader,
            limits,
            raw: request.raw,
            is_single: false,
            is_done: false,
            is_at_end: false,
            last: v1::ConsumeResponse::default(),
        })
    }

    async fn wait_at_most(&self, patience: Duration) -> Result<(), Failure> {
        tokio::select! {
            waited = tokio::time::timeout(patience, self.reader.wait()) => waited.unwrap_or(Ok(())),
            () = self.node.closing.wait() => Err(Failure::shutting_down()),
        }
    }

    /// What there is now: nothing at the end of the log. Again: what there was.
    async fn response(
        &mut self,
        limits: Limits,
        again: bool,
    ) -> Result<v1::ConsumeResponse, Failure> {
        // consume 4: what was read is cut to the limits; raw batches go out as they are.
        let mut response = v1::ConsumeResponse::default();
        if self.raw {
            let batches = match again {
                true => self.reader.raw_page_again().await?,
                false => self.reader.raw_page(limits).await?,
            };
            response.batches = batches
                .into_iter()
                .map(|stored| v1::RawBatch {
                    batch: stored.batch,
                    timestamp_ms: stored.timestamp_ms,
                })
                .collect();
        } else {
            let records = match again {
                true => self.reader.page_again().await?,
                false => self.reader.page(limits).await?,
            };
            response.records = records
                .into_iter()
                .map(|at| dislog_proto::to_record(at.record, at.offset, at.term, at.timestamp_ms))
                .collect();
        }
        if !again {
            let Progress { start_offset, committed_offset, .. } = self.reader.progress();
            let next_offset = self.reader.next_offset();
            self.last = v1::ConsumeResponse {
                start_offset,
                committed_offset,
                next_offset,
                ..v1::ConsumeResponse::default()
            };
            self.is_at_end = response.records.is_empty() && response.batches.is_empty();
        }
        let v1::ConsumeResponse { records, batches, .. } = response;
        Ok(v1::ConsumeResponse { records, batches, ..self.last.clone() })
    }
}

impl Source for Follower {
    async fn page(&mut self, bytes_max: usize) -> Result<Option<Page>, Failure> {
        if self.is_done {
            return Ok(None);
        }
        if self.node.closing.is_closing() && !self.is_single {
            return Err(Failure::shutting_down());
        }
        self.guard.check()?;
        let limits = Limits { bytes: self.limits.bytes.min(bytes_max), ..self.limits };
        let response = self.response(limits, false).await?;
        self.is_done = self.is_single;
        let is_page = self.is_single || !self.is_at_end;
        Ok(is_page.then(|| page_of(response)))
    }

    async fn page_again(&mut self) -> Result<Page, Failure> {
        Ok(page_of(self.response(self.limits, true).await?))
    }

    async fn wait(&mut self) -> Result<Waited, Failure> {
        if self.is_done {
            return Ok(Waited::End);
        }
        tokio::select! {
            waited = self.reader.wait() => waited.map(|()| Waited::Records),
            // This node may be cut off from the others, and its client need not be.
            failure = self.reader.is_left_alone() => Err(failure),
            failure = self.guard.ended() => Err(failure),
            () = self.node.closing.wait() => Err(Failure::shutting_down()),
        }
    }

    fn reader(&mut self) -> &mut Reader {
        &mut self.reader
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
