//! What the leader of the metadata decides: who belongs to the cluster, and where partitions go.
//!
//! A pure function of the state and of who is seen alive; what it wants becomes commands, and is
//! asked for again once they are applied. Whatever is interrupted is so taken up by the next
//! leader.

use std::collections::{BTreeMap, BTreeSet};

use super::command::{AssignPartition, Change, MarkNode, RegisterNode, RemoveNode, Standing};
use super::placement::Candidates;
use super::state::{State, TopicLife};

/// Partitions whose replicas may be on their way to other nodes at a time: each costs the cluster a
/// copy of its log.
const MOVES_MAX: usize = 32;

/// Partitions moved at a time only to even out the nodes.
const BALANCING_MOVES_MAX: usize = 4;

/// Partitions that get another first replica at a time: that costs a command each, and later the
/// change of a leader.
const FIRSTS_MAX: usize = 64;

/// Who is there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Nodes that are alive, and what they say of themselves.
    pub(crate) alive: BTreeMap<u64, RegisterNode>,
    /// Nodes that have been gone for so long that their replicas are given to others.
    pub(crate) absent: BTreeSet<u64>,
}

/// What is to be changed now.
pub(crate) fn decide(state: &State, seen: &Seen) -> Vec<Change> {
    let mut changes = nodes(state, seen);
    // Where partitions go depends on the nodes: one thing after the other.
    if changes.is_empty() {
        changes = assignments(state);
    }
    changes
}

fn nodes(state: &State, seen: &Seen) -> Vec<Change> {
    let news = |told: &&RegisterNode| state.node(told.node_id).is_none_or(|n| n.told != **told);
    let mut changes: Vec<Change> =
        seen.alive.values().filter(news).cloned().map(Change::Register).collect();
    for node in state.nodes() {
        let node_id = node.told.node_id;
        let alive = seen.alive.contains_key(&node_id);
        // Whoever answers where it was has taken its place: a node that lost its disk comes back
        // as another.
        let replaced = !alive && seen.alive.values().any(|told| told.address == node.told.address);
        let absent = replaced || seen.absent.contains(&node_id);
        let over = replaced || node.standing == Standing::Draining;
        let standing = match node.standing {
            _ if over && !alive && !state.has_replicas(node_id) => {
                changes.push(Change::Remove(RemoveNode { node_id }));
                continue;
            }
            Standing::Active if absent => Standing::Absent,
            Standing::Absent if alive => Standing::Active,
            _ => continue,
        };
        changes.push(Change::Mark(MarkNode { node_id, standing: standing.into() }));
    }
    changes
}

fn assignments(state: &State) -> Vec<Change> {
    let mut candidates = state.candidates();
    let mut changes = Vec::new();
    let mut under_way = state.topics().flat_map(moving).count();
    for (life, partition) in state.topics().flat_map(partitions) {
        if under_way >= MOVES_MAX {
            break;
        }
        let present = life.partitions[partition].nodes();
        let nodes = wanted(&mut candidates, &present, life);
        if nodes != present && !nodes.is_empty() {
            under_way += 1;
            let group = life.group(u32::try_from(partition).expect("partitions are few"));
            changes.push(Change::Assign(AssignPartition { group, nodes }));
        }
    }
    if under_way > 0 {
        return changes;
    }
    let moves = balance(state, candidates.clone());
    if moves.is_empty() { even_firsts(state, candidates) } else { moves }
}

/// Other first places, so that each node leads its share in the long run; only when no replica
/// moves.
fn even_firsts(state: &State, mut candidates: Candidates) -> Vec<Change> {
    let mut changes = Vec::new();
    for (life, partition) in state.topics().flat_map(partitions) {
        let mut nodes = life.partitions[partition].nodes();
        if candidates.even_first(&mut nodes) {
            let group = life.group(u32::try_from(partition).expect("partitions are few"));
            changes.push(Change::Assign(AssignPartition { group, nodes }));
        }
        if changes.len() == FIRSTS_MAX {
            break;
        }
    }
    changes
}

fn wanted(candidates: &mut Candidates, present: &[u64], life: &TopicLife) -> Vec<u64> {
    let replicas = usize::try_from(life.topic.settings.replicas).expect("replicas are few");
    candidates.place(present, replicas)
}

/// Moves that bring the nodes closer to each other; only when nothing else moves.
fn balance(state: &State, candidates: Candidates) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut candidates = candidates;
    for (life, partition) in state.topics().flat_map(partitions) {
        let present = life.partitions[partition].nodes();
        let Some((from, to)) = candidates.better(&present) else { continue };
        let nodes = present.into_iter().map(|node| if node == from { to } else { node }).collect();
        candidates.moved(from, to);
        let group = life.group(u32::try_from(partition).expect("partitions are few"));
        changes.push(Change::Assign(AssignPartition { group, nodes }));
        if changes.len() == BALANCING_MOVES_MAX {
            break;
        }
    }
    changes
}

fn partitions(life: &TopicLife) -> impl Iterator<Item = (&TopicLife, usize)> {
    (0..life.partitions.len()).map(move |partition| (life, partition))
}

/// The partitions that do not have the replicas they should.
fn moving(life: &TopicLife) -> impl Iterator<Item = usize> + '_ {
    let is_moving = |partition: &usize| {
        let assignment = &life.partitions[*partition];
        let ids = |replicas: &[super::assignment::Replica]| -> BTreeSet<u64> {
            replicas.iter().map(|replica| replica.id).collect()
        };
        ids(&assignment.target) != ids(&assignment.members)
    };
    (0..life.partitions.len()).filter(is_moving)
}

#[cfg(test)]
#[path = "controller_tests.rs"]
mod tests;
