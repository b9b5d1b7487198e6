//! Records as a stream: lines of JSON, or server-sent events (WHATWG HTML §9.2).
//!
//! At most one page is held for a slow reader. What ends a stream early is its last line
//! (`{"error": …}`) or an event called `error`: a loss is never silent.

use std::convert::Infallible;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use serde::Serialize;

use crate::http::problem::Problem;
use crate::http::record_json::RecordOut;
use crate::node::Node;
use crate::read::{Limits, Located, Reader};
use crate::status::Failure;

/// What is read and sent at a time.
const PAGE: Limits = Limits { records: 1_000, bytes: 256 << 10 };

/// How often a silent stream of events carries a comment, so that proxies keep it open.
const EVENTS_HEARTBEAT: Duration = Duration::from_secs(15);

/// How a client that was cut off shall come back: after this many milliseconds.
const EVENTS_PREAMBLE: &str = "retry: 1000\n\n";

/// How records are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// One a line.
    Lines,
    /// Events with offsets as ids.
    Events,
}

/// A stream of records.
pub(super) struct Tail {
    node: Node,
    reader: Reader,
    form: Form,
    /// Records that may still be sent.
    left: u64,
    /// How long to wait at the end of the log; `None` waits for ever.
    patience: Option<Duration>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Opening,
    Reading,
    Ended,
}

/// What came of waiting at the end of the log.
enum Waited {
    Records,
    Nothing,
    Heartbeat,
}

impl Tail {
    /// The records from `reader` on, at most `limit`, waiting at the end of the log with
    /// `patience`.
    pub(super) fn new(
        node: Node,
        reader: Reader,
        form: Form,
        limit: Option<u64>,
        patience: Option<Duration>,
    ) -> Tail {
        let left = limit.unwrap_or(u64::MAX);
        Tail { node, reader, form, left, patience, stage: Stage::Opening }
    }

    /// As a response body.
    pub(super) fn into_body(self) -> Body {
        Body::from_stream(futures_util::stream::unfold(self, |mut tail| async move {
            let chunk = tail.next().await?;
            Some((Ok::<_, Infallible>(chunk), tail))
        }))
    }

    /// The next bytes to send; `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        match self.stage {
            Stage::Ended => return None,
            Stage::Opening => {
                self.stage = Stage::Reading;
                if self.form == Form::Events {
                    return Some(Bytes::from_static(EVENTS_PREAMBLE.as_bytes()));
                }
            }
            Stage::Reading => {}
        }
        match self.read().await {
            Ok(chunk) => chunk,
            Err(failure) => {
                self.stage = Stage::Ended;
                Some(self.last_words(&failure))
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Bytes>, Failure> {
        while self.left > 0 {
            if self.node.closing.is_closing() {
                return Err(Failure::shutting_down());
            }
            let records = PAGE.records.min(usize::try_from(self.left).unwrap_or(usize::MAX));
            let page = self.reader.page(Limits { records, ..PAGE }).await?;
            if !page.is_empty() {
                self.left -= page.len() as u64;
                return Ok(Some(self.write(page)));
            }
            match self.wait().await? {
                Waited::Records => {}
                Waited::Nothing => break,
                Waited::Heartbeat => return Ok(Some(Bytes::from_static(b":\n\n"))),
            }
        }
        Ok(None)
    }

    async fn wait(&self) -> Result<Waited, Failure> {
        let (limit, in_vain) = match (self.form, self.patience) {
            (_, Some(patience)) => (patience, Waited::Nothing),
            (Form::Events, None) => (EVENTS_HEARTBEAT, Waited::Heartbeat),
            (Form::Lines, None) => (Duration::MAX, Waited::Nothing),
        };
        tokio::select! {
            waited = tokio::time::timeout(limit, self.reader.wait()) => match waited {
                Ok(result) => result.map(|()| Waited::Records),
                Err(_) => Ok(in_vain),
            },
            () = self.node.closing.wait() => Err(Failure::shutting_down()),
        }
    }

    fn write(&self, page: Vec<Located>) -> Bytes {
        let mut out = Vec::with_capacity(PAGE.bytes / 2);
        for located in page {
            if self.form == Form::Events {
                out.extend_from_slice(format!("id: {}\ndata: ", located.offset).as_bytes());
            }
            write_json(&mut out, &RecordOut::from(located));
            out.extend_from_slice(if self.form == Form::Events { b"\n\n" } else { b"\n" });
        }
        out.into()
    }

    fn last_words(&self, failure: &Failure) -> Bytes {
        #[derive(Serialize)]
        struct Line {
            error: Problem,
        }
        let mut out = Vec::new();
        match self.form {
            Form::Lines => {
                write_json(&mut out, &Line { error: Problem::from(failure) });
                out.push(b'\n');
            }
            Form::Events => {
                out.extend_from_slice(b"event: error\ndata: ");
                write_json(&mut out, &Problem::from(failure));
                out.extend_from_slice(b"\n\n");
            }
        }
        out.into()
    }
}

fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a Vec takes every write and the value is plain");
}
