//! The one table from what goes wrong to what clients see.
//!
//! A [`Failure`] is made from an error of any layer below, carries one [`Kind`], and leaves as a
//! gRPC status with `google.rpc.ErrorInfo` and `RetryInfo`, or as an RFC 9457 problem document
//! (`http::problem`). Both say whether sending the same request again is safe.

use std::collections::HashMap;
use std::time::Duration;

use dislog_cluster::{AppendError, ReadError, TopicError};
use dislog_proto::{is_unserved, reason};
use dislog_types::limits::{BATCH_BYTES_MAX, RECORD_BYTES_MAX};
use dislog_types::{BatchError, NameError};
use http::StatusCode;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

/// Whether the same request may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Retry {
    /// It would fail again, or do its work twice.
    Never,
    /// Only if it is idempotent: its work may have been done.
    IfIdempotent,
    /// Yes, after so long: nothing was done.
    After(Duration),
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Kind {
    /// The contract with clients.
    pub(crate) reason: &'static str,
    /// For people, the same for every failure of this kind.
    pub(crate) title: &'static str,
    code: Code,
    http: StatusCode,
    retry: Retry,
}

const fn kind(
    reason: &'static str,
    code: Code,
    http: StatusCode,
    retry: Retry,
    title: &'static str,
) -> Kind {
    Kind { reason, title, code, http, retry }
}

const NEVER: Retry = Retry::Never;
const IF_IDEMPOTENT: Retry = Retry::IfIdempotent;
const SOON: Retry = Retry::After(Duration::from_millis(100));
const LATER: Retry = Retry::After(Duration::from_secs(1));

/// A row each; the names say what they are.
pub(crate) mod kinds {
    use Code::{
        AlreadyExists, DataLoss, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument,
        NotFound, OutOfRange, PermissionDenied, ResourceExhausted, Unauthenticated, Unavailable,
    };

    use super::*;

    macro_rules! kinds {
        ($($name:ident, $reason:expr, $code:ident, $http:ident, $retry:expr, $title:literal;)*) => {
            $(pub(crate) static $name: Kind =
                kind($reason, $code, StatusCode::$http, $retry, $title);)*

            /// All of them.
            pub(super) static ALL: &[&Kind] = &[$(&$name),*];
        };
    }

    kinds! {
        INVALID, reason::INVALID_REQUEST, InvalidArgument, BAD_REQUEST, NEVER,
            "The request is not valid";
        UNAUTHENTICATED, reason::UNAUTHENTICATED, Unauthenticated, UNAUTHORIZED, NEVER,
            "Nobody is known to ask";
        CERTIFICATE_ENDED, reason::CERTIFICATE_ENDED, Unauthenticated, UNAUTHORIZED, SOON,
            "The certificate of the connection has ended";
        TOPIC_NOT_FOUND, reason::TOPIC_NOT_FOUND, NotFound, NOT_FOUND, NEVER,
            "No such topic or partition";
        TOPIC_EXISTS, reason::TOPIC_EXISTS, AlreadyExists, CONFLICT, NEVER,
            "The topic exists";
        OUT_OF_RANGE, reason::OFFSET_OUT_OF_RANGE, OutOfRange, NOT_FOUND, NEVER,
            "No record at this offset";
        TRIMMED, reason::OFFSET_TRIMMED, OutOfRange, GONE, NEVER,
            "The records were trimmed";
        DAMAGED, reason::DAMAGED, DataLoss, INTERNAL_SERVER_ERROR, NEVER,
            "The records are damaged";
        UNEXPECTED_OFFSET, reason::UNEXPECTED_OFFSET, FailedPrecondition, PRECONDITION_FAILED,
            NEVER,
            "The end of the log is another";
        SEQUENCE_GAP, reason::SEQUENCE_GAP, FailedPrecondition, CONFLICT, NEVER,
            "Records of this producer are missing";
        SEQUENCE_FORGOTTEN, reason::SEQUENCE_FORGOTTEN, FailedPrecondition, CONFLICT, NEVER,
            "Appended too long ago to know its offset";
        PRODUCER_FENCED, reason::PRODUCER_FENCED, FailedPrecondition, CONFLICT, NEVER,
            "A newer epoch of the producer has appended";
        PRODUCER_UNKNOWN, reason::PRODUCER_UNKNOWN, FailedPrecondition, CONFLICT, NEVER,
            "The producer is not known";
        NO_LEADER, reason::NO_LEADER, Unavailable, SERVICE_UNAVAILABLE, SOON,
            "No leader at the moment";
        SHUTTING_DOWN, reason::SHUTTING_DOWN, Unavailable, SERVICE_UNAVAILABLE, LATER,
            "The server is shutting down";
        UNKNOWN_OUTCOME, reason::UNKNOWN_OUTCOME, DeadlineExceeded, GATEWAY_TIMEOUT, IF_IDEMPOTENT,
            "It is not known whether the records were appended";
        DISK_FULL, reason::DISK_FULL, ResourceExhausted, INSUFFICIENT_STORAGE, LATER,
            "The disk is full";
        LOG_STOPPED, reason::LOG_STOPPED, Internal, INTERNAL_SERVER_ERROR, NEVER,
            "The log has stopped";
        OVERLOADED, reason::OVERLOADED, ResourceExhausted, SERVICE_UNAVAILABLE, SOON,
            "Too much is under way";
        TOO_MANY, reason::OVERLOADED, ResourceExhausted, TOO_MANY_REQUESTS, LATER,
            "One client has too much under way";
        TOO_LARGE, reason::TOO_LARGE, ResourceExhausted, PAYLOAD_TOO_LARGE, NEVER,
            "Too large";
        READ_FAILED, reason::READ_FAILED, Internal, INTERNAL_SERVER_ERROR, LATER,
            "The disk failed to read";
        PERMISSION_DENIED, reason::PERMISSION_DENIED, PermissionDenied, FORBIDDEN, NEVER,
            "Not permitted";
        TOKEN_NOT_FOUND, reason::TOKEN_NOT_FOUND, NotFound, NOT_FOUND, NEVER,
            "No such token";
        // Only HTTP has these; gRPC has codes of its own for them, given by its library.
        NO_SUCH_PATH, reason::INVALID_REQUEST, NotFound, NOT_FOUND, NEVER,
            "Nothing is here";
        METHOD, reason::INVALID_REQUEST, InvalidArgument, METHOD_NOT_ALLOWED, NEVER,
            "Not a method of this path";
        NOT_ACCEPTABLE, reason::INVALID_REQUEST, InvalidArgument, NOT_ACCEPTABLE, NEVER,
            "None of the accepted types can be given";
        SLOW_REQUEST, reason::INVALID_REQUEST, DeadlineExceeded, REQUEST_TIMEOUT, SOON,
            "The request took too long to arrive";
        NOT_READY, reason::NO_LEADER, Unavailable, SERVICE_UNAVAILABLE, LATER,
            "Not ready";
    }
}

/// A request that was not done, and what its client is told.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// Which row of the table.
    pub(crate) kind: &'static Kind,
    /// What happened to what, and what to do.
    pub(crate) message: String,
    /// Facts for programs.
    pub(crate) metadata: Vec<(&'static str, String)>,
    /// The request is safe to send twice by its own means.
    idempotent: bool,
    /// A part of the request was done.
    partly_done: bool,
}

impl Failure {
    /// A failure of this kind.
    pub(crate) fn new(kind: &'static Kind, message: impl Into<String>) -> Failure {
        let (message, metadata) = (message.into(), Vec::new());
        Failure { kind, message, metadata, idempotent: false, partly_done: false }
    }

    /// The request is not valid: the message names the input and what to do.
    pub(crate) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(&kinds::INVALID, message)
    }

    /// The node is shutting down.
    pub(crate) fn shutting_down() -> Failure {
        Failure::new(&kinds::SHUTTING_DOWN, "the node is shutting down")
    }

    /// One record is larger than a record may be.
    pub(crate) fn record_too_large(number: usize, bytes: usize) -> Failure {
        let message = format!(
            "record {number} has {bytes} bytes of value, key and headers, the limit is \
                {RECORD_BYTES_MAX}"
        );
        Failure::new(&kinds::TOO_LARGE, message)
    }

    /// The records do not fit one batch.
    pub(crate) fn batch_too_large() -> Failure {
        let message = format!(
            "the records of the request have more than {BATCH_BYTES_MAX} bytes as one batch: send \
                fewer at a time"
        );
        Failure::new(&kinds::TOO_LARGE, message)
    }

    /// What another node answered, to which a request was sent on. Without a reason of ours its
    /// connection failed, and then it may have done its work, unless nobody served the request.
    pub(crate) fn of_peer(status: &Status) -> Failure {
        let Some(info) = status.get_error_details().error_info().cloned() else {
            let kind =
                if is_unserved(status) { &kinds::NO_LEADER } else { &kinds::UNKNOWN_OUTCOME };
            return Failure::new(kind, format!("sent on to another node: {}", status.message()));
        };
        let known = kinds::ALL.iter().find(|kind| kind.reason == info.reason);
        let kind = known.copied().unwrap_or(&kinds::UNKNOWN_OUTCOME);
        let keys = [
            reason::EARLIEST,
            reason::LATEST,
            reason::DAMAGED_FROM,
            reason::DAMAGED_TO,
            reason::SUBJECT,
            reason::ACTION,
            reason::OBJECT,
        ];
        let fact = |key: &'static str| Some((key, info.metadata.get(key)?.clone()));
        let metadata = keys.into_iter().filter_map(fact).collect();
        let message = status.message().to_owned();
        Failure { kind, message, metadata, idempotent: false, partly_done: false }
    }

    /// As given, with a fact for programs.
    pub(crate) fn with(self, key: &'static str, value: u64) -> Failure {
        self.with_text(key, &value.to_string())
    }

    /// The same, with a fact that is a name.
    pub(crate) fn with_text(mut self, key: &'static str, value: &str) -> Failure {
        self.metadata.push((key, value.to_owned()));
        self
    }

    /// As given, of a request that its producer stamped, so that a retry of it is never a second
    /// append.
    pub(crate) fn of_idempotent(mut self, idempotent: bool) -> Failure {
        self.idempotent = idempotent;
        self
    }

    /// As given, of a request of which a part was done and must not be done again.
    pub(crate) fn of_partly_done(mut self) -> Failure {
        self.partly_done = true;
        self
    }

    /// The HTTP status.
    pub(crate) fn http_status(&self) -> StatusCode {
        self.kind.http
    }

    /// How long to wait before sending the same request again; `None` if it must not be.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        match self.kind.retry {
            _ if self.partly_done => None,
            Retry::Never => None,
            Retry::IfIdempotent => self.idempotent.then_some(Duration::ZERO),
            Retry::After(delay) => Some(delay),
        }
    }
}

impl From<Failure> for Status {
    fn from(failure: Failure) -> Status {
        let retry_after = failure.retry_after();
        let mut metadata: HashMap<String, String> =
            failure.metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        metadata.insert(reason::RETRY.to_owned(), retry_after.is_some().to_string());
        let kind = failure.kind;
        let mut details = ErrorDetails::with_error_info(kind.reason, reason::DOMAIN, metadata);
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Status::with_error_details(kind.code, failure.message, details)
    }
}

impl From<AppendError> for Failure {
    fn from(error: AppendError) -> Failure {
        let kind = match &error {
            AppendError::NoLeader(_) => &kinds::NO_LEADER,
            AppendError::Closing => &kinds::SHUTTING_DOWN,
            AppendError::Deleted(_) => &kinds::TOPIC_NOT_FOUND,
            AppendError::UnexpectedOffset { .. } => &kinds::UNEXPECTED_OFFSET,
            AppendError::SequenceGap { .. } => &kinds::SEQUENCE_GAP,
            AppendError::SequenceForgotten { .. } => &kinds::SEQUENCE_FORGOTTEN,
            AppendError::ProducerFenced { .. } => &kinds::PRODUCER_FENCED,
            AppendError::ProducerUnknown { .. } => &kinds::PRODUCER_UNKNOWN,
            AppendError::UnknownOutcome => &kinds::UNKNOWN_OUTCOME,
            AppendError::DiskFull => &kinds::DISK_FULL,
            AppendError::Stopped(_) => &kinds::LOG_STOPPED,
            AppendError::Damaged(_) => &kinds::DAMAGED,
        };
        let failure = Failure::new(kind, error.to_string());
        match error {
            AppendError::UnexpectedOffset { actual, .. } => failure.with(reason::LATEST, actual),
            _ => failure,
        }
    }
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Failure {
        let kind = match &error {
            ReadError::Trimmed { .. } => &kinds::TRIMMED,
            ReadError::BeyondEnd { .. } => &kinds::OUT_OF_RANGE,
            ReadError::Damaged { .. } => &kinds::DAMAGED,
            ReadError::Failed(_) => &kinds::READ_FAILED,
            ReadError::Deleted(_) => &kinds::TOPIC_NOT_FOUND,
            ReadError::Closing => &kinds::SHUTTING_DOWN,
            ReadError::NoLeader(_) => &kinds::NO_LEADER,
        };
        let failure = Failure::new(kind, error.to_string());
        match error {
            ReadError::Trimmed { start_offset, committed_offset, .. }
            | ReadError::BeyondEnd { start_offset, committed_offset, .. } => {
                failure.with(reason::EARLIEST, start_offset).with(reason::LATEST, committed_offset)
            }
            ReadError::Damaged { from_offset, to_offset, .. } => {
                failure.with(reason::DAMAGED_FROM, from_offset).with(reason::DAMAGED_TO, to_offset)
            }
            _ => failure,
        }
    }
}

impl From<TopicError> for Failure {
    fn from(error: TopicError) -> Failure {
        let kind = match &error {
            TopicError::NotFound(_) | TopicError::NoPartition { .. } => &kinds::TOPIC_NOT_FOUND,
            TopicError::Exists(_) => &kinds::TOPIC_EXISTS,
            TopicError::Invalid(_) => &kinds::INVALID,
            TopicError::NotHandedOver { .. } => &kinds::NO_LEADER,
            TopicError::Append(append) => return Failure::from(append.clone()),
        };
        let message = match &error {
            TopicError::NotFound(_) => format!("{error}: create it, or check its name"),
            _ => error.to_string(),
        };
        Failure::new(kind, message)
    }
}

impl From<NameError> for Failure {
    fn from(error: NameError) -> Failure {
        Failure::invalid(error.to_string())
    }
}

impl From<BatchError> for Failure {
    fn from(error: BatchError) -> Failure {
        match error {
            BatchError::TooLarge(_) | BatchError::RecordTooLarge { .. } | BatchError::Parts => {
                Failure::new(&kinds::TOO_LARGE, error.to_string())
            }
            _ => Failure::invalid(error.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_carries_reason_metadata_and_retry_advice() {
        let beyond = ReadError::BeyondEnd { offset: 9, start_offset: 2, committed_offset: 5 };
        let status = Status::from(Failure::from(beyond));
        assert_eq!(status.code(), Code::OutOfRange);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((&*info.reason, &*info.domain), (reason::OFFSET_OUT_OF_RANGE, reason::DOMAIN));
        assert_eq!(info.metadata[reason::EARLIEST], "2");
        assert_eq!(info.metadata[reason::LATEST], "5");
        assert_eq!(info.metadata[reason::RETRY], "false");
        assert!(details.retry_info().is_none());
    }

    #[test]
    fn an_unknown_outcome_may_be_retried_only_by_idempotent_producers() {
        let retry = |idempotent| {
            let failure = Failure::from(AppendError::UnknownOutcome).of_idempotent(idempotent);
            let details = Status::from(failure).get_error_details();
            details.error_info().unwrap().metadata[reason::RETRY].clone()
        };
        assert_eq!(retry(true), "true");
        assert_eq!(retry(false), "false");
    }

    #[test]
    fn nothing_appended_is_safe_to_retry() {
        let status = Status::from(Failure::from(AppendError::DiskFull));
        assert_eq!(status.code(), Code::ResourceExhausted);
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().metadata[reason::RETRY], "true");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(1)));
    }
}
