//! Who leads: the node of a partition's first replica, in the long run.
//!
//! The metadata lists replicas so that first places are spread evenly ([`controller`]). Where the
//! first does not lead, the one that does hands the leadership to it, but calmly: only a node that
//! leads clearly more than its own share for some time does so, only to nodes that have been there
//! for some time, some at a time, and until it leads no more than its share. So a leader that
//! hiccups is not asked back at once, and a leadership that somebody handed over on purpose stays
//! where it is.
//!
//! [`controller`]: super::controller
//!
//! Each node decides about what it leads itself, from what it knows; nobody needs to know who leads
//! everything.

use std::time::Duration;

/// How long a node must lead too much, and how long another must have been there, before
/// leaderships move.
pub(super) const CALM: Duration = Duration::from_secs(10);

/// A share may be exceeded by a part of it, and by one in any case.
const SLACK_PART: usize = 10;

/// Leaderships handed over at a time: each keeps the writers of a partition waiting for a moment.
const HANDED_MAX: usize = 32;

/// How long until the next are, ...
const AGAIN_MIN: Duration = Duration::from_millis(500);

/// ... and, twice as long each time that nobody took over, at most.
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// A partition that is led here and has its first replica elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Away {
    pub(super) group: u64,
    /// Its first replica.
    pub(super) first: u64,
    /// How long the node of that replica has been there; none if it is not.
    pub(super) there_for: Option<Duration>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Leaders {
    /// Since when more is led here than should be.
    over_since: Option<Duration>,
    /// How many were led here when leaderships were handed over last.
    led_before: usize,
    /// Nothing is done before.
    not_before: Duration,
    again: Duration,
}

impl Leaders {
    /// What to hand over now, as group and replica, and when to look again. This node leads `led`
    /// partitions and is first in `share`; `away` are those of which it is not.
    pub(super) fn hand_over(
        &mut self,
        share: usize,
        led: usize,
        away: &[Away],
        now: Duration,
    ) -> (Vec<(u64, u64)>, Option<Duration>) {
        let slack = (share / SLACK_PART).max(1);
        let most = if self.over_since.is_some() { share } else { share + slack };
        if led <= most {
            self.over_since = None;
            return (Vec::new(), None);
        }
        let since = *self.over_since.get_or_insert_with(|| {
            (self.led_before, self.again) = (usize::MAX, AGAIN_MIN);
            now
        });
        let wait = (since + CALM).max(self.not_before).saturating_sub(now);
        let left = |away: &Away| Some(CALM.saturating_sub(away.there_for?));
        let Some(first) = away.iter().filter_map(left).min() else { return (Vec::new(), None) };
        let wait = wait.max(first);
        if !wait.is_zero() {
            return (Vec::new(), Some(wait));
        }
        self.again = if led < self.led_before { AGAIN_MIN } else { AGAIN_MAX.min(2 * self.again) };
        self.led_before = led;
        self.not_before = now + self.again;
        let ready = away.iter().filter(|away| left(away).is_some_and(|left| left.is_zero()));
        let handed = ready.take(HANDED_MAX.min(led - share)).map(|away| (away.group, away.first));
        (handed.collect(), Some(self.again))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn away(count: u64, there_for: Option<Duration>) -> Vec<Away> {
        (0..count).map(|group| Away { group, first: 100 + group, there_for }).collect()
    }

    #[test]
    fn a_share_and_a_little_more_is_kept() {
        let mut leaders = Leaders::default();
        assert_eq!(leaders.hand_over(0, 1, &away(1, Some(at(99))), at(1)), (vec![], None));
        assert_eq!(leaders.hand_over(100, 110, &away(10, Some(at(99))), at(1)), (vec![], None));
    }

    #[test]
    fn what_is_too_much_is_handed_over_after_a_while_down_to_the_share() {
        let mut leaders = Leaders::default();
        let others = away(50, Some(at(99)));
        assert_eq!(leaders.hand_over(20, 70, &others, at(1)), (vec![], Some(CALM)));
        let (handed, again) = leaders.hand_over(20, 70, &others, at(11));
        assert_eq!((handed.len(), handed[0], again), (HANDED_MAX, (0, 100), Some(AGAIN_MIN)));
        assert_eq!(leaders.hand_over(20, 38, &others, at(11)).0, []);
        let (handed, _) = leaders.hand_over(20, 38, &others[32..], at(12));
        assert_eq!(handed.len(), 18);
        assert_eq!(leaders.hand_over(20, 20, &[], at(13)), (vec![], None));
        assert_eq!(leaders.hand_over(20, 22, &others, at(14)), (vec![], None));
    }

    #[test]
    fn nodes_that_just_came_are_waited_for_and_absent_ones_are_not() {
        let mut leaders = Leaders::default();
        let absent = away(3, None);
        assert_eq!(leaders.hand_over(0, 3, &absent, at(1)), (vec![], None));
        let fresh = away(3, Some(at(2)));
        assert_eq!(leaders.hand_over(0, 3, &fresh, at(20)), (vec![], Some(at(8))));
        let (handed, _) = leaders.hand_over(0, 3, &away(3, Some(at(10))), at(28));
        assert_eq!(handed.len(), 3);
    }

    #[test]
    fn who_does_not_take_over_is_asked_ever_less_often() {
        let mut leaders = Leaders::default();
        let others = away(5, Some(at(99)));
        let mut now = at(1);
        let mut waits = Vec::new();
        for _ in 0..10 {
            let (_, again) = leaders.hand_over(0, 5, &others, now);
            waits.push(again.unwrap());
            now += again.unwrap();
        }
        assert_eq!(waits[..4], [CALM, AGAIN_MIN, 2 * AGAIN_MIN, 4 * AGAIN_MIN]);
        assert_eq!(waits[9], AGAIN_MAX);
    }
}
