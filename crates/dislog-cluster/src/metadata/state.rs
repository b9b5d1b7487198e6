//! The state that follows from the metadata log: which topics there are.
//!
//! A pure structure: the same commands in the same order give the same state on every node. Whoever
//! is first in the log wins; the loser's command changes nothing, and its outcome says so.

use std::collections::{BTreeMap, BTreeSet};

use dislog_types::TopicName;
use dislog_types::limits::TOPIC_PARTITIONS_MAX;

use super::command::{AlterTopic, Change, CreateTopic, DeleteTopic};
use crate::error::TopicError;
use crate::settings::{Topic, TopicChange, TopicSettings};

/// One life of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicLife {
    /// The offset of the command that created it: no other topic, not even of the same name, has
    /// the same.
    pub(crate) topic_id: u64,
    /// What it is.
    pub(crate) topic: Topic,
}

/// See the module.
///
/// - An id is in `topics` or in `deleted`, never in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    topics: BTreeMap<TopicName, TopicLife>,
    deleted: BTreeSet<u64>,
    /// One past the offset of the last command applied.
    applied_offset: u64,
}

impl State {
    /// Applies the command at `offset`, which was appended at `timestamp_ms`. Returns the topic as
    /// it is after, or was before it was deleted.
    pub(crate) fn apply(
        &mut self,
        offset: u64,
        timestamp_ms: i64,
        change: Change,
    ) -> Result<Topic, TopicError> {
        assert!(offset >= self.applied_offset, "commands are applied in order");
        self.applied_offset = offset + 1;
        match change {
            Change::Create(create) => self.create(offset, timestamp_ms, &create),
            Change::Alter(alter) => self.alter(&alter),
            Change::Delete(delete) => self.delete(&delete),
        }
    }

    /// The topics by name.
    pub(crate) fn topics(&self) -> impl Iterator<Item = &TopicLife> {
        self.topics.values()
    }

    /// The topic of a name.
    pub(crate) fn topic(&self, name: &TopicName) -> Result<&TopicLife, TopicError> {
        self.topics.get(name).ok_or_else(|| TopicError::NotFound(name.clone()))
    }

    /// Whether there was a topic of this id that is no more.
    pub(crate) fn was_deleted(&self, topic_id: u64) -> bool {
        self.deleted.contains(&topic_id)
    }

    /// One past the offset of the last command applied.
    pub(crate) fn applied_offset(&self) -> u64 {
        self.applied_offset
    }

    fn create(
        &mut self,
        topic_id: u64,
        created_ms: i64,
        create: &CreateTopic,
    ) -> Result<Topic, TopicError> {
        let name = parse_name(&create.name)?;
        if self.topics.contains_key(&name) {
            return Err(TopicError::Exists(name));
        }
        check_partitions(create.partitions)?;
        let settings = TopicSettings {
            retention_bytes: create.retention_bytes,
            retention_ms: create.retention_ms,
            segment_bytes: create.segment_bytes,
        };
        let settings = settings.changed(TopicChange::default())?;
        let topic =
            Topic { name: name.clone(), partitions: create.partitions, settings, created_ms };
        self.topics.insert(name, TopicLife { topic_id, topic: topic.clone() });
        Ok(topic)
    }

    fn alter(&mut self, alter: &AlterTopic) -> Result<Topic, TopicError> {
        let change = TopicChange {
            retention_bytes: alter.retention_bytes,
            retention_ms: alter.retention_ms,
            segment_bytes: alter.segment_bytes,
        };
        let life = self.life(&alter.name, alter.topic_id)?;
        life.topic.settings = life.topic.settings.changed(change)?;
        Ok(life.topic.clone())
    }

    fn delete(&mut self, delete: &DeleteTopic) -> Result<Topic, TopicError> {
        let topic = self.life(&delete.name, delete.topic_id)?.topic.clone();
        self.topics.remove(&topic.name);
        self.deleted.insert(delete.topic_id);
        Ok(topic)
    }

    /// The topic that is meant, not one that took its name since.
    fn life(&mut self, name: &str, topic_id: u64) -> Result<&mut TopicLife, TopicError> {
        let name = parse_name(name)?;
        let life = self.topics.get_mut(&name).filter(|life| life.topic_id == topic_id);
        life.ok_or(TopicError::NotFound(name))
    }
}

/// Whether a topic may have so many partitions.
pub(crate) fn check_partitions(partitions: u32) -> Result<(), TopicError> {
    match partitions {
        1..=TOPIC_PARTITIONS_MAX => Ok(()),
        _ => Err(TopicError::Invalid(format!(
            "a topic has 1 to {TOPIC_PARTITIONS_MAX} partitions, not {partitions}"
        ))),
    }
}

fn parse_name(name: &str) -> Result<TopicName, TopicError> {
    name.parse().map_err(|error: dislog_types::NameError| TopicError::Invalid(error.to_string()))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
