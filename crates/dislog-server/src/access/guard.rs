//! What ends a stream when the right to it is withdrawn.

use std::future::pending;

use tokio::sync::watch::Receiver;

use super::{Action, Asking};
use crate::append::now_ms;
use crate::moment;
use crate::status::Failure;

/// Watches over who asks, and over one right of theirs. Without access control it costs nothing.
pub(crate) struct Guard(Option<Box<Watching>>);

struct Watching {
    asking: Asking,
    /// None while it is not known which is asked for.
    right: Option<(Action, String)>,
    changes: Receiver<u64>,
    /// When the proof of who asks ends, Unix milliseconds.
    ends_ms: Option<i64>,
}

impl Guard {
    /// Everything is permitted.
    pub(crate) fn none() -> Guard {
        Guard(None)
    }

    pub(super) fn new(
        asking: Asking,
        right: Option<(Action, String)>,
        changes: Receiver<u64>,
        ends_ms: Option<i64>,
    ) -> Guard {
        Guard(Some(Box::new(Watching { asking, right, changes, ends_ms })))
    }

    /// Refuses what is not permitted any more. Costs next to nothing while nothing changes.
    pub(crate) fn check(&mut self) -> Result<(), Failure> {
        let Some(watching) = &mut self.0 else { return Ok(()) };
        // Without a sender the node is gone.
        let has_changed = watching.changes.has_changed().unwrap_or(false);
        let has_ended = watching.ends_ms.is_some_and(|ends_ms| now_ms() >= ends_ms);
        let is_cut_off = watching.asking.caller.pass.why_over().is_some();
        if !has_changed && !has_ended && !is_cut_off {
            return Ok(());
        }
        watching.changes.mark_unchanged();
        watching.still()
    }

    /// Returns why it is not permitted any more, once that is so. Safe to cancel.
    pub(crate) async fn ended(&mut self) -> Failure {
        let Some(watching) = &mut self.0 else { return pending().await };
        loop {
            let ends = async {
                match watching.ends_ms {
                    None => pending().await,
                    Some(ends_ms) => moment::reached(ends_ms).await,
                }
            };
            let pass = watching.asking.caller.pass.clone();
            tokio::select! {
                // Without a sender the node is gone, and what it does ends otherwise.
                changed = watching.changes.changed() => if changed.is_err() { pending().await },
                () = ends => {}
                () = pass.over() => {}
            }
            if let Err(failure) = watching.still() {
                return failure;
            }
        }
    }
}

impl Watching {
    fn still(&self) -> Result<(), Failure> {
        let right = self.right.as_ref();
        self.asking.still(right.map(|(action, object)| (*action, object.as_str())))
    }
}
