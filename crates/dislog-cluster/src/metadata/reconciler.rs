//! The reconciler: makes this node's partitions be as the metadata says.
//!
//! One thread owns the coming and going of partitions: it opens and creates what is missing, ends
//! and removes what was deleted or moved away, passes settings and targets on. It compares what
//! there is with what there should be, so a wake that covers several changes, or a restart in the
//! middle of one, comes to the same.
//!
//! It also says what this node knows and the metadata does not: who belongs to the groups it leads,
//! which of its replicas lost what they had, and, where it leads the metadata, what the
//! [`controller`](super::controller) wants changed.

use std::collections::{BTreeMap, HashMap};
use std::panic::resume_unwind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::sync::{Arc, RwLock, RwLockReadGuard};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use dislog_types::PartitionId;
use prost::Message;
use tokio::sync::watch;

use super::assignment::{Assignment, topic_of};
use super::command::{Change, Command, ReplaceReplica, ReportMembers};
use super::controller;
use super::leaders::{Away, Leaders};
use super::state::TopicLife;
use super::{GROUP, Metadata};
use crate::node::Node;
use crate::partition::Partition;
use crate::partition::progress::Progress;
use crate::partition::retention::RetentionPolicy;
use crate::partition::shared::{Fault, Life, Shared};
use crate::partition_dir::{self, ClaimError, Owner};
use crate::raft::driver::Input;
use crate::raft::membership::Target;
use crate::raft::open::{OpenGroup, Opened};
use crate::settings::TopicSettings;

/// How long until what was asked of the metadata is asked again: it may have been lost on the way.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What wakes the reconciler.
pub(crate) enum Wake {
    /// The metadata changed, or something that it should know.
    Changed,
    /// The node closes.
    End,
}

/// The partitions of this node, by name.
#[derive(Default)]
pub(crate) struct Partitions {
    open: RwLock<HashMap<PartitionId, Partition>>,
    /// How often one came or went, or had or lacked a leader from then on.
    pub(crate) readiness: watch::Sender<u64>,
}

impl Partitions {
    /// The partitions, locked for a short while.
    pub(crate) fn open(&self) -> RwLockReadGuard<'_, HashMap<PartitionId, Partition>> {
        self.open.read().expect("nothing panics while the partitions are locked")
    }

    fn insert(&self, partition: Partition) {
        let shared = Arc::clone(&partition.shared);
        let mut open = self.open.write().expect("nothing panics while it is locked");
        open.insert(partition.id().clone(), partition);
        drop(open);
        shared.announce_to(&self.readiness);
    }

    fn remove(&self, id: &PartitionId) {
        self.open.write().expect("nothing panics while it is locked").remove(id);
        self.readiness.send_modify(|changes| *changes += 1);
    }
}

/// See the module.
pub(crate) struct Reconciler {
    node: Arc<Node>,
    /// What was opened, by group; a group's number is never used again.
    opened: BTreeMap<u64, OpenedGroup>,
    metadata_target: Target,
    routed: u64,
    /// The newest replica that the metadata knows.
    newest: u64,
    /// What ended here and is still needed until others have what it had.
    ended: Vec<(PartitionId, Owner)>,
    leaders: Leaders,
    /// Until the metadata has come so far, or so much time passed, nothing is asked of it.
    asked: Option<(u64, Duration)>,
}

struct OpenedGroup {
    id: PartitionId,
    replica: u64,
    settings: TopicSettings,
    target: Target,
}

/// A partition that is to be opened.
struct Missing<'a> {
    life: &'a TopicLife,
    group: u64,
    opened: OpenedGroup,
}

impl Reconciler {
    pub(crate) fn new(node: Arc<Node>) -> Reconciler {
        Reconciler {
            node,
            opened: BTreeMap::new(),
            metadata_target: Target::default(),
            routed: 0,
            newest: 0,
            ended: Vec::new(),
            leaders: Leaders::default(),
            asked: None,
        }
    }

    /// Works until told to end.
    pub(crate) fn run(mut self, wakes: &Receiver<Wake>) {
        let mut again = None;
        loop {
            let wake = match again {
                Some(after) => wakes.recv_timeout(after),
                None => wakes.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match wake {
                Ok(Wake::Changed) | Err(RecvTimeoutError::Timeout) => again = self.reconcile(),
                Ok(Wake::End) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Makes everything be as the metadata says now; returns when to look again, if nothing wakes
    /// it before.
    pub(crate) fn reconcile(&mut self) -> Option<Duration> {
        self.node.metadata_log()?;
        let (topics, applied_offset) = {
            let state = self.node.metadata.state();
            self.newest = state.last_replica();
            (state.topics().cloned().collect::<Vec<_>>(), state.applied_offset())
        };
        if self.routed != applied_offset {
            self.routed = applied_offset;
            self.route(&topics);
        }
        self.end_unwanted(&topics);
        let partitions = topics
            .iter()
            .flat_map(|life| (0..life.topic.partitions).map(move |partition| (life, partition)));
        let missing = partitions.filter_map(|(life, p)| self.alter_or_miss(life, p)).collect();
        for started in self.open_missing(missing) {
            // If it hangs up without an answer it can't serve; its handle knows why.
            (self.node.wait)(&started);
        }
        self.node.reconciled.send_replace(applied_offset);
        self.set_metadata_target();
        let asked = self.ask(&topics, applied_offset);
        asked.into_iter().chain(self.hand_over(&topics)).min()
    }

    /// Where replicas and nodes are.
    fn route(&self, topics: &[TopicLife]) {
        let routes = &self.node.routes;
        for node in self.node.metadata.state().nodes() {
            routes.set_node(node.told.metadata_replica, node.told.node_id);
            // What a node says of itself now is newer than what it said when it was registered.
            if !self.node.sees(node.told.node_id) {
                routes.set_address(node.told.node_id, &node.told.address);
            }
        }
        for replica in topics.iter().flat_map(|l| &l.partitions).flat_map(Assignment::replicas) {
            routes.set_node(replica.id, replica.node);
        }
    }

    fn end_unwanted(&mut self, topics: &[TopicLife]) {
        let wanted: HashMap<u64, u64> = topics
            .iter()
            .flat_map(|life| (0..life.topic.partitions).map(move |partition| (life, partition)))
            .filter_map(|(life, partition)| {
                let replica = replica_here(life, partition, self.node.node_id)?;
                Some((life.group(partition), replica))
            })
            .collect();
        let unwanted = |(group, opened): (&u64, &OpenedGroup)| {
            let wanted = wanted.get(group).is_some_and(|replica| *replica == opened.replica);
            (!wanted).then_some(*group)
        };
        let ended: Vec<u64> = self.opened.iter().filter_map(unwanted).collect();
        for group in ended {
            let Some(opened) = self.opened.remove(&group) else { continue };
            // Not found in the newest metadata: deleted, and else only gone from here.
            let exists = topics.iter().any(|life| life.topic_id == topic(group));
            let life = if exists { Life::Moved } else { Life::Deleted };
            self.end(group, &opened, life);
            let owner = Owner { topic_id: topic(group), replica: opened.replica };
            self.ended.push((opened.id, owner));
        }
        let mut ended = std::mem::take(&mut self.ended);
        for (id, owner) in ended.extract_if(.., |(_, owner)| self.node.may_remove(*owner)) {
            self.remove(&id, owner);
        }
        self.ended = ended;
    }

    fn end(&self, group: u64, opened: &OpenedGroup, life: Life) {
        let OpenedGroup { id, .. } = opened;
        let (done, ended) = mpsc::channel();
        if self.node.port.send(Input::EndGroup(group, life, done)).is_ok() {
            // Without an answer there was no such group, or no driver: nothing uses the files
            // either way.
            (self.node.wait)(&ended);
        }
        let open = self.node.partitions.open().get(id).cloned();
        if let Some(partition) = open {
            partition.shared.end(life);
        }
        self.node.partitions.remove(id);
    }

    fn remove(&self, id: &PartitionId, owner: Owner) {
        let (fs, dir) = (&*self.node.fs, &self.node.partitions_dir);
        if let Err(error) = partition_dir::remove_own(fs, dir, id, owner) {
            tracing::error!(partition = %id, %error, "not removed; the next start tries again");
        }
    }

    /// Passes on what is new about a partition, if it is open; what is to be opened otherwise.
    fn alter_or_miss<'a>(&mut self, life: &'a TopicLife, partition: u32) -> Option<Missing<'a>> {
        let group = life.group(partition);
        let replica = replica_here(life, partition, self.node.node_id)?;
        let assignment = &life.partitions[index(partition)];
        let target = target(assignment, self.newest);
        let settings = life.topic.settings;
        let id = PartitionId { topic: life.topic.name.clone(), partition };
        if let Some(known) = self.opened.get_mut(&group) {
            let before = std::mem::replace(&mut known.settings, settings);
            let aimed = std::mem::replace(&mut known.target, target.clone());
            if before != settings {
                self.alter(&id, group, &settings);
            }
            if aimed != target {
                // Without a driver the node is closing.
                let _ = self.node.port.send(Input::SetTarget(group, target));
            }
            return None;
        }
        let owner = Owner { topic_id: life.topic_id, replica };
        if self.node.may_have_removed(owner, &id) {
            return None;
        }
        let opened = OpenedGroup { id, replica, settings, target };
        Some(Missing { life, group, opened })
    }

    /// Opens partitions, several at a time: each takes some syncs. Their receivers hang up or
    /// answer once they serve, or cannot.
    fn open_missing(&mut self, missing: Vec<Missing<'_>>) -> Vec<Receiver<()>> {
        let threads = self.node.open_threads.min(missing.len());
        let started = if threads > 1 {
            let (this, next) = (&*self, AtomicUsize::new(0));
            let work = || {
                let mine = || missing.get(next.fetch_add(1, Ordering::Relaxed));
                std::iter::from_fn(mine).filter_map(|missing| this.open_one(missing)).collect()
            };
            thread::scope(|scope| {
                let workers: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
                let done = workers.into_iter().map(|worker| -> Vec<_> {
                    worker.join().unwrap_or_else(|panic| resume_unwind(panic))
                });
                done.flatten().collect()
            })
        } else {
            missing.iter().filter_map(|missing| self.open_one(missing)).collect()
        };
        let opened = missing.into_iter().map(|missing| (missing.group, missing.opened));
        self.opened.extend(opened);
        started
    }

    fn open_one(&self, missing: &Missing<'_>) -> Option<Receiver<()>> {
        let Missing { life, group, opened: OpenedGroup { id, replica, .. } } = missing;
        let opened = self.open(id, *group, *replica, life);
        self.node.partitions.insert(Partition::new(opened.shared, Arc::clone(&self.node.port)));
        let opened_group = opened.group?;
        let alone = !opened_group.has_peers();
        let (sender, started) = mpsc::channel();
        let added = self.node.port.send(Input::AddGroup(opened_group, sender));
        added.ok().filter(|()| alone).map(|()| started)
    }

    fn alter(&self, id: &PartitionId, group: u64, settings: &TopicSettings) {
        let open = self.node.partitions.open();
        if let Some(log) = open.get(id).and_then(|open| open.shared.log.as_ref()) {
            log.set_segment_bytes(settings.segment_bytes);
        }
        drop(open);
        // Without a driver the node is closing, and opens with these settings.
        let _ = self.node.port.send(Input::SetRetention(group, RetentionPolicy::new(settings)));
    }

    fn open(&self, id: &PartitionId, group: u64, replica: u64, life: &TopicLife) -> Opened {
        let owner = Owner { topic_id: life.topic_id, replica };
        let (fs, partitions_dir) = (&self.node.fs, &self.node.partitions_dir);
        let is_over = |owner| self.node.may_remove(owner);
        let dir = match partition_dir::claim(&**fs, partitions_dir, id, owner, is_over) {
            Ok(dir) => dir,
            Err(error) => {
                let message = error.to_string();
                tracing::error!(partition = %id, message, "the partition cannot be opened");
                let fault = Some(match error {
                    ClaimError::Io { .. } => Fault::Stopped(message),
                    ClaimError::Foreign(_) => Fault::Damaged(message),
                });
                let shared = Shared::new(id.clone(), group, None, Progress::default(), fault);
                return Opened { shared: Arc::new(shared), group: None };
            }
        };
        let settings = &life.topic.settings;
        let assignment = &life.partitions[index(id.partition)];
        let log = dislog_log::Config {
            segment_bytes: settings.segment_bytes,
            ..dislog_log::Config::default()
        };
        let open = OpenGroup {
            fs: Arc::clone(fs),
            dir,
            log,
            id: id.clone(),
            group,
            replica,
            initial: assignment.initial.iter().map(|replica| replica.id).collect(),
            target: Some(target(assignment, self.newest)),
            policy: RetentionPolicy::new(settings),
            observer: None,
        };
        open.open()
    }

    fn set_metadata_target(&mut self) {
        let target = self.node.metadata.state().metadata_target();
        if target != self.metadata_target && !target.voters.is_empty() {
            self.metadata_target = target.clone();
            let _ = self.node.port.send(Input::SetTarget(GROUP, target));
        }
    }

    /// Asks for the changes that this node knows of; returns when to look again.
    fn ask(&mut self, topics: &[TopicLife], applied_offset: u64) -> Option<Duration> {
        let log = self.node.metadata_log()?;
        if let Some((until, since)) = self.asked
            && applied_offset < until
            && let Some(left) = (since + ASK_AGAIN).checked_sub(self.elapsed())
        {
            return Some(left);
        }
        self.asked = None;
        let mut changes: Vec<Change> =
            topics.iter().flat_map(|life| self.reports(life, applied_offset)).collect();
        let leads = log.shared.health().serving;
        let mut again = None;
        if leads {
            let state = self.node.metadata.state();
            let (seen, next) = self.node.seen(state.nodes().map(|node| node.told.node_id));
            changes.extend(controller::decide(&state, &seen));
            again = next;
        }
        if changes.is_empty() {
            return again;
        }
        let leader = log.shared.health().leader.and_then(|leader| self.node.routes.node_of(leader));
        let count = changes.len() as u64;
        for change in changes {
            tracing::debug!(?change, "asked of the metadata");
            let command = Bytes::from(Command::from(change).encode_to_vec());
            match leader {
                _ if leads => Metadata::offer(log, command, self.node.clock.now_ms()),
                Some(node_id) => self.node.routes.send_command(node_id, command),
                None => {}
            }
        }
        self.asked = Some((applied_offset + count, self.elapsed()));
        Some(ASK_AGAIN)
    }

    /// Hands leaderships to whom they belong; returns when to look again.
    fn hand_over(&mut self, topics: &[TopicLife]) -> Option<Duration> {
        let (mut share, mut led, mut away) = (0, 0, Vec::new());
        let node_id = self.node.node_id;
        let open = self.node.partitions.open();
        for (life, (partition, assignment)) in
            topics.iter().flat_map(|life| (0..).zip(&life.partitions).map(move |p| (life, p)))
        {
            let Some(first) = assignment.target.first() else { continue };
            share += usize::from(first.node == node_id);
            let group = life.group(partition);
            let handle = self.opened.get(&group).and_then(|opened| open.get(&opened.id));
            let Some(health) = handle.map(|handle| handle.shared.health()) else { continue };
            led += usize::from(health.serving);
            if health.serving && health.membership.voters.contains(&first.id) {
                let there_for = self.node.there_for(first.node);
                let is_away = first.node != node_id;
                away.extend(is_away.then_some(Away { group, first: first.id, there_for }));
            }
        }
        drop(open);
        let (handed, again) = self.leaders.hand_over(share, led, &away, self.elapsed());
        for (group, replica) in handed {
            tracing::debug!(group, replica, "hands the leadership to the first replica");
            // Without a driver the node is closing.
            let _ = self.node.port.send(Input::TransferLeader(group, replica));
        }
        again
    }

    fn elapsed(&self) -> Duration {
        Duration::from_millis(self.node.clock.elapsed_ms())
    }

    /// What the metadata should know of this node's replicas of a topic, and does not up to
    /// `applied_offset`.
    fn reports(&self, life: &TopicLife, applied_offset: u64) -> Vec<Change> {
        let open = self.node.partitions.open();
        let mut reports = Vec::new();
        for (partition, assignment) in (0..).zip(&life.partitions) {
            let group = life.group(partition);
            let Some(opened) = self.opened.get(&group) else { continue };
            let Some(handle) = open.get(&opened.id) else { continue };
            let health = handle.shared.health();
            let lost = matches!(health.fault, Some(Fault::Damaged(_)));
            let replica = opened.replica;
            if lost && assignment.target.len() > 1 {
                let is_target = assignment.target.iter().any(|known| known.id == replica);
                reports.extend(
                    is_target.then_some(Change::Replace(ReplaceReplica { group, replica })),
                );
            }
            let is_target = |id: &u64| assignment.target.iter().any(|known| known.id == *id);
            let lost = health.lost.iter().copied().filter(is_target);
            reports.extend(lost.map(|replica| Change::Replace(ReplaceReplica { group, replica })));
            let joint = !health.membership.voters_outgoing.is_empty();
            if !health.serving || joint {
                continue;
            }
            let mut now: Vec<u64> = health.membership.replicas().collect();
            let mut known: Vec<u64> = assignment.members.iter().map(|r| r.id).collect();
            now.sort_unstable();
            known.sort_unstable();
            if now != known {
                let since = health.membership_since;
                let knows = Some(applied_offset);
                reports.push(Change::Report(ReportMembers { group, since, replicas: now, knows }));
            }
        }
        reports
    }
}

/// The directory of the metadata.
pub(crate) fn metadata_dir(partitions_dir: &Path) -> PathBuf {
    partitions_dir.join(Metadata::partition().to_string())
}

fn target(assignment: &Assignment, newest: u64) -> Target {
    let voters = assignment.target.iter().map(|replica| replica.id).collect();
    Target { voters, learners: Vec::new(), newest }
}

fn replica_here(life: &TopicLife, partition: u32, node_id: u64) -> Option<u64> {
    life.partitions[index(partition)].on(node_id).map(|replica| replica.id)
}

fn index(partition: u32) -> usize {
    usize::try_from(partition).expect("partitions are few")
}

fn topic(group: u64) -> u64 {
    topic_of(group).expect("it is the group of a topic's partition")
}
