//! Which replicas a partition should have, has, and began with.

use dislog_types::limits::TOPIC_PARTITIONS_MAX;

/// One replica of a partition. Its id is given once in the life of a cluster: a replica that lost
/// its data is followed by another, never taken for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Replica {
    pub(crate) id: u64,
    /// The node it is on.
    pub(crate) node: u64,
}

/// See the module.
///
/// - A node has at most one replica in `target`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Those the group was made with.
    pub(crate) initial: Vec<Replica>,
    /// Those it should have.
    pub(crate) target: Vec<Replica>,
    /// Those it has, as its leader said last.
    pub(crate) members: Vec<Replica>,
    /// The entry of the group's log that made them so.
    pub(crate) members_since: u64,
}

impl Assignment {
    /// That of a new partition.
    pub(crate) fn new(replicas: Vec<Replica>) -> Assignment {
        let (initial, target) = (replicas.clone(), replicas.clone());
        Assignment { initial, target, members: replicas, members_since: 0 }
    }

    /// The replica that `node` should have, or has for now.
    pub(crate) fn on(&self, node: u64) -> Option<Replica> {
        self.target.iter().chain(&self.members).find(|replica| replica.node == node).copied()
    }

    /// Everyone who is known to have a part in it.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = Replica> + '_ {
        [&self.target, &self.members, &self.initial].into_iter().flatten().copied()
    }

    /// The nodes it should be on.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.target.iter().map(|replica| replica.node).collect()
    }

    /// It should be on `nodes`; where it is not yet, it gets a replica of a new id.
    pub(super) fn assign(&mut self, nodes: &[u64], mut next_id: impl FnMut() -> u64) {
        let target = nodes.iter().map(|&node| {
            let kept = self.target.iter().find(|replica| replica.node == node).copied();
            kept.unwrap_or_else(|| Replica { id: next_id(), node })
        });
        self.target = target.collect();
    }

    /// Its group has these members since that entry; replicas that nobody knows have no node to be
    /// on and are left out.
    pub(super) fn report(&mut self, since: u64, replicas: &[u64]) {
        if since < self.members_since {
            return;
        }
        let known: Vec<Replica> = self.replicas().collect();
        let find = |id: &u64| known.iter().find(|replica| replica.id == *id).copied();
        self.members = replicas.iter().filter_map(find).collect();
        self.members_since = since;
    }
}

/// The group of a topic's first partition; the others follow. Group 0 is the metadata's own.
pub(crate) fn first_group(topic_id: u64) -> u64 {
    (topic_id + 1) * u64::from(TOPIC_PARTITIONS_MAX)
}

/// The topic whose partition a group is.
pub(crate) fn topic_of(group: u64) -> Option<u64> {
    (group / u64::from(TOPIC_PARTITIONS_MAX)).checked_sub(1)
}

/// Which of its topic's partitions a group is.
pub(crate) fn partition_of(group: u64) -> usize {
    usize::try_from(group % u64::from(TOPIC_PARTITIONS_MAX)).expect("partitions are few")
}
