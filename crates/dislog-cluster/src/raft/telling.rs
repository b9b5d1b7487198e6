//! When a leader tells its followers what is committed.
//!
//! The next entries say it too. While clients go on, a message of its own comes just before those:
//! it costs every node a turn and the follower an answer, when all have something better to do. So
//! it is put off for a moment while other entries are under way; only readers of followers wait for
//! it then. What is committed last is told at once: whoever was answered may ask any node for it.

/// How long to wait for the next entries, milliseconds; as clocks go, half of that to all of it.
const WAIT_MS: i64 = 2;

/// What followers know of what is committed, of one leader.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// They were told, or the entries say it that are on their way.
    told: u64,
    /// Until when the rest waits to be told, Unix milliseconds.
    due_ms: Option<i64>,
}

impl Telling {
    /// Entries were sent that say what is committed.
    pub(super) fn proposed(&mut self, committed: u64) {
        *self = Telling { told: committed, due_ms: None };
    }

    /// Whether what is committed of the entries up to `last` is to be told now, by a message of its
    /// own; it is taken for told then.
    pub(super) fn is_due(&mut self, committed: u64, last: u64, now_ms: i64) -> bool {
        if committed <= self.told {
            self.due_ms = None;
            return false;
        }
        let due_ms = *self.due_ms.get_or_insert(now_ms.saturating_add(WAIT_MS));
        // Not if the clock was set back: it could be an hour until it is that time again.
        let is_soon = (due_ms.saturating_sub(WAIT_MS)..due_ms).contains(&now_ms);
        if last > committed && is_soon {
            return false;
        }
        *self = Telling { told: committed, due_ms: None };
        true
    }

    /// When to ask again without any input.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        self.due_ms
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_committed_last_is_told_at_once() {
        let mut telling = Telling::default();
        for index in 1..5 {
            telling.proposed(index - 1);
            assert!(telling.is_due(index, index, 100), "{index}");
            assert!(!telling.is_due(index, index, 100), "it was told");
            assert_eq!(telling.deadline_ms(), None);
        }
    }

    #[test]
    fn while_others_are_under_way_the_next_entries_say_it() {
        let mut telling = Telling::default();
        for index in 1..5 {
            assert!(!telling.is_due(index, index + 1, 100), "{index}");
            assert_eq!(telling.deadline_ms(), Some(102));
            telling.proposed(index);
            assert_eq!(telling.deadline_ms(), None);
            assert!(!telling.is_due(index, index + 2, 100), "{index}");
        }
        assert!(!telling.is_due(5, 6, 100) && !telling.is_due(6, 7, 101));
        assert!(telling.is_due(6, 7, 102), "none came");
        assert_eq!(telling.deadline_ms(), None);
    }

    #[test]
    fn a_clock_that_is_set_makes_nobody_wait() {
        for set_ms in [-3_600_000, 3_600_000] {
            let mut telling = Telling::default();
            assert!(!telling.is_due(1, 2, 100));
            assert!(telling.is_due(1, 2, 100 + set_ms));
        }
    }
}
