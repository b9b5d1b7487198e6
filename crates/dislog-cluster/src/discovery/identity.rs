//! Who a node is to foca.

use std::sync::Arc;

use super::Member;

/// A member as foca handles it: cheap to clone.
///
/// - Two identities of one node differ in their incarnation, and the higher one wins; nothing else
///   is compared. A destination can so be named by two numbers, without what is known of it.
/// - Whoever says that it is leaving never renews its identity: it must not come back because
///   somebody believes it dead.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) member: Arc<Member>,
    /// It leaves on purpose.
    pub(super) leaving: bool,
}

/// Where foca believes an identity to be: the node, wherever it is.
///
/// Node 0 is equal to every node. It only ever stands as the destination of an announcement to a
/// seed, of which the address is known and nothing else: whoever gets it is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct NodeAddress(u64);

impl Identity {
    pub(super) fn new(member: Member) -> Identity {
        Identity { member: Arc::new(member), leaving: false }
    }

    /// Names an identity without telling of it.
    pub(super) fn reference(node_id: u64, incarnation: u64) -> Identity {
        Identity::new(Member { node_id, incarnation, ..Member::default() })
    }

    /// Whoever is at `address`.
    pub(super) fn seed(address: &str) -> Identity {
        Identity::new(Member { address: address.to_owned(), ..Member::default() })
    }

    pub(super) fn node_id(&self) -> u64 {
        self.member.node_id
    }

    pub(super) fn incarnation(&self) -> u64 {
        self.member.incarnation
    }
}

impl foca::Identity for Identity {
    type Addr = NodeAddress;

    fn renew(&self) -> Option<Identity> {
        let incarnation = self.incarnation().checked_add(1).filter(|_| !self.leaving)?;
        Some(Identity::new(Member { incarnation, ..Member::clone(&self.member) }))
    }

    fn addr(&self) -> NodeAddress {
        NodeAddress(self.node_id())
    }

    fn win_addr_conflict(&self, adversary: &Identity) -> bool {
        self.incarnation() > adversary.incarnation()
    }
}

impl PartialEq for Identity {
    fn eq(&self, other: &Identity) -> bool {
        self.node_id() == other.node_id() && self.incarnation() == other.incarnation()
    }
}

impl Eq for Identity {}

impl PartialEq for NodeAddress {
    fn eq(&self, other: &NodeAddress) -> bool {
        self.0 == other.0 || self.0 == 0 || other.0 == 0
    }
}
