//! Says in time that the node's certificate comes to its end: connections end with it.

use crate::append::now_ms;
use crate::moment;
use crate::node::Node;

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// From so long before its end on, a certificate should have been renewed.
const RENEW_BEFORE_MS: i64 = 14 * DAY_MS;

/// Warns for as long as the node runs: each day of the last two weeks, and each hour of the last
/// day and from then on. Says nothing without TLS.
pub(crate) async fn warn(node: Node) {
    let Some(mut replaced) = node.security.replaced() else { return };
    loop {
        // Before it is taken, so that no later one is missed.
        replaced.mark_unchanged();
        let Some(tls) = node.security.current() else { return };
        let left_ms = tls.names.not_after_s.saturating_mul(1_000).saturating_sub(now_ms());
        let (role, hours) = (&tls.role, left_ms / HOUR_MS);
        match left_ms {
            ..=0 => {
                tracing::error!(node = %role, "this node's certificate has ended: renew it");
            }
            1..=RENEW_BEFORE_MS => {
                tracing::warn!(node = %role, hours, "this node's certificate ends soon: renew it");
            }
            _ => {}
        }
        tokio::select! {
            () = moment::reached(now_ms().saturating_add(until_next(left_ms))) => {}
            changed = replaced.changed() => if changed.is_err() { return },
            () = node.closing.wait() => return,
        }
    }
}

/// How long it is to the next warning.
fn until_next(left_ms: i64) -> i64 {
    if left_ms > RENEW_BEFORE_MS {
        left_ms - RENEW_BEFORE_MS
    } else if left_ms > DAY_MS {
        DAY_MS.min(left_ms - DAY_MS)
    } else {
        HOUR_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_begin_two_weeks_before_the_end_and_come_more_often() {
        let (mut left_ms, mut warnings) = (90 * DAY_MS, Vec::new());
        while left_ms > -2 * HOUR_MS {
            let pause_ms = until_next(left_ms);
            assert!(pause_ms > 0);
            left_ms -= pause_ms;
            warnings.push(left_ms);
        }
        let days: Vec<i64> = (1..=14).rev().map(|days| days * DAY_MS).collect();
        let hours: Vec<i64> = (-2..24).rev().map(|hours| hours * HOUR_MS).collect();
        assert_eq!(warnings, [days, hours].concat());
    }
}
