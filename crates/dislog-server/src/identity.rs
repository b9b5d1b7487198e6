//! Who is at the other end: known once per connection, from its TLS handshake.
//!
//! The listener finds out before the first byte of a request is read, and hands the [`Caller`] to
//! whatever answers: requests carry it in their extensions, within an
//! [`Asking`](crate::access::Asking), the acceptor of nodes gets it itself.
//! What allows, what is logged and what is counted go by the same subject.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use crate::access::ANONYMOUS;
use crate::pass::Pass;

/// Who asks, and from where. A cheap handle.
#[derive(Clone)]
pub(crate) struct Caller {
    /// Who.
    pub(crate) subject: Subject,
    /// From where: the other end of the connection.
    pub(crate) from: SocketAddr,
    /// For how long the connection is theirs.
    pub(crate) pass: Pass,
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

/// Where a caller is, as far as that tells one from another: whoever has one IPv6 address has all
/// 2^64 of its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host(IpAddr);

impl Host {
    /// That of an address.
    pub(crate) fn of(address: IpAddr) -> Host {
        Host(match address.to_canonical() {
            IpAddr::V6(address) => {
                let [a, b, c, d, ..] = address.segments();
                IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
            }
            address => address,
        })
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V4(address) => write!(f, "{address}"),
            IpAddr::V6(network) => write!(f, "{network}/64"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_one_caller_can_choose_from_are_one_host() {
        let of = |address: &str| Host::of(address.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:2:3:4"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
        assert_eq!(of("2001:db8::1").to_string(), "2001:db8::/64");
    }
}
