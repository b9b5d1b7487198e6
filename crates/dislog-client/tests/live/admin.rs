//! The calls that manage topics.

use dislog_client::{Error, Record, TopicSettings};

use crate::node::Node;

#[tokio::test]
async fn topics_are_created_listed_altered_and_deleted() {
    let node = Node::start().await;
    let client = node.client();
    let settings = TopicSettings { retention_ms: Some(60_000), ..TopicSettings::default() };
    let created = client.create_topic("a", 2, settings).await.unwrap();
    assert_eq!(created.name, "a");
    assert_eq!(created.settings.retention_ms, Some(60_000));
    assert!(matches!(client.create_topic("a", 1, settings).await, Err(Error::TopicExists(_))));

    client.create_topic("b", 0, TopicSettings::default()).await.unwrap();
    let names: Vec<String> =
        client.list_topics().await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["a", "b"]);

    let change = TopicSettings { retention_bytes: Some(1 << 40), ..TopicSettings::default() };
    let altered = client.alter_topic("a", change).await.unwrap();
    assert_eq!(altered.settings.retention_ms, Some(60_000), "what is not given stays");
    assert_eq!(altered.settings.retention_bytes, Some(1 << 40));

    client.produce("a", 1, vec![Record::new("x")], None).await.unwrap();
    let described = client.describe_topic("a").await.unwrap();
    let committed: Vec<u64> = described.partitions.iter().map(|p| p.committed_offset).collect();
    assert_eq!(committed, [0, 1]);

    client.delete_topic("a").await.unwrap();
    assert!(matches!(client.describe_topic("a").await, Err(Error::TopicNotFound(_))));
    assert!(matches!(client.delete_topic("a").await, Err(Error::TopicNotFound(_))));
}

#[tokio::test]
async fn the_server_tells_its_address() {
    let node = Node::start().await;
    let client = node.client();
    client.create_topic("t", 1, TopicSettings::default()).await.unwrap();
    let servers = client.servers("t", 0).await.unwrap();
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0].address, node.addr().to_string());
    assert!(servers[0].is_leader);
}

#[tokio::test]
async fn names_are_checked_before_anything_is_sent() {
    let node = Node::start().await;
    assert!(matches!(node.client().describe_topic("a/b").await, Err(Error::TopicName(_))));
    assert!(matches!(node.client().producer("", Default::default()), Err(Error::TopicName(_))));
}
