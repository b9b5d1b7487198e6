//! Where replicas go: pure functions of what is known, so that a test or a simulator can ask them
//! anything.
//!
//! A partition stays where it is as far as that is allowed; what it lacks goes to racks it is not
//! in, then to the nodes with the fewest replicas.

use std::collections::{BTreeMap, BTreeSet};

/// A node that may have replicas.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    pub(crate) node_id: u64,
    /// Empty: nothing is known of it, so it is one of its own.
    pub(crate) rack: String,
    /// Replicas it has, or is to have.
    pub(crate) replicas: usize,
    /// Those of them that come first, and so lead in the long run.
    pub(crate) firsts: usize,
}

/// Where partitions can go.
#[derive(Clone, Debug, Default)]
pub(crate) struct Candidates {
    nodes: BTreeMap<u64, Candidate>,
}

impl Candidates {
    pub(crate) fn new(nodes: impl IntoIterator<Item = Candidate>) -> Candidates {
        let nodes = nodes.into_iter().map(|node| (node.node_id, node));
        Candidates { nodes: nodes.collect() }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// The nodes for a partition that is on `present` now and is to have `replicas`: those it is
    /// on, as far as they are candidates and so many are wanted, then others. Fewer if there are
    /// no more. A new partition has the node first that is first least often. The choice counts for
    /// the next.
    pub(crate) fn place(&mut self, present: &[u64], replicas: usize) -> Vec<u64> {
        let mut chosen: Vec<u64> =
            present.iter().copied().filter(|node| self.nodes.contains_key(node)).collect();
        while chosen.len() > replicas {
            let dropped = self.to_drop(&chosen);
            chosen.retain(|node| *node != dropped);
            self.count(dropped, |replicas| replicas.saturating_sub(1));
        }
        while chosen.len() < replicas {
            let Some(node) = self.to_add(&chosen) else { break };
            chosen.push(node);
            self.count(node, |replicas| replicas + 1);
        }
        if present.is_empty()
            && let Some(least) = self.least_first(&chosen)
        {
            chosen[..=least].rotate_right(1);
            self.lead(chosen[0], |firsts| firsts + 1);
        }
        chosen
    }

    /// Puts another node first if that evens things out by two, or it would come back one day;
    /// whether it did.
    pub(crate) fn even_first(&mut self, nodes: &mut [u64]) -> bool {
        let Some(least) = self.least_first(nodes) else { return false };
        let (first, least_firsts) = (self.firsts(nodes[0]), self.firsts(nodes[least]));
        if least_firsts == usize::MAX || first < least_firsts + 2 {
            return false;
        }
        self.lead(nodes[0], |firsts| firsts - 1);
        nodes[..=least].rotate_right(1);
        self.lead(nodes[0], |firsts| firsts + 1);
        true
    }

    /// Which of `nodes` is first least often.
    fn least_first(&self, nodes: &[u64]) -> Option<usize> {
        (0..nodes.len()).min_by_key(|at| self.firsts(nodes[*at]))
    }

    /// Nodes that are no candidates come last.
    fn firsts(&self, node: u64) -> usize {
        self.nodes.get(&node).map_or(usize::MAX, |node| node.firsts)
    }

    fn lead(&mut self, node: u64, change: impl Fn(usize) -> usize) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.firsts = change(node.firsts);
        }
    }

    /// A partition that would be better off with one of its replicas on another node: from, to. A
    /// move must even things out by two, or it would come back one day.
    pub(crate) fn better(&self, present: &[u64]) -> Option<(u64, u64)> {
        let from = *present
            .iter()
            .filter(|node| self.nodes.contains_key(node))
            .max_by_key(|node| (self.nodes[node].replicas, **node))?;
        let rest: Vec<u64> = present.iter().copied().filter(|node| *node != from).collect();
        let to = self.to_add(&rest).filter(|to| !present.contains(to))?;
        let spread = |node: u64| !self.racks(&rest).contains(self.rack(node).as_str());
        let evens = self.nodes[&from].replicas >= self.nodes[&to].replicas + 2;
        (evens && (spread(to) || !spread(from))).then_some((from, to))
    }

    /// A replica goes from one node to another.
    pub(crate) fn moved(&mut self, from: u64, to: u64) {
        self.count(from, |replicas| replicas.saturating_sub(1));
        self.count(to, |replicas| replicas + 1);
    }

    fn to_add(&self, chosen: &[u64]) -> Option<u64> {
        let taken = self.racks(chosen);
        let free = self.nodes.values().filter(|node| !chosen.contains(&node.node_id));
        let best = free.min_by_key(|node| {
            let rack_taken = taken.contains(self.rack(node.node_id).as_str());
            (rack_taken, node.replicas, mix(node.node_id))
        });
        best.map(|node| node.node_id)
    }

    /// The replica that is missed least: one whose rack has another, on the fullest node.
    fn to_drop(&self, chosen: &[u64]) -> u64 {
        let doubled = |node: u64| {
            let rack = self.rack(node);
            chosen.iter().filter(|other| self.rack(**other) == rack).count() > 1
        };
        let worst = chosen.iter().max_by_key(|node| (doubled(**node), self.nodes[node].replicas));
        *worst.expect("only from some that were chosen")
    }

    fn count(&mut self, node: u64, change: impl Fn(usize) -> usize) {
        if let Some(node) = self.nodes.get_mut(&node) {
            node.replicas = change(node.replicas);
        }
    }

    fn racks(&self, nodes: &[u64]) -> BTreeSet<String> {
        nodes.iter().map(|node| self.rack(*node)).collect()
    }

    fn rack(&self, node: u64) -> String {
        match self.nodes.get(&node) {
            Some(known) if !known.rack.is_empty() => known.rack.clone(),
            _ => format!("\0{node}"),
        }
    }
}

/// Node ids in an order that says nothing of when they came.
fn mix(node: u64) -> u64 {
    node.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29)
}

/// How many of so many nodes vote on the metadata: an odd number, or two, so that each knows all.
pub(crate) fn metadata_voters(nodes: usize) -> usize {
    match nodes {
        0..=3 => nodes,
        4 => 3,
        _ => 5,
    }
}

#[cfg(test)]
#[path = "placement_tests.rs"]
mod tests;
