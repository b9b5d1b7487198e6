//! Health and reflection.

use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::http_client::get;
use crate::node::{soon, start};

fn of(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn a_node_that_serves_says_so() {
    let node = start().await;
    let mut health = HealthClient::new(node.channel().await);
    for service in ["", "log.v1.Log", "log.v1.Admin"] {
        let answer = soon(health.check(of(service))).await.unwrap().into_inner();
        assert_eq!(answer.status(), ServingStatus::Serving, "{service:?}");
    }
    let unknown = soon(health.check(of("log.v1.Nothing"))).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!((get(&node, "/livez").await.status, get(&node, "/readyz").await.status), (200, 200));
}

#[tokio::test]
async fn watchers_learn_that_the_node_goes_down() {
    let node = start().await;
    let mut health = HealthClient::new(node.channel().await);
    let mut watch = soon(health.watch(of(""))).await.unwrap().into_inner();
    let mut unknown = soon(health.watch(of("nothing"))).await.unwrap().into_inner();
    let first = soon(watch.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::Serving);
    let first = soon(unknown.message()).await.unwrap().unwrap();
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    let down = tokio::spawn(node.server.shutdown());
    let last = soon(watch.message()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    assert_eq!(soon(watch.message()).await.unwrap(), None);
    soon(down).await.unwrap();
}

#[tokio::test]
async fn reflection_lists_every_service() {
    let node = start().await;
    let mut reflection = ServerReflectionClient::new(node.channel().await);
    let request = ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let requests = tokio_stream::once(request);
    let mut answers = soon(reflection.server_reflection_info(requests)).await.unwrap().into_inner();
    let answer = soon(answers.message()).await.unwrap().unwrap();
    let Some(MessageResponse::ListServicesResponse(listed)) = answer.message_response else {
        panic!("{answer:?}");
    };
    let names: Vec<String> = listed.service.into_iter().map(|service| service.name).collect();
    for name in ["log.v1.Log", "log.v1.Admin", "grpc.health.v1.Health"] {
        assert!(names.contains(&name.to_owned()), "{names:?}");
    }
}
