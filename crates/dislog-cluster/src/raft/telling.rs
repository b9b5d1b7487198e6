//! When a leader tells its followers what is committed.
//!
//! The next entries say it too. Where one batch follows the other, as with clients that wait for
//! their answers, a message of its own comes just before those entries: it costs every node a turn
//! and the follower an answer, when all have something better to do. So it is put off for a moment,
//! as long as such moments end with entries. Only readers of followers wait for it.

/// How long to wait for the next entries, milliseconds; as clocks go, half of that to all of it.
const WAIT_MS: i64 = 2;

/// What followers know of what is committed, of one leader.
#[derive(Debug, Default)]
pub(super) struct Telling {
    /// They were told, or the entries say it that are on their way.
    told: u64,
    /// What was committed when it was looked last, and since when, Unix milliseconds.
    committed: u64,
    since_ms: i64,
    /// Entries came in time after the last commit.
    expects_entries: bool,
    due_ms: Option<i64>,
}

impl Telling {
    /// Entries were sent that say what is committed.
    pub(super) fn proposed(&mut self, committed: u64, now_ms: i64) {
        self.expects_entries = self.is_soon(now_ms);
        self.told = committed;
        self.due_ms = None;
    }

    /// Whether it is to be told now, by a message of its own; it is taken for told then.
    pub(super) fn is_due(&mut self, committed: u64, now_ms: i64) -> bool {
        if committed > self.committed {
            (self.committed, self.since_ms) = (committed, now_ms);
        }
        self.due_ms = None;
        if committed <= self.told {
            return false;
        }
        if self.expects_entries && self.is_soon(now_ms) {
            self.due_ms = Some(self.since_ms + WAIT_MS);
            return false;
        }
        (self.told, self.expects_entries) = (committed, false);
        true
    }

    /// When to ask again without any input.
    pub(super) fn deadline_ms(&self) -> Option<i64> {
        self.due_ms
    }

    /// Not if the clock was set back: it could be an hour until it is that time again.
    fn is_soon(&self, now_ms: i64) -> bool {
        (self.since_ms..self.since_ms.saturating_add(WAIT_MS)).contains(&now_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_commit_is_told_at_once() {
        let mut telling = Telling::default();
        for (index, now_ms) in (1..5).map(|at| (at, 1_000 * at as i64)) {
            telling.proposed(index - 1, now_ms);
            assert!(telling.is_due(index, now_ms + 1), "nothing shows that more will come");
            assert!(!telling.is_due(index, now_ms + 1), "it was told");
            assert_eq!(telling.deadline_ms(), None);
        }
    }

    #[test]
    fn where_entries_follow_each_other_they_say_it() {
        let mut telling = Telling::default();
        telling.proposed(0, 100);
        assert!(telling.is_due(1, 101));
        for index in 2..9 {
            telling.proposed(index - 1, 100 + index as i64);
            assert!(!telling.is_due(index, 100 + index as i64), "{index}");
            assert_eq!(telling.deadline_ms(), Some(102 + index as i64));
        }
        assert!(!telling.is_due(8, 109));
        assert!(telling.is_due(8, 110), "none came");
        assert_eq!(telling.deadline_ms(), None);
        assert!(telling.is_due(9, 111), "so they are not waited for");
    }

    #[test]
    fn a_clock_that_is_set_makes_nobody_wait() {
        for set_ms in [-3_600_000, 3_600_000] {
            let mut telling = Telling::default();
            telling.is_due(1, 100);
            telling.proposed(1, 100);
            assert!(!telling.is_due(2, 100));
            assert!(telling.is_due(2, 100 + set_ms));
        }
    }
}
