//! The one place that decides what follows a failed call: from its code and the server's
//! `ErrorInfo`.
//!
//! ```text
//! reason                          if repeating is harmless      if it could double
//! NO_LEADER SHUTTING_DOWN …       retry                         retry (nothing was appended)
//! UNKNOWN_OUTCOME LOG_STOPPED     retry                         fail, outcome unknown
//! PRODUCER_UNKNOWN                raise the epoch
//! SEQUENCE_FORGOTTEN              it was delivered
//! SEQUENCE_GAP                    send again in order, a few times
//! any other                       as its `retry` metadata says
//! none: nobody served it          retry                         retry
//! none: the connection failed     retry                         fail, outcome unknown
//! none: the call was refused      fail                          fail
//! ```

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::Duration;

use dislog_proto::{is_unserved, reason};
use dislog_tls::refusal_in;
use dislog_types::PartitionId;
use tokio::time::Instant;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use crate::Error;

/// The first wait before a call is repeated: a leader that handed over has a successor by then.
const BACKOFF_FIRST: Duration = Duration::from_millis(40);

/// The longest wait before a call is repeated.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// After so many waits that doubled, they stay as they are for a while: an election takes about a
/// second, and whoever waits longer than it takes adds to the time without a leader.
const DOUBLED_FIRST: u32 = 2;

/// So many failures are between that and waits that double again, about three seconds.
const STEADY_FAILURES: u32 = 24;

/// What repeating a call could do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Repeat {
    /// Nothing: it reads, or it is idempotent.
    Harmless,
    /// The same thing twice, if the first call was carried out.
    Doubles,
}

/// What follows a failed call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Send it again, later. `nothing_done` says that the failed call surely had no effect.
    Retry {
        /// The failed call surely had no effect.
        nothing_done: bool,
    },
    /// The server knows nothing of this producer: raise the epoch, start its sequence again, send
    /// everything again.
    RaiseEpoch,
    /// The batch was appended, but its offset is forgotten.
    Forgotten,
    /// It came before those in front of it: send all again, in order.
    Reorder,
    /// It failed for good and had no effect.
    Fail,
    /// It cannot be repeated, and whether it had an effect is not known.
    FailUnknown,
}

/// A failed call.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    code: Code,
    message: String,
    reason: Option<String>,
    metadata: HashMap<String, String>,
    unserved: bool,
}

impl Failure {
    /// What the status of a failed call says.
    pub(crate) fn new(status: &Status) -> Failure {
        let info = status.get_details_error_info().filter(|info| info.domain == reason::DOMAIN);
        let (reason, metadata) = match info {
            Some(info) => (Some(info.reason), info.metadata),
            None => (None, HashMap::new()),
        };
        Failure {
            code: status.code(),
            message: describe(status),
            reason,
            metadata,
            unserved: is_unserved(status),
        }
    }

    /// A failure without a server's answer: it may be repeated like a broken connection.
    pub(crate) fn broken(message: &str) -> Failure {
        Failure::new(&Status::unavailable(message))
    }

    /// A replica does not have yet what was asked for: it, or another, is asked again.
    pub(crate) fn behind(message: String) -> Failure {
        Failure {
            code: Code::Unavailable,
            message,
            reason: Some(reason::NO_LEADER.to_owned()),
            metadata: HashMap::new(),
            unserved: false,
        }
    }

    /// Whether it was the server that failed, or is about to go, and not the request.
    pub(crate) fn is_of_server(&self) -> bool {
        match self.reason.as_deref() {
            Some(reason) => reason == reason::SHUTTING_DOWN,
            None => matches!(self.verdict(Repeat::Harmless), Verdict::Retry { .. }),
        }
    }

    /// Whether a server says that there is no such record or topic, which another one may know.
    pub(crate) fn is_of_absence(&self) -> bool {
        let reason = self.reason.as_deref();
        matches!(reason, Some(reason::OFFSET_OUT_OF_RANGE | reason::TOPIC_NOT_FOUND))
    }

    /// Whether a server says that its records are damaged, which those of another need not be.
    pub(crate) fn is_of_damage(&self) -> bool {
        self.reason.as_deref() == Some(reason::DAMAGED)
    }

    /// Whether no server took it up, so that it surely had no effect.
    pub(crate) fn is_unserved(&self) -> bool {
        self.reason.is_none() && self.unserved
    }

    /// What happened, in one line.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// What follows.
    pub(crate) fn verdict(&self, repeat: Repeat) -> Verdict {
        match self.reason.as_deref() {
            Some(reason::PRODUCER_UNKNOWN) => Verdict::RaiseEpoch,
            Some(reason::SEQUENCE_FORGOTTEN) => Verdict::Forgotten,
            Some(reason::SEQUENCE_GAP) => Verdict::Reorder,
            Some(
                reason::NO_LEADER | reason::SHUTTING_DOWN | reason::OVERLOADED | reason::DISK_FULL,
            ) => Verdict::Retry { nothing_done: true },
            Some(reason::UNKNOWN_OUTCOME | reason::LOG_STOPPED) => uncertain(repeat),
            Some(_) if self.metadata.get(reason::RETRY).is_some_and(|retry| retry == "true") => {
                Verdict::Retry { nothing_done: false }
            }
            Some(_) => Verdict::Fail,
            None if self.unserved => Verdict::Retry { nothing_done: true },
            None => match self.code {
                Code::Unavailable
                | Code::Unknown
                | Code::Internal
                | Code::Cancelled
                | Code::Aborted
                | Code::DeadlineExceeded
                // HTTP/2's ENHANCE_YOUR_CALM ends a connection with calls under way.
                | Code::ResourceExhausted => uncertain(repeat),
                _ => Verdict::Fail,
            },
        }
    }

    /// The failure as a user sees it. `offset` is what was asked for or expected, where that
    /// applies.
    pub(crate) fn into_error(self, id: &PartitionId, offset: Option<u64>) -> Error {
        let id = id.clone();
        match self.reason.as_deref() {
            Some(reason::TOPIC_NOT_FOUND) => Error::TopicNotFound(self.message),
            Some(reason::TOPIC_EXISTS) => Error::TopicExists(self.message),
            Some(reason::UNEXPECTED_OFFSET) => {
                let actual = self.offset(reason::LATEST);
                Error::UnexpectedOffset { id, expected: offset.unwrap_or_default(), actual }
            }
            Some(reason::OFFSET_OUT_OF_RANGE) => Error::OutOfRange {
                id,
                offset: offset.unwrap_or_default(),
                earliest: self.offset(reason::EARLIEST).unwrap_or_default(),
                latest: self.offset(reason::LATEST).unwrap_or_default(),
            },
            Some(reason::OFFSET_TRIMMED) => Error::Trimmed {
                id,
                offset: offset.unwrap_or_default(),
                earliest: self.offset(reason::EARLIEST).unwrap_or_default(),
            },
            Some(reason::DAMAGED) => Error::Damaged {
                id,
                from_offset: self.offset(reason::DAMAGED_FROM).or(offset).unwrap_or_default(),
                to_offset: self.offset(reason::DAMAGED_TO).unwrap_or(u64::MAX),
                message: self.message,
            },
            Some(reason::SEQUENCE_FORGOTTEN) => Error::OffsetUnknown { id },
            Some(reason::UNKNOWN_OUTCOME) => Error::UnknownOutcome { id, last: self.message },
            _ => {
                let reason = self.reason.unwrap_or_else(|| format!("{:?}", self.code));
                Error::Refused { reason, message: self.message }
            }
        }
    }

    fn offset(&self, key: &str) -> Option<u64> {
        self.metadata.get(key)?.parse().ok()
    }
}

fn uncertain(repeat: Repeat) -> Verdict {
    match repeat {
        Repeat::Harmless => Verdict::Retry { nothing_done: false },
        Repeat::Doubles => Verdict::FailUnknown,
    }
}

/// The status's message and, where it came from this side of the connection, its causes.
fn describe(status: &Status) -> String {
    let mut text = status.message().to_owned();
    let mut cause = status.source();
    if let Some(why) = cause.and_then(refusal_in) {
        return format!("no TLS connection: {why}");
    }
    while let Some(error) = cause {
        let part = error.to_string();
        if !text.contains(&part) {
            text = if text.is_empty() { part } else { format!("{text}: {part}") };
        }
        cause = error.source();
    }
    if text.is_empty() { format!("{:?}", status.code()) } else { text }
}

/// So much later; in 30 years if that is too far away to be counted.
pub(crate) fn later(from: Instant, wait: Duration) -> Instant {
    const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3_600);
    from.checked_add(wait).unwrap_or_else(|| from + NEVER)
}

/// Waits that grow from failure to failure, each with a random part so that clients do not return
/// all at once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// How long to wait now: between half of and all of a time that doubles with every failure, up
    /// to two seconds, but stays at a sixth of a second while there may be an election.
    pub(crate) fn next(&mut self) -> Duration {
        self.wait(rand::random_range(0.5..=1.0))
    }

    /// Starts again, after a success.
    pub(crate) fn reset(&mut self) {
        self.failures = 0;
    }

    fn wait(&mut self, share: f64) -> Duration {
        let doubled = self.failures.min(DOUBLED_FIRST)
            + self.failures.saturating_sub(DOUBLED_FIRST + STEADY_FAILURES).min(16);
        let doubled = BACKOFF_FIRST.saturating_mul(1 << doubled);
        self.failures = self.failures.saturating_add(1);
        doubled.min(BACKOFF_MAX).mul_f64(share)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_types::ErrorDetails;

    fn failure(code: Code, reason: &str, retry: &str) -> Failure {
        let metadata = HashMap::from([
            (reason::RETRY.to_owned(), retry.to_owned()),
            (reason::EARLIEST.to_owned(), "3".to_owned()),
            (reason::LATEST.to_owned(), "9".to_owned()),
        ]);
        let details = ErrorDetails::with_error_info(reason, reason::DOMAIN, metadata);
        Failure::new(&Status::with_error_details(code, "no", details))
    }

    #[test]
    fn reasons_decide() {
        use Repeat::{Doubles, Harmless};
        let nothing_done = Verdict::Retry { nothing_done: true };
        let perhaps_done = Verdict::Retry { nothing_done: false };
        for (reason, retry, harmless, doubles) in [
            (reason::NO_LEADER, "true", nothing_done, nothing_done),
            (reason::SHUTTING_DOWN, "true", nothing_done, nothing_done),
            (reason::DISK_FULL, "true", nothing_done, nothing_done),
            (reason::OVERLOADED, "true", nothing_done, nothing_done),
            (reason::UNKNOWN_OUTCOME, "false", perhaps_done, Verdict::FailUnknown),
            (reason::LOG_STOPPED, "false", perhaps_done, Verdict::FailUnknown),
            (reason::PRODUCER_UNKNOWN, "false", Verdict::RaiseEpoch, Verdict::RaiseEpoch),
            (reason::SEQUENCE_FORGOTTEN, "false", Verdict::Forgotten, Verdict::Forgotten),
            (reason::TOO_LARGE, "false", Verdict::Fail, Verdict::Fail),
            (reason::SEQUENCE_GAP, "false", Verdict::Reorder, Verdict::Reorder),
            (reason::DAMAGED, "false", Verdict::Fail, Verdict::Fail),
            ("A_REASON_OF_TOMORROW", "true", perhaps_done, perhaps_done),
            ("A_REASON_OF_TOMORROW", "false", Verdict::Fail, Verdict::Fail),
        ] {
            let failure = failure(Code::Unavailable, reason, retry);
            assert_eq!(failure.verdict(Harmless), harmless, "{reason}");
            assert_eq!(failure.verdict(Doubles), doubles, "{reason}");
        }
    }

    #[test]
    fn without_a_reason_the_code_decides() {
        use Code::{Cancelled, Internal, ResourceExhausted, Unavailable, Unknown};
        for code in [Unavailable, Unknown, Internal, Cancelled, ResourceExhausted] {
            let failure = Failure::new(&Status::new(code, "gone"));
            assert_eq!(failure.verdict(Repeat::Harmless), Verdict::Retry { nothing_done: false });
            assert_eq!(failure.verdict(Repeat::Doubles), Verdict::FailUnknown);
        }
        for code in [Code::InvalidArgument, Code::Unimplemented, Code::PermissionDenied] {
            let failure = Failure::new(&Status::new(code, "no"));
            assert_eq!(failure.verdict(Repeat::Harmless), Verdict::Fail);
        }
    }

    #[test]
    fn errors_carry_what_the_server_says() {
        let id = PartitionId { topic: "t".parse().unwrap(), partition: 0 };
        let error = |code, reason| failure(code, reason, "false").into_error(&id, Some(12));
        assert_eq!(
            error(Code::OutOfRange, reason::OFFSET_OUT_OF_RANGE),
            Error::OutOfRange { id: id.clone(), offset: 12, earliest: 3, latest: 9 }
        );
        assert_eq!(
            error(Code::OutOfRange, reason::OFFSET_TRIMMED),
            Error::Trimmed { id: id.clone(), offset: 12, earliest: 3 }
        );
        assert_eq!(
            error(Code::FailedPrecondition, reason::UNEXPECTED_OFFSET),
            Error::UnexpectedOffset { id: id.clone(), expected: 12, actual: Some(9) }
        );
    }

    #[test]
    fn waits_double_stay_for_an_election_double_again_and_start_again() {
        let mut backoff = Backoff::default();
        let waits: Vec<u128> = (0..32).map(|_| backoff.wait(1.0).as_millis()).collect();
        assert_eq!(waits[..4], [40, 80, 160, 160]);
        assert_eq!(waits[26..], [160, 320, 640, 1280, 2000, 2000]);
        assert!(waits[2..=26].iter().all(|wait| *wait == 160));
        assert!((0..100).all(|_| backoff.next() >= BACKOFF_MAX / 2));
        backoff.reset();
        assert_eq!(backoff.wait(0.5), BACKOFF_FIRST / 2);
    }
}
