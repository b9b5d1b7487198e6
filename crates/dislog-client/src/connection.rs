//! Connections: the servers' addresses, and a channel to one of them at a time.
//!
//! A channel dials when it is first used and again whenever it was lost, so "connecting" never is a
//! step of its own. Every consumer has a connection to itself, because a reader that stops taking
//! records holds back everything that shares its HTTP/2 connection window.
//!
//! Left out: following the leader. Every server forwards.

use std::sync::Arc;
use std::time::Duration;

use dislog_proto::DEFAULT_PORT;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use dislog_types::limits::BATCH_BYTES_MAX;
use tonic::transport::{Channel, Endpoint};

use crate::Error;

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

/// A silent connection with work under way is probed this often, so that a vanished server is
/// noticed.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How long the answer to a probe may take.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

/// The addresses of a cluster's servers; at least one.
#[derive(Debug)]
pub(crate) struct Servers {
    endpoints: Vec<Endpoint>,
}

impl Servers {
    /// Servers at `host:port` or `http://host:port` each.
    pub(crate) fn parse<S: AsRef<str>>(
        addresses: impl IntoIterator<Item = S>,
        connect_timeout: Duration,
    ) -> Result<Servers, Error> {
        let endpoints = addresses
            .into_iter()
            .map(|address| endpoint(address.as_ref(), connect_timeout))
            .collect::<Result<Vec<_>, _>>()?;
        if endpoints.is_empty() {
            return Err(Error::Address { given: String::new(), problem: "none is given".into() });
        }
        Ok(Servers { endpoints })
    }

    /// All addresses, for messages.
    pub(crate) fn names(&self) -> String {
        let names: Vec<String> = self.endpoints.iter().map(|e| e.uri().to_string()).collect();
        names.join(", ")
    }
}

fn endpoint(given: &str, connect_timeout: Duration) -> Result<Endpoint, Error> {
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
    let uri = match authority.port() {
        Some(_) => format!("http://{authority}"),
        None => format!("http://{authority}:{DEFAULT_PORT}"),
    };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| wrong(error.to_string()))?;
    let agent = concat!("dislog-client/", env!("CARGO_PKG_VERSION"));
    Ok(endpoint
        .user_agent(agent)
        .expect("the name and version are a valid header")
        .connect_timeout(connect_timeout)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .max_frame_size(FRAME_BYTES_MAX))
}

/// A channel to one server at a time. Clones share the channel until one of them moves on.
#[derive(Clone, Debug)]
pub(crate) struct Connection {
    servers: Arc<Servers>,
    window_bytes: u32,
    current: usize,
    channel: Channel,
}

impl Connection {
    /// A new connection, not dialled yet, over which the server may send `window_bytes` ahead of
    /// what was taken. Must be called within a Tokio runtime.
    pub(crate) fn new(servers: Arc<Servers>, window_bytes: u32) -> Connection {
        let channel = channel(&servers, 0, window_bytes);
        Connection { servers, window_bytes, current: 0, channel }
    }

    /// Moves on to the next server after a failure. With one server this keeps the channel, which
    /// dials again by itself.
    pub(crate) fn move_on(&mut self) {
        let next = (self.current + 1) % self.servers.endpoints.len();
        if next != self.current {
            self.current = next;
            self.channel = channel(&self.servers, next, self.window_bytes);
        }
    }

    /// The servers it chooses from.
    pub(crate) fn servers(&self) -> &Servers {
        &self.servers
    }

    /// The log service over this connection.
    pub(crate) fn log(&self) -> LogClient<Channel> {
        LogClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX)
    }

    /// The admin service over this connection.
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(MESSAGE_BYTES_MAX)
    }
}

fn channel(servers: &Servers, number: usize, window_bytes: u32) -> Channel {
    let window_bytes = window_bytes.clamp(WINDOW_BYTES_MIN, WINDOW_BYTES_MAX);
    servers.endpoints[number]
        .clone()
        .initial_stream_window_size(window_bytes)
        .initial_connection_window_size(window_bytes)
        .connect_lazy()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(addresses: &[&str]) -> Result<String, Error> {
        Servers::parse(addresses, Duration::from_secs(1)).map(|servers| servers.names())
    }

    #[test]
    fn addresses_have_two_forms_and_a_default_port() {
        assert_eq!(parse(&["a:1", "http://b:2/"]).unwrap(), "http://a:1/, http://b:2/");
        assert_eq!(parse(&["localhost"]).unwrap(), "http://localhost:8400/");
        assert_eq!(parse(&["[::1]:9"]).unwrap(), "http://[::1]:9/");
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
