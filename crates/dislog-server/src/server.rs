//! Starts a node and ends it.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

use dislog_cluster::{Cluster, Discovery, Network, OpenError, REPLICAS_DEFAULT, TopicSettings};
use tokio::net::{TcpListener, TcpSocket};
use tokio::runtime::Handle;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::access::audit::Queue;
use crate::access::{self, Access, AccessError};
use crate::answering::Services;
use crate::budget::Budget;
use crate::config::Config;
use crate::forward::Forwarder;
use crate::guests::Room;
use crate::node::{Closing, Node, Shared};
use crate::outflow::Outlet;
use crate::peer::{Acceptor, DialError, PeerNetwork, dial_check};
use crate::places::{Limits, Places};
use crate::replica::Remotes;
use crate::security::{Security, SecurityError};
use crate::{append, expiry, grpc, http, listener};

/// Connections that wait to be accepted, as a hint to the kernel.
const BACKLOG: u32 = 1_024;

/// Threads that write and sync logs: enough to keep a disk busy, more would only wait for it.
const SYNC_THREADS_MAX: usize = 8;

/// How long the node may take to answer itself by its advertised address.
const SELF_CHECK_MAX: Duration = Duration::from_secs(5);

/// How long the rest of the audit may take to be written when the node ends.
const AUDIT_END_MAX: Duration = Duration::from_secs(1);

/// Why a node did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another with --listen")]
    Listen {
        /// The address.
        address: String,
        /// Why.
        source: io::Error,
    },
    /// Nobody has said how the node is to be protected, or it cannot be done.
    #[error(transparent)]
    Security(#[from] SecurityError),
    /// The rules of who may do what cannot be used.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The data cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// Nobody answers at the advertised address, so that nobody would reach this node there.
    #[error(
        "the node cannot reach itself at advertise = {address:?}: {source}; set --advertise to \
         the host:port by which clients and other nodes reach this one, or leave it empty to use \
         the address listened on"
    )]
    Unreachable {
        /// The address.
        address: String,
        /// Why.
        source: DialError,
    },
    /// Clients and other nodes that dial the advertised address would reach another node.
    #[error(
        "at advertise = {address:?} answers node {found}, but this is node {node_id}; set \
         --advertise to the host:port by which clients and other nodes reach this one"
    )]
    OtherNode {
        /// The address.
        address: String,
        /// Who answered.
        found: u64,
        /// Who should have.
        node_id: u64,
    },
    /// A fault in the program: what it says of itself cannot be served.
    #[error("cannot serve reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
}

/// A running node.
pub struct Server {
    addr: SocketAddr,
    node: Node,
    closing: watch::Sender<bool>,
    closed: watch::Sender<bool>,
    serving: JoinHandle<()>,
    /// Ends the audit once nothing more is decided.
    audit: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
    network: PeerNetwork,
}

/// What a node is made of.
struct Parts {
    security: Security,
    cluster: Cluster,
    address: String,
    access: Access,
}

impl Server {
    /// Opens the data directory, recovers it and serves.
    ///
    /// The address is bound first, so that a mistake is known at once, but connections are accepted
    /// only when the node can answer them.
    ///
    /// # Errors
    /// If the address cannot be listened on, there are neither certificates nor leave to do
    /// without, the data cannot be opened, or another node or nobody answers at the address that is
    /// advertised.
    pub async fn start(config: Config) -> Result<Server, StartError> {
        let listen_error = |source| StartError::Listen { address: config.listen.clone(), source };
        let socket = bind(&config.listen).await.map_err(listen_error)?;
        let addr = socket.local_addr().map_err(listen_error)?;
        let security = Security::open(&config, addr)?;
        let network = PeerNetwork::new(Handle::current(), security.clone());
        let address = match config.advertise.is_empty() {
            true => reachable(addr),
            false => config.advertise.clone(),
        };
        let (access, audit) = Access::open(&config, security.is_on())?;
        let cluster = open(&config, &address, Arc::new(network.clone())).await?;
        network.set_node_id(cluster.node_id());
        let listener = socket.listen(BACKLOG).map_err(listen_error)?;
        warn_of_names(&config, &security, addr);
        let parts = Parts { security, cluster, address, access };
        let server = Server::serve(config, parts, audit, network, listener)?;
        match server.check_advertised().await {
            Ok(()) => Ok(server),
            Err(error) => {
                server.shutdown().await;
                Err(error)
            }
        }
    }

    fn serve(
        config: Config,
        parts: Parts,
        audit: Option<Queue>,
        network: PeerNetwork,
        listener: TcpListener,
    ) -> Result<Server, StartError> {
        let Parts { security, cluster, address, access } = parts;
        let addr = listener
            .local_addr()
            .map_err(|source| StartError::Listen { address: config.listen.clone(), source })?;
        let ((closing, _), (closed, _)) = (watch::channel(false), watch::channel(false));
        let request_timeout = Duration::from_millis(config.request_timeout_ms);
        let node = Node::new(Shared {
            cluster,
            address,
            budget: Budget::new(config.append_bytes_in_flight_max, request_timeout),
            outlet: Outlet::default(),
            forwarder: Forwarder::new(security.clone()),
            remotes: Remotes::default(),
            security,
            access,
            connections: AtomicUsize::new(0),
            closing: Closing::new(&closing),
            closed: Closing::new(&closed),
            started_ms: append::now_ms(),
            config,
        });
        let services = Services {
            log: grpc::log(&node),
            grpc: grpc::router(&node)?,
            http: http::router(&node),
            peers: Arc::new(acceptor(&node)),
            unwelcome: Arc::default(),
            room: Room::new(count(node.config.guests_max)),
            places: Arc::new(Places::new(limits(&node.config), node.budget.clone())),
            node: node.clone(),
        };
        let secure = node.security.is_on();
        tracing::info!(
            %addr, advertise = %node.address, node_id = %node.id(), secure, "serving"
        );
        let serving = tokio::spawn(listener::serve(listener, services));
        tokio::spawn(expiry::warn(node.clone()));
        if node.access.is_on() {
            tokio::spawn(access::follow_tokens(node.clone()));
        }
        let audit = audit.map(|queue| {
            let (finish, finished) = oneshot::channel();
            (finish, tokio::spawn(queue.write(node.clone(), finished)))
        });
        Ok(Server { addr, node, closing, closed, serving, audit, network })
    }

    /// Whoever is told the advertised address must reach this node there.
    async fn check_advertised(&self) -> Result<(), StartError> {
        let address = self.node.config.advertise.clone();
        if address.is_empty() {
            return Ok(());
        }
        let node_id = self.node.cluster.node_id();
        match dial_check(&address, &self.node.security, SELF_CHECK_MAX).await {
            Ok(found) if found == node_id => Ok(()),
            Ok(found) => Err(StartError::OtherNode { address, found, node_id }),
            Err(source) => Err(StartError::Unreachable { address, source }),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Reads certificates and rules again, soon. Changes are noticed without that wherever
    /// directories can be watched.
    pub fn read_again(&self) {
        tracing::info!("certificates and rules are read again");
        self.node.security.look();
        self.node.access.look();
    }

    /// Refuses new work, ends streams, syncs and returns: seconds, not minutes.
    pub async fn shutdown(self) {
        tracing::info!("shutting down");
        self.closing.send_replace(true);
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the listener failed");
        }
        if let Some((finish, writing)) = self.audit {
            // If it is gone, it has said why.
            let _ = finish.send(());
            let _ = tokio::time::timeout(AUDIT_END_MAX, writing).await;
        }
        self.node.cluster.close().await;
        self.closed.send_replace(true);
        self.network.close().await;
        tracing::info!("shut down");
    }
}

fn limits(config: &Config) -> Limits {
    Limits {
        connections_max: count(config.connections_max),
        connections_per_client_max: count(config.connections_per_client_max),
        requests_per_client_max: count(config.requests_per_client_max),
    }
}

fn count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

async fn open(
    config: &Config,
    address: &str,
    network: Arc<dyn Network>,
) -> Result<Cluster, OpenError> {
    let parallelism = std::thread::available_parallelism().map_or(1, usize::from);
    let appends_max = usize::try_from(config.append_bytes_in_flight_max).unwrap_or(usize::MAX);
    let settings = dislog_cluster::Config {
        data_dir: config.data_dir.clone(),
        topic_defaults: TopicSettings {
            retention_bytes: config.retention_bytes,
            retention_ms: config.retention_ms,
            segment_bytes: config.segment_bytes,
            replicas: REPLICAS_DEFAULT,
        },
        appends_in_flight_bytes_max: appends_max,
        sync_threads: (2 * parallelism).min(SYNC_THREADS_MAX),
        discovery: Discovery {
            address: address.to_owned(),
            name: config.name.clone(),
            rack: config.rack.clone(),
            seeds: config.join.clone(),
            bootstrap_expect: config.bootstrap_expect,
            replace_after: Duration::from_millis(config.replace_after_ms),
        },
    };
    let path = config.data_dir.clone();
    let opening = tokio::task::spawn_blocking(move || Cluster::open_real(settings, network));
    opening.await.unwrap_or_else(|error| {
        Err(OpenError::Unusable { path, message: format!("opening it failed: {error}") })
    })
}

fn acceptor(node: &Node) -> Acceptor {
    let cluster = node.cluster.clone();
    let deliver = Arc::new(move |frame| cluster.receive(frame));
    let certified = node.security.is_on();
    Acceptor::new(node.cluster.node_id(), node.request_timeout(), certified, deliver)
}

async fn bind(address: &str) -> io::Result<TcpSocket> {
    let mut last_error = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for addr in tokio::net::lookup_host(address).await? {
        let socket = if addr.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        match socket.bind(addr) {
            Ok(()) => return Ok(socket),
            Err(error) => last_error = error,
        }
    }
    Err(last_error)
}

/// Others will be told the address listened on, and compare it with the certificate. What is
/// advertised is checked by dialling it.
fn warn_of_names(config: &Config, security: &Security, addr: SocketAddr) {
    let Some(tls) = security.current() else { return };
    if config.advertise.is_empty() && !tls.names.addresses.contains(&addr.ip()) {
        tracing::warn!(
            %addr,
            "this node's certificate does not have the address listened on, which clients and \
             other nodes are told: set --advertise to a name that it has"
        );
    }
}

/// An address that others can dial for one that is listened on: for "every address of this
/// machine", the one that packets to the outside would leave from.
fn reachable(addr: SocketAddr) -> String {
    if !addr.ip().is_unspecified() {
        return addr.to_string();
    }
    let ip = outbound_ip().unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    SocketAddr::new(ip, addr.port()).to_string()
}

/// Connecting a UDP socket sends nothing, but makes the system choose a route.
fn outbound_ip() -> Option<IpAddr> {
    const DOCUMENTATION_ADDRESS: (Ipv4Addr, u16) = (Ipv4Addr::new(192, 0, 2, 1), 9);
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)).ok()?;
    socket.connect(DOCUMENTATION_ADDRESS).ok()?;
    Some(socket.local_addr().ok()?.ip()).filter(|ip| !ip.is_unspecified())
}
