//! `log.v1.Admin`: topics.

use dislog_cluster::{Topic, TopicChange};
use dislog_proto::v1;
use dislog_proto::v1::admin_server::Admin;
use dislog_types::{PartitionId, TopicName};
use tonic::{Request, Response, Status};

use crate::node::Node;
use crate::status::Failure;

pub(super) struct AdminService {
    pub(super) node: Node,
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn create_topic(
        &self,
        request: Request<v1::CreateTopicRequest>,
    ) -> Result<Response<v1::CreateTopicResponse>, Status> {
        let request = request.into_inner();
        let name = name(&request.topic)?;
        let change = change(request.settings);
        let partitions = request.partitions.max(1);
        let created = self.node.cluster.create_topic(name, partitions, change).await;
        let topic = created.map_err(Failure::from)?;
        Ok(Response::new(v1::CreateTopicResponse { topic: Some(described(&self.node, &topic)) }))
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
        let name = name(&request.into_inner().topic)?;
        let topic = self.node.cluster.topic(&name).map_err(Failure::from)?;
        Ok(Response::new(v1::DescribeTopicResponse { topic: Some(described(&self.node, &topic)) }))
    }

    async fn alter_topic(
        &self,
        request: Request<v1::AlterTopicRequest>,
    ) -> Result<Response<v1::AlterTopicResponse>, Status> {
        let request = request.into_inner();
        let name = name(&request.topic)?;
        let altered = self.node.cluster.alter_topic(&name, change(request.settings)).await;
        let topic = altered.map_err(Failure::from)?;
        Ok(Response::new(v1::AlterTopicResponse { topic: Some(described(&self.node, &topic)) }))
    }

    async fn trim_topic(
        &self,
        request: Request<v1::TrimTopicRequest>,
    ) -> Result<Response<v1::TrimTopicResponse>, Status> {
        let request = request.into_inner();
        name(&request.topic)?;
        let start_offset =
            self.node.trim(&request.topic, request.partition, request.offset).await?;
        Ok(Response::new(v1::TrimTopicResponse { start_offset }))
    }

    async fn delete_topic(
        &self,
        request: Request<v1::DeleteTopicRequest>,
    ) -> Result<Response<v1::DeleteTopicResponse>, Status> {
        let name = name(&request.into_inner().topic)?;
        self.node.cluster.delete_topic(&name).await.map_err(Failure::from)?;
        Ok(Response::new(v1::DeleteTopicResponse {}))
    }
}

/// Managing a topic takes its name: there is no default for that.
fn name(topic: &str) -> Result<TopicName, Failure> {
    Ok(topic.parse()?)
}

fn change(settings: Option<v1::TopicSettings>) -> TopicChange {
    let v1::TopicSettings { retention_bytes, retention_ms, segment_bytes } =
        settings.unwrap_or_default();
    TopicChange { retention_bytes, retention_ms, segment_bytes }
}

/// A topic with its partitions as they are now.
pub(crate) fn described(node: &Node, topic: &Topic) -> v1::Topic {
    let partitions = (0..topic.partitions).filter_map(|partition| {
        let id = PartitionId { topic: topic.name.clone(), partition };
        // A partition that is gone was deleted since the topic was looked up.
        let partition = node.cluster.partition(&id).ok()?;
        Some(described_partition(&partition))
    });
    v1::Topic {
        name: topic.name.to_string(),
        partitions: partitions.collect(),
        settings: Some(v1::TopicSettings {
            retention_bytes: Some(topic.settings.retention_bytes),
            retention_ms: Some(topic.settings.retention_ms),
            segment_bytes: Some(topic.settings.segment_bytes),
        }),
        created_ms: topic.created_ms,
    }
}

fn described_partition(partition: &dislog_cluster::Partition) -> v1::Partition {
    let (progress, status) = (partition.progress(), partition.status());
    v1::Partition {
        partition: partition.id().partition,
        start_offset: progress.start_offset,
        committed_offset: progress.committed_offset,
        size_bytes: status.size_bytes,
        segments: u32::try_from(status.segments).unwrap_or(u32::MAX),
        leader: status.leader.map(|id| id.to_string()).unwrap_or_default(),
        fault: status.fault.unwrap_or_default(),
    }
}
