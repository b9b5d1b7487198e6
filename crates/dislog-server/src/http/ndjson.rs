//! Records a line each, appended while they arrive: as long as the client likes, in bounded memory.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use dislog_types::BatchBuilder;
use dislog_types::limits::BATCH_BYTES_MAX;
use futures_util::FutureExt;
use tokio::time::{Instant, sleep_until};

use crate::access::{Action, Asking, Guard};
use crate::append::{self, Pending};
use crate::budget::{Share, slow};
use crate::forward::Hops;
use crate::http::body::Received;
use crate::http::produce::Appended;
use crate::http::record_json::parse_line;
use crate::node::Node;
use crate::status::{Failure, kinds};

/// The longest line: a full batch as JSON.
const LINE_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// A batch is sent on its way at this size, or as soon as the client pauses.
const BATCH_BYTES: usize = 256 << 10;

/// Batches of one request that may be under way.
const BATCHES_IN_FLIGHT_MAX: usize = 16;

/// Appends every line of `body`. If that fails midway, the failure says how many records were
/// appended.
pub(super) async fn append_lines(
    node: &Node,
    asking: &Asking,
    topic: &str,
    partition: u32,
    body: Received,
) -> Result<Appended, Failure> {
    let mut lines = Lines {
        node,
        hops: &asking.hops,
        guard: asking.guard(Action::Produce, topic),
        topic,
        partition,
        rest: BytesMut::new(),
        rest_by: None,
        share: None,
        line_count: 0,
        builder: BatchBuilder::new(),
        in_flight: VecDeque::new(),
        appended: None,
    };
    let read = lines.read(body).await;
    // What is under way is waited for also after a failure, so that the answer tells what was
    // appended.
    let settled = lines.settle(0).await;
    match (read.and(settled), lines.appended) {
        (Ok(()), Some(appended)) => Ok(appended),
        (Ok(()), None) => Err(Failure::invalid("the body has no records: send at least one line")),
        (Err(failure), None) => Err(failure.with("appended", 0)),
        (Err(failure), Some(appended)) => Err(failure
            .of_partly_done()
            .with("appended", appended.count)
            .with("offset", appended.offset)
            .with("last_offset", appended.last_offset)),
    }
}

struct Lines<'a> {
    node: &'a Node,
    hops: &'a Hops,
    /// The right to go on.
    guard: Guard,
    topic: &'a str,
    partition: u32,
    /// The beginning of a line that goes on.
    rest: BytesMut,
    /// When the rest of that line must have arrived.
    rest_by: Option<Instant>,
    share: Option<Share>,
    line_count: usize,
    builder: BatchBuilder,
    in_flight: VecDeque<Pending>,
    appended: Option<Appended>,
}

impl Lines<'_> {
    async fn read(&mut self, mut body: Received) -> Result<(), Failure> {
        while let Some(data) = self.next(&mut body).await? {
            // Before room is asked for: there is none for more.
            self.check_length(&data)?;
            body.take(&mut self.share, data.len()).await?;
            let line_count = self.line_count;
            self.take(data).await?;
            if self.rest.is_empty() {
                self.rest_by = None;
            } else if self.rest_by.is_none() || self.line_count > line_count {
                self.rest_by = Some(body.deadline());
            }
            if let Some(share) = &mut self.share {
                share.shrink_to(self.rest.len());
            }
        }
        let rest = self.rest.split();
        self.line(&rest).await?;
        self.flush().await
    }

    /// The next data. A pause of the client is used to append what there is. It may pause as long
    /// as it likes between lines, but not within one.
    async fn next(&mut self, body: &mut Received) -> Result<Option<Bytes>, Failure> {
        if let Some(ready) = body.next().now_or_never() {
            return ready;
        }
        self.flush().await?;
        let closing = self.node.closing.clone();
        let rest_by = self.rest_by;
        let late = async {
            match rest_by {
                Some(rest_by) => sleep_until(rest_by).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            data = body.next() => data,
            failure = self.guard.ended() => Err(failure),
            () = closing.wait() => Err(Failure::shutting_down()),
            () = late => Err(slow()),
        }
    }

    async fn take(&mut self, mut data: Bytes) -> Result<(), Failure> {
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            let line = data.split_to(end);
            data.advance(1);
            if self.rest.is_empty() {
                self.line(&line).await?;
                continue;
            }
            self.rest.extend_from_slice(&line);
            let whole = self.rest.split();
            self.line(&whole).await?;
        }
        self.rest.extend_from_slice(&data);
        Ok(())
    }

    /// Refuses what would make the line under way too long.
    fn check_length(&self, data: &[u8]) -> Result<(), Failure> {
        let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
        if self.rest.len() + end <= LINE_BYTES_MAX {
            return Ok(());
        }
        let number = self.line_count + 1;
        let message = format!("line {number} has more than {LINE_BYTES_MAX} bytes");
        Err(Failure::new(&kinds::TOO_LARGE, message))
    }

    async fn line(&mut self, line: &[u8]) -> Result<(), Failure> {
        let number = self.line_count;
        if line.trim_ascii().is_empty() {
            return Ok(());
        }
        self.line_count += 1;
        let record = parse_line(line, number, append::now_ms())?;
        append::check_record(number, &record)?;
        if !self.builder.push(&record) {
            self.flush().await?;
            if !self.builder.push(&record) {
                return Err(Failure::record_too_large(number, record.content_bytes()));
            }
        }
        if self.builder.batch_bytes() >= BATCH_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), Failure> {
        if self.builder.record_count() == 0 {
            return Ok(());
        }
        self.guard.check()?;
        self.settle(BATCHES_IN_FLIGHT_MAX - 1).await?;
        let append = append::finish(std::mem::take(&mut self.builder), None, None);
        let (topic, partition, hops) = (self.topic, self.partition, self.hops.clone());
        let pending = append::submit(self.node, topic, partition, append, hops).await?;
        if matches!(pending, Pending::There(_)) {
            // Sent on at the same time, batches could change their order.
            self.settle(0).await?;
            let appended = append::outcome(self.node, pending, false).await?;
            self.count(appended);
        } else {
            self.in_flight.push_back(pending);
        }
        Ok(())
    }

    /// Waits until at most so many batches are under way.
    async fn settle(&mut self, in_flight_max: usize) -> Result<(), Failure> {
        let mut failed = None;
        while self.in_flight.len() > in_flight_max
            || (failed.is_some() && !self.in_flight.is_empty())
        {
            let Some(pending) = self.in_flight.pop_front() else { break };
            match append::outcome(self.node, pending, false).await {
                Ok(appended) => self.count(appended),
                Err(failure) => failed = failed.or(Some(failure)),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn count(&mut self, appended: dislog_cluster::Appended) {
        let count = u64::from(appended.record_count);
        let last_offset = appended.base_offset + count - 1;
        let so_far = self.appended.get_or_insert(Appended {
            offset: appended.base_offset,
            last_offset,
            count: 0,
            timestamp_ms: appended.timestamp_ms,
            duplicate: false,
        });
        so_far.last_offset = last_offset;
        so_far.count += count;
        so_far.timestamp_ms = appended.timestamp_ms;
    }
}
