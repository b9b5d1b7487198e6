//! What every request needs: the partitions, the settings, and whether the node is going down.

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use dislog_cluster::{AppendError, Cluster, Partition, TopicChange, TopicError};
use dislog_proto::{DEFAULT_TOPIC, reason};
use dislog_types::{PartitionId, TopicName};
use tokio::sync::watch;

use crate::budget::Budget;
use crate::config::Config;
use crate::outflow::Outlet;
use crate::status::{Failure, kinds};

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
    /// Open connections.
    pub(crate) connections: AtomicUsize,
    /// Whether the node is going down.
    pub(crate) closing: Closing,
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

    /// What people call the node.
    pub(crate) fn name(&self) -> &str {
        if self.config.name.is_empty() { &self.address } else { &self.config.name }
    }

    /// How long a request may take to arrive and an append to be acknowledged.
    pub(crate) fn request_timeout(&self) -> Duration {
        Duration::from_millis(self.config.request_timeout_ms)
    }

    /// A partition to read from or to manage.
    ///
    /// The topic of requests that name none is created by its first reader too, if topics are
    /// created by use at all: such clients know nothing of topics.
    pub(crate) async fn partition(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<Partition, Failure> {
        let id = partition_id(topic, partition)?;
        match self.cluster.partition(&id) {
            Err(TopicError::NotFound(_)) if topic.is_empty() => self.create(&id).await,
            found => Ok(found?),
        }
    }

    /// A partition to append to; its topic is created if that is allowed.
    pub(crate) async fn partition_or_create(
        &self,
        topic: &str,
        partition: u32,
    ) -> Result<Partition, Failure> {
        let id = partition_id(topic, partition)?;
        match self.cluster.partition(&id) {
            Err(TopicError::NotFound(_)) => self.create(&id).await,
            found if self.config.auto_create_topics && self.is_being_created(&id, &found) => {
                // Creating it too waits until whoever is creating it is done.
                self.create(&id).await
            }
            found => Ok(found?),
        }
    }

    fn is_being_created(&self, id: &PartitionId, found: &Result<Partition, TopicError>) -> bool {
        match found {
            Ok(partition) if partition.progress().committed_offset == 0 => {
                self.cluster.unready().iter().any(|(unready, _)| unready == id)
            }
            Ok(_) => false,
            Err(error) => matches!(error, TopicError::Append(AppendError::NoLeader(_))),
        }
    }

    async fn create(&self, id: &PartitionId) -> Result<Partition, Failure> {
        // A topic that is created by use has one partition: another cannot be meant.
        if !self.config.auto_create_topics || id.partition != 0 {
            return Err(TopicError::NotFound(id.topic.clone()).into());
        }
        match self.cluster.create_topic(id.topic.clone(), 1, TopicChange::default()).await {
            Ok(_) => tracing::info!(topic = %id.topic, "created topic on first use"),
            Err(TopicError::Exists(_)) => {}
            Err(error) => return Err(error.into()),
        }
        Ok(self.cluster.partition(id)?)
    }

    /// Drops the records below `offset`, at most up to the committed offset; returns the start.
    pub(crate) async fn trim(
        &self,
        topic: &str,
        partition: u32,
        offset: u64,
    ) -> Result<u64, Failure> {
        let id = partition_id(topic, partition)?;
        let partition = self.cluster.partition(&id)?;
        let committed_offset = partition.progress().committed_offset;
        if offset > committed_offset {
            let message = format!(
                "{id} ends at offset {committed_offset}, so it cannot be trimmed up to {offset}"
            );
            return Err(
                Failure::new(&kinds::OUT_OF_RANGE, message).with(reason::LATEST, committed_offset)
            );
        }
        Ok(partition.trim(offset).await?)
    }

    /// Why the node cannot serve; nothing if it can.
    pub(crate) fn unready(&self) -> Vec<String> {
        if self.closing.is_closing() {
            return vec!["the node is shutting down".to_owned()];
        }
        self.cluster.unready().into_iter().map(|(id, why)| format!("{id}: {why}")).collect()
    }
}

/// The name of a topic in a request.
pub(crate) fn topic_name(topic: &str) -> Result<TopicName, Failure> {
    let topic = if topic.is_empty() { DEFAULT_TOPIC } else { topic };
    Ok(topic.parse()?)
}

fn partition_id(topic: &str, partition: u32) -> Result<PartitionId, Failure> {
    Ok(PartitionId { topic: topic_name(topic)?, partition })
}
