//! One node, asked about itself: no other is asked instead, and nothing is sent on.
//!
//! For tools that compare nodes. An attempt is made once: whoever compares nodes wants to know that
//! one does not answer.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use dislog_proto::v1;
use dislog_tls::ClientTls;
use dislog_types::PartitionId;
use tonic::{Response, Status};

use crate::client::whole_topic;
use crate::connection::{self, Connection, PROBE_AFTER, Servers};
use crate::directory::Address;
use crate::retry::{Failure, Repeat, Verdict};
use crate::{AccessToken, ClusterInfo, Error};

/// What a node may send ahead: a page of batches.
const WINDOW_BYTES: u32 = 4 << 20;

/// A replica as its node has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replica {
    /// The topic; one of the system for the cluster's metadata.
    pub topic: String,
    /// The partition's number, from 0.
    pub partition: u32,
    /// The first offset still in its log.
    pub start_offset: u64,
    /// One past the last record it knows to be committed.
    pub committed_offset: u64,
    /// One past the last record it has, committed or not.
    pub end_offset: u64,
    /// The Raft term it is in.
    pub term: u64,
    /// The id of the node that leads, if it knows.
    pub leader: Option<String>,
    /// The ids of the nodes whose replicas vote.
    pub voters: Vec<String>,
    /// The ids of the nodes whose replicas only follow.
    pub learners: Vec<String>,
    /// The voters are just changing: a majority of those before is needed, too.
    pub changing: bool,
    /// When its last record was appended, Unix milliseconds.
    pub last_timestamp_ms: i64,
    /// Why it cannot be written, if so.
    pub fault: Option<String>,
}

/// The replicas of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replicas {
    /// Those of topics that this client has a right to see, and of the metadata.
    pub seen: Vec<Replica>,
    /// How many more there are.
    pub hidden: u32,
}

/// Batches of a partition, whole and as they are stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawPage {
    /// The batches; the first may begin before the offset asked for.
    pub batches: Vec<RawBatch>,
    /// Where the next page goes on.
    pub next_offset: u64,
}

/// A batch as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawBatch {
    /// The Kafka `RecordBatch` v2 bytes, with offset and term stamped.
    pub batch: Bytes,
    /// When the leader appended it, Unix milliseconds.
    pub timestamp_ms: i64,
}

/// See the module. A cheap handle.
#[derive(Clone, Debug)]
pub struct NodeClient {
    address: Address,
    pub(crate) connection: Connection,
    timeout: Duration,
}

impl NodeClient {
    /// The node at `address`, `host:port`, each of whose answers may take `timeout`. Nothing is
    /// dialled yet. Needs a Tokio runtime.
    ///
    /// # Errors
    /// [`Error::Address`] if the address cannot be used.
    pub fn new(
        address: &str,
        timeout: Duration,
        tls: Option<ClientTls>,
        token: Option<AccessToken>,
    ) -> Result<NodeClient, Error> {
        let given = connection::given_address(address, tls.is_some())?;
        let servers = Servers::parse([address], timeout, tls)?.showing(token);
        let address = given;
        let connection = servers.connection(&address, WINDOW_BYTES, PROBE_AFTER);
        Ok(NodeClient { address, connection, timeout })
    }

    /// The nodes of the cluster as this one sees them.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer.
    pub async fn describe_cluster(&self) -> Result<ClusterInfo, Error> {
        let mut admin = self.connection.admin();
        let call = admin.describe_cluster(v1::DescribeClusterRequest {});
        let answer = self.ask("describing the cluster", &whole_topic(None), None, call).await?;
        Ok(answer.into())
    }

    /// The replicas that the node has, that of the metadata among them.
    ///
    /// # Errors
    /// [`Error::Timeout`] if it does not answer.
    pub async fn describe_replicas(&self) -> Result<Replicas, Error> {
        let mut admin = self.connection.admin();
        let call = admin.describe_replicas(v1::DescribeReplicasRequest {});
        let answer = self.ask("describing replicas", &whole_topic(None), None, call).await?;
        let seen = answer.replicas.into_iter().map(Replica::from).collect();
        Ok(Replicas { seen, hidden: answer.hidden })
    }

    /// Committed batches of the node's replica from that which has `offset` on: about `bytes_max`,
    /// but at least one.
    ///
    /// # Errors
    /// [`Error::OutOfRange`], [`Error::Trimmed`], [`Error::Damaged`], or [`Error::Timeout`] if it
    /// does not answer.
    pub async fn read_raw(
        &self,
        id: &PartitionId,
        offset: u64,
        bytes_max: u32,
    ) -> Result<RawPage, Error> {
        let request = v1::ConsumeRequest {
            offset,
            topic: id.topic.to_string(),
            partition: id.partition,
            max_bytes: bytes_max,
            raw: true,
            ..v1::ConsumeRequest::default()
        };
        let mut log = self.connection.log();
        let answer = self.ask("reading", id, Some(offset), log.consume(request)).await?;
        let batch =
            |raw: v1::RawBatch| RawBatch { batch: raw.batch, timestamp_ms: raw.timestamp_ms };
        Ok(RawPage {
            batches: answer.batches.into_iter().map(batch).collect(),
            next_offset: answer.next_offset,
        })
    }

    pub(crate) async fn ask<T>(
        &self,
        what: &str,
        id: &PartitionId,
        offset: Option<u64>,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Error> {
        let failure = match tokio::time::timeout(self.timeout, call).await {
            Ok(Ok(response)) => return Ok(response.into_inner()),
            Ok(Err(status)) => Failure::new(&status),
            Err(_) => Failure::broken("no answer"),
        };
        match failure.verdict(Repeat::Harmless) {
            Verdict::Retry { .. } => {
                let what = format!("{what} at {}", self.address);
                Err(Error::Timeout {
                    what,
                    after: self.timeout,
                    last: failure.message().to_owned(),
                })
            }
            _ => Err(failure.into_error(id, offset)),
        }
    }
}

impl From<v1::Replica> for Replica {
    fn from(replica: v1::Replica) -> Replica {
        Replica {
            topic: replica.topic,
            partition: replica.partition,
            start_offset: replica.start_offset,
            committed_offset: replica.committed_offset,
            end_offset: replica.end_offset,
            term: replica.term,
            leader: Some(replica.leader).filter(|leader| !leader.is_empty()),
            voters: replica.voters,
            learners: replica.learners,
            changing: replica.changing,
            last_timestamp_ms: replica.last_timestamp_ms,
            fault: Some(replica.fault).filter(|fault| !fault.is_empty()),
        }
    }
}
