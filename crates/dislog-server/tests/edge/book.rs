//! What clients of the book "Distributed Services with Go" send, unchanged.

use bytes::Bytes;
use serde_json::json;
use tonic::codegen::http::uri::PathAndQuery;
use tonic_prost::ProstCodec;

use crate::http_client::{get, post, send};
use crate::node::{consume_from, soon, start};

/// The book's messages, as its clients have them.
mod proto {
    use bytes::Bytes;

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct Record {
        #[prost(bytes = "bytes", tag = "1")]
        pub(super) value: Bytes,
        #[prost(uint64, tag = "2")]
        pub(super) offset: u64,
        #[prost(uint64, tag = "3")]
        pub(super) term: u64,
        #[prost(uint32, tag = "4")]
        pub(super) r#type: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ProduceRequest {
        #[prost(message, optional, tag = "1")]
        pub(super) record: Option<Record>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ProduceResponse {
        #[prost(uint64, tag = "1")]
        pub(super) offset: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ConsumeRequest {
        #[prost(uint64, tag = "1")]
        pub(super) offset: u64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub(super) struct ConsumeResponse {
        #[prost(message, optional, tag = "2")]
        pub(super) record: Option<Record>,
    }
}

#[tokio::test]
async fn its_grpc_clients_produce_and_consume() {
    let node = start().await;
    let mut client = tonic::client::Grpc::new(node.channel().await);
    for offset in 0..3 {
        let value = Bytes::from(format!("hello {offset}"));
        let record = Some(proto::Record { value, r#type: 2, ..proto::Record::default() });
        soon(client.ready()).await.unwrap();
        let produced: proto::ProduceResponse = soon(client.unary(
            tonic::Request::new(proto::ProduceRequest { record }),
            PathAndQuery::from_static("/log.v1.Log/Produce"),
            ProstCodec::default(),
        ))
        .await
        .unwrap()
        .into_inner();
        assert_eq!(produced.offset, offset);
    }
    soon(client.ready()).await.unwrap();
    let stream = client.server_streaming(
        tonic::Request::new(proto::ConsumeRequest { offset: 0 }),
        PathAndQuery::from_static("/log.v1.Log/ConsumeStream"),
        ProstCodec::<proto::ConsumeRequest, proto::ConsumeResponse>::default(),
    );
    let mut stream = soon(stream).await.unwrap().into_inner();
    for offset in 0..3 {
        let record = soon(stream.message()).await.unwrap().unwrap().record.unwrap();
        assert_eq!((record.offset, record.r#type), (offset, 2));
        assert_eq!(record.value, format!("hello {offset}"));
    }
}

#[tokio::test]
async fn its_http_forms_add_and_get() {
    let node = start().await;
    // What `curl -X POST localhost:8400 -d '…'` sends.
    let form = "application/x-www-form-urlencoded";
    let produced = post(&node, "/", form, r#"{"record":{"value":"TGV0J3MgR28gIzEK"}}"#).await;
    assert_eq!((produced.status, produced.json()), (200, json!({"offset": 0})));
    let content_type = "content-type: application/x-www-form-urlencoded";
    let consumed = send(&node, "GET /", &[content_type], br#"{"offset":0}"#).await;
    let expected = json!({"record": {"value": "TGV0J3MgR28gIzEK", "offset": 0}});
    assert_eq!((consumed.status, consumed.json()), (200, expected));
    send(&node, "GET /", &[], br#"{"offset":1}"#).await.problem(404, "OFFSET_OUT_OF_RANGE");
    let consumed = soon(node.log().await.consume(consume_from("", 0))).await.unwrap().into_inner();
    assert_eq!(&consumed.records[0].value[..], b"Let's Go #1\n");
}

#[tokio::test]
async fn its_http_forms_say_what_they_take() {
    let node = start().await;
    for body in ["", "{", "[]", "{}", r#"{"record":7}"#, r#"{"record":{"value":"?"}}"#] {
        post(&node, "/", "application/json", body).await.problem(400, "INVALID_REQUEST");
    }
    for body in [r#"{"offset":-1}"#, r#"{"offset":18446744073709551616}"#, r#"{"offset":"0"}"#] {
        send(&node, "GET /", &[], body.as_bytes()).await.problem(400, "INVALID_REQUEST");
    }
    for empty in [r#"{"record":{}}"#, r#"{"record":{"value":null,"offset":4}}"#] {
        assert_eq!(post(&node, "/", "application/json", empty).await.status, 200);
    }
    let greeting = get(&node, "/").await;
    assert_eq!((greeting.status, greeting.json()["name"].as_str()), (200, Some("dislog")));
}
