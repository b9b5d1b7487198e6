//! What clients do: appends of three kinds, linearizable reads, tails, trims, and the changes of
//! topics and nodes. A client asks one node at a time, follows hints about who leads, and tries
//! again what it may.

use std::pin::Pin;

use bytes::BytesMut;
use dislog_cluster::sim::SimNode;
use dislog_cluster::{
    Append, AppendError, Appended, Cluster, Partition, ReadError, StoredBatch, TopicError,
    TopicSettings,
};
use dislog_types::batch::{BatchHeader, ProducerStamp};
use dislog_types::{BatchBuilder, Compression, PartitionId, Record, TopicName};

use crate::trace;

/// Bytes that a tail asks for at once: a few batches.
const READ_BYTES: usize = 2_000;

/// Segments are small, so that they are sealed, trimmed and installed often.
const SEGMENT_BYTES: u64 = 4 << 10;

/// What a client asks of a node.
#[derive(Clone, Debug)]
pub(crate) enum Request {
    Append { to: PartitionId, batch: Vec<u8>, expected_offset: Option<u64> },
    Linearize { of: PartitionId },
    Read { of: PartitionId, offset: u64 },
    Trim { of: PartitionId, offset: u64 },
    Create { partitions: u32, retention_bytes: u64 },
    Drain { node_id: u64 },
}

/// What a node answers, and where else to ask.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) body: Body,
    pub(crate) hint: Option<String>,
}

#[derive(Debug)]
pub(crate) enum Body {
    Append(Result<Appended, AppendError>),
    /// One past the last offset that could be read once the question was answered.
    Linearize(Result<u64, ReadError>),
    Read(Result<Vec<StoredBatch>, ReadError>),
    Trim(Result<u64, AppendError>),
    Topic(Result<(), TopicError>),
}

impl Body {
    /// A number that stands for it.
    pub(crate) fn digest(&self) -> u64 {
        match self {
            Body::Append(Ok(told)) => told.base_offset,
            Body::Linearize(Ok(end)) => *end,
            Body::Read(Ok(batches)) => batches.iter().fold(batches.len() as u64, |digest, it| {
                (digest << 7) ^ it.base_offset ^ trace::digest(&it.batch)
            }),
            other => trace::digest(format!("{other:?}").as_bytes()),
        }
    }
}

/// The topic that everything happens to.
pub(crate) fn topic() -> TopicName {
    "t".parse().expect("it is a name")
}

pub(crate) fn partition(number: u32) -> PartitionId {
    PartitionId { topic: topic(), partition: number }
}

/// A batch of which each record says which attempt it is of, and which record.
pub(crate) fn batch(attempt: u64, count: u32, size: usize, by: Option<ProducerStamp>) -> Vec<u8> {
    let mut builder = BatchBuilder::new();
    for number in 0..count {
        let mut value = attempt.to_le_bytes().to_vec();
        value.extend(number.to_le_bytes());
        value.resize(value.len() + size, b'.');
        assert!(builder.push(&Record::new(value)), "it is a small batch");
    }
    builder.finish(Compression::None, by).to_vec()
}

/// The attempt that a record is of, and its number in that.
pub(crate) fn identity(record: &Record) -> Option<(u64, u32)> {
    let (attempt, rest) = record.value.split_first_chunk::<8>()?;
    let number = rest.first_chunk::<4>()?;
    Some((u64::from_le_bytes(*attempt), u32::from_le_bytes(*number)))
}

/// Lets a node work on a request.
pub(crate) fn begin(node: &SimNode, request: Request) -> Pin<Box<dyn Future<Output = Answer>>> {
    let cluster = node.cluster().clone();
    Box::pin(async move {
        let hint = |cluster: &Cluster, id: &PartitionId| {
            cluster.forward_to(id).map(|peer| peer.address.to_string())
        };
        let (body, hint) = match request {
            Request::Append { to, batch, expected_offset } => {
                let appended = append(&cluster, &to, batch, expected_offset).await;
                (Body::Append(appended), hint(&cluster, &to))
            }
            Request::Linearize { of } => {
                (Body::Linearize(linearize(&cluster, &of).await), hint(&cluster, &of))
            }
            Request::Read { of, offset } => (Body::Read(read(&cluster, &of, offset).await), None),
            Request::Trim { of, offset } => {
                let trimmed = match open(&cluster, &of) {
                    Some(partition) => partition.trim(offset).await,
                    None => Err(AppendError::NoLeader(of.clone())),
                };
                (Body::Trim(trimmed), hint(&cluster, &of))
            }
            Request::Create { partitions, retention_bytes } => {
                let settings = settings(retention_bytes);
                let name = topic();
                let known = cluster.topic(&name).is_ok();
                let to = cluster.clone();
                let created = match known {
                    true => Err(TopicError::Exists(name)),
                    false => SimNode::create_topic(to, name, partitions, settings).await.map(drop),
                };
                (Body::Topic(created), to_changes(&cluster))
            }
            Request::Drain { node_id } => {
                let drained = cluster.drain_node(node_id, true).await;
                (Body::Topic(drained), to_changes(&cluster))
            }
        };
        Answer { body, hint }
    })
}

fn settings(retention_bytes: u64) -> TopicSettings {
    TopicSettings { retention_bytes, retention_ms: 0, segment_bytes: SEGMENT_BYTES, replicas: 3 }
}

fn to_changes(cluster: &Cluster) -> Option<String> {
    cluster.forward_changes_to().map(|peer| peer.address.to_string())
}

fn open(cluster: &Cluster, id: &PartitionId) -> Option<Partition> {
    cluster.partition(id).ok()
}

async fn append(
    cluster: &Cluster,
    to: &PartitionId,
    batch: Vec<u8>,
    expected_offset: Option<u64>,
) -> Result<Appended, AppendError> {
    let partition = open(cluster, to).ok_or_else(|| AppendError::NoLeader(to.clone()))?;
    let header = BatchHeader::verify(&batch).expect("the client made it");
    let batch = BytesMut::from(&batch[..]);
    partition.append(Append { batch, header, expected_offset }).await
}

async fn linearize(cluster: &Cluster, of: &PartitionId) -> Result<u64, ReadError> {
    let partition = open(cluster, of).ok_or_else(|| ReadError::NoLeader(of.clone()))?;
    partition.linearize().await?;
    Ok(partition.progress().committed_offset)
}

async fn read(
    cluster: &Cluster,
    of: &PartitionId,
    offset: u64,
) -> Result<Vec<StoredBatch>, ReadError> {
    let partition = open(cluster, of).ok_or_else(|| ReadError::NoLeader(of.clone()))?;
    partition.wait_for(offset).await?;
    partition.read(offset, READ_BYTES).await
}
