//! What was acknowledged is durable: on stable storage of a majority when it is committed, in the
//! log of every later leader, and where its caller was told.

use std::collections::BTreeMap;

use dislog_cluster::Appended;
use dislog_cluster::sim::Replica;
use dislog_log::Log;

use super::{Verdict, must};
use crate::facts::Group;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct AcknowledgedIsDurable {
    /// The log of each replica, by its id: it says how far it is durable, also when it has ended.
    logs: BTreeMap<u64, Log>,
    /// Who voted, as each replica knew it one turn before and knows it now: an entry may have been
    /// committed by those before, in the turn that brought others.
    voters: BTreeMap<u64, [Voters; 2]>,
}

/// The sets of which a majority each is needed.
type Voters = [Vec<u64>; 2];

impl AcknowledgedIsDurable {
    /// A replica as it is now.
    pub(crate) fn saw(&mut self, replica: &Replica) {
        if let Some(log) = &replica.log {
            self.logs.insert(replica.replica, log.clone());
        }
        let now = [replica.voters.clone(), replica.voters_outgoing.clone()];
        let known = self.voters.entry(replica.replica).or_default();
        let before = std::mem::replace(&mut known[1], now);
        known[0] = before;
    }

    /// A leader has applied an entry that nobody has applied before.
    pub(crate) fn committed(&self, leader: &Replica, raft_index: u64) -> Verdict {
        let durable = |voter: &u64| self.logs.get(voter).map(|log| log.bounds().durable_raft_index);
        let has = |voter: &&u64| durable(voter).is_some_and(|last| last >= raft_index);
        let majority = |voters: &Vec<u64>| {
            voters.is_empty() || voters.iter().filter(has).count() > voters.len() / 2
        };
        let sets = self.voters.get(&leader.replica).map_or(&[][..], |sets| &sets[..]);
        let known = |sets: &&Voters| sets.iter().any(|set| !set.is_empty());
        let holds = sets.iter().filter(known).any(|sets| sets.iter().all(majority));
        must(holds, || {
            let group = &leader.partition;
            let durable: Vec<_> = leader.voters.iter().map(durable).collect();
            format!(
                "{group} entry {raft_index} is not durable on a majority of {sets:x?}: {durable:?}"
            )
        })
    }

    /// A leader was not seen before.
    pub(crate) fn elected(&self, group: &Group, leader: &Replica) -> Verdict {
        let Some((raft_index, entry)) = group.last_before(leader.term) else { return Ok(()) };
        let Some(log) = &leader.log else { return Ok(()) };
        let trimmed = raft_index < log.bounds().first_raft_index;
        must(trimmed || log.term(raft_index) == Some(entry.term), || {
            let (id, term) = (leader.replica, leader.term);
            let it = &group.partition;
            format!("{id:x} leads {it} in term {term} without entry {raft_index}: {entry:?}")
        })
    }
}

/// A client was told where its attempt is.
pub(crate) fn acknowledged(group: Option<&Group>, attempt: u64, told: &Appended) -> Verdict {
    let at = usize::try_from(told.base_offset).unwrap_or(usize::MAX);
    for number in 0..told.record_count {
        let at = at + number as usize;
        let there = group.and_then(|group| group.records.get(at));
        must(there == Some(&(attempt, number)), || {
            format!("attempt {attempt} was acknowledged as {told:?}, but at {at} is {there:?}")
        })?;
        let time = group.and_then(|group| group.timestamps_ms.get(at));
        must(time == Some(&told.timestamp_ms), || {
            format!("attempt {attempt} was acknowledged as {told:?}, its timestamp is {time:?}")
        })?;
    }
    Ok(())
}
