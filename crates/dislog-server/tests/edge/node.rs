//! A node to test, and its gRPC clients.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use dislog_proto::reason;
use dislog_proto::v1;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use dislog_server::{Config, Insecure, Server};
use tempfile::TempDir;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// What should happen soon has happened by then, or never will.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct Node {
    pub(crate) server: Server,
    pub(crate) dir: TempDir,
}

pub(crate) async fn start() -> Node {
    start_with(|_| {}).await
}

pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Node {
    start_in(tempfile::tempdir().unwrap(), change).await
}

pub(crate) async fn start_in(dir: TempDir, change: impl FnOnce(&mut Config)) -> Node {
    let mut config = Config {
        data_dir: dir.path().join("data"),
        listen: "127.0.0.1:0".to_owned(),
        insecure: Insecure::Loopback,
        ..Config::default()
    };
    change(&mut config);
    let server = soon(Server::start(config)).await.unwrap();
    Node { server, dir }
}

impl Node {
    pub(crate) fn addr(&self) -> SocketAddr {
        self.server.addr()
    }

    pub(crate) async fn channel(&self) -> Channel {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.addr())).unwrap();
        soon(endpoint.connect()).await.unwrap()
    }

    pub(crate) async fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel().await)
            .max_decoding_message_size(64 << 20)
            .max_encoding_message_size(64 << 20)
    }

    pub(crate) async fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel().await)
    }
}

/// The outcome of what must not hang.
pub(crate) async fn soon<F: Future>(future: F) -> F::Output {
    tokio::time::timeout(PATIENCE, future).await.expect("it hangs")
}

/// Adds records, again if nobody knows whether they were: a disk may take longer than the node
/// waits. Returns the offset of the first.
pub(crate) async fn produce_surely(node: &Node, request: &v1::ProduceRequest) -> u64 {
    let produced = async {
        loop {
            match node.log().await.produce(request.clone()).await {
                Ok(produced) => return produced.into_inner().offset,
                unknown => assert_fails(unknown, Code::DeadlineExceeded, reason::UNKNOWN_OUTCOME),
            };
        }
    };
    soon(produced).await
}

/// Waits for a record of a topic that there need not be yet.
pub(crate) async fn arrival(node: &Node, topic: &str, offset: u64) {
    let mut log = node.log().await;
    let arrived = async {
        loop {
            // There may be no topic yet, nobody who leads it, or no answer in time.
            if let Ok(stream) = log.consume_stream(consume_from(topic, offset)).await {
                return stream.into_inner().message().await.unwrap();
            }
        }
    };
    assert!(soon(arrived).await.is_some(), "the stream ended");
}

pub(crate) fn record(value: impl Into<Bytes>) -> v1::Record {
    v1::Record { value: value.into(), ..v1::Record::default() }
}

pub(crate) fn produce_to(topic: &str, values: &[&str]) -> v1::ProduceRequest {
    let records = values.iter().map(|value| record(value.to_string())).collect();
    v1::ProduceRequest { records, topic: topic.to_owned(), ..v1::ProduceRequest::default() }
}

pub(crate) fn consume_from(topic: &str, offset: u64) -> v1::ConsumeRequest {
    v1::ConsumeRequest { offset, topic: topic.to_owned(), ..v1::ConsumeRequest::default() }
}

pub(crate) fn values(records: &[v1::Record]) -> Vec<&str> {
    records.iter().map(|record| std::str::from_utf8(&record.value).unwrap()).collect()
}

/// Checks code and reason, which are the contract, and gives the metadata.
#[track_caller]
pub(crate) fn assert_fails<T: std::fmt::Debug>(
    outcome: Result<T, Status>,
    code: Code,
    expected_reason: &str,
) -> std::collections::HashMap<String, String> {
    let status = outcome.unwrap_err();
    assert_eq!(status.code(), code, "{status:?}");
    let details = status.get_error_details();
    let info = details.error_info().expect("every error has an ErrorInfo");
    assert_eq!((info.reason.as_str(), info.domain.as_str()), (expected_reason, reason::DOMAIN));
    assert!(info.metadata.contains_key(reason::RETRY));
    assert!(!status.message().is_empty());
    info.metadata.clone()
}
