//! What a connection was let in by, for as long as that holds.
//!
//! A handshake checks a certificate once. It is checked again when it ends, or one of those between
//! it and an authority does, and when the files of this node change, its authorities among them:
//! who would not be let in now does not stay either.

use std::future::pending;
use std::sync::Arc;

use dislog_tls::{Shown, Watched};
use tokio::sync::watch::{Receiver, Sender};

use crate::append::now_ms;
use crate::moment;

/// See the module. A cheap handle.
#[derive(Clone, Default)]
pub(crate) struct Pass(Option<Arc<Held>>);

struct Held {
    shown: Shown,
    watched: Arc<Watched>,
    /// New files, from the moment at which those were taken that it was checked by.
    replaced: Receiver<()>,
    /// When the first of what was shown ends, seconds since 1970.
    end_s: Option<i64>,
    /// Why it does not hold any more.
    over: Sender<Option<Arc<str>>>,
}

impl Pass {
    /// That of a connection on which this was shown, as files said that are `replaced` from then
    /// on; none holds for ever.
    pub(crate) fn new(
        shown: Option<Shown>,
        watched: &Arc<Watched>,
        replaced: Receiver<()>,
    ) -> Pass {
        let Some(shown) = shown else { return Pass(None) };
        let (watched, end_s) = (Arc::clone(watched), shown.next_end_s(now_ms() / 1_000));
        Pass(Some(Arc::new(Held { shown, watched, replaced, end_s, over: Sender::new(None) })))
    }

    /// Returns why it does not hold any more, and tells the other handles. One for each connection
    /// is enough. Safe to cancel.
    pub(crate) async fn watch(&self) -> Arc<str> {
        let Some(held) = &self.0 else { return pending().await };
        let mut replaced = held.replaced.clone();
        loop {
            let ended = async {
                match held.shown.next_end_s(now_ms() / 1_000) {
                    Some(end_s) => moment::reached(end_s.saturating_mul(1_000)).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                // The sender is in the watched files.
                _ = replaced.changed() => {}
                () = ended => {}
            }
            if let Err(why) = held.check() {
                held.over.send_replace(Some(Arc::clone(&why)));
                return why;
            }
        }
    }

    /// Whether it has to be checked again, for those who would rather dial again.
    pub(crate) fn is_due(&self) -> bool {
        let Some(held) = &self.0 else { return false };
        let has_ended = held.end_s.is_some_and(|end_s| now_ms() / 1_000 >= end_s);
        has_ended || held.replaced.has_changed().unwrap_or(true)
    }

    /// Returns once somebody who watches has found that it does not hold any more. Safe to cancel.
    pub(crate) async fn over(&self) {
        let Some(held) = &self.0 else { return pending().await };
        let mut over = held.over.subscribe();
        // The sender is held here.
        let _over = over.wait_for(Option::is_some).await.is_ok();
    }

    /// Why it does not hold any more, if somebody who watches has found that.
    pub(crate) fn why_over(&self) -> Option<Arc<str>> {
        self.0.as_ref()?.over.borrow().clone()
    }
}

impl Held {
    fn check(&self) -> Result<(), Arc<str>> {
        let checked = self.watched.current().check(&self.shown);
        checked.map_err(|why| {
            why.replace("the other side's certificate", "the certificate of this connection").into()
        })
    }
}
