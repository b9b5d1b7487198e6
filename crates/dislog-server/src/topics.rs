//! What is done to topics, here or by way of the node that can do it: for gRPC and HTTP alike.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::future::Future;
use std::time::Duration;

use dislog_cluster::{Peer, Topic, TopicChange, TopicError};
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::{reason, v1};
use dislog_types::{PartitionId, TopicName};
use tonic::transport::Channel;
use tonic::{Response, Status};

use crate::access::Asking;
use crate::forward::Hops;
use crate::node::{Node, Place, partition_id};
use crate::status::{Failure, kinds};

/// How long another node may take to say how its replicas are.
const COMPLETED_MAX: Duration = Duration::from_secs(2);

/// Creates a topic.
pub(crate) async fn create(
    node: &Node,
    request: v1::CreateTopicRequest,
    hops: Hops,
) -> Result<v1::Topic, Failure> {
    let name = name(&request.topic)?;
    if let Some(peer) = changed_by(node, &hops)? {
        let call =
            async |mut admin: AdminClient<Channel>| admin.create_topic(hops.next(request)).await;
        let created = sent_on(node, &peer, call).await;
        let exists = |failure: &Failure| failure.kind.reason == reason::TOPIC_EXISTS;
        if created.is_ok() || created.as_ref().is_err_and(exists) {
            // So that it can be used here, too, once the caller is told.
            let known = node.cluster.topic_is_known(&name);
            let _ = tokio::time::timeout(node.request_timeout(), known).await;
        }
        return topic(created?.topic);
    }
    let v1::CreateTopicRequest { partitions, settings, .. } = request;
    let created = node.cluster.create_topic(name, partitions.max(1), change(settings)).await?;
    Ok(described(node, &created))
}

/// Changes the settings that are given.
pub(crate) async fn alter(
    node: &Node,
    request: v1::AlterTopicRequest,
    hops: Hops,
) -> Result<v1::Topic, Failure> {
    let name = name(&request.topic)?;
    if let Some(peer) = changed_by(node, &hops)? {
        let call =
            async |mut admin: AdminClient<Channel>| admin.alter_topic(hops.next(request)).await;
        return topic(sent_on(node, &peer, call).await?.topic);
    }
    let altered = node.cluster.alter_topic(&name, change(request.settings)).await?;
    Ok(described(node, &altered))
}

/// Deletes a topic and all its records.
pub(crate) async fn delete(
    node: &Node,
    request: v1::DeleteTopicRequest,
    hops: Hops,
) -> Result<(), Failure> {
    let name = name(&request.topic)?;
    if let Some(peer) = changed_by(node, &hops)? {
        let call =
            async |mut admin: AdminClient<Channel>| admin.delete_topic(hops.next(request)).await;
        return sent_on(node, &peer, call).await.map(drop);
    }
    Ok(node.cluster.delete_topic(&name).await?)
}

/// Drops the records below an offset, at most up to the committed offset; returns the start.
pub(crate) async fn trim(
    node: &Node,
    request: v1::TrimTopicRequest,
    hops: Hops,
) -> Result<u64, Failure> {
    let id = PartitionId { topic: name(&request.topic)?, partition: request.partition };
    node.topic(&id.topic).await?;
    let partition = match node.place(&request.topic, request.partition, &hops).await? {
        Place::Here(partition) => partition,
        Place::There(_, peer) => {
            let call =
                async |mut admin: AdminClient<Channel>| admin.trim_topic(hops.next(request)).await;
            return Ok(sent_on(node, &peer, call).await?.start_offset);
        }
    };
    let committed_offset = partition.progress().committed_offset;
    let offset = request.offset;
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

/// The topics that somebody has any right to.
fn seen(node: &Node, asking: &Asking) -> Vec<Topic> {
    let mut topics = node.cluster.topics();
    topics.retain(|topic| asking.sees(topic.name.as_str()));
    topics
}

/// The node that changes topics and nodes, if it is another.
pub(crate) fn changed_by(node: &Node, hops: &Hops) -> Result<Option<Peer>, Failure> {
    match node.cluster.forward_changes_to() {
        Some(_) if !hops.may_go_on() => {
            Err(Failure::new(&kinds::NO_LEADER, "no leader of the metadata at the moment"))
        }
        other => Ok(other),
    }
}

/// What another node answers, in the time that a request may take.
pub(crate) async fn sent_on<T, F>(
    node: &Node,
    peer: &Peer,
    call: impl FnOnce(AdminClient<Channel>) -> F,
) -> Result<T, Failure>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let answer = tokio::time::timeout(node.request_timeout(), call(node.forwarder.admin(peer)?));
    match answer.await {
        Ok(answer) => Ok(answer.map_err(|status| Failure::of_peer(&status))?.into_inner()),
        Err(_) => {
            let message = format!("node {} did not answer", peer.node_id);
            Err(Failure::new(&kinds::UNKNOWN_OUTCOME, message))
        }
    }
}

/// Managing a topic takes its name: there is no default for that.
fn name(topic: &str) -> Result<TopicName, Failure> {
    Ok(topic.parse()?)
}

fn topic(topic: Option<v1::Topic>) -> Result<v1::Topic, Failure> {
    let missing = || Failure::new(&kinds::UNKNOWN_OUTCOME, "another node answered without a topic");
    topic.ok_or_else(missing)
}

fn change(settings: Option<v1::TopicSettings>) -> TopicChange {
    let v1::TopicSettings { retention_bytes, retention_ms, segment_bytes, replicas } =
        settings.unwrap_or_default();
    TopicChange { retention_bytes, retention_ms, segment_bytes, replicas }
}

/// A topic with its partitions as they are now, as far as this node and others know.
pub(crate) async fn described_whole(node: &Node, hops: &Hops, topic: &Topic) -> v1::Topic {
    let known = vec![described(node, topic)];
    let completed = completed(node, hops, known, Some(&topic.name)).await;
    completed.into_iter().next().expect("as many as there were")
}

/// The topics that somebody has any right to, as [`described_whole`].
pub(crate) async fn seen_whole(node: &Node, asking: &Asking) -> Vec<v1::Topic> {
    let topics = seen(node, asking);
    let known = topics.iter().map(|topic| described(node, topic)).collect();
    completed(node, &asking.hops, known, None).await
}

/// Fills in how the partitions are that have no replica here, as other nodes answer: about one
/// topic, or all. Of several, the one that is farthest; if none does, that is a fault.
async fn completed(
    node: &Node,
    hops: &Hops,
    mut topics: Vec<v1::Topic>,
    one: Option<&TopicName>,
) -> Vec<v1::Topic> {
    if !hops.may_go_on() {
        return topics;
    }
    let mut known: HashMap<(String, i64, u32), v1::Partition> = HashMap::new();
    let asked = others_with(node, &topics).into_iter();
    let asked = asked.map(|peer| described_by(node.clone(), peer, hops.clone(), one.cloned()));
    for topic in futures_util::future::join_all(asked).await.into_iter().flatten().flatten() {
        for there in topic.partitions.into_iter().filter(is_known) {
            let key = (topic.name.clone(), topic.created_ms, there.partition);
            match known.entry(key) {
                Entry::Vacant(place) => drop(place.insert(there)),
                Entry::Occupied(mut other) => {
                    if other.get().committed_offset < there.committed_offset {
                        other.insert(there);
                    }
                }
            }
        }
    }
    for topic in &mut topics {
        for partition in topic.partitions.iter_mut().filter(|partition| !is_known(partition)) {
            let key = (topic.name.clone(), topic.created_ms, partition.partition);
            match known.remove(&key) {
                Some(there) => *partition = there,
                None => partition.fault = "no node that has a replica answers".to_owned(),
            }
        }
    }
    topics
}

/// The nodes to ask about partitions without a replica here.
fn others_with(node: &Node, topics: &[v1::Topic]) -> Vec<Peer> {
    let mut peers = HashMap::new();
    for topic in topics {
        for partition in topic.partitions.iter().filter(|partition| !is_known(partition)) {
            let id = partition_id(&topic.name, partition.partition).ok();
            let peer = id.and_then(|id| node.cluster.forward_to(&id));
            peers.extend(peer.map(|peer| (peer.node_id, peer)));
        }
    }
    peers.into_values().collect()
}

/// What another node knows by itself; nothing if it does not answer.
async fn described_by(
    node: Node,
    peer: Peer,
    hops: Hops,
    one: Option<TopicName>,
) -> Option<Vec<v1::Topic>> {
    let mut admin = node.forwarder.admin(&peer).ok()?;
    let answer = async {
        match one {
            Some(name) => {
                let request = v1::DescribeTopicRequest { topic: name.to_string() };
                let answer = admin.describe_topic(hops.last(request)).await.ok()?;
                Some(answer.into_inner().topic.into_iter().collect())
            }
            None => {
                let request = hops.last(v1::ListTopicsRequest::default());
                Some(admin.list_topics(request).await.ok()?.into_inner().topics)
            }
        }
    };
    tokio::time::timeout(COMPLETED_MAX, answer).await.ok()?
}

/// Whether a node has told how its own replica is: a log has a segment.
fn is_known(partition: &v1::Partition) -> bool {
    partition.segments > 0 || !partition.fault.is_empty()
}

/// A topic with its partitions as they are now, as far as this node knows.
fn described(node: &Node, topic: &Topic) -> v1::Topic {
    let partitions = (0..topic.partitions).map(|partition| {
        described_partition(node, &PartitionId { topic: topic.name.clone(), partition })
    });
    v1::Topic {
        name: topic.name.to_string(),
        partitions: partitions.collect(),
        settings: Some(v1::TopicSettings {
            retention_bytes: Some(topic.settings.retention_bytes),
            retention_ms: Some(topic.settings.retention_ms),
            segment_bytes: Some(topic.settings.segment_bytes),
            replicas: Some(topic.settings.replicas),
        }),
        created_ms: topic.created_ms,
    }
}

fn described_partition(node: &Node, id: &PartitionId) -> v1::Partition {
    let text = |node_id: u64| node_id.to_string();
    let mut described = v1::Partition {
        partition: id.partition,
        replicas: node.cluster.replica_nodes(id).into_iter().map(text).collect(),
        leader: node.cluster.leader_of(id).map(text).unwrap_or_default(),
        ..v1::Partition::default()
    };
    // Without a replica here this is all there is to say.
    match node.cluster.partition(id) {
        Ok(partition) => {
            let (progress, status) = (partition.progress(), partition.status());
            described.start_offset = progress.start_offset;
            described.committed_offset = progress.committed_offset;
            described.size_bytes = status.size_bytes;
            described.segments = u32::try_from(status.segments).unwrap_or(u32::MAX);
            described.fault = status.fault.unwrap_or_default();
        }
        Err(TopicError::Append(_)) => {}
        Err(error) => described.fault = error.to_string(),
    }
    described
}
