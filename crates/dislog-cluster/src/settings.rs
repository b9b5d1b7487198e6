//! Settings of a node and of its topics, and the limits that go with them.

use std::path::PathBuf;
use std::time::Duration;

use dislog_types::TopicName;

use crate::error::TopicError;

/// The smallest segment a topic may ask for: below this, files would outnumber what they hold.
pub const SEGMENT_BYTES_MIN: u64 = 4 << 10;

/// The largest segment a topic may ask for: positions in a segment are 32 bits on disk.
pub const SEGMENT_BYTES_MAX: u64 = 2 << 30;

/// The most replicas a partition may have: more make every append wait for more disks, and protect
/// against nothing that these do not.
pub const REPLICAS_MAX: u32 = 7;

/// How many replicas a partition has unless its topic says otherwise.
pub const REPLICAS_DEFAULT: u32 = 3;

/// How long a node may be away unless configured otherwise: longer than a machine takes to restart,
/// for copying what it had costs more than waiting for it.
pub const REPLACE_AFTER_DEFAULT: Duration = Duration::from_secs(600);

/// What is kept free on the disk: appends are refused below it, so that trims, votes and
/// checkpoints still find room, and the node recovers by itself once something was deleted.
pub const DISK_HEADROOM_BYTES: u64 = 32 << 20;

/// What an append is charged on top of its bytes while it is under way, so that small ones are
/// counted, too.
pub(crate) const APPEND_OVERHEAD_BYTES: usize = 512;

/// Requests other than appends (trims, linearizable reads, changes of topics) that may be under way
/// on a node.
pub(crate) const CONTROL_REQUESTS_MAX: usize = 1_024;

/// Settings of a node's partitions.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Settings of topics that do not say otherwise.
    pub topic_defaults: TopicSettings,
    /// Bytes of appends that may be under way on this node; more wait for their turn.
    pub appends_in_flight_bytes_max: usize,
    /// Threads that write and sync logs.
    pub sync_threads: usize,
    /// How the node finds its cluster and is found.
    pub discovery: Discovery,
}

/// How a node finds its cluster and is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovery {
    /// Where others reach the node: `host:port`.
    pub address: String,
    /// What people call it.
    pub name: String,
    /// What fails together with it: replicas are spread over racks. Empty: nothing known.
    pub rack: String,
    /// Nodes to ask for a cluster: `host:port`. Empty: the node forms one by itself, unless it
    /// belongs to one already.
    pub seeds: Vec<String>,
    /// So many nodes, seeing each other and no cluster, form a new one. 0: a cluster is joined, not
    /// formed.
    pub bootstrap_expect: u32,
    /// How long a node may be away before its replicas are given to others.
    pub replace_after: Duration,
}

impl Default for Discovery {
    fn default() -> Discovery {
        Discovery {
            address: String::new(),
            name: String::new(),
            rack: String::new(),
            seeds: Vec::new(),
            bootstrap_expect: 0,
            replace_after: REPLACE_AFTER_DEFAULT,
        }
    }
}

impl Discovery {
    /// Whether the node forms a cluster by itself.
    pub(crate) fn is_alone(&self) -> bool {
        self.seeds.is_empty() && self.bootstrap_expect <= 1
    }
}

/// Settings of one topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSettings {
    /// Keep about this many bytes per partition; 0 keeps all.
    pub retention_bytes: u64,
    /// Keep records about this long, milliseconds; 0 keeps them for ever.
    pub retention_ms: u64,
    /// Seal a segment when it would grow past this.
    pub segment_bytes: u64,
    /// Have so many replicas of each partition, or as many as there are nodes.
    pub replicas: u32,
}

/// A change of settings: only what is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicChange {
    /// See [`TopicSettings`].
    pub retention_bytes: Option<u64>,
    /// See [`TopicSettings`].
    pub retention_ms: Option<u64>,
    /// See [`TopicSettings`].
    pub segment_bytes: Option<u64>,
    /// See [`TopicSettings`].
    pub replicas: Option<u32>,
}

/// A topic as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// How many partitions it has.
    pub partitions: u32,
    /// Its settings, complete.
    pub settings: TopicSettings,
    /// When it was created, Unix milliseconds.
    pub created_ms: i64,
}

impl TopicSettings {
    /// These settings with `change` made.
    ///
    /// # Errors
    /// If the outcome cannot be.
    pub(crate) fn changed(self, change: TopicChange) -> Result<TopicSettings, TopicError> {
        let changed = TopicSettings {
            retention_bytes: change.retention_bytes.unwrap_or(self.retention_bytes),
            retention_ms: change.retention_ms.unwrap_or(self.retention_ms),
            segment_bytes: change.segment_bytes.unwrap_or(self.segment_bytes),
            replicas: change.replicas.unwrap_or(self.replicas),
        };
        if !(1..=REPLICAS_MAX).contains(&changed.replicas) {
            return Err(TopicError::Invalid(format!(
                "replicas is {}, choose between 1 and {REPLICAS_MAX}",
                changed.replicas
            )));
        }
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&changed.segment_bytes) {
            return Err(TopicError::Invalid(format!(
                "segment_bytes is {}, choose between {SEGMENT_BYTES_MIN} and {SEGMENT_BYTES_MAX}",
                changed.segment_bytes
            )));
        }
        if i64::try_from(changed.retention_ms).is_err() {
            return Err(TopicError::Invalid(format!(
                "retention_ms is {}, choose at most {}, or 0 to keep records for ever",
                changed.retention_ms,
                i64::MAX
            )));
        }
        Ok(changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_checked() {
        let segment_bytes = SEGMENT_BYTES_MIN;
        let settings =
            TopicSettings { retention_bytes: 0, retention_ms: 0, segment_bytes, replicas: 3 };
        let change = TopicChange { retention_ms: Some(5), ..TopicChange::default() };
        assert_eq!(
            settings.changed(change).unwrap(),
            TopicSettings { retention_ms: 5, ..settings }
        );
        for segment_bytes in [0, SEGMENT_BYTES_MIN - 1, SEGMENT_BYTES_MAX + 1] {
            let change =
                TopicChange { segment_bytes: Some(segment_bytes), ..TopicChange::default() };
            assert!(settings.changed(change).is_err(), "{segment_bytes}");
        }
        let change = TopicChange { retention_ms: Some(u64::MAX), ..TopicChange::default() };
        assert!(settings.changed(change).is_err());
    }
}
