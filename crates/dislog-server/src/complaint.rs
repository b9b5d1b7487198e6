//! What is logged once in a while, however often it happens.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the same complaint is logged.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Causes that are told apart; when there are more, those beyond are not logged.
const CAUSES_MAX: usize = 1_024;

/// One thing to complain of.
#[derive(Debug, Default)]
pub(crate) struct Complaint(Option<Instant>);

impl Complaint {
    /// Whether to log it now; if so, not again for a while.
    pub(crate) fn is_due(&mut self) -> bool {
        let due = !self.is_recent();
        if due {
            self.0 = Some(Instant::now());
        }
        due
    }

    fn is_recent(&self) -> bool {
        self.0.is_some_and(|last| last.elapsed() < COMPLAINT_INTERVAL)
    }
}

/// The same complaint about many.
#[derive(Debug)]
pub(crate) struct Complaints<K>(Mutex<HashMap<K, Complaint>>);

impl<K> Default for Complaints<K> {
    fn default() -> Complaints<K> {
        Complaints(Mutex::default())
    }
}

impl<K: Eq + Hash> Complaints<K> {
    /// Whether to log it now of `cause`; if so, not again for a while.
    pub(crate) fn is_due(&self, cause: K) -> bool {
        let mut complaints = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if complaints.len() >= CAUSES_MAX {
            complaints.retain(|_, complaint| complaint.is_recent());
        }
        let known = complaints.len() < CAUSES_MAX || complaints.contains_key(&cause);
        known && complaints.entry(cause).or_default().is_due()
    }
}
