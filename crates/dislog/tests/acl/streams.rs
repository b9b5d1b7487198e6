//! Streams of appends that one node sends on to another.

use dislog_client::Files;
use dislog_proto::v1;
use dislog_proto::v1::log_client::LogClient;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Code, Request, Status};

use crate::cluster::{Cluster, ok, until};
use crate::denied::channel;
use crate::node::HANG;

/// Each topic may be led by another node than the one that is asked, which believes that one.
#[test]
fn every_topic_of_a_stream_is_decided_and_recorded_where_the_client_is() {
    let cluster = Cluster::start();
    ok(&mut cluster.root(0, &["topic", "create", "orders.a", "orders.b", "secret"]));
    let token = ok(&mut cluster.root(1, &["token", "create", "app", "--expires", "1h"]));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for at in 0..3 {
        let refused = runtime.block_on(produced(&cluster, at, token.trim()));
        assert_eq!(refused.code(), Code::PermissionDenied, "node {at}: {refused}");
        for (topic, allowed) in [("orders.a", true), ("orders.b", true), ("secret", false)] {
            until(&format!("node {at} has recorded {topic}"), || {
                let is_it = |line: &str| {
                    line.contains("ProduceStream")
                        && line.contains("\"subject\":\"app\"")
                        && line.contains(&format!("\"object\":\"{topic}\""))
                        && line.contains(&format!("\"allowed\":{allowed}"))
                };
                cluster.audit(at).lines().any(is_it)
            });
        }
    }
    let got = |topic| ok(&mut cluster.root(0, &["get", topic]));
    assert_eq!((got("orders.a"), got("orders.b")), ("it\n".repeat(3), "it\n".repeat(3)));
    assert_eq!(got("secret"), "");
}

/// Adds a record to two topics over one stream, and is refused with the third.
async fn produced(cluster: &Cluster, at: usize, token: &str) -> Status {
    let authorities = Files::new(cluster.path("certs/ca.crt"), None, None);
    let mut log = LogClient::new(channel(&cluster.nodes[at].address, authorities));
    let (requests, receiver) = mpsc::channel(1);
    let requested = futures_util::stream::unfold(receiver, |mut receiver| async {
        Some((receiver.recv().await?, receiver))
    });
    let mut request = Request::new(requested);
    let bearer = format!("Bearer {token}").parse().unwrap();
    request.metadata_mut().insert("authorization", bearer);
    let of = |topic: &str| v1::ProduceRequest {
        topic: topic.to_owned(),
        records: vec![v1::Record { value: "it".into(), ..v1::Record::default() }],
        ..v1::ProduceRequest::default()
    };
    requests.send(of("orders.a")).await.unwrap();
    let answers = timeout(HANG, log.produce_stream(request)).await.expect("it answers");
    let mut answers = answers.unwrap().into_inner();
    for next in ["orders.b", "secret"] {
        let answer = timeout(HANG, answers.message()).await.expect("it answers").unwrap();
        assert_eq!(answer.map(|answer| answer.count), Some(1), "before {next}");
        requests.send(of(next)).await.unwrap();
    }
    timeout(HANG, answers.message()).await.expect("it answers").expect_err("it is not allowed")
}
