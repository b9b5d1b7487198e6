//! `grpc.health.v1`: whether the partitions can serve, computed when it is asked.

use std::pin::Pin;

use dislog_proto::v1::admin_server::AdminServer;
use dislog_proto::v1::log_server::LogServer;
use futures_util::Stream;
use tokio::sync::watch;
use tonic::server::NamedService;
use tonic::{Request, Response, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_server::Health;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::grpc::LogService;
use crate::grpc::admin::AdminService;
use crate::node::Node;

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
        let changes = self.node.cluster.watch_readiness();
        let watch = Watch { node: self.node.clone(), changes, known, told: None, last: false };
        let states = futures_util::stream::unfold(watch, |mut watch| async move {
            let state = watch.next().await?;
            Some((Ok(answer(state)), watch))
        });
        Ok(Response::new(Box::pin(states)))
    }
}

struct Watch {
    node: Node,
    /// Of the partitions.
    changes: watch::Receiver<()>,
    known: bool,
    told: Option<ServingStatus>,
    last: bool,
}

impl Watch {
    /// The next state that differs from the one told last; nothing after the node began to close.
    async fn next(&mut self) -> Option<ServingStatus> {
        while !self.last {
            self.last = self.node.closing.is_closing();
            self.changes.mark_unchanged();
            let state =
                if self.known { serving(&self.node) } else { ServingStatus::ServiceUnknown };
            if self.told != Some(state) {
                self.told = Some(state);
                return Some(state);
            }
            if !self.last {
                tokio::select! {
                    // The cluster holds the sender.
                    _changed = self.changes.changed() => {}
                    () = self.node.closing.wait() => {}
                }
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
