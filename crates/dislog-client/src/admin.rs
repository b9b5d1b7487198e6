//! The calls that manage topics and ask about servers.

use dislog_proto::v1;
use dislog_types::PartitionId;

use crate::client::whole_topic;
use crate::retry::Repeat;
use crate::{Client, Error};

/// Settings of a topic. As an argument: what is `None` is left as it is, or to the server's
/// default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TopicSettings {
    /// Keep about this many bytes per partition; 0 keeps everything.
    pub retention_bytes: Option<u64>,
    /// Keep records about this long, milliseconds; 0 keeps them for ever.
    pub retention_ms: Option<u64>,
    /// Seal a segment when it would grow past this.
    pub segment_bytes: Option<u64>,
    /// So many replicas of each partition, or as many as there are nodes.
    pub replicas: Option<u32>,
}

/// A topic as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: String,
    /// Its partitions, by number.
    pub partitions: Vec<PartitionInfo>,
    /// Its settings, complete.
    pub settings: TopicSettings,
    /// When it was created, Unix milliseconds.
    pub created_ms: i64,
}

/// A partition of a topic as the server has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PartitionInfo {
    /// Its number, from 0.
    pub partition: u32,
    /// The first offset still in the log.
    pub start_offset: u64,
    /// One past the last committed record.
    pub committed_offset: u64,
    /// Bytes on disk on the server that answers.
    pub size_bytes: u64,
    /// Segments on disk on the server that answers.
    pub segments: u32,
    /// The id of the leading server, if there is one.
    pub leader: Option<String>,
    /// The ids of the servers that should have a replica.
    pub replicas: Vec<String>,
    /// Why it cannot be written, if so.
    pub fault: Option<String>,
}

/// A server of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerInfo {
    /// Its id.
    pub id: String,
    /// Its name, for people.
    pub name: String,
    /// The address clients dial, `host:port`.
    pub address: String,
    /// It leads the partition asked about.
    pub is_leader: bool,
}

impl Client {
    /// Creates a topic; `partitions` 0 means 1.
    ///
    /// # Errors
    /// [`Error::TopicExists`] if there is one of that name, also when an earlier attempt of this
    /// call created it.
    pub async fn create_topic(
        &self,
        topic: &str,
        partitions: u32,
        settings: TopicSettings,
    ) -> Result<Topic, Error> {
        let id = whole_topic(Some(topic.parse()?));
        let request = v1::CreateTopicRequest {
            topic: topic.to_owned(),
            partitions,
            settings: Some(settings.into()),
        };
        let answer = self
            .call(&id, None, "creating the topic", Repeat::Harmless, |connection| {
                let request = request.clone();
                async move { connection.admin().create_topic(request).await }
            })
            .await?;
        topic_from(answer.topic)
    }

    /// All topics, by name.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no server answers.
    pub async fn list_topics(&self) -> Result<Vec<Topic>, Error> {
        let answer = self
            .call(
                &whole_topic(None),
                None,
                "listing topics",
                Repeat::Harmless,
                |connection| async move {
                    connection.admin().list_topics(v1::ListTopicsRequest {}).await
                },
            )
            .await?;
        Ok(answer.topics.into_iter().map(Topic::from).collect())
    }

    /// One topic.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`].
    pub async fn describe_topic(&self, topic: &str) -> Result<Topic, Error> {
        let id = whole_topic(Some(topic.parse()?));
        let request = v1::DescribeTopicRequest { topic: topic.to_owned() };
        let answer = self
            .call(&id, None, "describing the topic", Repeat::Harmless, |connection| {
                let request = request.clone();
                async move { connection.admin().describe_topic(request).await }
            })
            .await?;
        topic_from(answer.topic)
    }

    /// Changes the settings that are given and leaves the others.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], or [`Error::Refused`] if a setting cannot be used.
    pub async fn alter_topic(&self, topic: &str, settings: TopicSettings) -> Result<Topic, Error> {
        let id = whole_topic(Some(topic.parse()?));
        let request =
            v1::AlterTopicRequest { topic: topic.to_owned(), settings: Some(settings.into()) };
        let answer = self
            .call(&id, None, "altering the topic", Repeat::Harmless, |connection| {
                let request = request.clone();
                async move { connection.admin().alter_topic(request).await }
            })
            .await?;
        topic_from(answer.topic)
    }

    /// Drops the records below `offset` (at most the committed offset). Returns the first offset
    /// that is left.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], or [`Error::OutOfRange`] if the offset is beyond the committed
    /// one.
    pub async fn trim_topic(&self, topic: &str, partition: u32, offset: u64) -> Result<u64, Error> {
        let id = PartitionId { topic: topic.parse()?, partition };
        let request = v1::TrimTopicRequest { topic: topic.to_owned(), partition, offset };
        let answer = self
            .call(&id, Some(offset), "trimming the topic", Repeat::Harmless, |connection| {
                let request = request.clone();
                async move { connection.admin().trim_topic(request).await }
            })
            .await?;
        Ok(answer.start_offset)
    }

    /// Deletes a topic and all its records.
    ///
    /// # Errors
    /// [`Error::TopicNotFound`], also when an earlier attempt of this call deleted it.
    pub async fn delete_topic(&self, topic: &str) -> Result<(), Error> {
        let id = whole_topic(Some(topic.parse()?));
        let request = v1::DeleteTopicRequest { topic: topic.to_owned() };
        self.call(&id, None, "deleting the topic", Repeat::Harmless, |connection| {
            let request = request.clone();
            async move { connection.admin().delete_topic(request).await }
        })
        .await?;
        Ok(())
    }

    /// The servers of the cluster, and which of them leads the partition.
    ///
    /// # Errors
    /// [`Error::Timeout`] if no server answers.
    pub async fn servers(&self, topic: &str, partition: u32) -> Result<Vec<ServerInfo>, Error> {
        let id = PartitionId { topic: topic.parse()?, partition };
        let request = v1::GetServersRequest { topic: topic.to_owned(), partition };
        let answer = self
            .call(&id, None, "asking for the servers", Repeat::Harmless, |connection| {
                let request = request.clone();
                async move { connection.log().get_servers(request).await }
            })
            .await?;
        Ok(answer.servers.into_iter().map(ServerInfo::from).collect())
    }
}

fn topic_from(topic: Option<v1::Topic>) -> Result<Topic, Error> {
    topic.map(Topic::from).ok_or_else(|| Error::Refused {
        reason: "INCOMPLETE_ANSWER".to_owned(),
        message: "the server's answer has no topic in it".to_owned(),
    })
}

impl From<TopicSettings> for v1::TopicSettings {
    fn from(settings: TopicSettings) -> v1::TopicSettings {
        v1::TopicSettings {
            retention_bytes: settings.retention_bytes,
            retention_ms: settings.retention_ms,
            segment_bytes: settings.segment_bytes,
            replicas: settings.replicas,
        }
    }
}

impl From<v1::TopicSettings> for TopicSettings {
    fn from(settings: v1::TopicSettings) -> TopicSettings {
        TopicSettings {
            retention_bytes: settings.retention_bytes,
            retention_ms: settings.retention_ms,
            segment_bytes: settings.segment_bytes,
            replicas: settings.replicas,
        }
    }
}

impl From<v1::Topic> for Topic {
    fn from(topic: v1::Topic) -> Topic {
        Topic {
            name: topic.name,
            partitions: topic.partitions.into_iter().map(PartitionInfo::from).collect(),
            settings: topic.settings.unwrap_or_default().into(),
            created_ms: topic.created_ms,
        }
    }
}

impl From<v1::Partition> for PartitionInfo {
    fn from(partition: v1::Partition) -> PartitionInfo {
        PartitionInfo {
            partition: partition.partition,
            start_offset: partition.start_offset,
            committed_offset: partition.committed_offset,
            size_bytes: partition.size_bytes,
            segments: partition.segments,
            leader: Some(partition.leader).filter(|leader| !leader.is_empty()),
            replicas: partition.replicas,
            fault: Some(partition.fault).filter(|fault| !fault.is_empty()),
        }
    }
}

impl From<v1::Server> for ServerInfo {
    fn from(server: v1::Server) -> ServerInfo {
        ServerInfo {
            id: server.id,
            name: server.name,
            address: server.rpc_addr,
            is_leader: server.is_leader,
        }
    }
}
