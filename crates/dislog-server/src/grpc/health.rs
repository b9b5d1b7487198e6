//! `grpc.health.v1`: whether the partitions can serve, computed when it is asked.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

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

/// How long changes may follow each other until those who watch are told what came of them: many
/// partitions change their leaders at once.
const SETTLED_AFTER: Duration = Duration::from_millis(50);

pub(super) struct HealthService {
    node: Node,
    /// The state that all who watch see, and how often the partitions had changed by then.
    seen: Arc<Mutex<Option<(u64, ServingStatus)>>>,
}

impl HealthService {
    pub(super) fn new(node: Node) -> HealthService {
        HealthService { node, seen: Arc::default() }
    }
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
        let watch = Watch {
            node: self.node.clone(),
            seen: Arc::clone(&self.seen),
            changes: self.node.cluster.watch_readiness(),
            known,
            told: None,
            last: false,
        };
        let states = futures_util::stream::unfold(watch, |mut watch| async move {
            let state = watch.next().await?;
            Some((Ok(answer(state)), watch))
        });
        Ok(Response::new(Box::pin(states)))
    }
}

struct Watch {
    node: Node,
    seen: Arc<Mutex<Option<(u64, ServingStatus)>>>,
    /// Of the partitions.
    changes: watch::Receiver<u64>,
    known: bool,
    told: Option<ServingStatus>,
    last: bool,
}

impl Watch {
    /// The next state that differs from the one told last; nothing after the node began to close.
    async fn next(&mut self) -> Option<ServingStatus> {
        while !self.last {
            self.last = self.node.closing.is_closing();
            let state = if self.known { self.state() } else { ServingStatus::ServiceUnknown };
            if self.told != Some(state) {
                self.told = Some(state);
                return Some(state);
            }
            if !self.last {
                tokio::select! {
                    // The cluster holds the sender.
                    _changed = self.changes.changed() => tokio::time::sleep(SETTLED_AFTER).await,
                    () = self.node.closing.wait() => {}
                }
            }
        }
        None
    }

    /// Looked up once for all who watch.
    fn state(&mut self) -> ServingStatus {
        if self.last {
            return ServingStatus::NotServing;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Before it is looked up, so that no later change is missed.
        let changes = *self.changes.borrow_and_update();
        match *seen {
            Some((known, state)) if known == changes => state,
            _ => {
                let state = serving(&self.node);
                *seen = Some((changes, state));
                state
            }
        }
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
