//! Records as a stream: lines of JSON, or server-sent events (WHATWG HTML §9.2).
//!
//! What waits for a slow reader is an [`Outflow`]'s. What ends a stream early is its last line
//! (`{"error": …}`), an event called `error`, or in the middle of a line the end of the connection:
//! a loss is never silent.

use std::io;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::StreamExt as _;
use serde::Serialize;

use crate::access::Guard;
use crate::http::problem::Problem;
use crate::http::record_json::RecordOut;
use crate::node::Node;
use crate::outflow::{Outflow, Source, Waited};
use crate::page::{Page, PageBuilder};
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
    /// The right to read.
    guard: Guard,
    reader: Reader,
    form: Form,
    /// Records that may still be sent.
    left: u64,
    /// How long to wait at the end of the log; `None` waits for ever.
    patience: Option<Duration>,
}

impl Tail {
    /// The records from `reader` on, at most `limit`, waiting at the end of the log with
    /// `patience`.
    pub(super) fn new(
        node: Node,
        guard: Guard,
        reader: Reader,
        form: Form,
        limit: Option<u64>,
        patience: Option<Duration>,
    ) -> Tail {
        let left = limit.unwrap_or(u64::MAX);
        Tail { node, guard, reader, form, left, patience }
    }

    /// As a response body.
    pub(super) fn into_body(self) -> Body {
        let (node, form) = (self.node.clone(), self.form);
        let opening =
            (form == Form::Events).then(|| Bytes::from_static(EVENTS_PREAMBLE.as_bytes()));
        let opening = futures_util::stream::iter(opening.map(Ok));
        let pages = futures_util::stream::unfold(Some(Outflow::new(self)), move |pages| {
            let node = node.clone();
            async move {
                let mut pages = pages?;
                match pages.next(&node.outlet).await {
                    Ok(piece) => Some((Ok(piece?), Some(pages))),
                    Err(failure) if pages.is_within_page() => {
                        Some((Err(io::Error::other(failure.message)), None))
                    }
                    Err(failure) => Some((Ok(last_words(form, &failure)), None)),
                }
            }
        });
        Body::from_stream(opening.chain(pages))
    }

    fn write(&self, records: Vec<Located>) -> Page {
        let mut out = PageBuilder::default();
        for located in records {
            let out = out.own();
            if self.form == Form::Events {
                out.extend_from_slice(format!("id: {}\ndata: ", located.offset).as_bytes());
            }
            write_json(out, &RecordOut::from(located));
            out.extend_from_slice(if self.form == Form::Events { b"\n\n" } else { b"\n" });
        }
        out.finish()
    }
}

impl Source for Tail {
    async fn page(&mut self, bytes_max: usize) -> Result<Option<Page>, Failure> {
        if self.left == 0 {
            return Ok(None);
        }
        if self.node.closing.is_closing() {
            return Err(Failure::shutting_down());
        }
        self.guard.check()?;
        let records = PAGE.records.min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let bytes = PAGE.bytes.min(bytes_max);
        let records = self.reader.page(Limits { records, bytes }).await?;
        self.left -= records.len() as u64;
        Ok((!records.is_empty()).then(|| self.write(records)))
    }

    async fn page_again(&mut self) -> Result<Page, Failure> {
        let records = self.reader.page_again().await?;
        Ok(self.write(records))
    }

    async fn wait(&mut self) -> Result<Waited, Failure> {
        if self.left == 0 {
            return Ok(Waited::End);
        }
        let (limit, in_vain) = match (self.form, self.patience) {
            (_, Some(patience)) => (patience, Waited::End),
            (Form::Events, None) => {
                (EVENTS_HEARTBEAT, Waited::Heartbeat(Bytes::from_static(b":\n\n")))
            }
            (Form::Lines, None) => (Duration::MAX, Waited::End),
        };
        tokio::select! {
            waited = tokio::time::timeout(limit, self.reader.wait()) => match waited {
                Ok(result) => result.map(|()| Waited::Records),
                Err(_) => Ok(in_vain),
            },
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

fn last_words(form: Form, failure: &Failure) -> Bytes {
    #[derive(Serialize)]
    struct Line {
        error: Problem,
    }
    let mut out = Vec::new();
    match form {
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

fn write_json(out: &mut Vec<u8>, value: &impl Serialize) {
    serde_json::to_writer(out, value).expect("a Vec takes every write and the value is plain");
}
