//! Who is at the other end: known once per connection, from its TLS handshake.
//!
//! The listener finds out before the first byte of a request is read, and hands the [`Caller`] to
//! whatever answers: requests carry it in their extensions, within an
//! [`Asking`](crate::access::Asking), the acceptor of nodes gets it itself.
//! What allows, what is logged and what is counted go by the same subject.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::access::ANONYMOUS;

/// Who asks, and from where. A cheap handle.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) subject: Subject,
    /// From where: the other end of the connection.
    pub(crate) from: SocketAddr,
}

/// Who a caller has proved to be.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Subject {
    /// Nobody: the connection is plaintext, or came without a certificate.
    Anonymous,
    /// The client that the certificate names.
    Client(Arc<str>),
    /// Whom a bearer token names.
    Bearer(Arc<str>),
    /// Whom a node names that sends on what they ask.
    Vouched(Arc<str>),
    /// The node that the certificate names: one of this cluster. Only such a one may speak the
    /// protocol between nodes, and send on what others ask.
    Node(Arc<str>),
}

impl Subject {
    /// The name by which rules, records of what was done and telemetry know it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Subject::Anonymous => ANONYMOUS,
            Subject::Client(name)
            | Subject::Bearer(name)
            | Subject::Vouched(name)
            | Subject::Node(name) => name,
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
