//! The handle by which frames are sent.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use dislog_cluster::{Network, Peer, PeerFrame};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::link::{self, Link};
use crate::complaint::Complaint;
use crate::security::Security;

/// Addresses with a queue and, if they can be reached, a connection each: more than a cluster has
/// nodes.
const LINKS_MAX: usize = 1_024;

/// When another address comes up, those that were not sent to for so long are given up.
const LINK_IDLE_MAX: Duration = Duration::from_secs(300);

/// How long the last frames may take to be written at the end.
const CLOSE_MAX: Duration = Duration::from_millis(200);

/// Sends frames to other nodes, from any thread. A cheap handle; when the last is dropped, the
/// connections end.
#[derive(Clone)]
pub(crate) struct PeerNetwork {
    shared: Arc<Shared>,
}

struct Shared {
    runtime: Handle,
    security: Security,
    node_id: OnceLock<u64>,
    links: Mutex<Links>,
}

#[derive(Default)]
struct Links {
    by_address: HashMap<Arc<str>, Running>,
    closed: bool,
    full: Complaint,
}

struct Running {
    link: Arc<Link>,
    task: JoinHandle<()>,
}

impl PeerNetwork {
    /// A network whose connections live on `runtime` and are made with `security`.
    pub(crate) fn new(runtime: Handle, security: Security) -> PeerNetwork {
        let shared =
            Shared { runtime, security, node_id: OnceLock::new(), links: Mutex::default() };
        PeerNetwork { shared: Arc::new(shared) }
    }

    /// Says who sends. What was sent before was dropped: nobody could be told who it is from.
    ///
    /// # Panics
    /// If that was said before and otherwise.
    pub(crate) fn set_node_id(&self, node_id: u64) {
        assert_eq!(*self.shared.node_id.get_or_init(|| node_id), node_id, "a node has one id");
    }

    /// Sends what waits, as far as that is quick, and ends. What is sent afterwards is dropped.
    pub(crate) async fn close(&self) {
        let links = {
            let mut links = self.shared.links();
            links.closed = true;
            std::mem::take(&mut links.by_address)
        };
        for running in links.values() {
            running.link.close();
        }
        let by = tokio::time::Instant::now() + CLOSE_MAX;
        for mut running in links.into_values() {
            if tokio::time::timeout_at(by, &mut running.task).await.is_err() {
                running.task.abort();
            }
        }
    }

    fn link(&self, address: &Arc<str>, node_id: u64) -> Option<Arc<Link>> {
        let mut links = self.shared.links();
        if let Some(running) = links.by_address.get(address) {
            return Some(Arc::clone(&running.link));
        }
        if links.closed {
            return None;
        }
        links.give_up_idle();
        if links.by_address.len() >= LINKS_MAX {
            if links.full.is_due() {
                tracing::warn!(%address, LINKS_MAX, "too many nodes: frames to more are dropped");
            }
            return None;
        }
        let link = Arc::new(Link::new(Arc::clone(address)));
        let security = self.shared.security.clone();
        let task = self.shared.runtime.spawn(link::run(Arc::clone(&link), node_id, security));
        links.by_address.insert(Arc::clone(address), Running { link: Arc::clone(&link), task });
        Some(link)
    }

    /// The queue to an address.
    #[cfg(test)]
    pub(super) fn link_to(&self, address: &str) -> Option<Arc<Link>> {
        self.shared.links().by_address.get(address).map(|running| Arc::clone(&running.link))
    }
}

impl Network for PeerNetwork {
    fn send(&self, peer: &Peer, frame: PeerFrame) {
        let Some(&node_id) = self.shared.node_id.get() else { return };
        if let Some(link) = self.link(&peer.address, node_id) {
            link.push(peer.node_id, frame);
        }
    }
}

impl Shared {
    fn links(&self) -> MutexGuard<'_, Links> {
        self.links.lock().expect("nothing panics while it is locked")
    }
}

impl Links {
    fn give_up_idle(&mut self) {
        self.by_address.retain(|_, running| {
            let used = running.link.used().elapsed() < LINK_IDLE_MAX;
            if !used {
                running.link.close();
            }
            used
        });
    }
}

impl Drop for Links {
    fn drop(&mut self) {
        for running in self.by_address.values() {
            running.link.close();
        }
    }
}
