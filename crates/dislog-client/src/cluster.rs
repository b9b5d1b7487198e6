//! The calls about the cluster itself: its nodes, and what they are to do.
//!
//! Any server answers them; what changes something is sent on to the node that can do it. What only
//! the node knows that answers is asked of a [`NodeClient`](crate::NodeClient).

use dislog_proto::v1;
use dislog_types::PartitionId;

use crate::client::whole_topic;
use crate::retry::Repeat;
use crate::{Client, Error};

/// A cluster as one of its nodes sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterInfo {
    /// 16 hexadecimal digits; none while the node that answered belongs to no cluster.
    pub cluster_id: Option<String>,
    /// The nodes by id.
    pub nodes: Vec<NodeInfo>,
    /// The node that answered.
    pub node_id: String,
}

/// A node of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeInfo {
    /// Its id.
    pub id: String,
    /// Its name, for people; empty if it has none.
    pub name: String,
    /// What clients and other nodes dial, `host:port`.
    pub address: String,
    /// What fails together with it; empty if nothing is known.
    pub rack: String,
    /// It answers, as far as the node can see that said so.
    pub alive: bool,
    /// Its replicas are to go elsewhere.
    pub draining: bool,
    /// It has a vote on the metadata.
    pub votes: bool,
    /// It leads the metadata.
    pub leads: bool,
}

impl Client {
    /// The nodes of the cluster, as the server that answers sees them.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no server answers.
    pub async fn describe_cluster(&self) -> Result<ClusterInfo, Error> {
        let answer = self
            .call(
                &whole_topic(None),
                None,
                "describing the cluster",
                Repeat::Harmless,
                |connection| async move {
                    connection.admin().describe_cluster(v1::DescribeClusterRequest {}).await
                },
            )
            .await?;
        Ok(answer.into())
    }

    /// Gives the replicas of a node to others, or with `drain` false ends that. Returns once it is
    /// decided; the replicas take the time that copying them takes.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is no such node, [`Error::Timeout`] if the metadata takes no
    /// changes.
    pub async fn drain_node(&self, node_id: &str, drain: bool) -> Result<(), Error> {
        let request = v1::DrainNodeRequest { node_id: node_id.to_owned(), drain };
        let what = "draining the node";
        self.call(&whole_topic(None), None, what, Repeat::Harmless, |connection| {
            let request = request.clone();
            async move { connection.admin().drain_node(request).await }
        })
        .await?;
        Ok(())
    }

    /// Takes a node out of the cluster that has no replicas left. One that still runs comes back by
    /// itself: it is to be stopped first.
    ///
    /// # Errors
    /// [`Error::Refused`] if it has replicas or there is no such node, also when an earlier attempt
    /// of this call removed it; [`Error::Timeout`] if the metadata takes no changes.
    pub async fn remove_node(&self, node_id: &str) -> Result<(), Error> {
        let request = v1::RemoveNodeRequest { node_id: node_id.to_owned() };
        let what = "removing the node";
        self.call(&whole_topic(None), None, what, Repeat::Harmless, |connection| {
            let request = request.clone();
            async move { connection.admin().remove_node(request).await }
        })
        .await?;
        Ok(())
    }

    /// Hands the leadership of a partition to the replica on a node; returns once that one leads.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], or [`Error::Refused`] if that node has no replica that votes, or
    /// [`Error::Timeout`] if it does not take over.
    pub async fn transfer_leader(
        &self,
        topic: &str,
        partition: u32,
        node_id: &str,
    ) -> Result<(), Error> {
        let id = PartitionId { topic: topic.parse()?, partition };
        let request = v1::TransferLeaderRequest {
            topic: topic.to_owned(),
            partition,
            node_id: node_id.to_owned(),
        };
        self.call(&id, None, "transferring the leadership", Repeat::Harmless, |connection| {
            let request = request.clone();
            async move { connection.admin().transfer_leader(request).await }
        })
        .await?;
        Ok(())
    }
}

impl From<v1::DescribeClusterResponse> for ClusterInfo {
    fn from(answer: v1::DescribeClusterResponse) -> ClusterInfo {
        ClusterInfo {
            cluster_id: Some(answer.cluster_id).filter(|id| !id.is_empty()),
            nodes: answer.nodes.into_iter().map(NodeInfo::from).collect(),
            node_id: answer.node_id,
        }
    }
}

impl From<v1::Node> for NodeInfo {
    fn from(node: v1::Node) -> NodeInfo {
        NodeInfo {
            id: node.id,
            name: node.name,
            address: node.address,
            rack: node.rack,
            alive: node.alive,
            draining: node.draining,
            votes: node.votes,
            leads: node.leads,
        }
    }
}
