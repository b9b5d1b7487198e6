//! What a consumer does about damaged replicas: servers of the test's own say what they have.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use dislog_client::{ConsumerOptions, Error, ReadFrom, Start};
use dislog_proto::v1::log_server::Log;
use dislog_proto::{reason, v1};
use dislog_types::batch::stamp;
use dislog_types::{BatchBuilder, Compression, Record};
use futures_util::stream::{self, BoxStream, StreamExt};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_types::{ErrorDetails, StatusExt};

use crate::node::client;
use crate::servers::{listed, serve};

/// How many records there are.
const RECORDS: u64 = 10;

/// A server with a replica; the first of them leads.
struct Replica {
    servers: Arc<Vec<SocketAddr>>,
    /// Its records from here on are damaged.
    damaged_from: u64,
}

fn damaged(from: u64) -> Status {
    let metadata = [
        (reason::RETRY, "false".to_owned()),
        (reason::DAMAGED_FROM, from.to_string()),
        (reason::DAMAGED_TO, RECORDS.to_string()),
    ];
    let metadata =
        metadata.into_iter().map(|(key, value)| (key.to_owned(), value)).collect::<HashMap<_, _>>();
    let details = ErrorDetails::with_error_info(reason::DAMAGED, reason::DOMAIN, metadata);
    Status::with_error_details(Code::DataLoss, "rotten", details)
}

fn response(offset: u64) -> v1::ConsumeResponse {
    let mut builder = BatchBuilder::with_capacity(100);
    assert!(builder.push(&Record::new(offset.to_string())));
    let mut batch = builder.finish(Compression::None, None);
    stamp(&mut batch, offset, 1);
    let batch = v1::RawBatch { batch: batch.freeze(), timestamp_ms: 1 };
    v1::ConsumeResponse {
        batches: vec![batch],
        next_offset: offset + 1,
        committed_offset: RECORDS,
        ..v1::ConsumeResponse::default()
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
        Err(Status::unimplemented("this is about reading"))
    }

    async fn produce_stream(
        &self,
        _request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<Self::ProduceStreamStream>, Status> {
        Err(Status::unimplemented("this is about reading"))
    }

    /// Where the log begins and ends.
    async fn consume(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<v1::ConsumeResponse>, Status> {
        Ok(Response::new(v1::ConsumeResponse {
            next_offset: request.into_inner().offset,
            committed_offset: RECORDS,
            ..v1::ConsumeResponse::default()
        }))
    }

    async fn consume_stream(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStreamStream>, Status> {
        let (from, damaged_from) = (request.into_inner().offset, self.damaged_from);
        let sound = stream::iter(from..damaged_from.max(from)).map(|offset| Ok(response(offset)));
        let rotten = stream::iter([Err(damaged(damaged_from.max(from)))]);
        Ok(Response::new(sound.chain(rotten).boxed()))
    }

    async fn get_servers(
        &self,
        _request: Request<v1::GetServersRequest>,
    ) -> Result<Response<v1::GetServersResponse>, Status> {
        Ok(listed(&self.servers, Some(0)))
    }
}

/// Three servers with these replicas.
async fn replicas(damaged_from: [u64; 3]) -> SocketAddr {
    let servers =
        serve(|number, servers| Replica { servers, damaged_from: damaged_from[number] }).await;
    servers[0]
}

#[tokio::test]
async fn what_is_damaged_in_some_replicas_is_read_from_others() {
    for read_from in [ReadFrom::Leader, ReadFrom::Followers, ReadFrom::Any] {
        for damaged_from in [[3, 7, RECORDS], [RECORDS, 0, 5], [0, RECORDS, 9]] {
            let options = ConsumerOptions { read_from, ..ConsumerOptions::default() };
            let client = client(replicas(damaged_from).await);
            let mut consumer = client.consumer("t", 0, options).unwrap();
            for offset in 0..RECORDS {
                let record = consumer.next().await.unwrap().expect("it is not the end");
                assert_eq!(
                    (record.offset, &*record.value),
                    (offset, offset.to_string().as_bytes())
                );
            }
            assert_eq!(consumer.next().await, Ok(None));
        }
    }
}

#[tokio::test]
async fn what_is_damaged_everywhere_is_an_error_that_stays() {
    let client = client(replicas([8, 3, 6]).await);
    let options = ConsumerOptions { start: Start::Offset(2), ..ConsumerOptions::default() };
    let mut consumer = client.consumer("t", 0, options).unwrap();
    for offset in 2..8 {
        assert_eq!(consumer.next().await.unwrap().unwrap().offset, offset);
    }
    for _ in 0..2 {
        let error = consumer.next().await.unwrap_err();
        assert!(matches!(error, Error::Damaged { from_offset: 8, to_offset: 10, .. }), "{error}");
    }
    consumer.seek(RECORDS);
    assert_eq!(consumer.next().await, Ok(None));
}
