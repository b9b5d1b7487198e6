//! Which replicas a partition should have, has, and began with.

use std::collections::BTreeSet;

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
/// - A node has at most one replica in `target`, and at most one in all that was not given up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// Those the group was made with.
    pub(crate) initial: Vec<Replica>,
    /// Those it should have.
    pub(crate) target: Vec<Replica>,
    /// Those it has, as its leader said last, and those that it may have got since.
    pub(crate) members: Vec<Replica>,
    /// The entry of the group's log that made them so.
    pub(crate) members_since: u64,
    /// Members that lost what they had.
    pub(crate) given_up: BTreeSet<u64>,
    /// One past the offset of the command that changed `target` last.
    pub(crate) target_since: u64,
}

impl Assignment {
    /// That of a new partition.
    pub(crate) fn new(replicas: Vec<Replica>) -> Assignment {
        let (initial, target) = (replicas.clone(), replicas.clone());
        Assignment { initial, target, members: replicas, ..Assignment::default() }
    }

    /// The replica that `node` should have, or has for now.
    pub(crate) fn on(&self, node: u64) -> Option<Replica> {
        self.target.iter().chain(self.sound_members()).find(|it| it.node == node).copied()
    }

    fn sound_members(&self) -> impl Iterator<Item = &Replica> {
        self.members.iter().filter(|member| !self.given_up.contains(&member.id))
    }

    /// Everyone who is known to have a part in it.
    pub(crate) fn replicas(&self) -> impl Iterator<Item = Replica> + '_ {
        [&self.target, &self.members, &self.initial].into_iter().flatten().copied()
    }

    /// The nodes it should be on.
    pub(crate) fn nodes(&self) -> Vec<u64> {
        self.target.iter().map(|replica| replica.node).collect()
    }

    /// It should be on `nodes`; where it is not yet, it gets a replica of a new id. One that was
    /// to go and is still there stays: were another to take its place before the group has done
    /// without it, the group could lose its majority.
    pub(super) fn assign(&mut self, since: u64, nodes: &[u64], mut next_id: impl FnMut() -> u64) {
        let target: Vec<Replica> = nodes
            .iter()
            .map(|&node| self.on(node).unwrap_or_else(|| Replica { id: next_id(), node }))
            .collect();
        // The group may have taken them in meanwhile; its leader will say if it has not.
        let is_new = |it: &&Replica| !target.contains(it) && !self.members.contains(it);
        let dropped: Vec<Replica> = self.target.iter().filter(is_new).copied().collect();
        self.members.extend(dropped);
        self.target = target;
        self.target_since = since;
    }

    /// A replica lost what it had: another, of this id, takes its place on its node. Whether there
    /// was such a replica.
    pub(super) fn replace(&mut self, since: u64, lost: u64, id: u64) -> bool {
        let Some(replica) = self.target.iter_mut().find(|known| known.id == lost) else {
            return false;
        };
        replica.id = id;
        self.given_up.insert(lost);
        self.target_since = since;
        true
    }

    /// Its group has these members since that entry, says a leader that `knows` the metadata up to
    /// an offset; replicas that nobody knows have no node to be on and are left out. A leader that
    /// did not know the target may take in others yet.
    ///
    /// One that was asked back while the group did without it already has left it for good: another
    /// takes its place on its node.
    pub(super) fn report(
        &mut self,
        at: u64,
        (since, replicas): (u64, &[u64]),
        knows: Option<u64>,
        mut next_id: impl FnMut() -> u64,
    ) {
        let is_behind = knows.is_some_and(|knows| knows < self.target_since);
        if since < self.members_since || is_behind {
            return;
        }
        for replica in &mut self.target {
            if self.members.contains(replica) && !replicas.contains(&replica.id) {
                replica.id = next_id();
                self.target_since = at;
            }
        }
        let known: Vec<Replica> = self.replicas().collect();
        let find = |id: &u64| known.iter().find(|replica| replica.id == *id).copied();
        self.members = replicas.iter().filter_map(find).collect();
        self.members_since = since;
        self.given_up.retain(|lost| replicas.contains(lost));
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
