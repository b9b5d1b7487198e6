//! No duplicates: an attempt is in the log at most once, however often it was sent, and one that
//! was refused is not in it.

use std::collections::{BTreeMap, BTreeSet};

use super::{Verdict, must};

/// Attempts by number.
#[derive(Debug, Default)]
pub(crate) struct NoDuplicates {
    committed: BTreeMap<u64, u64>,
    refused: BTreeSet<u64>,
}

impl NoDuplicates {
    /// An attempt is in the log at this offset. With its records a producer is forgotten; so what
    /// was below the start may come again.
    pub(crate) fn committed(
        &mut self,
        attempt: u64,
        base_offset: u64,
        start_offset: u64,
    ) -> Verdict {
        if let Some(before) = self.committed.insert(attempt, base_offset)
            && before >= start_offset
        {
            return Err(format!("attempt {attempt} is at offset {before} and at {base_offset}"));
        }
        must(!self.refused.contains(&attempt), || {
            format!("attempt {attempt} was refused, and is at offset {base_offset}")
        })
    }

    /// A client was told that an attempt was not appended, and will not try it again.
    pub(crate) fn refused(&mut self, attempt: u64) -> Verdict {
        self.refused.insert(attempt);
        must(!self.committed.contains_key(&attempt), || {
            format!("attempt {attempt} is at {:?}, and is refused", self.committed.get(&attempt))
        })
    }
}
