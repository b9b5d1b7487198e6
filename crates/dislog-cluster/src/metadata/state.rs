//! The state that follows from the metadata log: which nodes and topics there are, and which
//! replicas each partition should have.
//!
//! A pure structure: the same commands in the same order give the same state on every node. Whoever
//! is first in the log wins; the loser's command changes nothing, and its outcome says so.

use std::collections::{BTreeMap, BTreeSet};

use dislog_types::TopicName;
use dislog_types::limits::TOPIC_PARTITIONS_MAX;

use super::assignment::{Assignment, Replica, first_group, partition_of, topic_of};
use super::command::{
    AlterTopic, Change, CreateTopic, DeleteTopic, MarkNode, RegisterNode, ReportMembers, Standing,
};
use super::placement::{Candidate, Candidates, metadata_voters};
use super::tokens::Tokens;
use crate::error::TopicError;
use crate::raft::membership::Target;
use crate::settings::{Topic, TopicChange, TopicSettings};

/// One life of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TopicLife {
    /// The offset of the command that created it: no other topic, not even of the same name, has
    /// the same.
    pub(crate) topic_id: u64,
    /// What it is.
    pub(crate) topic: Topic,
    /// Its partitions.
    pub(crate) partitions: Vec<Assignment>,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// What it said of itself.
    pub(crate) told: RegisterNode,
    pub(crate) standing: Standing,
    /// The offset of the command that registered it first: the order in which nodes came.
    since: u64,
}

/// See the module.
///
/// - An id is in `topics` or in `deleted`, never in both.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    nodes: BTreeMap<u64, Node>,
    topics: BTreeMap<TopicName, TopicLife>,
    names: BTreeMap<u64, TopicName>,
    deleted: BTreeSet<u64>,
    tokens: Tokens,
    /// The newest id that was given to a replica.
    last_replica: u64,
    /// One past the offset of the last command applied.
    applied_offset: u64,
}

/// What a command came to: the topic as it is after, or was before it was deleted, if it was about
/// one.
pub(crate) type Outcome = Result<Option<Topic>, TopicError>;

impl State {
    /// Applies the command at `offset`, which was appended at `timestamp_ms`.
    pub(crate) fn apply(&mut self, offset: u64, timestamp_ms: i64, change: Change) -> Outcome {
        assert!(offset >= self.applied_offset, "commands are applied in order");
        self.applied_offset = offset + 1;
        match change {
            Change::Create(create) => self.create(offset, timestamp_ms, &create).map(Some),
            Change::Alter(alter) => self.alter(&alter).map(Some),
            Change::Delete(delete) => self.delete(&delete).map(Some),
            Change::Register(node) => self.register(offset, node).map(|()| None),
            Change::Mark(mark) => self.mark(mark).map(|()| None),
            Change::Remove(remove) => self.remove(remove.node_id).map(|()| None),
            Change::Assign(assign) => self.assign(assign.group, &assign.nodes).map(|()| None),
            Change::Replace(replace) => self.replace(replace.group, replace.replica).map(|()| None),
            Change::Report(report) => self.report(&report).map(|()| None),
            Change::CreateToken(create) => {
                self.tokens.create(offset, timestamp_ms, create).map(|()| None)
            }
            Change::RevokeToken(revoke) => {
                self.tokens.revoke(offset, revoke.token_id).map(|()| None)
            }
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

    /// Whether a replica was given up: it was given once, and neither belongs to its partition nor
    /// should.
    pub(crate) fn is_over(&self, topic_id: u64, replica: u64) -> bool {
        if self.was_deleted(topic_id) {
            return true;
        }
        let Some(name) = self.names.get(&topic_id) else { return false };
        let kept = |assignment: &Assignment| {
            let mut kept = assignment.target.iter().chain(&assignment.members);
            kept.any(|known| known.id == replica)
        };
        replica <= self.last_replica && !self.topics[name].partitions.iter().any(kept)
    }

    /// The tokens.
    pub(crate) fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// One past the offset of the last command applied.
    pub(crate) fn applied_offset(&self) -> u64 {
        self.applied_offset
    }

    /// The newest id that was given to a replica.
    pub(crate) fn last_replica(&self) -> u64 {
        self.last_replica
    }

    /// The nodes by id.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    /// The node of an id.
    pub(crate) fn node(&self, node_id: u64) -> Option<&Node> {
        self.nodes.get(&node_id)
    }

    /// Where partitions may go, with what is there already.
    pub(crate) fn candidates(&self) -> Candidates {
        let mut counts: BTreeMap<u64, usize> = BTreeMap::new();
        let mut firsts: BTreeMap<u64, usize> = BTreeMap::new();
        let assignments = self.topics.values().flat_map(|life| &life.partitions);
        for assignment in assignments {
            for replica in &assignment.target {
                *counts.entry(replica.node).or_default() += 1;
            }
            if let Some(first) = assignment.target.first() {
                *firsts.entry(first.node).or_default() += 1;
            }
        }
        let active = self.nodes.values().filter(|node| node.standing == Standing::Active);
        Candidates::new(active.map(|node| Candidate {
            node_id: node.told.node_id,
            rack: node.told.rack.clone(),
            replicas: counts.get(&node.told.node_id).copied().unwrap_or(0),
            firsts: firsts.get(&node.told.node_id).copied().unwrap_or(0),
        }))
    }

    /// Who should belong to the group of the metadata: every node follows it, some vote. Who came
    /// first votes, so that votes don't wander.
    pub(crate) fn metadata_target(&self) -> Target {
        let mut nodes: Vec<&Node> = self.nodes.values().collect();
        nodes.sort_by_key(|node| (node.standing != Standing::Active, node.since));
        let active = nodes.iter().filter(|node| node.standing == Standing::Active).count();
        let replicas: Vec<u64> = nodes.iter().map(|node| node.told.metadata_replica).collect();
        let (voters, learners) = replicas.split_at(metadata_voters(active));
        // Those of the metadata have random ids, and no order.
        let newest = u64::MAX;
        Target { voters: voters.to_vec(), learners: learners.to_vec(), newest }
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
        let partitions = u32::try_from(create.partitions.len()).unwrap_or(u32::MAX);
        check_partitions(partitions)?;
        let settings = TopicSettings {
            retention_bytes: create.retention_bytes,
            retention_ms: create.retention_ms,
            segment_bytes: create.segment_bytes,
            replicas: create.replicas,
        };
        let settings = settings.changed(TopicChange::default())?;
        for nodes in &create.partitions {
            self.check_nodes(&nodes.nodes)?;
        }
        let mut assignments = Vec::with_capacity(create.partitions.len());
        for nodes in &create.partitions {
            let replicas =
                nodes.nodes.iter().map(|&node| Replica { id: self.next_replica(), node });
            assignments.push(Assignment::new(replicas.collect()));
        }
        let topic = Topic { name: name.clone(), partitions, settings, created_ms };
        let life = TopicLife { topic_id, topic: topic.clone(), partitions: assignments };
        self.names.insert(topic_id, name.clone());
        self.topics.insert(name, life);
        Ok(topic)
    }

    fn alter(&mut self, alter: &AlterTopic) -> Result<Topic, TopicError> {
        let change = TopicChange {
            retention_bytes: alter.retention_bytes,
            retention_ms: alter.retention_ms,
            segment_bytes: alter.segment_bytes,
            replicas: alter.replicas,
        };
        let life = self.life(&alter.name, alter.topic_id)?;
        life.topic.settings = life.topic.settings.changed(change)?;
        Ok(life.topic.clone())
    }

    fn delete(&mut self, delete: &DeleteTopic) -> Result<Topic, TopicError> {
        let topic = self.life(&delete.name, delete.topic_id)?.topic.clone();
        self.topics.remove(&topic.name);
        self.names.remove(&delete.topic_id);
        self.deleted.insert(delete.topic_id);
        Ok(topic)
    }

    fn register(&mut self, offset: u64, told: RegisterNode) -> Result<(), TopicError> {
        if told.node_id == 0 || told.metadata_replica == 0 {
            return Err(TopicError::Invalid("a node without an id".to_owned()));
        }
        let known = self.nodes.get(&told.node_id).map(|node| (node.since, node.standing));
        let (since, standing) = known.unwrap_or((offset, Standing::Active));
        self.nodes.insert(told.node_id, Node { told, standing, since });
        Ok(())
    }

    fn mark(&mut self, mark: MarkNode) -> Result<(), TopicError> {
        let standing = Standing::try_from(mark.standing)
            .map_err(|_| TopicError::Invalid("a standing that is not known".to_owned()))?;
        let node = self.nodes.get_mut(&mark.node_id).ok_or_else(|| no_node(mark.node_id))?;
        node.standing = standing;
        Ok(())
    }

    fn remove(&mut self, node_id: u64) -> Result<(), TopicError> {
        if self.has_replicas(node_id) {
            let message = format!("node {node_id} still has replicas: drain it first");
            return Err(TopicError::Invalid(message));
        }
        self.nodes.remove(&node_id).map(drop).ok_or_else(|| no_node(node_id))
    }

    /// Whether a node has replicas, or should have.
    pub(crate) fn has_replicas(&self, node_id: u64) -> bool {
        let mut assignments = self.topics.values().flat_map(|life| &life.partitions);
        assignments.any(|assignment| assignment.on(node_id).is_some())
    }

    fn assign(&mut self, group: u64, nodes: &[u64]) -> Result<(), TopicError> {
        self.check_nodes(nodes)?;
        let (mut last, since) = (self.last_replica, self.applied_offset);
        self.assignment_mut(group)?.assign(since, nodes, || {
            last += 1;
            last
        });
        self.last_replica = last;
        Ok(())
    }

    fn replace(&mut self, group: u64, replica: u64) -> Result<(), TopicError> {
        let (id, since) = (self.last_replica + 1, self.applied_offset);
        if self.assignment_mut(group)?.replace(since, replica, id) {
            self.last_replica = id;
        }
        Ok(())
    }

    fn report(&mut self, report: &ReportMembers) -> Result<(), TopicError> {
        let (mut last, at) = (self.last_replica, self.applied_offset);
        let members = (report.since, &report.replicas[..]);
        self.assignment_mut(report.group)?.report(at, members, report.knows, || {
            last += 1;
            last
        });
        self.last_replica = last;
        Ok(())
    }

    fn next_replica(&mut self) -> u64 {
        self.last_replica += 1;
        self.last_replica
    }

    /// A partition is on some nodes, each of the cluster, none twice.
    fn check_nodes(&self, nodes: &[u64]) -> Result<(), TopicError> {
        let unknown = nodes.iter().find(|node| !self.nodes.contains_key(node));
        if let Some(&unknown) = unknown {
            return Err(no_node(unknown));
        }
        let distinct = nodes.iter().collect::<BTreeSet<_>>().len() == nodes.len();
        match distinct && !nodes.is_empty() {
            true => Ok(()),
            false => Err(TopicError::Invalid("a partition without nodes, or twice on one".into())),
        }
    }

    fn assignment_mut(&mut self, group: u64) -> Result<&mut Assignment, TopicError> {
        let unknown = || TopicError::Invalid(format!("there is no group {group}"));
        let topic_id = topic_of(group).ok_or_else(unknown)?;
        let name = self.names.get(&topic_id).ok_or_else(unknown)?;
        let life = self.topics.get_mut(name).ok_or_else(unknown)?;
        life.partitions.get_mut(partition_of(group)).ok_or_else(unknown)
    }

    /// The topic that is meant, not one that took its name since.
    fn life(&mut self, name: &str, topic_id: u64) -> Result<&mut TopicLife, TopicError> {
        let name = parse_name(name)?;
        let life = self.topics.get_mut(&name).filter(|life| life.topic_id == topic_id);
        life.ok_or(TopicError::NotFound(name))
    }
}

impl TopicLife {
    /// The group of a partition.
    pub(crate) fn group(&self, partition: u32) -> u64 {
        first_group(self.topic_id) + u64::from(partition)
    }
}

fn no_node(node_id: u64) -> TopicError {
    TopicError::Invalid(format!("there is no node {node_id}"))
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
