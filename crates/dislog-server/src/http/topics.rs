//! `/v1/topics`: what `log.v1.Admin` does, as REST.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dislog_proto::v1;
use dislog_types::TopicName;
use http::StatusCode;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::access::{Action, Asking};
use crate::http::body::Received;
use crate::http::params::{Names, Params};
use crate::http::problem::Problem;
use crate::node::Node;
use crate::status::Failure;
use crate::topics;

/// A request about topics is a few numbers.
const BODY_BYTES_MAX: usize = 64 << 10;

/// Settings of a topic. In requests, what is left out stays as it is, or takes the server's
/// default.
#[derive(Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
struct Settings {
    /// Sealed segments are deleted while a partition holds more than this; 0 keeps everything.
    retention_bytes: Option<u64>,
    /// Sealed segments are deleted once their newest record is older than this; 0 keeps everything.
    retention_ms: Option<u64>,
    /// A segment is sealed when it would grow past this.
    segment_bytes: Option<u64>,
    /// So many replicas of each partition, or as many as there are nodes.
    replicas: Option<u32>,
}

/// A topic to create.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewTopic {
    /// 1 to 200 of `A-Z a-z 0-9 . _ -`.
    name: String,
    /// How many partitions; 1 if not given.
    #[serde(default)]
    partitions: u32,
    #[serde(default)]
    settings: Settings,
}

/// A topic.
#[derive(Serialize, ToSchema)]
struct Topic {
    name: String,
    partitions: Vec<Partition>,
    settings: Settings,
    /// When it was created, Unix milliseconds.
    created_ms: i64,
}

/// How a partition is.
#[derive(Serialize, ToSchema)]
struct Partition {
    partition: u32,
    /// The first offset still in the log.
    start_offset: u64,
    /// One past the last committed record.
    committed_offset: u64,
    /// Bytes on disk.
    size_bytes: u64,
    /// Segments on disk.
    segments: u32,
    /// The id of the leading server; empty while there is none.
    leader: String,
    /// The ids of the nodes that should have a replica.
    replicas: Vec<String>,
    /// Why it cannot be written, if so.
    #[serde(skip_serializing_if = "String::is_empty")]
    fault: String,
}

/// Topics by name.
#[derive(Serialize, ToSchema)]
struct Topics {
    topics: Vec<Topic>,
}

/// Which records to drop.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Trim {
    #[serde(default)]
    partition: u32,
    /// The first offset to keep; at most the committed offset.
    offset: u64,
}

/// What is left.
#[derive(Serialize, ToSchema)]
struct Trimmed {
    /// The first offset still in the log.
    start_offset: u64,
}

/// Lists topics.
#[utoipa::path(
    get, path = "/v1/topics", tag = "topics", operation_id = "listTopics",
    responses((status = 200, body = Topics)),
)]
pub(super) async fn list_topics(
    State(node): State<Node>,
    asking: Asking,
    params: Params,
) -> Result<Response, Failure> {
    params.only(&[])?;
    let topics = topics::seen_whole(&node, &asking).await;
    let topics = topics.into_iter().map(Topic::from).collect();
    Ok(Json(Topics { topics }).into_response())
}

/// Creates a topic.
#[utoipa::path(
    post, path = "/v1/topics", tag = "topics", operation_id = "createTopic",
    request_body = NewTopic,
    responses(
        (status = 201, body = Topic),
        (status = 409, description = "It exists", body = Problem,
            content_type = "application/problem+json"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn create_topic(
    State(node): State<Node>,
    asking: Asking,
    params: Params,
    body: Received,
) -> Result<Response, Failure> {
    params.only(&[])?;
    let new: NewTopic = json(body).await?;
    new.name.parse::<TopicName>()?;
    asking.may(Action::Admin, &new.name)?;
    let settings = Some(new.settings.into());
    let request = v1::CreateTopicRequest { topic: new.name, partitions: new.partitions, settings };
    let created = topics::create(&node, request, asking.hops).await?;
    Ok((StatusCode::CREATED, Json(Topic::from(created))).into_response())
}

/// Describes a topic.
#[utoipa::path(
    get, path = "/v1/topics/{topic}", tag = "topics", operation_id = "describeTopic",
    params(("topic" = String, Path, description = "Its name")),
    responses(
        (status = 200, body = Topic),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn describe_topic(
    State(node): State<Node>,
    asking: Asking,
    names: Names,
    params: Params,
) -> Result<Response, Failure> {
    params.only(&[])?;
    let topic = node.topic(&names.topic.parse()?).await?;
    let topic = topics::described_whole(&node, &asking.hops, &topic).await;
    Ok(Json(Topic::from(topic)).into_response())
}

/// Changes the settings that are given and leaves the others.
#[utoipa::path(
    patch, path = "/v1/topics/{topic}", tag = "topics", operation_id = "alterTopic",
    params(("topic" = String, Path, description = "Its name")),
    request_body = Settings,
    responses(
        (status = 200, body = Topic),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn alter_topic(
    State(node): State<Node>,
    asking: Asking,
    names: Names,
    params: Params,
    body: Received,
) -> Result<Response, Failure> {
    params.only(&[])?;
    let settings: Settings = json(body).await?;
    let settings = Some(settings.into());
    let request = v1::AlterTopicRequest { topic: names.topic, settings };
    let altered = topics::alter(&node, request, asking.hops).await?;
    Ok(Json(Topic::from(altered)).into_response())
}

/// Deletes a topic and all its records.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}", tag = "topics", operation_id = "deleteTopic",
    params(("topic" = String, Path, description = "Its name")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn delete_topic(
    State(node): State<Node>,
    asking: Asking,
    names: Names,
    params: Params,
) -> Result<StatusCode, Failure> {
    params.only(&[])?;
    let request = v1::DeleteTopicRequest { topic: names.topic };
    topics::delete(&node, request, asking.hops).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Drops the records of a partition below an offset.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/trim", tag = "topics", operation_id = "trimTopic",
    params(("topic" = String, Path, description = "Its name")),
    request_body = Trim,
    responses(
        (status = 200, body = Trimmed),
        (status = "4XX", body = Problem, content_type = "application/problem+json"),
        (status = "5XX", body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn trim_topic(
    State(node): State<Node>,
    asking: Asking,
    names: Names,
    params: Params,
    body: Received,
) -> Result<Response, Failure> {
    params.only(&[])?;
    let trim: Trim = json(body).await?;
    let Trim { partition, offset } = trim;
    let request = v1::TrimTopicRequest { topic: names.topic, partition, offset };
    let start_offset = topics::trim(&node, request, asking.hops).await?;
    Ok(Json(Trimmed { start_offset }).into_response())
}

async fn json<T: DeserializeOwned>(body: Received) -> Result<T, Failure> {
    let whole = body.whole(BODY_BYTES_MAX).await?;
    serde_json::from_slice(&whole.bytes)
        .map_err(|error| Failure::invalid(format!("the body is not valid: {error}")))
}

impl From<Settings> for v1::TopicSettings {
    fn from(settings: Settings) -> v1::TopicSettings {
        let Settings { retention_bytes, retention_ms, segment_bytes, replicas } = settings;
        v1::TopicSettings { retention_bytes, retention_ms, segment_bytes, replicas }
    }
}

impl From<v1::Topic> for Topic {
    fn from(topic: v1::Topic) -> Topic {
        let v1::TopicSettings { retention_bytes, retention_ms, segment_bytes, replicas } =
            topic.settings.unwrap_or_default();
        Topic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(Partition::from).collect(),
            settings: Settings { retention_bytes, retention_ms, segment_bytes, replicas },
            created_ms: topic.created_ms,
        }
    }
}

impl From<v1::Partition> for Partition {
    fn from(partition: v1::Partition) -> Partition {
        let v1::Partition {
            partition,
            start_offset,
            committed_offset,
            size_bytes,
            segments,
            leader,
            fault,
            replicas,
        } = partition;
        Partition {
            partition,
            start_offset,
            committed_offset,
            size_bytes,
            segments,
            leader,
            replicas,
            fault,
        }
    }
}
