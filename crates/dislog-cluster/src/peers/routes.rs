//! Where replicas are, and the way to them.
//!
//! Replicas have ids of their own, unique in the cluster, so that a replica that lost its data and
//! came back as another is never taken for the one before. On which node a replica is follows from
//! the metadata, and is learnt from what it sends: a replica can be answered before this node knows
//! the metadata that speaks of it.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Network, Peer, PeerFrame};
use crate::raft::pulse::Pulse;
use crate::raft::transport::{PeerMessage, PeerMessageKind, Transport};

/// Bytes of messages in one frame before it is sent off; a frame has at least one message.
const FRAME_BYTES_MAX: usize = 4 << 20;

/// The way to the other nodes, shared by all who send.
pub(crate) struct Routes {
    node_id: u64,
    network: Arc<dyn Network>,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    cluster_id: u64,
    /// The node of a replica.
    nodes: HashMap<u64, u64>,
    /// Where a node is.
    addresses: HashMap<u64, Arc<str>>,
}

impl Routes {
    /// The way from `node_id`, which knows nobody yet.
    pub(crate) fn new(node_id: u64, network: Arc<dyn Network>) -> Routes {
        Routes { node_id, network, table: Mutex::default() }
    }

    /// This node is in a cluster now, and says so in what it sends.
    pub(crate) fn set_cluster(&self, cluster_id: u64) {
        self.table().cluster_id = cluster_id;
    }

    /// A node sent this message, and so has the replica that it is from, unless something else is
    /// known. Not if it may have come by way of another replica: a follower that is asked for a
    /// read passes the question on to its leader as it came.
    pub(crate) fn learn(&self, message: &PeerMessage, node_id: u64) {
        if message.kind() != PeerMessageKind::ReadIndex {
            self.table().nodes.entry(message.from).or_insert(node_id);
        }
    }

    /// A replica is on a node, says the metadata.
    pub(crate) fn set_node(&self, replica: u64, node_id: u64) {
        self.table().nodes.insert(replica, node_id);
    }

    /// A node is at an address.
    pub(crate) fn set_address(&self, node_id: u64, address: &str) {
        self.table().addresses.insert(node_id, Arc::from(address));
    }

    /// The node of a replica, if it is known.
    pub(crate) fn node_of(&self, replica: u64) -> Option<u64> {
        self.table().nodes.get(&replica).copied()
    }

    /// Where a node is, if that is known.
    pub(crate) fn address_of(&self, node_id: u64) -> Option<Arc<str>> {
        self.table().addresses.get(&node_id).cloned()
    }

    /// Sends a packet of gossip to whoever is at `peer`.
    pub(crate) fn send_gossip(&self, peer: &Peer, packet: bytes::Bytes) {
        let frame = PeerFrame { gossip: packet, ..self.frame() };
        self.network.send(peer, frame);
    }

    /// Sends a command for the metadata to a node.
    pub(crate) fn send_command(&self, node_id: u64, command: bytes::Bytes) {
        let frame = PeerFrame { command, ..self.frame() };
        self.send(node_id, frame);
    }

    fn send(&self, node_id: u64, frame: PeerFrame) {
        if let Some(address) = self.address_of(node_id) {
            self.network.send(&Peer { node_id, address }, frame);
        }
    }

    fn frame(&self) -> PeerFrame {
        let cluster_id = self.table().cluster_id;
        PeerFrame { cluster_id, node_id: self.node_id, ..PeerFrame::default() }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().expect("nothing panics while it is locked")
    }
}

/// Gathers what the driver sends in a turn into a frame per node.
pub(crate) struct Mailbags {
    routes: Arc<Routes>,
    /// In order, so that what is sent does not hang on chance.
    bags: BTreeMap<u64, Bag>,
}

#[derive(Default)]
struct Bag {
    messages: Vec<PeerMessage>,
    bytes: usize,
    pulse: Option<Pulse>,
}

impl Mailbags {
    pub(crate) fn new(routes: Arc<Routes>) -> Mailbags {
        Mailbags { routes, bags: BTreeMap::new() }
    }
}

impl Transport for Mailbags {
    fn send(&mut self, message: PeerMessage) {
        let Some(node_id) = self.routes.node_of(message.to) else {
            tracing::debug!(group = message.group, to = message.to, "no way to a replica");
            return;
        };
        let bag = self.bags.entry(node_id).or_default();
        let bytes = message.bytes();
        if !bag.messages.is_empty() && bag.bytes + bytes > FRAME_BYTES_MAX {
            let messages = std::mem::take(&mut bag.messages);
            bag.bytes = 0;
            let frame = PeerFrame { messages, ..self.routes.frame() };
            self.routes.send(node_id, frame);
        }
        bag.bytes += bytes;
        bag.messages.push(message);
    }

    fn pulse(&mut self, node: u64, pulse: Pulse) {
        self.bags.entry(node).or_default().pulse = Some(pulse);
    }

    fn node_of(&self, replica: u64) -> Option<u64> {
        self.routes.node_of(replica)
    }

    fn flush(&mut self) {
        for (node_id, bag) in std::mem::take(&mut self.bags) {
            let Bag { messages, pulse, .. } = bag;
            let frame = PeerFrame { messages, pulse, ..self.routes.frame() };
            self.routes.send(node_id, frame);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nowhere;

    impl Network for Nowhere {
        fn send(&self, _peer: &Peer, _frame: PeerFrame) {}
    }

    fn from(replica: u64, kind: PeerMessageKind) -> PeerMessage {
        PeerMessage { from: replica, kind: kind.into(), ..PeerMessage::default() }
    }

    #[test]
    fn a_question_that_was_passed_on_does_not_say_where_its_replica_is() {
        let routes = Routes::new(1, Arc::new(Nowhere));
        routes.learn(&from(8, PeerMessageKind::ReadIndex), 2);
        assert_eq!(routes.node_of(8), None);
        routes.learn(&from(8, PeerMessageKind::AppendResponse), 3);
        routes.learn(&from(8, PeerMessageKind::ReadIndex), 2);
        assert_eq!(routes.node_of(8), Some(3));
    }

    #[test]
    fn what_the_metadata_says_stands() {
        let routes = Routes::new(1, Arc::new(Nowhere));
        routes.learn(&from(8, PeerMessageKind::AppendResponse), 2);
        routes.set_node(8, 3);
        routes.learn(&from(8, PeerMessageKind::AppendResponse), 2);
        assert_eq!(routes.node_of(8), Some(3));
    }
}
