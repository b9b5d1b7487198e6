//! The other nodes: what is sent to them, and where they are.
//!
//! Raft and gossip talk in [`PeerFrame`]s. What carries a frame from node to node is a [`Network`],
//! which this crate does not have: the server brings one that uses its one port, tests and the
//! simulator bring theirs. A frame may be lost, doubled or overtaken by another; nothing relies on
//! its arrival.
//!
//! Left out: connections, encryption, and who is at the other end (the server).

mod frame;
pub(crate) mod routes;

use std::sync::Arc;

pub use self::frame::{PEER_FRAME_BYTES_MAX, PeerFrame, PeerFrameError, count_parts};

/// Where a node is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Peer {
    /// Which node is expected there; 0 if that is not known yet.
    pub node_id: u64,
    /// `host:port`, as the node advertises it.
    pub address: Arc<str>,
}

/// Carries frames to other nodes.
pub trait Network: Send + Sync {
    /// Sends `frame` to `peer`, connecting first if need be. Never blocks, never fails: what cannot
    /// be sent now, or finds too much waiting before it, is dropped.
    ///
    /// Frames to one peer stay in order as long as one connection lasts.
    fn send(&self, peer: &Peer, frame: PeerFrame);
}

/// The network of a node that has no peers.
#[derive(Clone, Copy, Debug)]
pub struct NoNetwork;

impl Network for NoNetwork {
    fn send(&self, peer: &Peer, _: PeerFrame) {
        tracing::debug!(address = %peer.address, "there is no network");
    }
}
