//! What a producer does about a leader that is silent and not gone: servers of the test's own say
//! who leads, and leave unanswered what they would send on to it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dislog_client::{ClientOptions, ProducerOptions, Record};
use dislog_proto::v1;
use dislog_proto::v1::log_server::Log;
use futures_util::stream::{self, BoxStream, StreamExt};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

use crate::servers::{listed, serve};

/// The leader at first. It never says anything.
const SILENT: usize = 0;

/// How long it may be silent. The next may be so for twice as long.
const PATIENCE: Duration = Duration::from_secs(2);

struct Replica {
    number: usize,
    servers: Arc<Vec<SocketAddr>>,
    leader: watch::Receiver<Option<usize>>,
    /// Who was asked to append last and will not answer.
    asked: watch::Sender<Option<usize>>,
}

impl Replica {
    fn leads(&self) -> bool {
        self.number != SILENT && *self.leader.borrow() == Some(self.number)
    }
}

#[tonic::async_trait]
impl Log for Replica {
    type ConsumeStreamStream = BoxStream<'static, Result<v1::ConsumeResponse, Status>>;
    type ProduceStreamStream = BoxStream<'static, Result<v1::ProduceResponse, Status>>;

    async fn produce(
        &self,
        _request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        Err(Status::unimplemented("this is about streams"))
    }

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        if !self.leads() {
            self.asked.send_replace(Some(self.number));
            return Ok(Response::new(stream::pending().boxed()));
        }
        let answers = request.into_inner().map(|request| {
            request.map(|_| v1::ProduceResponse { offset: 7, ..v1::ProduceResponse::default() })
        });
        Ok(Response::new(answers.boxed()))
    }

    async fn consume(
        &self,
        _request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<v1::ConsumeResponse>, Status> {
        Err(Status::unimplemented("this is about producing"))
    }

    async fn consume_stream(
        &self,
        _request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStreamStream>, Status> {
        Err(Status::unimplemented("this is about producing"))
    }

    async fn get_servers(
        &self,
        _request: Request<v1::GetServersRequest>,
    ) -> Result<Response<v1::GetServersResponse>, Status> {
        if self.number == SILENT {
            return std::future::pending().await;
        }
        Ok(listed(&self.servers, *self.leader.borrow()))
    }
}

/// The leader falls silent, which the others may know; one of them stands in; and then one leads:
/// that one, or a third.
async fn is_found_in_time(is_known: bool, the_one_that_stands_in: bool) {
    let (elect, leader) = watch::channel(Some(SILENT));
    let (asks, mut asked) = watch::channel(None);
    let servers = serve(|number, servers| {
        let (leader, asked) = (leader.clone(), asks.clone());
        Replica { number, servers, leader, asked }
    })
    .await;
    let known = [servers[1].to_string()];
    let client = dislog_client::Client::connect(known, ClientOptions::default()).unwrap();
    let options = ProducerOptions {
        partition: Some(0),
        answer_timeout: PATIENCE,
        ..ProducerOptions::default()
    };
    let producer = client.producer("t", options).unwrap();
    let delivery = producer.send(Record::new("a")).await.unwrap();
    asked.wait_for(|asked| *asked == Some(SILENT)).await.unwrap();
    if is_known {
        elect.send_replace(None);
    }
    let stands_in = |asked: &Option<usize>| asked.is_some_and(|asked| asked != SILENT);
    let stands_in = asked.wait_for(stands_in).await.unwrap().unwrap();
    elect.send_replace(Some(if the_one_that_stands_in { stands_in } else { 3 - stands_in }));
    let delivered = timeout(PATIENCE * 3 / 2, delivery).await.expect("it is sent once more");
    assert_eq!(delivered.unwrap().offset, 7);
}

#[tokio::test]
async fn who_leads_after_a_leader_fell_silent_is_found_while_nothing_is_answered() {
    tokio::join!(
        is_found_in_time(false, false),
        is_found_in_time(false, true),
        is_found_in_time(true, false),
        is_found_in_time(true, true)
    );
}
