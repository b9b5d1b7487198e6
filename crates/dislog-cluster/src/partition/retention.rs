//! What is no longer to be kept, and when to look again.
//!
//! Only the leader decides, and its decision goes through the log as an entry of kind *trim*, so
//! that every replica has the same start. Evaluated when a segment was sealed, when the policy
//! changed, and at the moment the oldest record expires: never by polling.

use dislog_log::{Log, ReadError};

use crate::settings::TopicSettings;

/// Expiry by age looks at most so many times within the time that records are kept, so that a log
/// of single records does not need a trim for each.
const LOOKS_PER_AGE: i64 = 8;

/// How often, at the most, expiry by age looks.
const LOOK_INTERVAL_MS_MIN: i64 = 100;

/// What a topic keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RetentionPolicy {
    /// About so many bytes; `None` keeps all.
    pub(crate) bytes: Option<u64>,
    /// About so long, milliseconds; `None` keeps for ever.
    pub(crate) age_ms: Option<i64>,
}

/// When, and up to where, a log is looked at.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    /// Unix milliseconds.
    pub(crate) now_ms: i64,
    /// One past the last offset that may go.
    pub(crate) committed_offset: u64,
}

/// What is due.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Due {
    /// Move the start here.
    pub(crate) start_offset: Option<u64>,
    /// Look again then, Unix milliseconds.
    pub(crate) look_again_ms: Option<i64>,
}

impl RetentionPolicy {
    /// The policy in a topic's settings.
    pub(crate) fn new(settings: &TopicSettings) -> RetentionPolicy {
        RetentionPolicy {
            bytes: Some(settings.retention_bytes).filter(|&bytes| bytes > 0),
            age_ms: i64::try_from(settings.retention_ms).ok().filter(|&age| age > 0),
        }
    }

    /// Keeps everything.
    pub(crate) const KEEP_ALL: RetentionPolicy = RetentionPolicy { bytes: None, age_ms: None };

    /// When a record of `timestamp_ms` expires by age.
    pub(crate) fn expiry_ms(&self, timestamp_ms: i64) -> Option<i64> {
        self.age_ms.map(|age_ms| timestamp_ms.saturating_add(age_ms))
    }
}

/// What is due now. Reads the log; a log that cannot be read keeps what it has.
pub(crate) fn evaluate(log: &Log, policy: RetentionPolicy, moment: Moment) -> Due {
    let start = log.bounds().start_offset;
    let by_bytes = policy.bytes.map_or(start, |bytes| over(log, bytes));
    match by_age(log, policy, moment, start.max(by_bytes).min(moment.committed_offset)) {
        Ok((new_start, look_again_ms)) => {
            Due { start_offset: Some(new_start).filter(|&offset| offset > start), look_again_ms }
        }
        Err(error) => {
            tracing::warn!(%error, "retention cannot read the log and leaves it as it is");
            Due::default()
        }
    }
}

/// The first offset to keep so that at least `bytes_kept` are: whole sealed segments go.
fn over(log: &Log, bytes_kept: u64) -> u64 {
    let mut left = log.size_bytes();
    let mut start = log.bounds().start_offset;
    for segment in log.sealed_segments() {
        match left.checked_sub(segment.bytes) {
            Some(behind) if behind >= bytes_kept => {
                left = behind;
                start = start.max(segment.end_offset);
            }
            _ => break,
        }
    }
    start
}

fn by_age(
    log: &Log,
    policy: RetentionPolicy,
    moment: Moment,
    start: u64,
) -> Result<(u64, Option<i64>), ReadError> {
    let Some(age_ms) = policy.age_ms else { return Ok((start, None)) };
    let expired_ms = moment.now_ms.saturating_sub(age_ms);
    let kept_from = log.offset_at(expired_ms.saturating_add(1))?;
    let start = start.max(kept_from.min(moment.committed_offset));
    let oldest = log.read(start, moment.committed_offset, 1)?;
    let interval_ms = (age_ms / LOOKS_PER_AGE).max(LOOK_INTERVAL_MS_MIN);
    let look_again_ms = oldest.first().map(|frame| {
        let expiry_ms = frame.timestamp_ms.saturating_add(age_ms);
        expiry_ms.max(moment.now_ms.saturating_add(interval_ms))
    });
    Ok((start, look_again_ms))
}
