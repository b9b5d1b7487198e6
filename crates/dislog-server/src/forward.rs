//! Sending requests on to the node that can do them: so that a client that knows one address, or
//! curl, just works.
//!
//! A request is sent on at most [`HOPS_MAX`] times, which its metadata counts; most often to a node
//! that has a replica, and from there to the leader. Two nodes that each take the other for the
//! leader answer that there is none, instead of sending a request to and fro.

use std::collections::HashMap;
use std::hash::{BuildHasher as _, BuildHasherDefault, DefaultHasher};
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use dislog_cluster::{Append, Appended, Peer};
use dislog_proto::v1;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use dislog_tls::Carried;
use dislog_types::PartitionId;
use http::{HeaderMap, Uri};
use hyper_util::rt::TokioIo;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tonic::Request;
use tonic::metadata::MetadataValue;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::append::not_acknowledged;
use crate::grpc::MESSAGE_BYTES_MAX;
use crate::node::Node;
use crate::pass::Pass;
use crate::security::Security;
use crate::status::{Failure, kinds};

/// Counts how often a request was sent on.
const HOPS: &str = "dislog-hops";

/// Which partition's log is read: not that of another topic of the same name.
const GROUP: &str = "dislog-group";

/// Names who asked for a request that is sent on, in base64. Believed of nodes only.
pub(crate) const ON_BEHALF: &str = "dislog-on-behalf-of";

/// To a replica, and to the leader; and once more for the partitions that a stream is about beside
/// the one for which it was sent on as it is.
const HOPS_MAX: u8 = 4;

/// How long a node may take to accept a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection that is silent for so long is probed, and after as long again given up: so
/// requests do not wait for a node that stands still.
const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Connections to nodes; more than a cluster has.
const CHANNELS_MAX: usize = 1_024;

/// Connections to one node for reads that wait, and for streams of appends: so there can be more
/// than one connection has requests.
const LANES: u64 = 8;

/// Bytes of appends under way to all other nodes.
const APPENDS_BYTES_MAX: usize = 64 << 20;

/// What one stream may be sent ahead.
const STREAM_WINDOW_BYTES: u32 = 2 << 20;

/// What a connection may be sent ahead.
const CONNECTION_WINDOW_BYTES: u32 = 8 << 20;

/// How often a request was sent on before it came here, and for whom.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hops {
    count: u8,
    /// None: for this node itself.
    subject: Option<Arc<str>>,
    /// What is meant by the name of a partition, if that was said.
    group: Option<u64>,
}

impl Hops {
    /// As the head of a request says.
    pub(crate) fn of(headers: &HeaderMap) -> Hops {
        let said = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let count = said(HOPS).and_then(|count| count.parse().ok());
        let group = said(GROUP).and_then(|group| group.parse().ok());
        Hops { count: count.unwrap_or(0), subject: None, group }
    }

    /// The same, for somebody.
    pub(crate) fn on_behalf_of(self, subject: Arc<str>) -> Hops {
        Hops { subject: Some(subject), ..self }
    }

    /// The same for what the node does itself, so that another can do its own.
    pub(crate) fn on_own_behalf(&self) -> Hops {
        Hops { count: self.count, subject: None, group: None }
    }

    /// The same, to be sent on about a partition of this group.
    pub(crate) fn about(self, group: u64) -> Hops {
        Hops { group: Some(group), ..self }
    }

    /// Whether the partition that is meant can be that of this group.
    pub(crate) fn may_be_about(&self, group: u64) -> bool {
        self.group.is_none_or(|meant| meant == group)
    }

    /// Whether the request may be sent on.
    pub(crate) fn may_go_on(&self) -> bool {
        self.count < HOPS_MAX
    }
}

/// Connections to the other nodes, for requests.
pub(crate) struct Forwarder {
    security: Security,
    channels: Mutex<HashMap<(Arc<str>, Purpose), Way>>,
    /// For appends.
    room: Arc<Semaphore>,
}

/// What a connection is for. The requests of a connection are limited in number, and those that
/// wait for records are in nobody else's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Purpose {
    /// Appends and changes.
    Requests,
    /// Reads.
    Reading,
    /// Reads that wait for records, over one of several connections.
    Following(u8),
    /// Streams of appends, which last as long as their clients like, in the same way.
    Producing(u8),
}

impl Purpose {
    /// That of waiting for records of a group.
    pub(crate) fn following(group: u64) -> Purpose {
        Purpose::Following(lane_of(group))
    }

    /// That of a stream that begins with appends to a partition.
    pub(crate) fn producing(id: &PartitionId) -> Purpose {
        Purpose::Producing(lane_of(BuildHasherDefault::<DefaultHasher>::default().hash_one(id)))
    }
}

fn lane_of(number: u64) -> u8 {
    u8::try_from(number % LANES).expect("lanes are few")
}

/// To one node.
struct Way {
    channel: Channel,
    /// Of the connection that was made last.
    pass: Arc<Mutex<Pass>>,
}

impl Forwarder {
    /// No connection yet; they are made with `security`.
    pub(crate) fn new(security: Security) -> Forwarder {
        let room = Arc::new(Semaphore::new(APPENDS_BYTES_MAX));
        Forwarder { security, channels: Mutex::default(), room }
    }

    /// Lets an append be sent on once there is room for it. Safe to cancel.
    pub(crate) async fn admit(
        &self,
        append: Append,
        patience: Duration,
    ) -> Result<Admitted, Failure> {
        let bytes = u32::try_from(append.batch.len()).unwrap_or(u32::MAX);
        let taking = Arc::clone(&self.room).acquire_many_owned(bytes);
        match timeout(patience, taking).await {
            Ok(Ok(room)) => Ok(Admitted { append, _room: room }),
            _ => Err(Failure::new(
                &kinds::OVERLOADED,
                "as many appends as may be are on their way to other nodes: try again",
            )),
        }
    }

    /// The log service of a node, for appends.
    pub(crate) fn log(&self, peer: &Peer) -> Result<LogClient<Channel>, Failure> {
        self.log_for(peer, Purpose::Requests)
    }

    /// The log service of a node.
    pub(crate) fn log_for(
        &self,
        peer: &Peer,
        purpose: Purpose,
    ) -> Result<LogClient<Channel>, Failure> {
        Ok(LogClient::new(self.channel(peer, purpose)?)
            .max_decoding_message_size(2 * MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX))
    }

    /// The admin service of a node.
    pub(crate) fn admin(&self, peer: &Peer) -> Result<AdminClient<Channel>, Failure> {
        let channel = self.channel(peer, Purpose::Requests)?;
        Ok(AdminClient::new(channel).max_decoding_message_size(2 * MESSAGE_BYTES_MAX))
    }

    fn channel(&self, peer: &Peer, purpose: Purpose) -> Result<Channel, Failure> {
        let mut channels = self.channels.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |way: &Way| way.pass.lock().unwrap_or_else(PoisonError::into_inner).is_due();
        let key = (Arc::clone(&peer.address), purpose);
        match channels.get(&key) {
            // What is under way over an old one goes on.
            Some(way) if !is_due(way) => return Ok(way.channel.clone()),
            _ => {}
        }
        let endpoint = Endpoint::from_shared(format!("http://{}", peer.address));
        let endpoint = endpoint.map_err(|error| {
            let message = format!("node {} cannot be dialled: {error}", peer.node_id);
            Failure::new(&kinds::NO_LEADER, message)
        })?;
        let endpoint = endpoint
            .connect_timeout(CONNECT_TIMEOUT)
            .http2_keep_alive_interval(SILENCE_MAX)
            .keep_alive_timeout(SILENCE_MAX)
            .tcp_nodelay(true)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES);
        let way = self.dialled(&endpoint, &peer.address);
        let channel = way.channel.clone();
        if channels.len() >= CHANNELS_MAX {
            channels.clear();
        }
        channels.insert(key, way);
        Ok(channel)
    }

    /// One that is dialled when it is used.
    fn dialled(&self, endpoint: &Endpoint, address: &Arc<str>) -> Way {
        let pass = Arc::<Mutex<Pass>>::default();
        if !self.security.is_on() {
            return Way { channel: endpoint.connect_lazy(), pass };
        }
        let (security, address, of_last) =
            (self.security.clone(), Arc::clone(address), Arc::clone(&pass));
        let channel = endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let (security, address, of_last) =
                (security.clone(), Arc::clone(&address), Arc::clone(&of_last));
            async move {
                let (stream, pass) = security.dial(&address, Carried::Requests).await?;
                *of_last.lock().unwrap_or_else(PoisonError::into_inner) = pass;
                Ok::<_, io::Error>(TokioIo::new(stream))
            }
        }));
        Way { channel, pass }
    }
}

impl Hops {
    /// A request that is sent on once more.
    pub(crate) fn next<T>(&self, message: T) -> Request<T> {
        self.sent_on(self.count.saturating_add(1), message)
    }

    /// A request that is sent on for the last time.
    pub(crate) fn last<T>(&self, message: T) -> Request<T> {
        self.sent_on(HOPS_MAX, message)
    }

    fn sent_on<T>(&self, count: u8, message: T) -> Request<T> {
        let mut request = Request::new(message);
        let metadata = request.metadata_mut();
        metadata.insert(HOPS, u64::from(count).into());
        if let Some(group) = self.group {
            metadata.insert(GROUP, group.into());
        }
        if let Some(subject) = &self.subject {
            let name = BASE64.encode(subject.as_bytes());
            let name = MetadataValue::try_from(name).expect("base64 is plain text");
            metadata.insert(ON_BEHALF, name);
        }
        request
    }
}

/// An append that may be sent on, and its room until it is answered.
pub(crate) struct Admitted {
    append: Append,
    _room: OwnedSemaphorePermit,
}

/// Appends by way of another node.
pub(crate) async fn append(
    node: Node,
    peer: Peer,
    hops: Hops,
    id: PartitionId,
    admitted: Admitted,
) -> Result<Appended, Failure> {
    let Admitted { append, _room } = admitted;
    let request = v1::ProduceRequest {
        topic: id.topic.to_string(),
        partition: id.partition,
        batch: append.batch.freeze(),
        expected_offset: append.expected_offset,
        ..v1::ProduceRequest::default()
    };
    let mut log = node.forwarder.log(&peer)?;
    let answer = timeout(node.request_timeout(), log.produce(hops.next(request))).await;
    let answer = answer.map_err(|_| not_acknowledged(&node))?;
    let v1::ProduceResponse { offset, timestamp_ms, count, duplicate } =
        answer.map_err(|status| Failure::of_peer(&status))?.into_inner();
    Ok(Appended { base_offset: offset, record_count: count, timestamp_ms, duplicate })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_of_hops_is_no_more_than_a_number() {
        let of = |said: &'static str| {
            Hops::of(&HeaderMap::from_iter([(
                http::HeaderName::from_static(HOPS),
                http::HeaderValue::from_static(said),
            )]))
        };
        assert!(of("3").may_go_on() && !of("4").may_go_on() && !of("255").may_go_on());
        assert_eq!(of("256"), Hops::default());
        let next = of("255").on_own_behalf().next(());
        assert_eq!(next.metadata().get(HOPS).unwrap(), "255");
    }
}
