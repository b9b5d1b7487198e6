//! gRPC: `log.v1.Log`, `log.v1.Admin`, health and reflection.
//!
//! What a request means is documented in `proto/log/v1/*.proto`. Here it is read, handed on, and
//! answered.

mod admin;
mod consume;
mod health;
mod message;
mod produce;
mod requests;
pub(crate) mod unary;

pub(crate) use consume::OwnBody;
pub(crate) use requests::OwnRequests;
use requests::Requests;

use axum::Router;
use dislog_proto::v1;
use dislog_proto::v1::admin_server::AdminServer;
use dislog_proto::v1::log_server::{Log, LogServer};
use dislog_types::PartitionId;
use dislog_types::limits::BATCH_BYTES_MAX;
use futures_util::stream::Empty;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::{Builder, Error};

use crate::access::Asking;
use crate::budget::Messages;
use crate::node::{Node, topic_name};

/// The most bytes of one message: a batch and the fields around it.
pub(crate) const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + (64 << 10);

/// The methods that take a stream of messages.
const TAKE_STREAMS: [&str; 3] = [
    "/log.v1.Log/ProduceStream",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
];

/// How many messages the method of this path takes.
pub(crate) fn messages(path: &str) -> Messages {
    if TAKE_STREAMS.contains(&path) { Messages::Stream } else { Messages::One }
}

/// The service for records.
pub(crate) fn log(node: &Node) -> LogServer<LogService> {
    LogServer::new(LogService { node: node.clone() }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// All other gRPC services of a node.
pub(crate) fn router(node: &Node) -> Result<Router, Error> {
    let admin = AdminServer::new(admin::AdminService { node: node.clone() });
    let health = HealthServer::new(health::HealthService::new(node.clone()));
    let routes = Routes::new(admin)
        .add_service(health)
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    Ok(routes.prepare().into_axum_router())
}

fn reflection() -> Builder<'static> {
    Builder::configure()
        .register_encoded_file_descriptor_set(dislog_proto::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
}

/// A response whose body is `body`, once the listener has unpacked it; `unsent` is for the type.
fn with_own_body<T>(unsent: T, body: OwnBody) -> Response<T> {
    let mut response = Response::new(unsent);
    response.extensions_mut().insert(body);
    response
}

/// `log.v1.Log`. Its answers must go through [`OwnBody::unpack`].
pub(crate) struct LogService {
    node: Node,
}

#[tonic::async_trait]
impl Log for LogService {
    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        let asking = Asking::of(request.extensions());
        Ok(Response::new(produce::produce(&self.node, &asking, request.into_inner()).await?))
    }

    type ProduceStreamStream = produce::Answers;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<produce::Answers>, Status> {
        let asking = Asking::of(request.extensions());
        let requests = OwnRequests::unpack(request.extensions())
            .unwrap_or_else(|| Requests::new(request.into_inner()));
        Ok(Response::new(produce::stream(self.node.clone(), asking, requests)))
    }

    async fn consume(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<v1::ConsumeResponse>, Status> {
        let asking = Asking::of(request.extensions());
        let body = consume::consume(&self.node, &asking, &request.into_inner()).await?;
        Ok(with_own_body(v1::ConsumeResponse::default(), body))
    }

    type ConsumeStreamStream = Empty<Result<v1::ConsumeResponse, Status>>;

    async fn consume_stream(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<Self::ConsumeStreamStream>, Status> {
        let asking = Asking::of(request.extensions());
        let body = consume::stream(&self.node, &asking, &request.into_inner()).await?;
        Ok(with_own_body(futures_util::stream::empty(), body))
    }

    async fn get_servers(
        &self,
        request: Request<v1::GetServersRequest>,
    ) -> Result<Response<v1::GetServersResponse>, Status> {
        let asking = Asking::of(request.extensions());
        let v1::GetServersRequest { topic, partition } = request.into_inner();
        let id = PartitionId { topic: topic_name(&topic)?, partition };
        let servers = self.node.servers(&asking, &id);
        Ok(Response::new(v1::GetServersResponse { servers }))
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    #[test]
    fn the_methods_that_take_streams_are_those_of_the_descriptors() {
        let sets = [
            dislog_proto::FILE_DESCRIPTOR_SET,
            tonic_health::pb::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let mut seen = 0;
        for set in sets {
            for file in FileDescriptorSet::decode(set).unwrap().file {
                for service in &file.service {
                    for method in &service.method {
                        let path =
                            format!("/{}.{}/{}", file.package(), service.name(), method.name());
                        let is_stream = messages(&path) == Messages::Stream;
                        assert_eq!(is_stream, method.client_streaming(), "{path}");
                        seen += usize::from(is_stream);
                    }
                }
            }
        }
        assert_eq!(seen, TAKE_STREAMS.len(), "one of them is not there");
    }
}
