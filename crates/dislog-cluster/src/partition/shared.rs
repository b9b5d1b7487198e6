//! What the driver and the handles of one partition share.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use dislog_log::Log;
use dislog_types::PartitionId;
use tokio::sync::watch;

use crate::raft::transport::Membership;

use super::progress::{Counters, Progress};

/// See the module. The driver writes, everyone reads.
pub(crate) struct Shared {
    pub(crate) id: PartitionId,
    pub(crate) group: u64,
    /// The log; none if it could not be opened, and then `health` has the fault.
    pub(crate) log: Option<Log>,
    pub(crate) progress: watch::Sender<Progress>,
    /// Whether the partition has a leader that serves, as far as is known here.
    pub(crate) led: watch::Sender<bool>,
    /// Told when that changes, once the node serves the partition.
    readiness: OnceLock<watch::Sender<u64>>,
    pub(crate) tally: Tally,
    health: Mutex<Health>,
}

/// How a partition is.
#[derive(Clone, Debug, Default)]
pub(crate) struct Health {
    pub(crate) life: Life,
    pub(crate) term: u64,
    /// The replica that leads.
    pub(crate) leader: Option<u64>,
    /// Who belongs to the group, as far as it is committed here.
    pub(crate) membership: Membership,
    /// Whether this replica votes in it.
    pub(crate) votes: bool,
    /// The entry that brought that membership.
    pub(crate) membership_since: u64,
    /// Members that no longer have what they acknowledged, as their leader found out.
    pub(crate) lost: Vec<u64>,
    /// This replica leads and takes appends.
    pub(crate) serving: bool,
    /// What was staged found no room on the disk; appends are refused until it does.
    pub(crate) disk_full: bool,
    pub(crate) fault: Option<Fault>,
}

/// Whether a partition is still there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Life {
    /// It is.
    #[default]
    Open,
    /// The node shuts down.
    Closing,
    /// Its topic was deleted.
    Deleted,
    /// The replica was given up; the partition has others.
    Moved,
}

impl Life {
    /// Whether nothing that the replica has will be needed here.
    pub(crate) fn is_over(self) -> bool {
        matches!(self, Life::Deleted | Life::Moved)
    }
}

/// Why a partition cannot be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The log has damage, or could not be opened: nothing was or will be appended.
    Damaged(String),
    /// A write or sync failed.
    Stopped(String),
}

impl Health {
    /// Why it cannot be written, for people.
    pub(crate) fn reason(&self) -> Option<String> {
        match &self.fault {
            Some(fault) => Some(fault.message().to_owned()),
            None if self.disk_full => Some("the disk is full; free some space".to_owned()),
            None => None,
        }
    }
}

impl Fault {
    pub(crate) fn message(&self) -> &str {
        match self {
            Fault::Damaged(message) | Fault::Stopped(message) => message,
        }
    }
}

/// What was done since the partition was opened.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) batches: AtomicU64,
    pub(crate) records: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) syncs: AtomicU64,
}

impl Tally {
    /// The numbers as of now; taken one by one, so they may be a batch apart.
    pub(crate) fn counters(&self) -> Counters {
        Counters {
            batches: self.batches.load(Ordering::Relaxed),
            records: self.records.load(Ordering::Relaxed),
            bytes: self.bytes.load(Ordering::Relaxed),
            syncs: self.syncs.load(Ordering::Relaxed),
        }
    }
}

impl Shared {
    pub(crate) fn new(
        id: PartitionId,
        group: u64,
        log: Option<Log>,
        progress: Progress,
        fault: Option<Fault>,
    ) -> Shared {
        Shared {
            id,
            group,
            log,
            progress: watch::Sender::new(progress),
            led: watch::Sender::new(false),
            readiness: OnceLock::new(),
            tally: Tally::default(),
            health: Mutex::new(Health { fault, ..Health::default() }),
        }
    }

    /// How it is, locked for a short while.
    pub(crate) fn health(&self) -> MutexGuard<'_, Health> {
        self.health.lock().expect("nothing panics while the health is locked")
    }

    /// Publishes a change of progress, if it is one.
    pub(crate) fn publish(&self, progress: Progress) {
        self.progress.send_if_modified(|current| {
            let changed = *current != progress;
            *current = progress;
            changed
        });
    }

    /// Publishes whether there is a leader that serves.
    pub(crate) fn set_led(&self, led: bool) {
        let was_led = self.led.send_replace(led);
        if let Some(readiness) = self.readiness.get().filter(|_| was_led != led) {
            readiness.send_modify(|changes| *changes += 1);
        }
    }

    /// Waits until this replica knows who leads in its place, or again: whether that is `replica`.
    /// A leader may lose its office without the one that it was to go to winning it.
    pub(crate) async fn handed_to(&self, replica: u64) -> bool {
        let mut led = self.led.subscribe();
        let mut lost = false;
        loop {
            let (life, leader, serving) = {
                let health = self.health();
                (health.life, health.leader, health.serving)
            };
            lost |= !serving;
            if leader == Some(replica) {
                return true;
            }
            if life != Life::Open || (lost && leader.is_some()) || led.changed().await.is_err() {
                return false;
            }
        }
    }

    /// From now on, what changes is told to those who wait for whether the node is ready.
    pub(crate) fn announce_to(&self, readiness: &watch::Sender<u64>) {
        let _told_already = self.readiness.set(readiness.clone()).is_err();
        readiness.send_modify(|changes| *changes += 1);
    }

    /// Publishes that no more will come, and why.
    pub(crate) fn end(&self, life: Life) {
        self.health().life = life;
        self.set_led(false);
        self.progress.send_modify(|progress| progress.ended = true);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn an_office_is_handed_over_once_that_replica_leads() {
        // Who leads after the first, if anybody does, until it is known how it went.
        let cases: [(&[Option<u64>], bool); 4] = [
            (&[None, Some(2)], true),
            (&[Some(2)], true),
            (&[None, None, Some(3)], false),
            (&[None, Some(1)], false),
        ];
        for (leaders, handed) in cases {
            let id = PartitionId { topic: "demo".parse().unwrap(), partition: 0 };
            let shared = Shared::new(id, 1, None, Progress::default(), None);
            shared.health().leader = Some(1);
            shared.health().serving = true;
            let mut waiting = pin!(shared.handed_to(2));
            let mut context = Context::from_waker(Waker::noop());
            for leader in leaders {
                assert_eq!(waiting.as_mut().poll(&mut context), Poll::Pending, "{leaders:?}");
                shared.health().serving = false;
                shared.health().leader = *leader;
                shared.set_led(leader.is_some());
            }
            assert_eq!(waiting.as_mut().poll(&mut context), Poll::Ready(handed), "{leaders:?}");
        }
    }
}
