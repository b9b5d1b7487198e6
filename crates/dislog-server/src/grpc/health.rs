//! `grpc.health.v1`: whether the partitions can serve, computed when it is asked.

use std::pin::Pin;
use std::time::Duration;

use dislog_proto::v1::admin_server::AdminServer;
use dislog_proto::v1::log_server::LogServer;
use futures_util::Stream;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::grpc::LogService;
use crate::grpc::admin::AdminService;
use crate::node::Node;

/// How soon a watcher learns that a partition has stopped serving. Partitions do not announce that,
/// so it is looked up while somebody watches; the node going down is announced at once.
const WATCH_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct HealthService {
    pub(super) node: Node,
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        if !is_known(&request.get_ref().service) {
            let service = &request.get_ref().service;
            return Err(Status::not_found(format!("there is no service {service:?}")));
        }
        Ok(Response::new(answer(serving(&self.node))))
    }

    type WatchStream =
        Pin<Box<dyn Stream<Item = Result<HealthCheckResponse, Status>> + Send + 'static>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        // The protocol wants a watch of an unknown service to be answered and kept open.
        let known = is_known(&request.get_ref().service);
        let watch = Watch { node: self.node.clone(), known, told: None, last: false };
        let states = futures_util::stream::unfold(watch, |mut watch| async move {
            let state = watch.next().await?;
            Some((Ok(answer(state)), watch))
        });
        Ok(Response::new(Box::pin(states)))
    }
}

struct Watch {
    node: Node,
    known: bool,
    told: Option<ServingStatus>,
    last: bool,
}

impl Watch {
    /// The next state that differs from the one told last; nothing after the node began to close.
    async fn next(&mut self) -> Option<ServingStatus> {
        while !self.last {
            self.last = self.node.closing.is_closing();
            let state =
                if self.known { serving(&self.node) } else { ServingStatus::ServiceUnknown };
            if self.told != Some(state) {
                self.told = Some(state);
                return Some(state);
            }
            if !self.last {
                let _look_again =
                    tokio::time::timeout(WATCH_INTERVAL, self.node.closing.wait()).await;
            }
        }
        None
    }
}

fn is_known(service: &str) -> bool {
    let services = ["", LogServer::<LogService>::NAME, AdminServer::<AdminService>::NAME];
    services.contains(&service)
}

fn serving(node: &Node) -> ServingStatus {
    if node.is_ready() { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn answer(state: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: state.into() }
}
