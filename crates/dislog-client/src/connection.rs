//! Connections: the servers' addresses, and channels to them.
//!
//! A channel dials when it is first used and again whenever it was lost, so "connecting" never is a
//! step of its own. Every consumer has a connection to itself, because a reader that stops taking
//! records holds back everything that shares its HTTP/2 connection window.
//!
//! Left out: which server to talk to. That is for the directory.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use dislog_proto::DEFAULT_PORT;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use dislog_tls::ClientTls;
use dislog_types::limits::BATCH_BYTES_MAX;
use http::Uri;
use http_body::Body as HttpBody;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::body::Body;
use tonic::client::GrpcService;
use tonic::codegen::StdError as BoxError;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;

use crate::access::Bearer;
use crate::directory::{Address, Directory};
use crate::{AccessToken, Error};

/// The most bytes of one message. A batch is the largest thing in one, with room for what frames
/// it.
const MESSAGE_BYTES_MAX: usize = 2 * BATCH_BYTES_MAX;

/// The HTTP/2 window of connections that receive little: answers and topics.
pub(crate) const ANSWERS_WINDOW_BYTES: u32 = 1 << 20;

/// The smallest HTTP/2 window: what the protocol starts with.
pub(crate) const WINDOW_BYTES_MIN: u32 = (1 << 16) - 1;

/// The largest HTTP/2 window the protocol allows.
pub(crate) const WINDOW_BYTES_MAX: u32 = (1 << 31) - 1;

/// The largest HTTP/2 frame a server may send us: larger ones cost less per byte than the
/// protocol's 16 KiB.
const FRAME_BYTES_MAX: u32 = 256 << 10;

/// A silent connection with work under way is probed after so long, and given up if no answer came
/// after as long again, so that a vanished or stopped server is noticed. An idle connection is not
/// probed. What is under way over it may have an unknown outcome then.
pub(crate) const PROBE_AFTER: Duration = Duration::from_secs(3);

/// The same for readers, who lose nothing when they go elsewhere.
pub(crate) const READER_PROBE_AFTER: Duration = Duration::from_millis(1_500);

/// Connections that are kept at once; more than a cluster has servers.
const CONNECTIONS_MAX: usize = 256;

/// The servers of a cluster, as far as they are known, and how they are dialled.
#[derive(Debug)]
pub(crate) struct Servers {
    directory: Mutex<Directory>,
    connect_timeout: Duration,
    tls: Option<ClientTls>,
    token: Option<AccessToken>,
}

impl Servers {
    /// Servers at `host:port` each, perhaps with a scheme that fits `tls`.
    pub(crate) fn parse<S: AsRef<str>>(
        addresses: impl IntoIterator<Item = S>,
        connect_timeout: Duration,
        tls: Option<ClientTls>,
    ) -> Result<Servers, Error> {
        let given = addresses.into_iter().map(|given| given_address(given.as_ref(), tls.is_some()));
        let given = given.collect::<Result<Vec<_>, _>>()?;
        if given.is_empty() {
            return Err(Error::Address { given: String::new(), problem: "none is given".into() });
        }
        let mut directory = Directory::of(given);
        directory.set_turn(rand::random_range(0..1 << 16));
        Ok(Servers { directory: Mutex::new(directory), connect_timeout, tls, token: None })
    }

    /// The same, and a token is shown to them.
    pub(crate) fn showing(self, token: Option<AccessToken>) -> Servers {
        Servers { token, ..self }
    }

    /// What is known of them.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Directory> {
        self.directory.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All addresses, for messages.
    pub(crate) fn names(&self) -> String {
        self.lock().names()
    }

    /// A connection of its own, not dialled yet, over which the server may send `window_bytes`
    /// ahead of what was taken. Must be called within a Tokio runtime.
    pub(crate) fn connection(
        &self,
        server: &Address,
        window_bytes: u32,
        probe_after: Duration,
    ) -> Connection {
        let window_bytes = window_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
        let agent = concat!("dislog-client/", env!("CARGO_PKG_VERSION"));
        let endpoint = Endpoint::from_shared(format!("http://{server}"))
            .expect("an address is checked before it is known")
            .user_agent(agent)
            .expect("the name and version are a valid header")
            .connect_timeout(self.connect_timeout)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(probe_after)
            .keep_alive_timeout(probe_after)
            .max_frame_size(FRAME_BYTES_MAX)
            .initial_stream_window_size(window_bytes)
            .initial_connection_window_size(window_bytes);
        let bearer = Bearer::to(server, self.token.as_ref(), self.tls.is_some());
        Connection { channel: self.dialled(endpoint, server), bearer }
    }

    /// A channel that dials when it is used.
    fn dialled(&self, endpoint: Endpoint, server: &Address) -> Channel {
        let Some(tls) = self.tls.clone() else { return endpoint.connect_lazy() };
        let endpoint = match format!("https://{server}").parse() {
            Ok(origin) => endpoint.origin(origin),
            Err(_) => endpoint,
        };
        let server = server.clone();
        endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
            let (tls, server) = (tls.clone(), server.clone());
            async move {
                let stream = TcpStream::connect(&*server).await?;
                stream.set_nodelay(true)?;
                Ok::<_, io::Error>(TokioIo::new(tls.connect(&server, stream).await?))
            }
        }))
    }
}

/// The `host:port` of what a user names. A scheme, if there is one, has to fit what is spoken.
pub(crate) fn given_address(given: &str, tls: bool) -> Result<Address, Error> {
    let problem = match given.trim().split_once("://") {
        Some(("https", _)) if !tls => {
            "https needs a CA file, and most servers want a certificate, too: give TLS files"
        }
        Some(("http", _)) if tls => "http is plaintext, but TLS files are given",
        Some(("https", rest)) => return address(rest),
        _ => return address(given),
    };
    Err(Error::Address { given: given.to_owned(), problem: problem.to_owned() })
}

/// The `host:port` of what a server names.
pub(crate) fn address(given: &str) -> Result<Address, Error> {
    let wrong = |problem: String| Error::Address { given: given.to_owned(), problem };
    let address = given.trim().trim_end_matches('/');
    let authority = match address.split_once("://") {
        None => address,
        Some(("http", rest)) => rest,
        Some((scheme, _)) => return Err(wrong(format!("scheme {scheme:?} is not supported"))),
    };
    let authority: http::uri::Authority =
        authority.parse().map_err(|error| wrong(format!("not an address ({error})")))?;
    if authority.host().is_empty() {
        return Err(wrong("the host is missing".to_owned()));
    }
    let address = match authority.port() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:{DEFAULT_PORT}"),
    };
    Endpoint::from_shared(format!("http://{address}")).map_err(|e| wrong(e.to_string()))?;
    Ok(address.into())
}

/// A channel to one server. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    channel: Channel,
    bearer: Bearer,
}

/// A channel over which every request shows who asks.
pub(crate) type Shown = InterceptedService<Channel, Bearer>;

impl Connection {
    /// The log service over this connection.
    pub(crate) fn log(&self) -> LogClient<Shown> {
        self.log_over(|channel| channel)
    }

    /// The log service over what `around` makes of this connection.
    pub(crate) fn log_over<C>(&self, around: impl FnOnce(Shown) -> C) -> LogClient<C>
    where
        C: GrpcService<Body, Error: Into<BoxError>>,
        C::ResponseBody: HttpBody<Data = Bytes, Error: Into<BoxError> + Send> + Send + 'static,
    {
        let shown = InterceptedService::new(self.channel.clone(), self.bearer.clone());
        LogClient::new(around(shown))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The admin service over this connection.
    pub(crate) fn admin(&self) -> AdminClient<Shown> {
        AdminClient::with_interceptor(self.channel.clone(), self.bearer.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

/// A connection to each server that was talked to, for calls whose answers are small. At most as
/// many as there are servers known.
#[derive(Debug)]
pub(crate) struct Connections {
    servers: Arc<Servers>,
    open: Mutex<HashMap<Address, Connection>>,
}

impl Connections {
    /// None yet.
    pub(crate) fn new(servers: Arc<Servers>) -> Connections {
        Connections { servers, open: Mutex::new(HashMap::new()) }
    }

    /// The connection to a server. Must be called within a Tokio runtime.
    pub(crate) fn to(&self, server: &Address) -> Connection {
        let mut open = self.lock();
        if open.len() >= CONNECTIONS_MAX && !open.contains_key(server) {
            open.clear();
        }
        let dial = || self.servers.connection(server, ANSWERS_WINDOW_BYTES, PROBE_AFTER);
        open.entry(server.clone()).or_insert_with(dial).clone()
    }

    /// Does not use a connection again over which no answer came: it may lead nowhere. Calls that
    /// are under way over it go on.
    pub(crate) fn discard(&self, server: &str) {
        self.lock().remove(server);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Address, Connection>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(addresses: &[&str]) -> Result<String, Error> {
        Servers::parse(addresses, Duration::from_secs(1), None).map(|servers| servers.names())
    }

    #[test]
    fn addresses_have_two_forms_and_a_default_port() {
        assert_eq!(parse(&["a:1", "http://b:2/"]).unwrap(), "a:1, b:2");
        assert_eq!(parse(&["localhost"]).unwrap(), "localhost:8400");
        assert_eq!(parse(&["[::1]:9"]).unwrap(), "[::1]:9");
    }

    #[test]
    fn bad_addresses_are_named() {
        for bad in ["https://a:1", "", ":8400", "a b:1", "http://"] {
            let error = parse(&["good:1", bad]).unwrap_err();
            assert!(matches!(&error, Error::Address { given, .. } if given == bad), "{error}");
        }
        assert!(parse(&[]).is_err());
    }
}
