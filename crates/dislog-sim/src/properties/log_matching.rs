//! Logs match: what one replica has applied every other applies the same, and if two logs have an
//! entry of the same term at the same position, they have the same entries before it.

use dislog_log::{Frame, Log};

use super::{Verdict, must};
use crate::facts::{Entry, Group};

/// An entry that was applied before, by another replica or in another life of the same.
pub(crate) fn check_applied(group: &Group, frame: &Frame, known: &Entry) -> Verdict {
    must(Entry::of(frame) == *known, || {
        let at = (&group.partition, frame.raft_index);
        format!("{at:?} was committed as {known:?}, and is now {:?}", Entry::of(frame))
    })
}

/// Two logs of a group, as they are now, behind what both have applied.
pub(crate) fn check_pair(a: &Log, b: &Log, applied: u64) -> Verdict {
    let first = a.bounds().first_raft_index.max(b.bounds().first_raft_index).max(applied);
    let last = a.bounds().last_raft_index.min(b.bounds().last_raft_index);
    let common =
        (first..=last).rev().find(|at| a.term(*at) == b.term(*at) && a.term(*at).is_some());
    let Some(common) = common else { return Ok(()) };
    for at in (first..=common).rev() {
        let (one, other) = (a.term(at), b.term(at));
        must(one == other, || {
            format!("both have the same entry {common}, but {at} is of term {one:?} and {other:?}")
        })?;
    }
    Ok(())
}
