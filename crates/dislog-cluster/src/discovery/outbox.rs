//! What foca asks for while it works: packets, timers, and who has changed.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use foca::{Notification, Timer};

use super::identity::Identity;
use super::packet;

/// See the module.
#[derive(Default)]
pub(super) struct Outbox {
    /// The time, as of what foca is doing.
    pub(super) now_ms: i64,
    /// Packets that are to be sent.
    pub(super) packets: Vec<(Identity, Bytes)>,
    /// Nodes of which something has changed.
    pub(super) touched: Vec<u64>,
    /// This node was believed dead, and took a new identity.
    pub(super) renewed: bool,
    timers: Timers,
}

/// When foca wants to be called.
#[derive(Default)]
struct Timers {
    /// By time, then in the order they were set: foca relies on the second among equals.
    due: BTreeMap<(i64, u64), Timer<Identity>>,
    set: u64,
    /// The round of gossip stands apart, since it waits for something to tell: an idle node is not
    /// woken by it. Of several, only the last one set has meaning to foca.
    gossip: Option<(i64, Timer<Identity>)>,
}

impl Outbox {
    /// Takes the next timer that is due. `news`: there is something to gossip about.
    pub(super) fn take_due(&mut self, news: bool) -> Option<Timer<Identity>> {
        let now_ms = self.now_ms;
        if news && self.timers.gossip.as_ref().is_some_and(|(at_ms, _)| *at_ms <= now_ms) {
            return self.timers.gossip.take().map(|(_, timer)| timer);
        }
        let first = self.timers.due.first_entry().filter(|entry| entry.key().0 <= now_ms)?;
        Some(first.remove())
    }

    /// When [`take_due`](Outbox::take_due) has something.
    pub(super) fn deadline_ms(&self, news: bool) -> Option<i64> {
        let first = self.timers.due.first_key_value().map(|((at_ms, _), _)| *at_ms);
        let gossip = self.timers.gossip.as_ref().filter(|_| news).map(|(at_ms, _)| *at_ms);
        first.into_iter().chain(gossip).min()
    }

    /// Nothing more will be done.
    pub(super) fn stop(&mut self) {
        self.timers = Timers::default();
    }
}

impl foca::Runtime<Identity> for Outbox {
    fn notify(&mut self, notification: Notification<'_, Identity>) {
        match notification {
            Notification::MemberUp(id)
            | Notification::MemberDown(id)
            | Notification::Rename(_, id) => self.touched.push(id.node_id()),
            Notification::Rejoin(_) => self.renewed = true,
            Notification::Active | Notification::Idle | Notification::Defunct => {}
        }
    }

    fn send_to(&mut self, to: Identity, data: &[u8]) {
        self.packets.push((to, packet::seal(data)));
    }

    fn submit_after(&mut self, event: Timer<Identity>, after: Duration) {
        let after_ms = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
        let at_ms = self.now_ms.saturating_add(after_ms);
        if matches!(event, Timer::PeriodicGossip(_)) {
            self.timers.gossip = Some((at_ms, event));
            return;
        }
        self.timers.set += 1;
        self.timers.due.insert((at_ms, self.timers.set), event);
    }
}
