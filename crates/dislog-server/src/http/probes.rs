//! Whether the node lives, serves, and how it is.

use std::fmt::Write;
use std::sync::atomic::Ordering;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use dislog_types::PartitionId;
use http::header;
use serde::Serialize;
use utoipa::ToSchema;

use crate::access::{Asking, Tally};
use crate::http::problem::Problem;
use crate::node::Node;
use crate::status::{Failure, kinds};

/// How many reasons for not being ready are named: enough to see what is wrong.
const REASONS_MAX: usize = 5;

/// The Prometheus text format.
const METRICS_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The nodes of the cluster.
#[derive(Serialize, ToSchema)]
struct Cluster {
    /// 16 hexadecimal digits; none while the node belongs to no cluster.
    cluster_id: Option<String>,
    nodes: Vec<ClusterNode>,
}

/// A node.
#[derive(Serialize, ToSchema)]
struct ClusterNode {
    /// Its id, a number too large for some languages.
    id: String,
    /// What people call it.
    name: String,
    /// Where clients reach it, `host:port`.
    address: String,
    /// What fails together with it; empty if nothing is known.
    rack: String,
    /// It answers, as far as this node can see.
    alive: bool,
    /// Its replicas are to go elsewhere.
    draining: bool,
    /// It leads the metadata.
    leads: bool,
}

/// The process answers: nothing more.
#[utoipa::path(
    get, path = "/livez", tag = "node", operation_id = "livez",
    responses((status = 200, body = String, description = "It lives")),
)]
pub(super) async fn livez() -> &'static str {
    "ok\n"
}

/// Every partition of the node has a leader that serves, and the node is not shutting down.
#[utoipa::path(
    get, path = "/readyz", tag = "node", operation_id = "readyz",
    responses(
        (status = 200, body = String, description = "It serves"),
        (status = 503, body = Problem, content_type = "application/problem+json"),
    ),
)]
pub(super) async fn readyz(
    State(node): State<Node>,
    asking: Asking,
) -> Result<&'static str, Failure> {
    let unready = node.unready(&asking);
    if unready.is_empty() {
        return Ok("ok\n");
    }
    let mut message = unready[..unready.len().min(REASONS_MAX)].join("; ");
    if unready.len() > REASONS_MAX {
        message.push_str(&format!("; and {} more", unready.len() - REASONS_MAX));
    }
    Err(Failure::new(&kinds::NOT_READY, message))
}

/// The nodes of the cluster.
#[utoipa::path(
    get, path = "/v1/cluster", tag = "node", operation_id = "cluster",
    responses((status = 200, body = Cluster)),
)]
pub(super) async fn cluster(State(node): State<Node>) -> Response {
    let nodes = node.cluster.nodes().into_iter().map(|known| ClusterNode {
        id: known.node_id.to_string(),
        name: if known.name.is_empty() { known.address.clone() } else { known.name },
        address: known.address,
        rack: known.rack,
        alive: known.alive,
        draining: known.draining,
        leads: known.leads,
    });
    let cluster_id = node.cluster.cluster_id().map(|id| format!("{id:016x}"));
    Json(Cluster { cluster_id, nodes: nodes.collect() }).into_response()
}

/// Numbers for Prometheus.
#[utoipa::path(
    get, path = "/metrics", tag = "node", operation_id = "metrics",
    responses((status = 200, content_type = "text/plain", body = String)),
)]
pub(super) async fn metrics(State(node): State<Node>) -> Response {
    let mut page = Metrics::default();
    page.gauge(
        "dislog_ready",
        "Whether every partition can serve.",
        f64::from(u8::from(node.is_ready())),
    );
    page.gauge(
        "dislog_connections",
        "Open connections.",
        node.connections.load(Ordering::Relaxed) as f64,
    );
    page.gauge(
        "process_start_time_seconds",
        "When the node was started, Unix seconds.",
        node.started_ms as f64 / 1_000.0,
    );
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Memory in use.", bytes as f64);
    }
    if let Some(tls) = node.security.current() {
        page.gauge(
            "dislog_certificate_expiry_time_seconds",
            "When this node's certificate ends, Unix seconds.",
            tls.names.not_after_s as f64,
        );
    }
    page.access(&node);
    page.partitions(&node);
    ([(header::CONTENT_TYPE, METRICS_TYPE)], page.text).into_response()
}

/// A page in the Prometheus text format.
#[derive(Default)]
struct Metrics {
    text: String,
}

impl Metrics {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        let _infallible = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.head(name, "gauge", help);
        let _infallible = writeln!(self.text, "{name} {value}");
    }

    fn access(&mut self, node: &Node) {
        let Tally { denied, unrecorded, is_stale } = node.access.tally();
        self.counter("dislog_access_denied_total", "Requests and streams refused.", denied);
        self.counter("dislog_audit_dropped_total", "Decisions not recorded.", unrecorded);
        self.gauge(
            "dislog_access_rules_stale",
            "Whether the rules in the directory cannot be used, so that older ones are.",
            f64::from(u8::from(is_stale)),
        );
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.head(name, "counter", help);
        let _infallible = writeln!(self.text, "{name} {value}");
    }

    fn partitions(&mut self, node: &Node) {
        let mut rows = Vec::new();
        for topic in node.cluster.topics() {
            for number in 0..topic.partitions {
                let id = PartitionId { topic: topic.name.clone(), partition: number };
                let Ok(partition) = node.cluster.partition(&id) else { continue };
                let (progress, status) = (partition.progress(), partition.status());
                let leads = partition.serves();
                let values = [
                    progress.start_offset,
                    progress.committed_offset,
                    status.size_bytes,
                    status.segments as u64,
                    status.term,
                    u64::from(leads),
                    u64::from(status.fault.is_some()),
                    status.counters.records,
                    status.counters.bytes,
                    status.counters.syncs,
                ];
                rows.push((id, values));
            }
        }
        for (column, (name, kind, help)) in PARTITION_METRICS.iter().enumerate() {
            self.head(name, kind, help);
            for (PartitionId { topic, partition }, values) in &rows {
                // Topic names have no characters that a label would have to escape.
                let labels = format!("topic=\"{topic}\",partition=\"{partition}\"");
                let _infallible = writeln!(self.text, "{name}{{{labels}}} {}", values[column]);
            }
        }
    }
}

const PARTITION_METRICS: [(&str, &str, &str); 10] = [
    ("dislog_partition_start_offset", "gauge", "The first offset still in the log."),
    ("dislog_partition_committed_offset", "gauge", "One past the last committed record."),
    ("dislog_partition_size_bytes", "gauge", "Bytes on disk."),
    ("dislog_partition_segments", "gauge", "Segments on disk."),
    ("dislog_partition_term", "gauge", "The Raft term."),
    ("dislog_partition_leads", "gauge", "Whether this node leads the partition."),
    (
        "dislog_partition_faulty",
        "gauge",
        "Whether the partition cannot be written for damage or a failed disk.",
    ),
    ("dislog_log_records_total", "counter", "Records committed since the node was started."),
    ("dislog_log_bytes_total", "counter", "Bytes of the batches committed since then."),
    ("dislog_log_flushes_total", "counter", "Times the log was written and synced since then."),
];

/// The resident memory of this process, where the system tells it in `/proc`.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kibibytes << 10)
}
