//! After healing everything goes on: every group has a leader that serves, every replica has all
//! that is committed, every client gets its answers.

use std::collections::BTreeSet;

use dislog_cluster::sim::Replica;
use dislog_types::PartitionId;

use super::{Verdict, must};
use crate::facts::Facts;

/// Whether all is well, or what is still missing.
pub(crate) fn check(facts: &Facts, replicas: &[Replica], partitions: &[PartitionId]) -> Verdict {
    for id in partitions {
        let of: Vec<&Replica> = replicas.iter().filter(|r| r.partition == *id).collect();
        let leader = of.iter().filter(|replica| replica.serves).max_by_key(|r| r.term);
        let leader = leader.ok_or_else(|| format!("{id} has no leader that serves"))?;
        must(leader.voters_outgoing.is_empty(), || format!("{id} changes its members for ever"))?;
        let known = facts.of(id).map_or(0, |group| group.entries.len() as u64);
        let ids: BTreeSet<u64> = of.iter().map(|replica| replica.replica).collect();
        // Nodes that were lost learn of the metadata until somebody removes them.
        for member in &leader.voters {
            must(ids.contains(member), || format!("{id}: nobody has replica {member:x}"))?;
        }
        let members = of.iter().filter(|r| leader.voters.contains(&r.replica));
        for replica in members {
            must(replica.applied == known && !replica.stopped, || {
                let (has, who) = (replica.applied, replica.replica);
                format!("{id}: replica {who:x} has {has} of {known} entries")
            })?;
        }
    }
    Ok(())
}
