//! What every request needs: the partitions, the settings, and whether the node is going down.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use dislog_cluster::{AppendError, Cluster, NodeInfo, Partition, Peer, Topic, TopicError};
use dislog_proto::{DEFAULT_TOPIC, reason, v1};
use dislog_types::{PartitionId, TopicName};
use tokio::sync::watch;

use crate::access::{Access, Asking};
use crate::budget::Budget;
use crate::config::Config;
use crate::forward::{Forwarder, Hops};
use crate::outflow::Outlet;
use crate::replica::{Remotes, Replica};
use crate::security::Security;
use crate::status::{Failure, kinds};
use crate::topics;

/// How long the leader of the metadata may take to say how far it is: longer than an election.
const METADATA_WAIT_MAX: Duration = Duration::from_secs(3);

/// A node as its services see it. A cheap handle.
#[derive(Clone)]
pub(crate) struct Node {
    shared: Arc<Shared>,
}

/// What the handles share.
pub(crate) struct Shared {
    /// Topics and partitions.
    pub(crate) cluster: Cluster,
    /// The settings.
    pub(crate) config: Config,
    /// Where clients reach this node.
    pub(crate) address: String,
    /// Bounds the bytes of requests in memory.
    pub(crate) budget: Budget,
    /// Bounds the bytes that wait for slow readers.
    pub(crate) outlet: Outlet,
    /// Connections to the other nodes, for requests.
    pub(crate) forwarder: Forwarder,
    /// The partitions elsewhere that are being read.
    pub(crate) remotes: Remotes,
    /// How connections are made and taken.
    pub(crate) security: Security,
    /// Who may do what.
    pub(crate) access: Access,
    /// Open connections.
    pub(crate) connections: AtomicUsize,
    /// Whether the node is going down.
    pub(crate) closing: Closing,
    /// Whether it needs its peers no more: they are heard until its leaderships are handed over.
    pub(crate) closed: Closing,
    /// When the node was started, Unix milliseconds.
    pub(crate) started_ms: i64,
}

impl std::ops::Deref for Node {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// Turns true once, when the node is told to stop.
#[derive(Clone)]
pub(crate) struct Closing(watch::Receiver<bool>);

impl Closing {
    /// What `sender` says.
    pub(crate) fn new(sender: &watch::Sender<bool>) -> Closing {
        Closing(sender.subscribe())
    }

    /// Whether the node is going down.
    pub(crate) fn is_closing(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once the node is going down. Safe to cancel.
    pub(crate) async fn wait(&self) {
        // An error means that the server is gone, which is closing too.
        let mut closing = self.0.clone();
        let _closed = closing.wait_for(|closing| *closing).await.is_ok();
    }
}

impl Node {
    /// A node of these parts.
    pub(crate) fn new(shared: Shared) -> Node {
        Node { shared: Arc::new(shared) }
    }

    /// The id as clients see it: text, because it does not fit the numbers of every language.
    pub(crate) fn id(&self) -> String {
        self.cluster.node_id().to_string()
    }

    /// How long a request may take to arrive and an append to be acknowledged.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.config.request_timeout_ms)
    }

    /// The replica of a partition to read.
    ///
    /// The topic of requests that name none is created by its first reader too, if topics are
    /// created by use at all: such clients know nothing of topics.
    pub(crate) async fn replica(
        &self,
        topic: &str,
        partition: u32,
        hops: &Hops,
    ) -> Result<Replica, Failure> {
        let id = partition_id(topic, partition)?;
        let creates = topic.is_empty() && self.may_create(&id);
        match self.found(&id, creates, hops).await? {
            Ok(partition) if !hops.may_be_about(partition.group()) => {
                Err(AppendError::NoLeader(id).into())
            }
            Ok(partition) if partition.votes() => Ok(Replica::Here(partition)),
            // Others have more; alone, it has what there is.
            Ok(partition) => Ok(Replica::there(self, id, hops).unwrap_or(Replica::Here(partition))),
            Err(TopicError::Append(AppendError::NoLeader(_))) => Replica::there(self, id, hops),
            Err(error) => Err(error.into()),
        }
    }

    /// A partition. If this node knows no such topic, it is created, or the others are asked.
    async fn found(
        &self,
        id: &PartitionId,
        creates: bool,
        hops: &Hops,
    ) -> Result<Result<Partition, TopicError>, Failure> {
        match self.cluster.partition(id) {
            Err(TopicError::NotFound(_)) if creates => {
                self.create(id, hops).await?;
                self.first_leader(id).await;
            }
            Err(TopicError::NotFound(_)) => self.knows_all_changes().await?,
            found => return Ok(found),
        }
        Ok(self.cluster.partition(id))
    }

    /// The topic of a name.
    pub(crate) async fn topic(&self, name: &TopicName) -> Result<Topic, Failure> {
        if let Ok(topic) = self.cluster.topic(name) {
            return Ok(topic);
        }
        self.knows_all_changes().await?;
        Ok(self.cluster.topic(name)?)
    }

    /// Returns once a topic or token that this node does not know is one that does not exist.
    pub(crate) async fn knows_all_changes(&self) -> Result<(), Failure> {
        let known = tokio::time::timeout(METADATA_WAIT_MAX, self.cluster.knows_all_changes()).await;
        let message = "the leader of the metadata does not answer";
        Ok(known.map_err(|_| Failure::new(&kinds::NO_LEADER, message))??)
    }

    /// Where appends to a partition go; its topic is created if that is allowed.
    pub(crate) async fn place(
        &self,
        topic: &str,
        partition: u32,
        hops: &Hops,
    ) -> Result<Place, Failure> {
        let id = partition_id(topic, partition)?;
        let found = self.found(&id, self.may_create(&id), hops).await?;
        match &found {
            Ok(partition) if partition.serves() => return Ok(Place::Here(partition.clone())),
            Ok(partition) if self.is_being_created(&id, partition) => {
                self.until_created(&id, hops).await?;
            }
            // Others have replicas, or this node will.
            Err(TopicError::Append(AppendError::NoLeader(_)))
                if self.cluster.forward_to(&id).is_none() =>
            {
                self.until_created(&id, hops).await?;
            }
            _ => {}
        }
        if let Some(peer) = self.cluster.forward_to(&id) {
            return match hops.may_go_on() {
                true => Ok(Place::There(id, peer)),
                false => Err(AppendError::NoLeader(id).into()),
            };
        }
        Ok(Place::Here(self.cluster.partition(&id)?))
    }

    fn is_being_created(&self, id: &PartitionId, partition: &Partition) -> bool {
        partition.progress().committed_offset == 0
            && self.cluster.unready().iter().any(|(unready, _)| unready == id)
    }

    async fn until_created(&self, id: &PartitionId, hops: &Hops) -> Result<(), Failure> {
        if self.may_create(id) {
            // Creating it too waits until whoever is creating it is done.
            self.create(id, hops).await?;
        }
        self.first_leader(id).await;
        Ok(())
    }

    /// Waits a while until this node knows a leader of a partition that was just created, if it has
    /// a replica: who created it may have heard of one before.
    async fn first_leader(&self, id: &PartitionId) {
        let Ok(partition) = self.cluster.partition(id) else { return };
        let mut led = partition.watch_led();
        // Without one, whoever asks is told so.
        let _ = tokio::time::timeout(METADATA_WAIT_MAX, led.wait_for(|led| *led)).await;
    }

    /// Whether a topic is created by use. It has one partition then: another cannot be meant.
    fn may_create(&self, id: &PartitionId) -> bool {
        self.config.auto_create_topics && id.partition == 0
    }

    /// Whoever may produce to a topic may be the first to do so: the node creates it by itself.
    async fn create(&self, id: &PartitionId, hops: &Hops) -> Result<(), Failure> {
        let request =
            v1::CreateTopicRequest { topic: id.topic.to_string(), partitions: 1, settings: None };
        match topics::create(self, request, hops.on_own_behalf()).await {
            Ok(_) => tracing::info!(topic = %id.topic, "created topic on first use"),
            Err(failure) if failure.kind.reason == reason::TOPIC_EXISTS => {}
            Err(failure) => return Err(failure),
        }
        Ok(())
    }

    /// The nodes that are alive, which of them leads a partition, and which have a replica of it.
    /// One that does not exist yet is led by who would create it.
    ///
    /// To who has no right to the topic it is as one that does not exist.
    pub(crate) fn servers(&self, asking: &Asking, id: &PartitionId) -> Vec<v1::Server> {
        let nodes = self.cluster.nodes();
        let is_there = self.cluster.topic(&id.topic).is_ok() && asking.sees_partition(id);
        let (leader, replicas) = match is_there {
            true => (self.cluster.leader_of(id), self.cluster.replica_nodes(id)),
            false => (nodes.iter().find(|node| node.leads).map(|node| node.node_id), Vec::new()),
        };
        let alive = nodes.into_iter().filter(|node| node.alive || leader == Some(node.node_id));
        let server = |node: NodeInfo| v1::Server {
            id: node.node_id.to_string(),
            is_leader: leader == Some(node.node_id),
            is_replica: replicas.contains(&node.node_id),
            name: if node.name.is_empty() { node.address.clone() } else { node.name },
            rpc_addr: node.address,
        };
        alive.map(server).collect()
    }

    /// Whether the node can serve.
    pub(crate) fn is_ready(&self) -> bool {
        !self.closing.is_closing() && self.cluster.unready().is_empty()
    }

    /// Why the node cannot serve, for one who asks; nothing if it can. Partitions that they have no
    /// right to are counted, not named.
    pub(crate) fn unready(&self, asking: &Asking) -> Vec<String> {
        if self.closing.is_closing() {
            return vec!["the node is shutting down".to_owned()];
        }
        let unready = self.cluster.unready().into_iter();
        let (told, others): (Vec<_>, Vec<_>) = unready.partition(|(id, _)| asking.may_hear_of(id));
        let mut why: Vec<_> = told.iter().map(|(id, why)| format!("{id}: {why}")).collect();
        if !others.is_empty() {
            why.push(format!("partitions that cannot serve: {}", others.len()));
        }
        why
    }
}

/// Where an append goes.
pub(crate) enum Place {
    /// To a partition of this node, which leads it or knows no leader.
    Here(Partition),
    /// To another node.
    There(PartitionId, Peer),
}

/// The name of a topic in a request.
pub(crate) fn topic_name(topic: &str) -> Result<TopicName, Failure> {
    let topic = if topic.is_empty() { DEFAULT_TOPIC } else { topic };
    Ok(topic.parse()?)
}

pub(crate) fn partition_id(topic: &str, partition: u32) -> Result<PartitionId, Failure> {
    Ok(PartitionId { topic: topic_name(topic)?, partition })
}
