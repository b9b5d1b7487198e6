//! A group has at most one leader in a term.

use std::collections::BTreeMap;

use dislog_cluster::sim::Replica;

use super::{Verdict, must};

/// Who led each group in each term.
#[derive(Debug, Default)]
pub(crate) struct ElectionSafety {
    leaders: BTreeMap<(u64, u64), u64>,
}

impl ElectionSafety {
    /// Whether this leader was not seen before; an error if it is the second of its term.
    pub(crate) fn saw(&mut self, replica: &Replica) -> Result<bool, String> {
        if !replica.leads {
            return Ok(false);
        }
        let key = (replica.group, replica.term);
        let Some(leader) = self.leaders.insert(key, replica.replica) else { return Ok(true) };
        let verdict: Verdict = must(leader == replica.replica, || {
            let (group, term) = key;
            format!(
                "group {group}, term {term}: {leader:x} leads, and so does {:x}",
                replica.replica
            )
        });
        verdict.map(|()| false)
    }
}
