//! `ProduceStream`.

use std::time::Duration;

use dislog_proto::v1::log_client::LogClient;
use dislog_proto::{reason, v1};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Streaming};

use crate::node::{Node, assert_fails, consume_from, produce_to, soon, start};

/// A request that is not taken for this long is held back.
const STALL: Duration = Duration::from_secs(1);

type Requests = mpsc::Sender<v1::ProduceRequest>;

async fn open(node: &Node) -> (Requests, Streaming<v1::ProduceResponse>) {
    let (requests, received) = mpsc::channel(1);
    let mut log = node.log().await;
    let answers = soon(log.produce_stream(ReceiverStream::new(received))).await.unwrap();
    (requests, answers.into_inner())
}

#[tokio::test]
async fn requests_are_pipelined_and_answered_in_order() {
    let node = start().await;
    let (requests, mut answers) = open(&node).await;
    let sending = tokio::spawn(async move {
        for number in 0..1_000 {
            requests.send(produce_to("t", &[&number.to_string(), "x"])).await.unwrap();
        }
    });
    for number in 0..1_000 {
        let answer = soon(answers.message()).await.unwrap().unwrap();
        assert_eq!((answer.offset, answer.count), (2 * number, 2));
    }
    soon(sending).await.unwrap();
    assert_eq!(soon(answers.message()).await.unwrap(), None, "a clean half-close ends it OK");
}

#[tokio::test]
async fn an_answer_comes_without_a_further_request() {
    let node = start().await;
    let (requests, mut answers) = open(&node).await;
    for offset in 0..3 {
        requests.send(produce_to("t", &["x"])).await.unwrap();
        assert_eq!(soon(answers.message()).await.unwrap().unwrap().offset, offset);
    }
}

#[tokio::test]
async fn the_first_failure_ends_the_stream_after_the_answers_before_it() {
    let node = start().await;
    let (requests, mut answers) = open(&node).await;
    requests.send(produce_to("t", &["a"])).await.unwrap();
    requests.send(produce_to("t", &[])).await.unwrap();
    let later = requests.send(produce_to("t", &["never"])).await;
    drop(later);
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().offset, 0);
    assert_fails(soon(answers.message()).await, Code::InvalidArgument, reason::INVALID_REQUEST);
    let end = soon(node.log().await.consume(consume_from("t", 1))).await;
    assert_fails(end, Code::OutOfRange, reason::OFFSET_OUT_OF_RANGE);
}

#[tokio::test]
async fn a_gap_is_refused_and_nothing_behind_it_is_appended() {
    let node = start().await;
    let (requests, mut answers) = open(&node).await;
    let stamped = |sequence| v1::ProduceRequest {
        idempotence: Some(v1::Idempotence { producer_id: 9, producer_epoch: 0, sequence }),
        ..produce_to("t", &["x"])
    };
    let sending = tokio::spawn(async move {
        for sequence in [0, 1, 3, 4, 5] {
            // Sending fails once the stream has ended.
            let _ended = requests.send(stamped(sequence)).await;
        }
    });
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().offset, 0);
    assert_eq!(soon(answers.message()).await.unwrap().unwrap().offset, 1);
    assert_fails(soon(answers.message()).await, Code::FailedPrecondition, reason::SEQUENCE_GAP);
    soon(sending).await.unwrap();
    let end = soon(node.log().await.consume(consume_from("t", 2))).await;
    assert_fails(end, Code::OutOfRange, reason::OFFSET_OUT_OF_RANGE);
}

#[tokio::test]
async fn a_client_that_reads_no_answers_is_held_back_and_loses_nothing() {
    const REQUESTS: u64 = 5_000;
    let node = start().await;
    // Room for a few dozen answers, so that the server notices that nobody reads them.
    let endpoint = Endpoint::from_shared(format!("http://{}", node.addr())).unwrap();
    let channel = soon(endpoint.initial_stream_window_size(1_024).connect()).await.unwrap();
    let (requests, received) = mpsc::channel(1);
    let requests_stream = ReceiverStream::new(received);
    let answers = soon(LogClient::new(channel).produce_stream(requests_stream)).await.unwrap();
    let mut answers = answers.into_inner();
    let mut sent = 0;
    // Larger in all than what the windows between client and server take.
    let value = "x".repeat(2_000);
    while let Ok(accepted) = timeout(STALL, requests.send(produce_to("t", &[&value]))).await {
        accepted.unwrap();
        sent += 1;
        assert!(sent < REQUESTS, "the server takes requests without end");
    }
    drop(requests);
    for number in 0..sent {
        assert_eq!(soon(answers.message()).await.unwrap().unwrap().offset, number);
    }
    assert_eq!(soon(answers.message()).await.unwrap(), None);
}
