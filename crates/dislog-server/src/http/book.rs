//! The two forms of the book "Distributed Services with Go": `POST /` and `GET /`, on partition 0
//! of the topic `default`. Field names, base64 and status 200 are the book's.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use dislog_types::Record;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{Action, Asking};
use crate::append;
use crate::budget::Budget;
use crate::http::body::Received;
use crate::http::consume::{RECORD_ANSWER_BYTES_MAX, json, one_record};
use crate::http::problem::Problem;
use crate::http::produce::append_one;
use crate::node::Node;
use crate::read::{Reader, Start};
use crate::status::Failure;

/// The topic of requests that name none.
const NO_TOPIC: &str = "";

const PARTITION: u32 = 0;

/// The largest record in base64, and a little around it.
const BODY_BYTES_MAX: usize = dislog_types::limits::RECORD_BYTES_MAX.div_ceil(3) * 4 + (64 << 10);

/// A record as the book has it.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(default)]
struct BookRecord {
    /// The content in base64; `null` is empty.
    value: Option<String>,
    /// Its position; ignored in requests.
    offset: u64,
}

/// A record to add.
#[derive(Deserialize, ToSchema)]
struct BookProduce {
    record: BookRecord,
}

/// Where it was added.
#[derive(Serialize, ToSchema)]
struct BookProduced {
    offset: u64,
}

/// Which record to get.
#[derive(Deserialize, ToSchema)]
struct BookConsume {
    offset: u64,
}

/// The record.
#[derive(Serialize, ToSchema)]
struct BookConsumed {
    record: BookRecord,
}

/// What this is, for somebody who just looks.
#[derive(Serialize)]
struct Greeting {
    name: &'static str,
    version: &'static str,
    api: &'static str,
}

/// Adds a record to partition 0 of the topic `default`, as in the book.
#[utoipa::path(
    post, path = "/", tag = "book", operation_id = "bookProduce",
    request_body = BookProduce,
    responses(
        (status = 200, body = BookProduced),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn post_root(
    State(node): State<Node>,
    asking: Asking,
    body: Received,
) -> Result<Response, Failure> {
    asking.may(Action::Produce, NO_TOPIC)?;
    let whole = body.whole(BODY_BYTES_MAX).await?;
    let BookProduce { record } = parse(&whole.bytes, r#"{"record":{"value":"aGk="}}"#)?;
    let value = BASE64.decode(record.value.unwrap_or_default()).map_err(|error| {
        Failure::invalid(format!("record.value is not base64 (RFC 4648 §4): {error}"))
    })?;
    let record = Record { created_ms: append::now_ms(), ..Record::new(Bytes::from(value)) };
    let append = append::from_records(&[record], None, None)?;
    let appended = append_one(&node, &asking, NO_TOPIC, PARTITION, append).await?;
    Ok(Json(BookProduced { offset: appended.offset }).into_response())
}

/// Gets a record of partition 0 of the topic `default`, as in the book: the request has a body.
/// Without a body, says what this server is.
#[utoipa::path(
    get, path = "/", tag = "book", operation_id = "bookConsume",
    request_body = Option<BookConsume>,
    responses(
        (status = 200, body = BookConsumed),
        (status = 404, description = "The offset is beyond the end", body = Problem,
            content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn get_root(
    State(node): State<Node>,
    asking: Asking,
    budget: Budget,
    body: Received,
) -> Result<Response, Failure> {
    asking.may(Action::Consume, NO_TOPIC)?;
    let whole = body.whole(BODY_BYTES_MAX).await?;
    if whole.bytes.is_empty() {
        let version = env!("CARGO_PKG_VERSION");
        return Ok(Json(Greeting { name: "dislog", version, api: "/openapi.json" }).into_response());
    }
    let BookConsume { offset } = parse(&whole.bytes, r#"{"offset":0}"#)?;
    let replica = node.replica(NO_TOPIC, PARTITION, &asking.hops).await?;
    let reader = Reader::open(replica, Start::Offset(offset), false).await?;
    let room = budget.answer(RECORD_ANSWER_BYTES_MAX).await?;
    let located = one_record(&node, reader).await?;
    let value = Some(BASE64.encode(&located.record.value));
    Ok(json(room, &BookConsumed { record: BookRecord { value, offset } }))
}

/// The body as JSON, whatever its content type: curl does not say it unasked.
fn parse<T: DeserializeOwned>(bytes: &[u8], example: &str) -> Result<T, Failure> {
    serde_json::from_slice(bytes).map_err(|error| {
        Failure::invalid(format!("the body is not valid: {error}; give JSON such as {example}"))
    })
}
