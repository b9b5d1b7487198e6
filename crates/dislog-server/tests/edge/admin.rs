//! `log.v1.Admin` and `GetServers`.

use dislog_proto::{reason, v1};
use tonic::Code;

use crate::node::{assert_fails, produce_to, soon, start, start_in, start_with};
use crate::ports::free_addresses;

fn create(topic: &str, partitions: u32) -> v1::CreateTopicRequest {
    v1::CreateTopicRequest { topic: topic.to_owned(), partitions, settings: None }
}

#[tokio::test]
async fn topics_live_from_creation_to_deletion() {
    let node = start().await;
    let mut admin = node.admin().await;
    let created = soon(admin.create_topic(create("orders", 3))).await.unwrap().into_inner();
    let topic = created.topic.unwrap();
    assert_eq!((topic.name.as_str(), topic.partitions.len()), ("orders", 3));
    assert_eq!(topic.settings.unwrap().segment_bytes, Some(128 << 20));
    assert!(topic.created_ms > 1_600_000_000_000);
    let again = soon(admin.create_topic(create("orders", 1))).await;
    assert_fails(again, Code::AlreadyExists, reason::TOPIC_EXISTS);

    let request = v1::ProduceRequest { partition: 2, ..produce_to("orders", &["x"]) };
    soon(node.log().await.produce(request)).await.unwrap();
    let describe = v1::DescribeTopicRequest { topic: "orders".into() };
    let described = soon(admin.describe_topic(describe.clone())).await.unwrap().into_inner();
    let partitions = described.topic.unwrap().partitions;
    let ends: Vec<u64> = partitions.iter().map(|partition| partition.committed_offset).collect();
    assert_eq!(ends, [0, 0, 1]);
    assert!(partitions[2].size_bytes > 0 && partitions[2].segments == 1);
    assert!(partitions[2].fault.is_empty());

    let listed = soon(admin.list_topics(v1::ListTopicsRequest {})).await.unwrap().into_inner();
    let names: Vec<String> = listed.topics.into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["orders"], "the system's own topics are left out");

    let delete = v1::DeleteTopicRequest { topic: "orders".into() };
    soon(admin.delete_topic(delete.clone())).await.unwrap();
    assert_fails(soon(admin.delete_topic(delete)).await, Code::NotFound, reason::TOPIC_NOT_FOUND);
    assert_fails(
        soon(admin.describe_topic(describe)).await,
        Code::NotFound,
        reason::TOPIC_NOT_FOUND,
    );
}

#[tokio::test]
async fn only_the_settings_that_are_given_change() {
    let node = start().await;
    let mut admin = node.admin().await;
    soon(admin.create_topic(create("t", 0))).await.unwrap();
    let settings = v1::TopicSettings { retention_ms: Some(60_000), ..v1::TopicSettings::default() };
    let alter = v1::AlterTopicRequest { topic: "t".into(), settings: Some(settings) };
    soon(admin.alter_topic(alter)).await.unwrap();

    soon(node.server.shutdown()).await;
    let node = start_in(node.dir, |_| {}).await;
    let describe = v1::DescribeTopicRequest { topic: "t".into() };
    let described = soon(node.admin().await.describe_topic(describe)).await.unwrap().into_inner();
    let expected = v1::TopicSettings {
        replicas: Some(3),
        retention_bytes: Some(0),
        retention_ms: Some(60_000),
        segment_bytes: Some(128 << 20),
    };
    assert_eq!(described.topic.unwrap().settings, Some(expected));
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let node = start().await;
    let mut admin = node.admin().await;
    for topic in ["", "..", "__meta", "a/b", "ä", &"n".repeat(201)] {
        let refused = soon(admin.create_topic(create(topic, 1))).await;
        assert_fails(refused, Code::InvalidArgument, reason::INVALID_REQUEST);
    }
    for partitions in [1_025, u32::MAX] {
        let refused = soon(admin.create_topic(create("t", partitions))).await;
        assert_fails(refused, Code::InvalidArgument, reason::INVALID_REQUEST);
    }
    let settings =
        Some(v1::TopicSettings { segment_bytes: Some(1), ..v1::TopicSettings::default() });
    let refused =
        soon(admin.create_topic(v1::CreateTopicRequest { settings, ..create("t", 1) })).await;
    assert_fails(refused, Code::InvalidArgument, reason::INVALID_REQUEST);
    let missing = v1::AlterTopicRequest { topic: "t".into(), settings: None };
    assert_fails(soon(admin.alter_topic(missing)).await, Code::NotFound, reason::TOPIC_NOT_FOUND);
    let missing = v1::TrimTopicRequest { topic: "t".into(), ..v1::TrimTopicRequest::default() };
    assert_fails(soon(admin.trim_topic(missing)).await, Code::NotFound, reason::TOPIC_NOT_FOUND);
}

#[tokio::test]
async fn the_servers_are_this_one() {
    let [listen] = free_addresses(1).try_into().unwrap();
    let node = start_with(|config| config.listen = listen).await;
    let mut log = node.log().await;
    // A cluster that was just founded has no node before the first has registered itself.
    let registered = async {
        loop {
            let servers = log.get_servers(v1::GetServersRequest::default()).await.unwrap();
            let servers = servers.into_inner().servers;
            if !servers.is_empty() {
                return servers;
            }
            tokio::task::yield_now().await;
        }
    };
    let servers = soon(registered).await;
    assert_eq!(servers.len(), 1);
    assert_eq!(servers[0].rpc_addr, node.addr().to_string());
    assert!(servers[0].is_leader && servers[0].id.parse::<u64>().is_ok());
    let invalid = v1::GetServersRequest { topic: "a b".into(), partition: 0 };
    assert_fails(
        soon(log.get_servers(invalid)).await,
        Code::InvalidArgument,
        reason::INVALID_REQUEST,
    );

    // It must be an address by which the node reaches itself.
    let addr = node.addr();
    soon(node.server.shutdown()).await;
    let advertise = format!("localhost:{}", addr.port());
    let node = start_in(node.dir, |config| {
        config.listen = addr.to_string();
        config.advertise.clone_from(&advertise);
    })
    .await;
    let again = soon(node.log().await.get_servers(v1::GetServersRequest::default())).await.unwrap();
    let again = again.into_inner().servers;
    assert_eq!((&again[0].id, again[0].rpc_addr.as_str()), (&servers[0].id, advertise.as_str()));
}
