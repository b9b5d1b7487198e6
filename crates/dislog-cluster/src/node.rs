//! What the threads and handles of a node share, and how the node enters its cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use dislog_log::fs::Fs;
use dislog_types::PartitionId;
use dislog_types::time::Clock;
use tokio::sync::watch;

use crate::error::OpenError;
use crate::metadata::command::RegisterNode;
use crate::metadata::controller::Seen;
use crate::metadata::reconciler::{self, Partitions, Wake};
use crate::metadata::{self, Follow, Metadata};
use crate::node_file::{self, ClusterIds, NodeFile};
use crate::partition::Partition;
use crate::partition::port::Port;
use crate::partition::retention::RetentionPolicy;
use crate::partition_dir::{self, Owner};
use crate::peers::routes::Routes;
use crate::raft::driver::Input;
use crate::raft::open::OpenGroup;
use crate::removals::Removals;

/// The size of the metadata's segments: it is small, and never trimmed.
const METADATA_SEGMENT_BYTES: u64 = 16 << 20;

/// Waits until the driver answers or hangs up.
///
/// A seam: in the simulator nobody but the one who waits can let the driver go on.
pub(crate) type Wait = Box<dyn Fn(&Receiver<()>) + Send + Sync>;

/// See the module.
pub(crate) struct Node {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) data_dir: PathBuf,
    pub(crate) partitions_dir: PathBuf,
    pub(crate) node_id: u64,
    pub(crate) metadata_replica: u64,
    /// What the node says of itself.
    pub(crate) told: RegisterNode,
    /// How long a node may be away before its replicas are given to others.
    pub(crate) replace_after: Duration,
    pub(crate) port: Arc<Port>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) metadata: Arc<Metadata>,
    /// Set once, when the node enters a cluster.
    metadata_log: OnceLock<Partition>,
    cluster: OnceLock<ClusterIds>,
    pub(crate) partitions: Partitions,
    removals: Removals,
    /// One past the offset of the last command carried out here.
    pub(crate) reconciled: watch::Sender<u64>,
    /// Of capacity one: a wake that is still to come covers this one, too.
    pub(crate) wake: SyncSender<Wake>,
    pub(crate) wait: Wait,
    /// Threads that open partitions.
    pub(crate) open_threads: usize,
    presence: Mutex<Presence>,
}

/// Who is there, as gossip has it.
#[derive(Default)]
struct Presence {
    alive: BTreeMap<u64, RegisterNode>,
    /// On the scale of `Clock::elapsed_ms`, as the next.
    there_since_ms: BTreeMap<u64, u64>,
    gone_since_ms: BTreeMap<u64, u64>,
}

/// What a node is made of.
pub(crate) struct NodeConfig {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) data_dir: PathBuf,
    pub(crate) file: NodeFile,
    pub(crate) removals: Removals,
    pub(crate) told: RegisterNode,
    pub(crate) replace_after: Duration,
    pub(crate) port: Arc<Port>,
    pub(crate) routes: Arc<Routes>,
    pub(crate) wake: SyncSender<Wake>,
    pub(crate) wait: Wait,
    pub(crate) open_threads: usize,
}

impl Node {
    pub(crate) fn new(config: NodeConfig) -> Node {
        let NodeConfig { fs, clock, data_dir, file, removals, told, .. } = config;
        let NodeConfig { replace_after, port, routes, wake, wait, open_threads, .. } = config;
        let partitions_dir = partitions_dir(&data_dir);
        let node_id = file.node_id;
        routes.set_node(file.metadata_replica, node_id);
        let alive = BTreeMap::from([(node_id, told.clone())]);
        Node {
            fs,
            clock,
            data_dir,
            partitions_dir,
            node_id,
            metadata_replica: file.metadata_replica,
            told,
            replace_after,
            port,
            routes,
            metadata: Arc::new(Metadata::default()),
            metadata_log: OnceLock::new(),
            cluster: OnceLock::new(),
            partitions: Partitions::default(),
            removals,
            reconciled: watch::Sender::new(0),
            wake,
            wait,
            open_threads,
            presence: Mutex::new(Presence { alive, ..Presence::default() }),
        }
    }

    /// The cluster, once the node belongs to one.
    pub(crate) fn cluster(&self) -> Option<ClusterIds> {
        self.cluster.get().copied()
    }

    /// The metadata, once the node belongs to a cluster.
    pub(crate) fn metadata_log(&self) -> Option<&Partition> {
        self.metadata_log.get()
    }

    /// Founds a cluster: of this node, for now.
    pub(crate) fn found_cluster(&self) -> Result<(), OpenError> {
        let cluster_id = node_file::random_id(&*self.fs);
        tracing::info!(cluster_id = format!("{cluster_id:016x}"), "founding a cluster");
        self.join_cluster(ClusterIds { cluster_id, founder: self.metadata_replica })
    }

    /// Joins a cluster, for good.
    pub(crate) fn join_cluster(&self, cluster: ClusterIds) -> Result<(), OpenError> {
        let NodeFile { node_id, metadata_replica, .. } = self.file();
        let file = NodeFile { node_id, metadata_replica, cluster: Some(cluster) };
        node_file::write(&*self.fs, &self.data_dir, file)?;
        self.enter_cluster(cluster)
    }

    /// Begins to follow the metadata of the cluster that the node belongs to.
    pub(crate) fn enter_cluster(&self, cluster: ClusterIds) -> Result<(), OpenError> {
        self.routes.set_cluster(cluster.cluster_id);
        let log = self.open_metadata(cluster.founder)?;
        let entered = self.cluster.set(cluster).is_ok() && self.metadata_log.set(log).is_ok();
        assert!(entered, "a node enters one cluster, once");
        if let Some(log) = self.metadata_log.get() {
            log.shared.announce_to(&self.partitions.readiness);
        }
        self.wake_reconciler();
        Ok(())
    }

    fn file(&self) -> NodeFile {
        let cluster = self.cluster.get().copied();
        NodeFile { node_id: self.node_id, metadata_replica: self.metadata_replica, cluster }
    }

    fn open_metadata(&self, founder: u64) -> Result<Partition, OpenError> {
        let id = Metadata::partition();
        let dir = reconciler::metadata_dir(&self.partitions_dir);
        self.fs.create_dir_all(&dir).map_err(unusable(&dir))?;
        self.fs.sync_dir(&self.partitions_dir).map_err(unusable(&self.partitions_dir))?;
        let follow = Follow { metadata: Arc::clone(&self.metadata), wake: self.wake.clone() };
        let log = dislog_log::Config {
            segment_bytes: METADATA_SEGMENT_BYTES,
            ..dislog_log::Config::default()
        };
        let open = OpenGroup {
            fs: Arc::clone(&self.fs),
            dir: dir.clone(),
            log,
            id,
            group: metadata::GROUP,
            replica: self.metadata_replica,
            initial: vec![founder],
            target: None,
            policy: RetentionPolicy::KEEP_ALL,
            observer: Some(Box::new(follow)),
        };
        let opened = open.open();
        let partition = Partition::new(opened.shared, Arc::clone(&self.port));
        let Some(group) = opened.group else {
            let message = partition.status().fault.unwrap_or_default();
            let message = format!("the metadata cannot be used: {message}");
            return Err(OpenError::Unusable { path: dir, message });
        };
        let alone = !group.has_peers();
        let (sender, started) = mpsc::channel();
        if self.port.send(Input::AddGroup(group, sender)).is_ok() && alone {
            // It hangs up once the group serves, or cannot.
            (self.wait)(&started);
        }
        Ok(partition)
    }

    /// A node is alive, and is as it says.
    pub(crate) fn is_alive(&self, told: RegisterNode) {
        let now_ms = self.clock.elapsed_ms();
        let mut presence = self.presence();
        presence.gone_since_ms.remove(&told.node_id);
        presence.there_since_ms.entry(told.node_id).or_insert(now_ms);
        presence.alive.insert(told.node_id, told);
        drop(presence);
        self.wake_reconciler();
    }

    /// A node is gone.
    pub(crate) fn is_gone(&self, node_id: u64) {
        let now_ms = self.clock.elapsed_ms();
        let mut presence = self.presence();
        presence.alive.remove(&node_id);
        presence.there_since_ms.remove(&node_id);
        presence.gone_since_ms.entry(node_id).or_insert(now_ms);
        drop(presence);
        self.wake_reconciler();
    }

    /// Whether what a replica had may be removed: it is over, and is so for this node for good.
    pub(crate) fn may_remove(&self, owner: Owner) -> bool {
        let state = self.metadata.state();
        let is_over = state.is_over(owner.topic_id, owner.replica);
        let known = state.applied_offset();
        drop(state);
        let announce = || self.removals.announce(&*self.fs, known);
        let complain = |error: &std::io::Error| tracing::error!(%error, "nothing is removed");
        is_over && announce().inspect_err(complain).is_ok()
    }

    /// The metadata may not yet be known here as it was when something was removed: a replica that
    /// is not there may be one of those.
    pub(crate) fn may_have_removed(&self, owner: Owner, id: &PartitionId) -> bool {
        let is_behind = self.metadata.state().applied_offset() < self.removals.known();
        is_behind && !partition_dir::is_owned(&*self.fs, &self.partitions_dir, id, owner)
    }

    /// Whether a node is alive, as far as this one knows.
    pub(crate) fn sees(&self, node_id: u64) -> bool {
        self.presence().alive.contains_key(&node_id)
    }

    /// How long another node has been there without a break, as far as this one knows; none if it
    /// is not.
    pub(crate) fn there_for(&self, node_id: u64) -> Option<Duration> {
        let now_ms = self.clock.elapsed_ms();
        let since_ms = self.presence().there_since_ms.get(&node_id).copied()?;
        Some(Duration::from_millis(now_ms.saturating_sub(since_ms)))
    }

    /// Who is there and who has been gone too long, and when the next will have been. Of `nodes`
    /// that were never seen, it counts from now.
    pub(crate) fn seen(&self, nodes: impl Iterator<Item = u64>) -> (Seen, Option<Duration>) {
        let now_ms = self.clock.elapsed_ms();
        let mut presence = self.presence();
        for node_id in nodes {
            if !presence.alive.contains_key(&node_id) {
                presence.gone_since_ms.entry(node_id).or_insert(now_ms);
            }
        }
        let (mut absent, mut next) = (BTreeSet::new(), None::<Duration>);
        for (node_id, since_ms) in &presence.gone_since_ms {
            let gone = Duration::from_millis(now_ms.saturating_sub(*since_ms));
            match self.replace_after.checked_sub(gone) {
                Some(left) if !left.is_zero() => next = Some(next.map_or(left, |n| n.min(left))),
                _ => drop(absent.insert(*node_id)),
            }
        }
        (Seen { alive: presence.alive.clone(), absent }, next)
    }

    pub(crate) fn wake_reconciler(&self) {
        // Full, it wakes anyway; without a reconciler the node is closing.
        let _ = self.wake.try_send(Wake::Changed);
    }

    /// The partition of a name, if it has a replica here.
    pub(crate) fn partition(&self, id: &PartitionId) -> Option<Partition> {
        match *id == Metadata::partition() {
            true => self.metadata_log.get().cloned(),
            false => self.partitions.open().get(id).cloned(),
        }
    }

    fn presence(&self) -> MutexGuard<'_, Presence> {
        self.presence.lock().expect("nothing panics while it is locked")
    }
}

/// Where the partitions of a data directory are.
pub(crate) fn partitions_dir(data_dir: &Path) -> PathBuf {
    data_dir.join("partitions")
}

/// An error of the file system, about `path`.
pub(crate) fn unusable(path: &Path) -> impl Fn(std::io::Error) -> OpenError {
    let path = path.to_owned();
    move |error| OpenError::Unusable { path: path.clone(), message: error.to_string() }
}

/// Keeps others from opening a data directory.
pub(crate) fn lock(data_dir: &Path) -> Result<fs::File, OpenError> {
    fs::create_dir_all(data_dir).map_err(unusable(data_dir))?;
    let path = data_dir.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(OpenError::InUse(data_dir.to_owned())),
        Err(fs::TryLockError::Error(error)) => Err(unusable(&path)(error)),
    }
}
