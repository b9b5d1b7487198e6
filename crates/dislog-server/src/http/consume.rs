//! `GET /v1/topics/{topic}/records` and one record of it.

use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dislog_cluster::Progress;
use dislog_types::limits::RECORD_BYTES_MAX;
use http::{HeaderMap, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::{Action, Asking};
use crate::budget::{AnswerRoom, Budget};
use crate::http::params::{Names, Params};
use crate::http::problem::Problem;
use crate::http::record_json::RecordOut;
use crate::http::tail::{Form, Tail};
use crate::node::Node;
use crate::read::{Limits, Located, PAGE_BYTES_DEFAULT, Reader, Start};
use crate::status::{Failure, kinds};

/// Records of a page unless its client says otherwise.
const RECORDS_DEFAULT: usize = 100;

/// The most records of a page.
const RECORDS_MAX: usize = 10_000;

/// The room for records as JSON: base64 and escapes take more than the bytes themselves.
pub(super) const RECORD_ANSWER_BYTES_MAX: usize = 2 * RECORD_BYTES_MAX;

/// The longest wait for a page. Streams wait for ever.
const WAIT_MS_MAX: u64 = 300_000;

/// A page of records at dense offsets.
#[derive(Serialize, ToSchema)]
struct Page {
    records: Vec<RecordOut>,
    /// Where the next page begins.
    next_offset: u64,
    /// The first offset still in the log.
    start_offset: u64,
    /// One past the last committed record.
    committed_offset: u64,
}

/// Gets one record: as JSON, or only its value if `Accept` says `application/octet-stream`.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/records/{offset}", tag = "records", operation_id = "getRecord",
    params(
        ("topic" = String, Path, description = "Its topic"),
        ("offset" = u64, Path, description = "Its offset"),
        ("partition" = Option<u32>, Query, description = "Which partition; 0 if not given"),
        ("linearizable" = Option<bool>, Query, description = "See every record acknowledged before \
            this request was sent"),
    ),
    responses(
        (status = 200, content(
            (RecordOut = "application/json"),
            (String = "application/octet-stream"))),
        (status = 404, description = "No such topic, or beyond the end", body = Problem,
            content_type = "application/problem+json"),
        (status = 410, description = "The record was trimmed", body = Problem,
            content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_record(
    State(node): State<Node>,
    asking: Asking,
    budget: Budget,
    names: Names,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    params.only(&["partition", "linearizable"])?;
    let offset = names.offset()?;
    let accepted = accepted(&headers, &[JSON, BYTES])?;
    let reader = open(&node, &asking, &names, &params, Start::Offset(offset)).await?;
    let room = budget.answer(RECORD_ANSWER_BYTES_MAX).await?;
    let record = one_record(&node, reader).await?;
    if accepted == BYTES {
        let content_type = [(header::CONTENT_TYPE, BYTES)];
        // Copied, because it is part of a batch, which would stay with it.
        let value = Bytes::copy_from_slice(&record.record.value);
        return Ok((content_type, Body::from(room.hold(value))).into_response());
    }
    Ok(json(room, &RecordOut::from(record)))
}

/// An answer that takes what it needs of the room.
pub(super) fn json(room: AnswerRoom, answer: &impl Serialize) -> Response {
    let answer = serde_json::to_vec(answer).expect("numbers, texts and lists are plain JSON");
    ([(header::CONTENT_TYPE, JSON)], Body::from(room.hold(answer))).into_response()
}

/// The record that is next for a reader.
pub(super) async fn one_record(node: &Node, mut reader: Reader) -> Result<Located, Failure> {
    let _turn = node.outlet.turn(reader.is_here()).await;
    let mut page = reader.page(Limits::asked(0, 0)).await?;
    page.pop().ok_or_else(|| reader.beyond_end())
}

/// Gets records: a page as `application/json`; one a line as `application/x-ndjson`; events as
/// `text/event-stream`, each with its offset as id, following the end of the log for ever and going
/// on after `Last-Event-ID`.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/records", tag = "records", operation_id = "getRecords",
    params(
        ("topic" = String, Path, description = "Their topic"),
        ("partition" = Option<u32>, Query, description = "Which partition; 0 if not given"),
        ("offset" = Option<String>, Query, description = "Start at this offset, or at `earliest` \
            or `latest`. Without any start: earliest"),
        ("timestamp" = Option<i64>, Query, description = "Start at the first record appended at or \
            after this time, Unix milliseconds"),
        ("last" = Option<u64>, Query, description = "Start so many records before the end"),
        ("limit" = Option<u64>, Query, description = "At most so many records: for a page 100 if \
            not given and 10000 at most; for lines and events the stream ends there"),
        ("wait" = Option<String>, Query, description = "How long to wait at the end of the log, \
            such as `5s` or milliseconds: a page for a first record, lines for each further one"),
        ("follow" = Option<bool>, Query, description = "Lines only: follow the end of the log for \
            ever"),
        ("linearizable" = Option<bool>, Query, description = "See every record acknowledged before \
            this request was sent"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Events only: start after this \
            offset"),
    ),
    responses(
        (status = 200, content(
            (Page = "application/json"),
            (RecordOut = "application/x-ndjson"),
            (String = "text/event-stream"))),
        (status = 404, description = "No such topic, or beyond the end", body = Problem,
            content_type = "application/problem+json"),
        (status = 410, description = "The records were trimmed", body = Problem,
            content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_records(
    State(node): State<Node>,
    asking: Asking,
    budget: Budget,
    names: Names,
    params: Params,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    const KNOWN: &[&str] =
        &["partition", "offset", "timestamp", "last", "limit", "wait", "follow", "linearizable"];
    params.only(KNOWN)?;
    let accepted = accepted(&headers, &[JSON, LINES, EVENTS])?;
    let mut start = start(&params)?;
    if accepted == EVENTS {
        start = after_last_event(&headers)?.unwrap_or(start);
    }
    let wait = params.duration_ms("wait")?.map(|ms| Duration::from_millis(ms.min(WAIT_MS_MAX)));
    let follow = params.flag("follow")?;
    if follow && accepted != LINES && accepted != EVENTS {
        return Err(Failure::invalid(
            "query parameter follow is for streams: accept application/x-ndjson or \
                text/event-stream, or give wait",
        ));
    }
    let form = match accepted {
        EVENTS => Form::Events,
        LINES => Form::Lines,
        _ => return page(&node, (&asking, &budget), &names, &params, start, wait).await,
    };
    let limit = params.number("limit", 1, u64::MAX)?;
    let reader = open(&node, &asking, &names, &params, start).await?;
    reader.check_range()?;
    let patience = match (form, wait) {
        (Form::Lines, _) if !follow => Some(wait.unwrap_or_default()),
        _ => None,
    };
    let guard = asking.guard(Action::Consume, &names.topic);
    let tail = Tail::new(node, guard, reader.following(), form, limit, patience);
    let head = [(header::CONTENT_TYPE, accepted), (header::CACHE_CONTROL, "no-store")];
    Ok((head, tail.into_body()).into_response())
}

async fn page(
    node: &Node,
    (asking, budget): (&Asking, &Budget),
    names: &Names,
    params: &Params,
    start: Start,
    wait: Option<Duration>,
) -> Result<Response, Failure> {
    let limit = params.number("limit", 1, RECORDS_MAX)?.unwrap_or(RECORDS_DEFAULT);
    let mut reader = open(node, asking, names, params, start).await?;
    if let Some(patience) = wait {
        tokio::select! {
            waited = tokio::time::timeout(patience, reader.wait()) => waited.unwrap_or(Ok(()))?,
            () = node.closing.wait() => return Err(Failure::shutting_down()),
        }
        asking.guard(Action::Consume, &names.topic).check()?;
    }
    reader.check_range()?;
    let room = budget.answer(RECORD_ANSWER_BYTES_MAX).await?;
    let _turn = node.outlet.turn(reader.is_here()).await;
    let records = reader.page(Limits { records: limit, bytes: PAGE_BYTES_DEFAULT }).await?;
    let Progress { start_offset, committed_offset, .. } = reader.progress();
    let next_offset = reader.next_offset();
    let records = records.into_iter().map(RecordOut::from).collect();
    Ok(json(room, &Page { records, next_offset, start_offset, committed_offset }))
}

async fn open(
    node: &Node,
    asking: &Asking,
    names: &Names,
    params: &Params,
    start: Start,
) -> Result<Reader, Failure> {
    let replica = node.replica(&names.topic, params.partition()?, &asking.hops).await?;
    Reader::open(replica, start, params.flag("linearizable")?).await
}

fn start(params: &Params) -> Result<Start, Failure> {
    let timestamp = params.number("timestamp", i64::MIN, i64::MAX)?;
    let last = params.number("last", 0, u64::MAX)?;
    match (params.text("offset"), timestamp, last) {
        (None, None, None) | (Some("earliest"), None, None) => Ok(Start::Earliest),
        (Some("latest"), None, None) => Ok(Start::Latest),
        (Some(_), None, None) => {
            let offset = params.number("offset", 0, u64::MAX)?;
            Ok(offset.map_or(Start::Earliest, Start::Offset))
        }
        (None, Some(timestamp_ms), None) => Ok(Start::Timestamp(timestamp_ms)),
        (None, None, Some(count)) => Ok(Start::Last(count)),
        _ => Err(Failure::invalid(
            "query parameters offset, timestamp and last each say where to start: give one of them",
        )),
    }
}

/// Where a client that was cut off goes on.
fn after_last_event(headers: &HeaderMap) -> Result<Option<Start>, Failure> {
    let Some(id) = headers.get("last-event-id") else { return Ok(None) };
    let offset = id.to_str().ok().and_then(|id| id.parse::<u64>().ok()?.checked_add(1));
    match offset {
        Some(offset) => Ok(Some(Start::Offset(offset))),
        None => Err(Failure::invalid(format!("header Last-Event-ID is {id:?}: give an offset"))),
    }
}

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const EVENTS: &str = "text/event-stream";
const BYTES: &str = "application/octet-stream";

/// The first type in `Accept` that can be given; the first of `offered` if anything will do.
fn accepted(headers: &HeaderMap, offered: &[&'static str]) -> Result<&'static str, Failure> {
    let listed: Vec<&str> = headers
        .get_all(header::ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|range| range.split(';').next().unwrap_or_default().trim())
        .collect();
    if listed.is_empty() {
        return Ok(offered[0]);
    }
    let exact =
        |range: &&str| offered.iter().copied().find(|name| name.eq_ignore_ascii_case(range.trim()));
    if let Some(name) = listed.iter().find_map(exact) {
        return Ok(name);
    }
    if listed.iter().any(|range| matches!(*range, "*/*" | "application/*" | "")) {
        return Ok(offered[0]);
    }
    let message = format!("Accept is {:?}: there are {}", listed.join(", "), offered.join(", "));
    Err(Failure::new(&kinds::NOT_ACCEPTABLE, message))
}
