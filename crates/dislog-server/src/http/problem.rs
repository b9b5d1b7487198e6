//! Failures as RFC 9457 problem documents.

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http::header::{CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::status::Failure;

/// Why a request was not done (RFC 9457).
#[derive(Serialize, ToSchema)]
pub(super) struct Problem {
    /// `urn:dislog:` and the reason: names the kind of problem.
    #[serde(rename = "type")]
    #[schema(examples("urn:dislog:OFFSET_TRIMMED"))]
    kind: String,
    /// The kind of problem, for people.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What happened to what, and what to do.
    detail: String,
    /// The same reasons as in gRPC's `ErrorInfo`.
    #[schema(examples("OFFSET_TRIMMED"))]
    reason: &'static str,
    /// Whether sending the same request again is safe and may help.
    retry: bool,
    /// Facts by name, as texts: `earliest`, `latest`, `damaged_from`, …
    #[serde(flatten)]
    #[schema(value_type = Object)]
    facts: Map<String, Value>,
}

impl From<&Failure> for Problem {
    fn from(failure: &Failure) -> Problem {
        let facts = failure.metadata.iter();
        Problem {
            kind: format!("urn:dislog:{}", failure.kind.reason),
            title: failure.kind.title,
            status: failure.http_status().as_u16(),
            detail: failure.message.clone(),
            reason: failure.kind.reason,
            retry: failure.retry_after().is_some(),
            facts: facts.map(|(key, value)| ((*key).to_owned(), value.clone().into())).collect(),
        }
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let mut response = Response::builder()
            .status(self.http_status())
            .header(CONTENT_TYPE, "application/problem+json");
        if let Some(delay) = self.retry_after() {
            response =
                response.header(RETRY_AFTER, delay.as_millis().div_ceil(1_000).max(1) as u64);
        }
        if self.http_status() == StatusCode::UNAUTHORIZED {
            response = response.header(WWW_AUTHENTICATE, "Bearer realm=\"dislog\"");
        }
        let document = serde_json::to_vec(&Problem::from(&self)).expect("a problem is plain JSON");
        response.body(Body::from(document)).expect("the headers are constants and numbers")
    }
}
