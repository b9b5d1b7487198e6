//! The reasons in `google.rpc.ErrorInfo` of every error, and their metadata keys: a contract with
//! clients.

/// The domain of every `ErrorInfo`.
pub const DOMAIN: &str = "dislog";

/// Bad request: says what in the message. Never retry.
pub const INVALID_REQUEST: &str = "INVALID_REQUEST";
/// The server has to know who asks, and does not. Nothing was done.
pub const UNAUTHENTICATED: &str = "UNAUTHENTICATED";
/// The certificate that a connection was made with has ended, or its authority is not trusted any
/// more. Safe to retry over another connection, with a certificate that is valid.
pub const CERTIFICATE_ENDED: &str = "CERTIFICATE_ENDED";
/// No such topic or partition.
pub const TOPIC_NOT_FOUND: &str = "TOPIC_NOT_FOUND";
/// A topic of this name exists.
pub const TOPIC_EXISTS: &str = "TOPIC_EXISTS";
/// The offset is below the start or beyond the end: see [`EARLIEST`] and [`LATEST`].
pub const OFFSET_OUT_OF_RANGE: &str = "OFFSET_OUT_OF_RANGE";
/// The records at the offset were trimmed: see [`EARLIEST`].
pub const OFFSET_TRIMMED: &str = "OFFSET_TRIMMED";
/// The records at the offset are damaged on disk: see [`DAMAGED_FROM`] and [`DAMAGED_TO`].
pub const DAMAGED: &str = "DAMAGED";
/// The expected offset is not the end of the log: see [`LATEST`]. Nothing was appended.
pub const UNEXPECTED_OFFSET: &str = "UNEXPECTED_OFFSET";
/// The sequence leaves a gap after what this producer appended. Nothing was appended.
pub const SEQUENCE_GAP: &str = "SEQUENCE_GAP";
/// The batch was appended so long ago that its offset is no longer remembered.
pub const SEQUENCE_FORGOTTEN: &str = "SEQUENCE_FORGOTTEN";
/// A newer epoch of this producer has appended. Nothing was appended.
pub const PRODUCER_FENCED: &str = "PRODUCER_FENCED";
/// No record of this producer is retained, so its sequence must start at 0 with a higher epoch.
/// Nothing was appended.
pub const PRODUCER_UNKNOWN: &str = "PRODUCER_UNKNOWN";
/// No leader at the moment. Nothing was appended; safe to retry.
pub const NO_LEADER: &str = "NO_LEADER";
/// The server is shutting down. Nothing was appended; safe to retry elsewhere or later.
pub const SHUTTING_DOWN: &str = "SHUTTING_DOWN";
/// The append may or may not have happened: retry only with idempotence.
pub const UNKNOWN_OUTCOME: &str = "UNKNOWN_OUTCOME";
/// The disk is full. Nothing was appended; safe to retry once space was made.
pub const DISK_FULL: &str = "DISK_FULL";
/// A write or sync failed; the replica's log has stopped until its server restarts.
pub const LOG_STOPPED: &str = "LOG_STOPPED";
/// The disk failed to read. Safe to retry.
pub const READ_FAILED: &str = "READ_FAILED";
/// Too many bytes are in flight. Nothing was appended; safe to retry.
pub const OVERLOADED: &str = "OVERLOADED";
/// A record or request is larger than the limit. Never retry.
pub const TOO_LARGE: &str = "TOO_LARGE";
/// The rules do not allow it: see [`SUBJECT`], [`ACTION`] and [`OBJECT`]. Nothing was done, or from
/// now on nothing more.
pub const PERMISSION_DENIED: &str = "PERMISSION_DENIED";
/// No token has this id or name.
pub const TOKEN_NOT_FOUND: &str = "TOKEN_NOT_FOUND";

/// Metadata: who asked.
pub const SUBJECT: &str = "subject";
/// Metadata: what was asked for: `produce`, `consume` or `admin`.
pub const ACTION: &str = "action";
/// Metadata: the topic, or `@cluster`.
pub const OBJECT: &str = "object";
/// Metadata: the first offset still in the log.
pub const EARLIEST: &str = "earliest";
/// Metadata: one past the last committed offset.
pub const LATEST: &str = "latest";
/// Metadata: the leader's address.
pub const LEADER: &str = "leader";
/// Metadata: the first damaged offset.
pub const DAMAGED_FROM: &str = "damaged_from";
/// Metadata: one past the last damaged offset.
pub const DAMAGED_TO: &str = "damaged_to";
/// Metadata of every error: `true` if sending the same request again is safe and may help, `false`
/// if it isn't.
pub const RETRY: &str = "retry";
