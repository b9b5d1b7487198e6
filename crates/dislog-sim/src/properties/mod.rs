//! What must hold, a file for each. None of them looks at how it is achieved.

pub(crate) mod acknowledged_is_durable;
pub(crate) mod committed_reads;
pub(crate) mod dense_offsets;
pub(crate) mod election_safety;
pub(crate) mod linearizable;
pub(crate) mod log_matching;
pub(crate) mod monotone_time;
pub(crate) mod no_duplicates;
pub(crate) mod progress;
pub(crate) mod streams;

/// Whether something holds; if not, what does not.
pub(crate) type Verdict = Result<(), String>;

/// An error, unless something holds.
pub(crate) fn must(holds: bool, otherwise: impl FnOnce() -> String) -> Verdict {
    if holds { Ok(()) } else { Err(otherwise()) }
}
