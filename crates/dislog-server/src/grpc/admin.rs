//! `log.v1.Admin`: topics, nodes, tokens and rules.

use dislog_cluster::Partition;
use dislog_proto::v1;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::admin_server::Admin;
use dislog_types::TopicName;
use tonic::transport::Channel;
use tonic::{Request, Response, Status};

use crate::access::{Action, Asking};
use crate::forward::Hops;
use crate::identity::Caller;
use crate::node::{Node, Place};
use crate::status::Failure;
use crate::tokens;
use crate::topics::{self, changed_by, sent_on};

pub(super) struct AdminService {
    pub(super) node: Node,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let (hops, request) = admin(request, |r| &r.topic)?;
        let topic = topics::create(&self.node, request, hops).await?;
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(topic) }))
    }

    async fn list_topics(
        &self,
        request: Request<v1::ListTopicsRequest>,
    ) -> Result<Response<v1::ListTopicsResponse>, Status> {
        let topics = topics::seen_whole(&self.node, &Asking::of(request.extensions())).await;
        Ok(Response::new(v1::ListTopicsResponse { topics }))
    }

    async fn describe_topic(
        &self,
        request: Request<v1::DescribeTopicRequest>,
    ) -> Result<Response<v1::DescribeTopicResponse>, Status> {
        let (asking, request) = taken(request);
        let name: TopicName = request.topic.parse().map_err(Failure::from)?;
        asking.may_see(&request.topic)?;
        let topic = self.node.topic(&name).await?;
        let topic = topics::described_whole(&self.node, &asking.hops, &topic).await;
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(topic) }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let (hops, request) = admin(request, |r| &r.topic)?;
        let topic = topics::alter(&self.node, request, hops).await?;
        Ok(Response::new(v1::AlterTopicResponse { topic: Some(topic) }))
    }

    async fn trim_topic(
        &self,
        request: Request<v1::TrimTopicRequest>,
    ) -> Result<Response<v1::TrimTopicResponse>, Status> {
        let (hops, request) = admin(request, |r| &r.topic)?;
        let start_offset = topics::trim(&self.node, request, hops).await?;
        Ok(Response::new(v1::TrimTopicResponse { start_offset }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let (hops, request) = admin(request, |r| &r.topic)?;
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
        request: Request<v1::DescribeReplicasRequest>,
    ) -> Result<Response<v1::DescribeReplicasResponse>, Status> {
        let asking = Asking::of(request.extensions());
        let partitions = self.node.cluster.local_partitions();
        let is_seen = |partition: &&Partition| asking.sees_partition(partition.id());
        let (seen, hidden): (Vec<_>, Vec<_>) = partitions.iter().partition(is_seen);
        let replicas = seen.into_iter().map(|partition| self.replica(partition)).collect();
        let hidden = u32::try_from(hidden.len()).unwrap_or(u32::MAX);
        Ok(Response::new(v1::DescribeReplicasResponse { replicas, hidden }))
    }

    async fn drain_node(
        &self,
        request: Request<v1::DrainNodeRequest>,
    ) -> Result<Response<v1::DrainNodeResponse>, Status> {
        let (Asking { hops, .. }, request) = taken(request);
        let node_id = node_id(&request.node_id)?;
        if let Some(peer) = changed_by(&self.node, &hops)? {
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
        let (Asking { hops, .. }, request) = taken(request);
        let node_id = node_id(&request.node_id)?;
        if let Some(peer) = changed_by(&self.node, &hops)? {
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
        let (Asking { hops, .. }, request) = taken(request);
        let node_id = node_id(&request.node_id)?;
        let name: TopicName = request.topic.parse().map_err(Failure::from)?;
        self.node.topic(&name).await?;
        match self.node.place(&request.topic, request.partition, &hops).await? {
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

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Result<Response<v1::CreateTokenResponse>, Status> {
        let (asking, request) = taken(request);
        Ok(Response::new(tokens::create(&self.node, &asking, request).await?))
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        Ok(Response::new(tokens::list(&self.node).await?))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let (asking, request) = taken(request);
        Ok(Response::new(tokens::revoke(&self.node, &asking, request).await?))
    }

    async fn check_access(
        &self,
        request: Request<v1::CheckAccessRequest>,
    ) -> Result<Response<v1::CheckAccessResponse>, Status> {
        let (asking, request) = taken(request);
        Ok(Response::new(tokens::check(&self.node, &asking, request)?))
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

fn taken<T>(request: Request<T>) -> (Asking, T) {
    let asking = Asking::of(request.extensions());
    let Caller { subject, from, .. } = &asking.caller;
    tracing::debug!(%subject, %from, "asked for a change");
    (asking, request.into_inner())
}

/// A request by somebody who may change its topic.
fn admin<T>(request: Request<T>, topic: impl Fn(&T) -> &str) -> Result<(Hops, T), Failure> {
    let (asking, request) = taken(request);
    // There is no default for what is changed.
    topic(&request).parse::<TopicName>()?;
    asking.may(Action::Admin, topic(&request))?;
    Ok((asking.hops, request))
}

fn node_id(text: &str) -> Result<u64, Failure> {
    let invalid = || Failure::invalid(format!("node_id is {text:?}: give a node's id, a number"));
    text.parse().ok().filter(|id| *id != 0).ok_or_else(invalid)
}
