//! This node's part of the cluster, for the rest of the program: nodes, topics and partitions.

use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::time::Duration;
use std::{fmt, fs, io, thread};

use dislog_log::fs::{Fs, RealFs};
use dislog_types::time::{Clock, SystemClock};
use dislog_types::{PartitionId, TopicName};
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;

use crate::discovery::agent::{Agent, Heard, PACKETS_WAITING_MAX};
use crate::error::{AppendError, OpenError, ReadError, TopicError};
use crate::metadata::Metadata;
use crate::metadata::command::{
    Change, Command, CreateToken, MarkNode, RegisterNode, RemoveNode, RevokeToken, Standing,
};
use crate::metadata::reconciler::{Reconciler, Wake};
use crate::metadata::state::check_partitions;
use crate::metadata::tokens::{Token, TokenDigest, check_token_name};
use crate::node::{self, Node, NodeConfig, Wait, lock, unusable};
use crate::node_file::{self, NodeFile};
use crate::partition::Partition;
use crate::partition::port::Port;
#[cfg(feature = "sim")]
use crate::partition::shared::Fault;
use crate::partition_dir;
use crate::peers::routes::{Mailbags, Routes};
use crate::peers::{Network, Peer, PeerFrame};
use crate::raft::driver::{self, DriverConfig, Input};
use crate::removals::Removals;
use crate::settings::{Config, Discovery, Topic, TopicChange, TopicSettings};

/// How long the creation of a topic waits for its partitions to have leaders.
const FIRST_LEADER_WAIT: Duration = Duration::from_secs(10);

/// How long a handed-over leadership may take to be taken.
const TRANSFER_WAIT: Duration = Duration::from_secs(5);

/// This node's part of the cluster: its topics and partitions. A cheap handle. Once the last is
/// dropped, the node closes by itself; [`close`](Cluster::close) waits for it.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    node: Arc<Node>,
    gossip: SyncSender<Heard>,
    topic_defaults: TopicSettings,
}

/// A node of the cluster, as the metadata has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub node_id: u64,
    /// Where it is reached: `host:port`.
    pub address: String,
    /// What people call it.
    pub name: String,
    /// What fails together with it.
    pub rack: String,
    /// Its replicas are to go elsewhere.
    pub draining: bool,
    /// It is alive, as far as this node can see.
    pub alive: bool,
    /// It votes on the metadata, or did and has not been let go yet.
    pub votes: bool,
    /// It leads the metadata.
    pub leads: bool,
}

/// The nodes that have a part in a partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    /// Those that decide.
    pub voters: Vec<u64>,
    /// Those that only follow.
    pub learners: Vec<u64>,
    /// The voters are just changing: a majority of those before is needed, too.
    pub changing: bool,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node_id", &self.node_id()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.node.wake.try_send(Wake::End);
        let _ = self.gossip.try_send(Heard::End);
        let _ = self.node.port.send(Input::Close(None));
    }
}

impl Cluster {
    /// Opens the data directory, recovers every partition and starts the threads. Blocks. A
    /// partition that cannot be opened does not keep the others from it: see
    /// [`unready`](Cluster::unready).
    ///
    /// Nothing keeps two processes from opening the same directory; on the real file system use
    /// [`open_real`](Cluster::open_real).
    ///
    /// # Errors
    /// If the directory or its metadata cannot be used.
    pub fn open(
        config: Config,
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        network: Arc<dyn Network>,
    ) -> Result<Cluster, OpenError> {
        open(config, fs, clock, network, None)
    }

    /// As `open`, on the real file system and clock.
    ///
    /// # Errors
    /// As `open`, and if another process has the directory open.
    pub fn open_real(config: Config, network: Arc<dyn Network>) -> Result<Cluster, OpenError> {
        let lock = lock(&config.data_dir)?;
        open(config, Arc::new(RealFs), Arc::new(SystemClock), network, Some(lock))
    }

    /// Random, born with the data directory.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.inner.node.node_id
    }

    /// Random, the same on every node of the cluster; none until the node belongs to one.
    #[must_use]
    pub fn cluster_id(&self) -> Option<u64> {
        self.inner.node.cluster().map(|cluster| cluster.cluster_id)
    }

    /// Takes a frame that a peer sent. Does not block.
    pub fn receive(&self, frame: PeerFrame) {
        let PeerFrame { cluster_id, node_id, messages, gossip, command, pulse } = frame;
        let node = &self.inner.node;
        if !gossip.is_empty() {
            // Too many at once are lost, which gossip does not mind.
            let _ = self.inner.gossip.try_send(Heard::Packet(gossip));
        }
        if self.cluster_id() != Some(cluster_id) {
            return;
        }
        for message in messages {
            node.routes.learn(&message, node_id);
            // Without a driver the node is closing.
            let _ = node.port.send(Input::Message(message));
        }
        if let Some(pulse) = pulse {
            let _ = node.port.send(Input::Pulse(node_id, pulse));
        }
        if !command.is_empty()
            && let Some(log) = node.metadata_log()
        {
            Metadata::offer(log, command, node.clock.now_ms());
        }
    }

    /// The nodes by id.
    #[must_use]
    pub fn nodes(&self) -> Vec<NodeInfo> {
        let node = &self.inner.node;
        let (voters, leader) = match node.metadata_log() {
            None => (Vec::new(), None),
            Some(log) => {
                let health = log.shared.health();
                // Until others have taken their place, those that are to go are needed, too.
                (health.membership.deciders().collect(), health.leader)
            }
        };
        let info = |told: &RegisterNode, standing| NodeInfo {
            node_id: told.node_id,
            address: told.address.clone(),
            name: told.name.clone(),
            rack: told.rack.clone(),
            draining: standing == Standing::Draining,
            alive: node.sees(told.node_id),
            votes: voters.contains(&told.metadata_replica),
            leads: leader == Some(told.metadata_replica),
        };
        let state = node.metadata.state();
        if state.nodes().next().is_none() {
            // Just started, it knows of itself.
            return vec![info(&node.told, Standing::Active)];
        }
        let known = state.nodes().map(|known| {
            // What a restart changed about this node is known here before it is registered.
            let is_this = known.told.node_id == node.node_id;
            info(if is_this { &node.told } else { &known.told }, known.standing)
        });
        known.collect()
    }

    /// The partitions that have a replica here, by topic; the metadata's first.
    #[must_use]
    pub fn local_partitions(&self) -> Vec<Partition> {
        let mut partitions: Vec<Partition> =
            self.inner.node.partitions.open().values().cloned().collect();
        partitions.sort_unstable_by(|a, b| a.id().cmp(b.id()));
        partitions.splice(..0, self.inner.node.metadata_log().cloned());
        partitions
    }

    /// The node that leads a partition, if this node has a replica and knows.
    #[must_use]
    pub fn leader_of(&self, id: &PartitionId) -> Option<u64> {
        let leader = self.inner.node.partition(id)?.shared.health().leader?;
        self.inner.node.routes.node_of(leader)
    }

    /// The nodes whose replicas belong to a partition, as the replica of this node knows; nobody if
    /// it has none.
    #[must_use]
    pub fn members_of(&self, id: &PartitionId) -> Members {
        let Some(partition) = self.inner.node.partition(id) else { return Members::default() };
        let membership = partition.shared.health().membership.clone();
        let nodes = |replicas: Vec<u64>| -> Vec<u64> {
            let node = |replica| self.inner.node.routes.node_of(replica);
            replicas.into_iter().filter_map(node).collect()
        };
        Members {
            voters: nodes(membership.voters),
            learners: nodes(membership.learners),
            changing: !membership.voters_outgoing.is_empty(),
        }
    }

    /// The nodes that should have a replica of a partition.
    #[must_use]
    pub fn replica_nodes(&self, id: &PartitionId) -> Vec<u64> {
        let state = self.inner.node.metadata.state();
        let life = state.topic(&id.topic).ok();
        let number = usize::try_from(id.partition).ok();
        let assignment = life.zip(number).and_then(|(life, number)| life.partitions.get(number));
        assignment.map(|assignment| assignment.nodes()).unwrap_or_default()
    }

    /// Whether a node has replicas of partitions, or should have, as the metadata says here.
    #[must_use]
    pub fn has_replicas(&self, node_id: u64) -> bool {
        self.inner.node.metadata.state().has_replicas(node_id)
    }

    /// Hands the leadership of a partition that this node leads to a node that has a replica.
    /// Returns once that one leads.
    ///
    /// # Errors
    /// If that node has no replica that votes, or does not take over in time, or another one does.
    pub async fn transfer_leader(
        &self,
        partition: &Partition,
        node_id: u64,
    ) -> Result<(), TopicError> {
        if node_id == self.node_id() && partition.serves() {
            return Ok(());
        }
        let (voters, group) = {
            let health = partition.shared.health();
            (health.membership.voters.clone(), partition.shared.group)
        };
        let on_node = |replica: &u64| self.inner.node.routes.node_of(*replica) == Some(node_id);
        let Some(replica) = voters.into_iter().find(on_node) else {
            let message = format!("node {node_id} has no voting replica of {}", partition.id());
            return Err(TopicError::Invalid(message));
        };
        let sent = self.inner.node.port.send(Input::TransferLeader(group, replica));
        sent.map_err(|_| AppendError::Closing)?;
        match timeout(TRANSFER_WAIT, partition.shared.handed_to(replica)).await {
            Ok(true) => Ok(()),
            _ => Err(TopicError::NotHandedOver { id: partition.id().clone(), node_id }),
        }
    }

    /// Where appends to a partition are to be sent: its leader, or, if this node has no replica and
    /// so does not know, a node that has one. None if that is this node, or nobody knows.
    #[must_use]
    pub fn forward_to(&self, id: &PartitionId) -> Option<Peer> {
        let node = &self.inner.node;
        let Some(_) = node.partition(id) else {
            let (_, peers) = self.replicas_elsewhere(id).ok()?;
            return peers.into_iter().next();
        };
        let node_id = self.leader_of(id)?;
        let address = node.routes.address_of(node_id)?;
        (node_id != node.node_id).then_some(Peer { node_id, address })
    }

    /// The group of a partition, which no other of its name will have, and the other nodes that
    /// have a replica and are there.
    ///
    /// # Errors
    /// If there is no such topic or partition.
    pub fn replicas_elsewhere(&self, id: &PartitionId) -> Result<(u64, Vec<Peer>), TopicError> {
        let node = &self.inner.node;
        let state = node.metadata.state();
        let life = state.topic(&id.topic)?;
        let number = usize::try_from(id.partition).ok();
        let assignment = number.and_then(|number| life.partitions.get(number));
        let assignment = assignment.ok_or_else(|| TopicError::NoPartition {
            id: id.clone(),
            partitions: life.topic.partitions,
        })?;
        let nodes = assignment.members.iter().map(|replica| replica.node);
        let others = nodes.filter(|member| *member != node.node_id && node.sees(*member));
        let peer = |node_id| Some(Peer { node_id, address: node.routes.address_of(node_id)? });
        Ok((life.group(id.partition), others.filter_map(peer).collect()))
    }

    /// Where changes of topics and nodes are to be sent: the node that leads the metadata. None if
    /// that is this node, or nobody knows.
    #[must_use]
    pub fn forward_changes_to(&self) -> Option<Peer> {
        self.forward_to(&Metadata::partition())
    }

    /// All topics by name, the system's left out.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.inner.node.metadata.state().topics().map(|life| life.topic.clone()).collect()
    }

    /// The topic of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn topic(&self, name: &TopicName) -> Result<Topic, TopicError> {
        Ok(self.inner.node.metadata.state().topic(name)?.topic.clone())
    }

    /// Creates a topic and returns once it takes appends. Cancelled, it may be created all the
    /// same.
    ///
    /// # Errors
    /// If it exists (and then it takes appends), or cannot be as asked for, or the metadata takes
    /// no changes.
    pub async fn create_topic(
        &self,
        name: TopicName,
        partitions: u32,
        settings: TopicChange,
    ) -> Result<Topic, TopicError> {
        check_partitions(partitions)?;
        let settings = self.inner.topic_defaults.changed(settings)?;
        let known = self.inner.node.metadata.state().topic(&name).is_ok();
        if known {
            let applied_offset = self.inner.node.metadata.state().applied_offset();
            self.carried_out(applied_offset).await?;
            return Err(TopicError::Exists(name));
        }
        let created = self.create(&name, partitions, settings).await?;
        self.led(&created).await;
        Ok(created)
    }

    /// Creates a topic and returns once this node has done its part of it.
    pub(crate) async fn create(
        &self,
        name: &TopicName,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<Topic, TopicError> {
        let nodes = self.place(partitions, settings).await?;
        self.change_topic(Command::create(name, nodes, settings)).await
    }

    /// Nodes for new partitions.
    async fn place(
        &self,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<Vec<Vec<u64>>, TopicError> {
        // A cluster that was just founded registers its first node by itself.
        let mut reconciled = self.inner.node.reconciled.subscribe();
        loop {
            reconciled.borrow_and_update();
            let mut candidates = self.inner.node.metadata.state().candidates();
            let replicas = usize::try_from(settings.replicas).expect("replicas are few");
            if !candidates.is_empty() {
                return Ok((0..partitions).map(|_| candidates.place(&[], replicas)).collect());
            }
            let log = self.metadata_log()?;
            log.check_writable()?;
            // It also wakes when the metadata stops, or the node has closed.
            reconciled.changed().await.map_err(|_| AppendError::Closing)?;
        }
    }

    /// Waits a while until the partitions of a topic that have a replica here have a leader.
    async fn led(&self, topic: &Topic) {
        let led = async {
            for partition in 0..topic.partitions {
                let id = PartitionId { topic: topic.name.clone(), partition };
                if let Some(partition) = self.inner.node.partition(&id) {
                    let mut led = partition.shared.led.subscribe();
                    // Of one that cannot be written there is nothing to wait for.
                    while !*led.borrow_and_update() && partition.check_writable().is_ok() {
                        let _notified = led.changed().await;
                    }
                }
            }
        };
        if timeout(FIRST_LEADER_WAIT, led).await.is_err() {
            tracing::warn!(topic = %topic.name, "created, but not every partition has a leader");
        }
    }

    /// Changes the settings of a topic, from now on: sealed segments stay as they are.
    ///
    /// # Errors
    /// If there is no such topic, or it cannot be as asked for, or the metadata takes no changes.
    pub async fn alter_topic(
        &self,
        name: &TopicName,
        change: TopicChange,
    ) -> Result<Topic, TopicError> {
        let life = self.inner.node.metadata.state().topic(name)?.clone();
        life.topic.settings.changed(change)?;
        self.change_topic(Command::alter(life.topic_id, name, change)).await
    }

    /// Deletes a topic and all its records; returns once they are gone. Cancelled, it may be
    /// deleted all the same.
    ///
    /// # Errors
    /// If there is no such topic, or the metadata takes no changes.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), TopicError> {
        let topic_id = self.inner.node.metadata.state().topic(name)?.topic_id;
        self.change(Command::delete(topic_id, name)).await.map(drop)
    }

    /// Returns once this node knows every topic and token that was created, and none that was
    /// deleted or revoked, before the call. One that was just started may not, for a moment. Safe
    /// to cancel.
    ///
    /// # Errors
    /// If nobody leads the metadata, or the node closes.
    pub async fn knows_all_changes(&self) -> Result<(), TopicError> {
        let current = self.metadata_log()?.linearize().await;
        current.map_err(|error| match error {
            ReadError::Closing => AppendError::Closing.into(),
            _ => AppendError::NoLeader(Metadata::partition()).into(),
        })
    }

    /// A partition of a topic.
    ///
    /// # Errors
    /// If there is no such topic or partition, or it is just being created.
    pub fn partition(&self, id: &PartitionId) -> Result<Partition, TopicError> {
        if let Some(partition) = self.inner.node.partitions.open().get(id) {
            return Ok(partition.clone());
        }
        let partitions = self.topic(&id.topic)?.partitions;
        match id.partition < partitions {
            true => Err(AppendError::NoLeader(id.clone()).into()),
            false => Err(TopicError::NoPartition { id: id.clone(), partitions }),
        }
    }

    /// Whether the replicas of a node are to go elsewhere.
    ///
    /// # Errors
    /// If there is no such node, or the metadata takes no changes.
    pub async fn drain_node(&self, node_id: u64, drain: bool) -> Result<(), TopicError> {
        let standing = if drain { Standing::Draining } else { Standing::Active };
        let mark = MarkNode { node_id, standing: standing.into() };
        self.change(Command::from(Change::Mark(mark))).await.map(drop)
    }

    /// Takes a node out of the cluster that has no replicas left.
    ///
    /// # Errors
    /// If there is no such node, it has replicas, or the metadata takes no changes.
    pub async fn remove_node(&self, node_id: u64) -> Result<(), TopicError> {
        let remove = RemoveNode { node_id };
        self.change(Command::from(Change::Remove(remove))).await.map(drop)
    }

    /// Gives `name` to whoever shows the token with this digest, until `expires_ms` (Unix
    /// milliseconds). Cancelled, it may happen all the same.
    ///
    /// # Errors
    /// If the name cannot be used, there are too many tokens, or the metadata takes no changes.
    pub async fn create_token(
        &self,
        name: &str,
        digest: TokenDigest,
        expires_ms: Option<i64>,
        created_by: &str,
    ) -> Result<Token, TopicError> {
        check_token_name(name)?;
        let create = CreateToken {
            name: name.to_owned(),
            digest: digest.to_vec(),
            expires_ms: expires_ms.unwrap_or(0),
            created_by: created_by.to_owned(),
        };
        self.change(Command::from(Change::CreateToken(create))).await?;
        let created = self.token(&digest);
        created.ok_or_else(|| TopicError::Invalid("the token was revoked at once".to_owned()))
    }

    /// Makes a token worthless, on every node as soon as it hears of it.
    ///
    /// # Errors
    /// If there is no such token, or the metadata takes no changes.
    pub async fn revoke_token(&self, token_id: u64) -> Result<(), TopicError> {
        let revoke = RevokeToken { token_id };
        self.change(Command::from(Change::RevokeToken(revoke))).await.map(drop)
    }

    /// All tokens, the oldest first, those that have expired among them.
    #[must_use]
    pub fn tokens(&self) -> Vec<Token> {
        self.inner.node.metadata.state().tokens().all().cloned().collect()
    }

    /// The token with this digest, expired or not.
    #[must_use]
    pub fn token(&self, digest: &TokenDigest) -> Option<Token> {
        self.inner.node.metadata.state().tokens().find(digest).cloned()
    }

    /// Whether there is a token of this id, expired or not.
    #[must_use]
    pub fn has_token(&self, token_id: u64) -> bool {
        self.inner.node.metadata.state().tokens().get(token_id).is_some()
    }

    /// A number that is another once tokens were created or revoked.
    #[must_use]
    pub fn tokens_revision(&self) -> u64 {
        self.inner.node.metadata.state().tokens().revision()
    }

    /// Whether the node knows the metadata that was committed before it was started: without that,
    /// what it does not know may be there.
    #[must_use]
    pub fn knows_metadata(&self) -> bool {
        let known = |log: &Partition| *log.shared.led.borrow();
        self.inner.node.metadata_log().is_some_and(known)
    }

    /// Changes whenever this node has done what the metadata says, whatever that was.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.inner.node.reconciled.subscribe()
    }

    /// Waits until this node knows what was changed by way of another: there is a topic of that
    /// name. Safe to cancel.
    pub async fn topic_is_known(&self, name: &TopicName) {
        let mut reconciled = self.inner.node.reconciled.subscribe();
        loop {
            reconciled.borrow_and_update();
            if self.topic(name).is_ok() || reconciled.changed().await.is_err() {
                return;
            }
        }
    }

    /// Ends every partition: refuses new appends, waits for those under way, syncs, checkpoints.
    /// Idempotent.
    pub async fn close(&self) {
        let drained = {
            let state = self.inner.node.metadata.state();
            let draining = state.node(self.node_id()).is_none_or(|node| {
                node.standing == Standing::Draining && !state.has_replicas(self.node_id())
            });
            draining && self.inner.node.cluster().is_some()
        };
        if drained {
            // Nobody should wait for it to come back.
            let _ = self.inner.gossip.try_send(Heard::Leave);
        }
        let (done, closed) = oneshot::channel();
        if self.inner.node.port.send(Input::Close(Some(done))).is_ok() {
            // Without an answer it was closed already.
            let _ = closed.await;
        }
        let _ = self.inner.node.wake.try_send(Wake::End);
        let _ = self.inner.gossip.try_send(Heard::End);
        // Whoever waits for the metadata to be carried out looks again, and finds it closed.
        self.inner.node.reconciled.send_modify(|_| {});
    }

    /// Every partition has a leader that can serve (readiness); the names of those that have not,
    /// with the reason.
    #[must_use]
    pub fn unready(&self) -> Vec<(PartitionId, String)> {
        let node = &self.inner.node;
        let Some(log) = node.metadata_log() else {
            let why = "the node has not found its cluster yet".to_owned();
            return vec![(Metadata::partition(), why)];
        };
        let open = node.partitions.open();
        let all = open.values().chain([log]);
        let mut unready: Vec<_> = all.filter_map(reason).collect();
        unready.sort_unstable();
        unready
    }

    /// How often what is [`unready`](Cluster::unready) may have changed, to wait on.
    #[must_use]
    pub fn watch_readiness(&self) -> watch::Receiver<u64> {
        self.inner.node.partitions.readiness.subscribe()
    }

    /// The metadata, once the node belongs to a cluster.
    #[cfg(feature = "sim")]
    pub(crate) fn metadata_partition(&self) -> Option<Partition> {
        self.inner.node.metadata_log().cloned()
    }

    /// Whether a partition has stopped that a restart may bring back.
    #[cfg(feature = "sim")]
    pub(crate) fn has_stopped(&self) -> bool {
        let open = self.inner.node.partitions.open();
        let mut all = open.values().chain(self.inner.node.metadata_log());
        all.any(|partition| matches!(partition.shared.health().fault, Some(Fault::Stopped(_))))
    }

    async fn change_topic(&self, command: Command) -> Result<Topic, TopicError> {
        let topic = self.change(command).await?;
        Ok(topic.expect("a command about a topic comes to a topic"))
    }

    async fn change(&self, command: Command) -> Result<Option<Topic>, TopicError> {
        let node = &self.inner.node;
        let log = self.metadata_log()?;
        let (offset, outcome) = node.metadata.change(log, command, node.clock.now_ms()).await?;
        self.carried_out(offset + 1).await?;
        outcome
    }

    fn metadata_log(&self) -> Result<&Partition, AppendError> {
        let unknown = || AppendError::NoLeader(Metadata::partition());
        self.inner.node.metadata_log().ok_or_else(unknown)
    }

    /// Waits until this node has done what the metadata says up to `offset`.
    async fn carried_out(&self, offset: u64) -> Result<(), TopicError> {
        let mut reconciled: watch::Receiver<u64> = self.inner.node.reconciled.subscribe();
        match reconciled.wait_for(|&reconciled| reconciled >= offset).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AppendError::Closing.into()),
        }
    }
}

fn reason(partition: &Partition) -> Option<(PartitionId, String)> {
    let health = partition.shared.health();
    if health.fault.is_none() && health.leader.is_some() && *partition.shared.led.borrow() {
        return None;
    }
    let reason = health.reason().unwrap_or_else(|| "it has no leader".to_owned());
    Some((partition.id().clone(), reason))
}

fn open(
    config: Config,
    fs: Arc<dyn Fs>,
    clock: Arc<dyn Clock>,
    network: Arc<dyn Network>,
    lock: Option<fs::File>,
) -> Result<Cluster, OpenError> {
    let data_dir = config.data_dir.clone();
    let seams = Seams {
        fs,
        clock,
        network,
        lock,
        start_driver: Box::new(driver::start),
        // An error means that there is no driver, or no such group: there is nothing to wait for.
        wait: Box::new(|answer| {
            let _ = answer.recv();
        }),
    };
    let Parts { cluster, reconciler, wakes, agent, heard } = assemble(config, seams)?;
    let thread = thread::Builder::new().name("dislog-reconciler".to_owned());
    thread.spawn(move || reconciler.run(&wakes)).map_err(unusable(&data_dir))?;
    let thread = thread::Builder::new().name("dislog-gossip".to_owned());
    thread.spawn(move || agent.run(&heard)).map_err(unusable(&data_dir))?;
    Ok(cluster)
}

/// What a node stands on: that of the machine, or that of the simulator.
pub(crate) struct Seams {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) network: Arc<dyn Network>,
    pub(crate) lock: Option<fs::File>,
    pub(crate) start_driver: Box<dyn FnOnce(DriverConfig) -> io::Result<mpsc::Sender<Input>>>,
    pub(crate) wait: Wait,
}

/// A node whose driver works, and what the other threads are to work on.
pub(crate) struct Parts {
    pub(crate) cluster: Cluster,
    pub(crate) reconciler: Reconciler,
    pub(crate) wakes: Receiver<Wake>,
    pub(crate) agent: Agent,
    pub(crate) heard: Receiver<Heard>,
}

/// Opens the data directory and recovers every partition.
pub(crate) fn assemble(config: Config, seams: Seams) -> Result<Parts, OpenError> {
    let Seams { fs, clock, network, lock, start_driver, wait } = seams;
    let data_dir = config.data_dir.clone();
    let partitions_dir = node::partitions_dir(&data_dir);
    make_dirs(&*fs, &data_dir, &partitions_dir).map_err(unusable(&data_dir))?;
    let file = node_file::open(&*fs, &data_dir)?;
    let removals = Removals::open(&*fs, &data_dir)?;
    let routes = Arc::new(Routes::new(file.node_id, network));
    let (wake, wakes) = mpsc::sync_channel(1);
    let changed = wake.clone();
    let driver = start_driver(DriverConfig {
        fs: Arc::clone(&fs),
        clock: Arc::clone(&clock),
        transport: Box::new(Mailbags::new(Arc::clone(&routes))),
        changed: Box::new(move || drop(changed.try_send(Wake::Changed))),
        data_dir: data_dir.clone(),
        sync_threads: config.sync_threads,
        lock,
    });
    let driver = driver.map_err(unusable(&data_dir))?;
    let node = Arc::new(Node::new(NodeConfig {
        fs,
        clock,
        data_dir,
        file,
        removals,
        told: told(&config.discovery, file),
        replace_after: config.discovery.replace_after,
        port: Arc::new(Port::new(driver, config.appends_in_flight_bytes_max)),
        routes,
        wake,
        wait,
        open_threads: config.sync_threads,
    }));
    match file.cluster {
        Some(cluster) => node.enter_cluster(cluster)?,
        None if config.discovery.is_alone() => node.found_cluster()?,
        None => {}
    }
    partition_dir::remove_over(&*node.fs, &partitions_dir, |owner| node.may_remove(owner))
        .map_err(unusable(&partitions_dir))?;
    let mut reconciler = Reconciler::new(Arc::clone(&node));
    reconciler.reconcile();
    node.wake_reconciler();
    let Discovery { seeds, bootstrap_expect, .. } = config.discovery;
    let agent = Agent::new(Arc::clone(&node), seeds, bootstrap_expect);
    let (gossip, heard) = mpsc::sync_channel(PACKETS_WAITING_MAX);
    let topic_defaults = config.topic_defaults;
    let cluster = Cluster { inner: Arc::new(Inner { node, gossip, topic_defaults }) };
    Ok(Parts { cluster, reconciler, wakes, agent, heard })
}

fn told(discovery: &Discovery, file: NodeFile) -> RegisterNode {
    RegisterNode {
        node_id: file.node_id,
        address: discovery.address.clone(),
        name: discovery.name.clone(),
        rack: discovery.rack.clone(),
        metadata_replica: file.metadata_replica,
    }
}

fn make_dirs(fs: &dyn Fs, data_dir: &Path, partitions_dir: &Path) -> io::Result<()> {
    fs.create_dir_all(partitions_dir)?;
    fs.sync_dir(data_dir)?;
    // Those above may have been created, too, as far as this node may look at them.
    for dir in data_dir.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
        if fs.sync_dir(dir).is_err() {
            break;
        }
    }
    Ok(())
}
