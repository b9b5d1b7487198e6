//! `POST /v1/topics/{topic}/records`.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dislog_cluster::Append;
use dislog_proto::v1;
use dislog_types::Record;
use dislog_types::batch::ProducerStamp;
use dislog_types::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use http::{HeaderMap, StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::Asking;
use crate::append;
use crate::http::body::Received;
use crate::http::ndjson;
use crate::http::params::{Names, Params};
use crate::http::problem::Problem;
use crate::http::record_json::{RecordIn, parse_document};
use crate::node::Node;
use crate::status::Failure;

/// A full batch as JSON: base64 and escapes take more room than the bytes themselves.
const JSON_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// Where records were appended.
#[derive(Serialize, ToSchema)]
pub(super) struct Appended {
    /// The offset of the first record.
    pub(super) offset: u64,
    /// The offset of the last record. With `application/x-ndjson`, records of others may be in
    /// between.
    pub(super) last_offset: u64,
    /// How many records were appended.
    pub(super) count: u64,
    /// When the last batch was appended, Unix milliseconds.
    pub(super) timestamp_ms: i64,
    /// An earlier request with the same producer and sequence had appended them.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) duplicate: bool,
}

/// Adds records. The type of the body says what it is:
/// `application/json` is one record, an array of records, or `{"records": [...]}`, added as one
/// batch, all or none; `application/x-ndjson` is a record a line, of any length, added while it
/// arrives; anything else is one record with the body as its value.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/records", tag = "records", operation_id = "addRecords",
    params(
        ("topic" = String, Path, description = "Created if it does not exist, unless the server is \
            told not to"),
        ("partition" = Option<u32>, Query, description = "Which partition; 0 if not given"),
        ("expected_offset" = Option<u64>, Query, description = "Append only if the first record \
            would get this offset. Not with x-ndjson"),
        ("key" = Option<String>, Query, description = "The key of a body that is one record as it \
            is"),
        ("producer_id" = Option<i64>, Query, description = "Makes a retry safe, together with \
            producer_epoch and sequence: a batch that was appended before gets its first answer. A \
            random number from 1. Not with x-ndjson"),
        ("producer_epoch" = Option<i32>, Query, description = "Raised to start the sequence again; \
            0 if not given"),
        ("sequence" = Option<i32>, Query, description = "How many records this producer and epoch \
            sent before: dense, from 0"),
    ),
    request_body(content(
        (RecordIn = "application/json"),
        (RecordIn = "application/x-ndjson"),
        (String = "application/octet-stream"),
    ), description = "One record, or many"),
    responses(
        (status = 201, body = Appended),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn post_records(
    State(node): State<Node>,
    asking: Asking,
    names: Names,
    params: Params,
    headers: HeaderMap,
    body: Received,
) -> Result<Response, Failure> {
    params.only(&[
        "partition",
        "expected_offset",
        "key",
        "producer_id",
        "producer_epoch",
        "sequence",
    ])?;
    let partition = params.partition()?;
    let kind = BodyKind::of(&headers);
    let conditions = Conditions::of(&params)?;
    if kind != BodyKind::Bytes && params.text("key").is_some() {
        return Err(Failure::invalid(
            "query parameter key is for bodies that are one record: give each record its own `key`",
        ));
    }
    let appended = match kind {
        BodyKind::Lines => {
            conditions.refuse_with_lines()?;
            ndjson::append_lines(&node, &asking, &names.topic, partition, body).await?
        }
        BodyKind::Json => {
            let whole = body.whole(JSON_BYTES_MAX).await?;
            let records = parse_document(&whole.bytes, append::now_ms())?;
            let append = conditions.append(&records)?;
            append_one(&node, &asking, &names.topic, partition, append).await?
        }
        BodyKind::Bytes => {
            let whole = body.whole(RECORD_BYTES_MAX).await?;
            let key = params.text("key").map(|key| Bytes::copy_from_slice(key.as_bytes()));
            let value = whole.bytes.clone();
            let record = Record { key, value, headers: Vec::new(), created_ms: append::now_ms() };
            let append = conditions.append(&[record])?;
            append_one(&node, &asking, &names.topic, partition, append).await?
        }
    };
    Ok((StatusCode::CREATED, Json(appended)).into_response())
}

/// What a body is, by its content type.
#[derive(Clone, Copy, PartialEq, Eq)]
enum BodyKind {
    Json,
    Lines,
    Bytes,
}

impl BodyKind {
    fn of(headers: &HeaderMap) -> BodyKind {
        let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let essence = content_type.unwrap_or_default().split(';').next().unwrap_or_default();
        match essence.trim().to_ascii_lowercase().as_str() {
            "application/json" => BodyKind::Json,
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" => BodyKind::Lines,
            _ => BodyKind::Bytes,
        }
    }
}

/// When, and how often, a batch may be appended.
struct Conditions {
    producer: Option<ProducerStamp>,
    expected_offset: Option<u64>,
}

impl Conditions {
    fn of(params: &Params) -> Result<Conditions, Failure> {
        let expected_offset = params.number("expected_offset", 0, u64::MAX)?;
        let producer_id = params.number("producer_id", 1, i64::MAX)?;
        let producer_epoch = params.number("producer_epoch", 0, i32::from(i16::MAX))?;
        let sequence = params.number("sequence", 0, i32::MAX)?;
        let producer = match (producer_id, sequence) {
            (Some(producer_id), Some(sequence)) => {
                let producer_epoch = producer_epoch.unwrap_or(0);
                let idempotence = v1::Idempotence { producer_id, producer_epoch, sequence };
                Some(append::stamp(&idempotence)?)
            }
            (None, None) if producer_epoch.is_none() => None,
            _ => {
                return Err(Failure::invalid(
                    "query parameters producer_id and sequence belong together: give both or none",
                ));
            }
        };
        Ok(Conditions { producer, expected_offset })
    }

    /// Records as one batch.
    fn append(&self, records: &[Record]) -> Result<Append, Failure> {
        append::from_records(records, self.producer, self.expected_offset)
    }

    fn refuse_with_lines(&self) -> Result<(), Failure> {
        if self.producer.is_none() && self.expected_offset.is_none() {
            return Ok(());
        }
        Err(Failure::invalid(
            "expected_offset, producer_id and sequence are about one batch, and \
                application/x-ndjson may be \
             many: send application/json",
        ))
    }
}

/// Appends a batch and waits until that is known.
pub(super) async fn append_one(
    node: &Node,
    asking: &Asking,
    topic: &str,
    partition: u32,
    append: Append,
) -> Result<Appended, Failure> {
    let idempotent = append.header.producer.is_some();
    let pending = append::submit(node, topic, partition, append, asking.hops.clone()).await?;
    let appended = append::outcome(node, pending, idempotent).await?;
    let count = u64::from(appended.record_count);
    Ok(Appended {
        offset: appended.base_offset,
        last_offset: appended.base_offset + count - 1,
        count,
        timestamp_ms: appended.timestamp_ms,
        duplicate: appended.duplicate,
    })
}
