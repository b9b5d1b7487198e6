//! How nodes find each other, and notice that one is gone: gossip.
//!
//! ```text
//!   packets from peers ─ receive ─►┌────────┐
//!   seeds ─────────────── announce ►│ Gossip │─ actions ─► Send: packets to peers
//!   time ────────────────── tick ──►└────────┘          └► Event: who came, changed, went
//! ```
//!
//! Every node tells every other what it is, a [`Member`], and asks one of them each second whether
//! it is still there (SWIM with suspicion, by `foca`). Whoever does not answer, not by way of
//! others either, is suspected; if it does not object, it has failed. What anyone learns travels
//! along with these packets, so that a change is everywhere within a second, and what it costs does
//! not grow with the cluster.
//!
//! Gossip finds, it does not decide: members may be known here and not there, and one that has
//! failed may be alive behind a broken cable. What the cluster agrees on is in the metadata.
//!
//! Promises: no I/O, clock, thread or chance of its own, so that the same calls make the same
//! actions; hostile bytes do nothing; a node without peers and seeds does nothing either.
//!
//! Left out: whether a peer is who it says (the server's connections), asking seeds again until one
//! answers, and what follows from an event (the cluster).

pub(crate) mod agent;
mod gossip;
mod identity;
mod lost;
mod outbox;
mod packet;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod world;

use bytes::Bytes;

pub(crate) use self::gossip::Gossip;
use crate::peers::Peer;

/// What a node says of itself in gossip.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Member {
    /// Who it is; never 0.
    pub(crate) node_id: u64,
    /// Where it is reached: `host:port`. Never empty, and like the other strings at most 255 bytes.
    pub(crate) address: String,
    /// What people call it.
    pub(crate) name: String,
    /// What fails together with it; empty if nothing is known.
    pub(crate) rack: String,
    /// The cluster it is in; 0 if it is in none yet.
    pub(crate) cluster_id: u64,
    /// The metadata replica of the cluster's founder; 0 if there is none.
    pub(crate) founder: u64,
    /// Its own replica of the metadata.
    pub(crate) metadata_replica: u64,
    /// It waits for others to form a cluster with, and does not only want to join one.
    pub(crate) expects: bool,
    /// Grows whenever something else here changes, and when the node was believed dead: of two
    /// members with one id, the higher one is true. Milliseconds of Unix time serve to start with.
    pub(crate) incarnation: u64,
}

/// What happened, as far as the cluster is concerned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// It was not known, or was believed dead.
    Joined(Member),
    /// It says something else of itself, or has started again before anyone missed it.
    Changed(Member),
    /// It went on purpose.
    Left(Member),
    /// It does not answer, or has gone to another cluster.
    Failed(Member),
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// A packet is to be sent. It may get lost.
    Send {
        /// To whom.
        peer: Peer,
        /// What [`Gossip::receive`] takes there.
        packet: Bytes,
    },
    /// The cluster is to be told.
    Event(Event),
}
