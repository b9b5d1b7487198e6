//! Nodes that failed, and may come back.

use std::collections::BTreeMap;

use super::identity::Identity;

/// How long it takes until the next one is called. A cable that is plugged in again joins what it
/// separated within about this, for each node that is missing.
pub(super) const CALL_INTERVAL_MS: i64 = 5_000;

/// Calls nodes that failed, one after the other, at an easy pace.
///
/// It is needed for two halves of a network to find each other again: each believes the other dead,
/// and the dead are not asked whether they live. foca could do it too, but only while it sees
/// others alive, and it would call those who left as well.
#[derive(Default)]
pub(super) struct Lost {
    nodes: BTreeMap<u64, Identity>,
    called: u64,
    due_ms: Option<i64>,
}

impl Lost {
    pub(super) fn add(&mut self, identity: Identity, now_ms: i64) {
        self.nodes.insert(identity.node_id(), identity);
        self.due_ms.get_or_insert(now_ms + CALL_INTERVAL_MS);
    }

    pub(super) fn remove(&mut self, node_id: u64) {
        self.nodes.remove(&node_id);
        self.due_ms = self.due_ms.filter(|_| !self.nodes.is_empty());
    }

    /// Forgets `identity`, unless the node failed once more since it had that one.
    pub(super) fn remove_if(&mut self, identity: &Identity) {
        if self.nodes.get(&identity.node_id()) == Some(identity) {
            self.remove(identity.node_id());
        }
    }

    /// When [`take_due`](Lost::take_due) has someone; `None` if nobody is missing.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        self.due_ms
    }

    /// Who is to be called now.
    pub(super) fn take_due(&mut self, now_ms: i64) -> Option<Identity> {
        self.due_ms.filter(|due_ms| *due_ms <= now_ms)?;
        let after = self.nodes.range(self.called.saturating_add(1)..).next();
        let (node_id, identity) = after.or_else(|| self.nodes.first_key_value())?;
        self.called = *node_id;
        self.due_ms = Some(now_ms + CALL_INTERVAL_MS);
        Some(identity.clone())
    }
}
