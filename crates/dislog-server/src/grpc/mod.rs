//! gRPC: `log.v1.Log`, `log.v1.Admin`, health and reflection.
//!
//! What a request means is documented in `proto/log/v1/*.proto`. Here it is read, handed on, and
//! answered.

mod admin;
mod consume;
mod health;
mod produce;
pub(crate) mod unary;

pub(crate) use admin::described;

use axum::Router;
use dislog_proto::v1;
use dislog_proto::v1::admin_server::AdminServer;
use dislog_proto::v1::log_server::{Log, LogServer};
use dislog_types::PartitionId;
use dislog_types::limits::BATCH_BYTES_MAX;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};
use tonic_health::pb::health_server::HealthServer;
use tonic_reflection::server::{Builder, Error};

use crate::node::{Node, topic_name};

/// The most bytes of one message: a batch and the fields around it.
pub(crate) const MESSAGE_BYTES_MAX: usize = BATCH_BYTES_MAX + (64 << 10);

/// The service for records.
pub(crate) fn log(node: &Node) -> LogServer<LogService> {
    LogServer::new(LogService { node: node.clone() }).max_decoding_message_size(MESSAGE_BYTES_MAX)
}

/// All other gRPC services of a node.
pub(crate) fn router(node: &Node) -> Result<Router, Error> {
    let admin = AdminServer::new(admin::AdminService { node: node.clone() });
    let health = HealthServer::new(health::HealthService { node: node.clone() });
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

/// `log.v1.Log`.
pub(crate) struct LogService {
    node: Node,
}

#[tonic::async_trait]
impl Log for LogService {
    async fn produce(
        &self,
        request: Request<v1::ProduceRequest>,
    ) -> Result<Response<v1::ProduceResponse>, Status> {
        Ok(Response::new(produce::produce(&self.node, request.into_inner()).await?))
    }

    type ProduceStreamStream = produce::Answers;

    async fn produce_stream(
        &self,
        request: Request<Streaming<v1::ProduceRequest>>,
    ) -> Result<Response<produce::Answers>, Status> {
        Ok(Response::new(produce::stream(self.node.clone(), request.into_inner())))
    }

    async fn consume(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<v1::ConsumeResponse>, Status> {
        Ok(Response::new(consume::consume(&self.node, &request.into_inner()).await?))
    }

    type ConsumeStreamStream = consume::Pages;

    async fn consume_stream(
        &self,
        request: Request<v1::ConsumeRequest>,
    ) -> Result<Response<consume::Pages>, Status> {
        Ok(Response::new(consume::stream(self.node.clone(), &request.into_inner()).await?))
    }

    async fn get_servers(
        &self,
        request: Request<v1::GetServersRequest>,
    ) -> Result<Response<v1::GetServersResponse>, Status> {
        let v1::GetServersRequest { topic, partition } = request.into_inner();
        let id = PartitionId { topic: topic_name(&topic)?, partition };
        // One node is the whole cluster, and will also lead the partitions that are not created
        // yet.
        let is_leader = match self.node.cluster.partition(&id) {
            Ok(partition) => partition.status().leader == Some(self.node.cluster.node_id()),
            Err(_) => true,
        };
        let server = v1::Server {
            id: self.node.id(),
            rpc_addr: self.node.address.clone(),
            is_leader,
            name: self.node.name().to_owned(),
        };
        Ok(Response::new(v1::GetServersResponse { servers: vec![server] }))
    }
}
