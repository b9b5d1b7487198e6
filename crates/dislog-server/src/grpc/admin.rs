//! `log.v1.Admin`: topics and nodes.

use dislog_cluster::Partition;
use dislog_proto::v1;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::admin_server::Admin;
use dislog_types::TopicName;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::forward::Hops;
use crate::identity::Caller;
use crate::node::{Node, Place};
use crate::status::Failure;
use crate::topics::{self, changed_by, described, sent_on};

pub(super) struct AdminService {
    pub(super) node: Node,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let (hops, request) = taken(request);
        let topic = topics::create(&self.node, request, hops).await?;
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(topic) }))
    }

    async fn list_topics(
        &self,
        _: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let topics = self.node.cluster.topics();
        let topics = topics.iter().map(|topic| described(&self.node, topic)).collect();
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let name: TopicName = request.into_inner().topic.parse().map_err(Failure::from)?;
        let topic = self.node.topic(&name).await?;
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(described(&self.node, &topic)) }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let (hops, request) = taken(request);
        let topic = topics::alter(&self.node, request, hops).await?;
        Ok(Response::new(v1::AlterTopicResponse { topic: Some(topic) }))
    }

    async fn trim_topic(
        &self,
        request: Request<v1::TrimTopicRequest>,
    ) -> Result<Response<v1::TrimTopicResponse>, Status> {
        let (hops, request) = taken(request);
        let start_offset = topics::trim(&self.node, request, hops).await?;
        Ok(Response::new(v1::TrimTopicResponse { start_offset }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let (hops, request) = taken(request);
        topics::delete(&self.node, request, hops).await?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }

    async fn describe_cluster(
        &self,
        _: Request<v1::DescribeClusterRequest>,
    ) -> Result<Response<v1::DescribeClusterResponse>, Status> {
        let cluster = &self.node.cluster;
        let nodes = cluster.nodes().into_iter().map(|node| v1::Node {
            id: node.node_id.to_string(),
            name: node.name,
            address: node.address,
            rack: node.rack,
            alive: node.alive,
            draining: node.draining,
            votes: node.votes,
            leads: node.leads,
        });
        Ok(Response::new(v1::DescribeClusterResponse {
            cluster_id: cluster.cluster_id().map(|id| format!("{id:016x}")).unwrap_or_default(),
            nodes: nodes.collect(),
            node_id: self.node.id(),
        }))
    }

    async fn describe_replicas(
        &self,
        _: Request<v1::DescribeReplicasRequest>,
    ) -> Result<Response<v1::DescribeReplicasResponse>, Status> {
        let partitions = self.node.cluster.local_partitions();
        let replicas = partitions.iter().map(|partition| self.replica(partition)).collect();
        Ok(Response::new(v1::DescribeReplicasResponse { replicas }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let (hops, request) = taken(request);
        let node_id = node_id(&request.node_id)?;
        if let Some(peer) = changed_by(&self.node, hops)? {
            let call =
                async |mut admin: AdminClient<Channel>| admin.drain_node(hops.next(request)).await;
            return Ok(Response::new(sent_on(&self.node, &peer, call).await?));
        }
        let drained = self.node.cluster.drain_node(node_id, request.drain).await;
        drained.map_err(Failure::from)?;
        Ok(Response::new(v1::DrainNodeResponse {}))
    }

    async fn remove_node(
        &self,
        request: Request<v1::RemoveNodeRequest>,
    ) -> Result<Response<v1::RemoveNodeResponse>, Status> {
        let (hops, request) = taken(request);
        let node_id = node_id(&request.node_id)?;
        if let Some(peer) = changed_by(&self.node, hops)? {
            let call =
                async |mut admin: AdminClient<Channel>| admin.remove_node(hops.next(request)).await;
            return Ok(Response::new(sent_on(&self.node, &peer, call).await?));
        }
        self.node.cluster.remove_node(node_id).await.map_err(Failure::from)?;
        Ok(Response::new(v1::RemoveNodeResponse {}))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let (hops, request) = taken(request);
        let node_id = node_id(&request.node_id)?;
        let name: TopicName = request.topic.parse().map_err(Failure::from)?;
        self.node.topic(&name).await?;
        match self.node.place(&request.topic, request.partition, hops).await? {
            Place::Here(partition) => {
                let handed = self.node.cluster.transfer_leader(&partition, node_id).await;
                handed.map_err(Failure::from)?;
                Ok(Response::new(v1::TransferLeaderResponse {}))
            }
            Place::There(_, peer) => {
                let call = async |mut admin: AdminClient<Channel>| {
                    admin.transfer_leader(hops.next(request)).await
                };
                Ok(Response::new(sent_on(&self.node, &peer, call).await?))
            }
        }
    }
}

impl AdminService {
    fn replica(&self, partition: &Partition) -> v1::Replica {
        let (id, progress, status) = (partition.id(), partition.progress(), partition.status());
        let members = self.node.cluster.members_of(id);
        let text = |ids: Vec<u64>| ids.into_iter().map(|id| id.to_string()).collect();
        v1::Replica {
            topic: id.topic.to_string(),
            partition: id.partition,
            start_offset: progress.start_offset,
            committed_offset: progress.committed_offset,
            end_offset: status.end_offset,
            term: status.term,
            leader: self.node.cluster.leader_of(id).map(|id| id.to_string()).unwrap_or_default(),
            voters: text(members.voters),
            learners: text(members.learners),
            changing: members.changing,
            last_timestamp_ms: status.last_timestamp_ms,
            fault: status.fault.unwrap_or_default(),
        }
    }
}

fn taken<T>(request: Request<T>) -> (Hops, T) {
    let Caller { subject, from } = Caller::of(request.extensions());
    tracing::debug!(%subject, %from, "asked for a change");
    (Hops::of_metadata(request.metadata()), request.into_inner())
}

fn node_id(text: &str) -> Result<u64, Failure> {
    let invalid = || Failure::invalid(format!("node_id is {text:?}: give a node's id, a number"));
    text.parse().ok().filter(|id| *id != 0).ok_or_else(invalid)
}
