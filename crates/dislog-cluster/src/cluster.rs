//! This node's part of the cluster, for the rest of the program: topics and partitions, opened and
//! closed.

use std::fs::{self, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, SyncSender};
use std::{fmt, io, thread};

use dislog_log::fs::{Fs, RealFs};
use dislog_types::time::{Clock, SystemClock};
use dislog_types::{PartitionId, TopicName};
use tokio::sync::{oneshot, watch};

use crate::error::{AppendError, OpenError, TopicError};
use crate::metadata::command::Command;
use crate::metadata::reconciler::{self, Partitions, Reconciler, Wake};
use crate::metadata::state::check_partitions;
use crate::metadata::{self, Follow, Metadata};
use crate::node_file::{self, NodeFile};
use crate::partition::Partition;
use crate::partition::port::Port;
use crate::partition::retention::RetentionPolicy;
use crate::partition_dir;
use crate::peers::routes::{Mailbags, Routes};
use crate::peers::{Network, PeerFrame};
use crate::raft::driver::{self, DriverConfig, Input};
use crate::raft::open::OpenGroup;
use crate::settings::{Config, Topic, TopicChange, TopicSettings};

/// The size of the metadata's segments: it is small, and never trimmed.
const METADATA_SEGMENT_BYTES: u64 = 16 << 20;

/// This node's part of the cluster: its topics and partitions. A cheap handle. Once the last is
/// dropped, the node closes by itself; [`close`](Cluster::close) waits for it.
#[derive(Clone)]
pub struct Cluster {
    inner: Arc<Inner>,
}

struct Inner {
    node: NodeFile,
    topic_defaults: TopicSettings,
    clock: Arc<dyn Clock>,
    port: Arc<Port>,
    metadata: Arc<Metadata>,
    metadata_log: Partition,
    partitions: Arc<Partitions>,
    reconciled: watch::Receiver<u64>,
    reconciler: SyncSender<Wake>,
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").field("node", &self.inner.node).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let _ = self.reconciler.try_send(Wake::End);
        let _ = self.port.send(Input::Close(None));
    }
}

impl Cluster {
    /// Opens the data directory, recovers every partition and starts the threads. Blocks. A
    /// partition that cannot be opened does not keep the others from it: see
    /// [`unready`](Cluster::unready).
    ///
    /// Nothing keeps two processes from opening the same directory; on the real file system use
    /// [`open_real`](Cluster::open_real).
    ///
    /// # Errors
    /// If the directory or its metadata cannot be used.
    pub fn open(
        config: Config,
        fs: Arc<dyn Fs>,
        clock: Arc<dyn Clock>,
        network: Arc<dyn Network>,
    ) -> Result<Cluster, OpenError> {
        open(config, fs, clock, network, None)
    }

    /// As `open`, on the real file system and clock.
    ///
    /// # Errors
    /// As `open`, and if another process has the directory open.
    pub fn open_real(config: Config, network: Arc<dyn Network>) -> Result<Cluster, OpenError> {
        let lock = lock(&config.data_dir)?;
        open(config, Arc::new(RealFs), Arc::new(SystemClock), network, Some(lock))
    }

    /// Random, born with the data directory.
    #[must_use]
    pub fn node_id(&self) -> u64 {
        self.inner.node.node_id
    }

    /// Random, the same on every node of the cluster.
    #[must_use]
    pub fn cluster_id(&self) -> u64 {
        self.inner.node.cluster_id
    }

    /// All topics by name, the system's left out.
    #[must_use]
    pub fn topics(&self) -> Vec<Topic> {
        self.inner.metadata.state().topics().map(|life| life.topic.clone()).collect()
    }

    /// The topic of a name.
    ///
    /// # Errors
    /// If there is none.
    pub fn topic(&self, name: &TopicName) -> Result<Topic, TopicError> {
        Ok(self.inner.metadata.state().topic(name)?.topic.clone())
    }

    /// Creates a topic and returns once it takes appends. Cancelled, it may be created all the
    /// same.
    ///
    /// # Errors
    /// If it exists (and then it takes appends), or cannot be as asked for, or the metadata takes
    /// no changes.
    pub async fn create_topic(
        &self,
        name: TopicName,
        partitions: u32,
        settings: TopicChange,
    ) -> Result<Topic, TopicError> {
        check_partitions(partitions)?;
        let settings = self.inner.topic_defaults.changed(settings)?;
        let known = self.inner.metadata.state().topic(&name).is_ok();
        if known {
            let applied_offset = self.inner.metadata.state().applied_offset();
            self.carried_out(applied_offset).await?;
            return Err(TopicError::Exists(name));
        }
        self.change(Command::create(&name, partitions, settings)).await
    }

    /// Changes the settings of a topic, from now on: sealed segments stay as they are.
    ///
    /// # Errors
    /// If there is no such topic, or it cannot be as asked for, or the metadata takes no changes.
    pub async fn alter_topic(
        &self,
        name: &TopicName,
        change: TopicChange,
    ) -> Result<Topic, TopicError> {
        let life = self.inner.metadata.state().topic(name)?.clone();
        life.topic.settings.changed(change)?;
        self.change(Command::alter(life.topic_id, name, change)).await
    }

    /// Deletes a topic and all its records; returns once they are gone. Cancelled, it may be
    /// deleted all the same.
    ///
    /// # Errors
    /// If there is no such topic, or the metadata takes no changes.
    pub async fn delete_topic(&self, name: &TopicName) -> Result<(), TopicError> {
        let topic_id = self.inner.metadata.state().topic(name)?.topic_id;
        self.change(Command::delete(topic_id, name)).await.map(|_| ())
    }

    /// A partition of a topic.
    ///
    /// # Errors
    /// If there is no such topic or partition, or it is just being created.
    pub fn partition(&self, id: &PartitionId) -> Result<Partition, TopicError> {
        if let Some(partition) = self.inner.partitions.open().get(id) {
            return Ok(partition.clone());
        }
        let partitions = self.topic(&id.topic)?.partitions;
        match id.partition < partitions {
            true => Err(AppendError::NoLeader(id.clone()).into()),
            false => Err(TopicError::NoPartition { id: id.clone(), partitions }),
        }
    }

    /// Ends every partition: refuses new appends, waits for those under way, syncs, checkpoints.
    /// Idempotent.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.inner.port.send(Input::Close(Some(done))).is_ok() {
            // Without an answer it was closed already.
            let _ = closed.await;
        }
        let _ = self.inner.reconciler.try_send(Wake::End);
    }

    /// Takes a frame that a peer sent. Does not block.
    pub fn receive(&self, frame: PeerFrame) {
        tracing::debug!(from = frame.sender(), "a frame from a peer");
    }

    /// Every partition has a leader that can serve (readiness); the names of those that have not,
    /// with the reason.
    #[must_use]
    pub fn unready(&self) -> Vec<(PartitionId, String)> {
        let open = self.inner.partitions.open();
        let all = open.values().chain([&self.inner.metadata_log]);
        let mut unready: Vec<_> = all.filter_map(reason).collect();
        unready.sort_unstable();
        unready
    }

    async fn change(&self, command: Command) -> Result<Topic, TopicError> {
        let Inner { metadata, metadata_log, clock, .. } = &*self.inner;
        let (offset, outcome) = metadata.change(metadata_log, command, clock.now_ms()).await?;
        self.carried_out(offset + 1).await?;
        outcome
    }

    /// Waits until this node has done what the metadata says up to `offset`.
    async fn carried_out(&self, offset: u64) -> Result<(), TopicError> {
        let mut reconciled = self.inner.reconciled.clone();
        match reconciled.wait_for(|&reconciled| reconciled >= offset).await {
            Ok(_) => Ok(()),
            Err(_) => Err(AppendError::Closing.into()),
        }
    }
}

fn reason(partition: &Partition) -> Option<(PartitionId, String)> {
    let health = partition.shared.health();
    if health.serving {
        return None;
    }
    let reason = health.reason().unwrap_or_else(|| "it has no leader".to_owned());
    Some((partition.id().clone(), reason))
}

fn open(
    config: Config,
    fs: Arc<dyn Fs>,
    clock: Arc<dyn Clock>,
    network: Arc<dyn Network>,
    lock: Option<fs::File>,
) -> Result<Cluster, OpenError> {
    let Config { data_dir, topic_defaults, appends_in_flight_bytes_max, sync_threads, .. } = config;
    let partitions_dir = data_dir.join("partitions");
    make_dirs(&*fs, &data_dir, &partitions_dir).map_err(unusable(&data_dir))?;
    let node = node_file::open(&*fs, &data_dir)?;
    let routes = Arc::new(Routes::new(node.node_id, network));
    let driver = driver::start(DriverConfig {
        fs: Arc::clone(&fs),
        clock: Arc::clone(&clock),
        transport: Box::new(Mailbags::new(Arc::clone(&routes))),
        data_dir: data_dir.clone(),
        sync_threads,
        lock,
    });
    let driver = driver.map_err(unusable(&data_dir))?;
    let port = Arc::new(Port::new(driver, appends_in_flight_bytes_max));
    let metadata = Arc::new(Metadata::default());
    let (wake, wakes) = mpsc::sync_channel(1);
    let follow = Follow { metadata: Arc::clone(&metadata), wake: wake.clone() };
    let metadata_log = open_metadata(&fs, &partitions_dir, node, &port, follow)?;
    let was_deleted = |topic_id| metadata.state().was_deleted(topic_id);
    partition_dir::remove_deleted(&*fs, &partitions_dir, was_deleted)
        .map_err(unusable(&partitions_dir))?;
    let partitions = Arc::new(Partitions::default());
    let reconciled = watch::Sender::new(0);
    let watch_reconciled = reconciled.subscribe();
    let mut reconciler = Reconciler {
        fs,
        partitions_dir,
        node_id: node.node_id,
        port: Arc::clone(&port),
        metadata: Arc::clone(&metadata),
        partitions: Arc::clone(&partitions),
        reconciled,
        opened: Default::default(),
    };
    reconciler.reconcile();
    let thread = thread::Builder::new().name("dislog-reconciler".to_owned());
    thread.spawn(move || reconciler.run(&wakes)).map_err(unusable(&data_dir))?;
    Ok(Cluster {
        inner: Arc::new(Inner {
            node,
            topic_defaults,
            clock,
            port,
            metadata,
            metadata_log,
            partitions,
            reconciled: watch_reconciled,
            reconciler: wake,
        }),
    })
}

fn open_metadata(
    fs: &Arc<dyn Fs>,
    partitions_dir: &Path,
    node: NodeFile,
    port: &Arc<Port>,
    follow: Follow,
) -> Result<Partition, OpenError> {
    let id = Metadata::partition();
    let dir = reconciler::dir(partitions_dir, &id);
    fs.create_dir_all(&dir).map_err(unusable(&dir))?;
    fs.sync_dir(partitions_dir).map_err(unusable(partitions_dir))?;
    let open = OpenGroup {
        fs: Arc::clone(fs),
        dir: dir.clone(),
        log: dislog_log::Config {
            segment_bytes: METADATA_SEGMENT_BYTES,
            ..dislog_log::Config::default()
        },
        id,
        group: metadata::GROUP,
        node_id: node.node_id,
        voters: vec![node.node_id],
        policy: RetentionPolicy::KEEP_ALL,
        observer: Some(Box::new(follow)),
    };
    let opened = open.open();
    let partition = Partition::new(opened.shared, Arc::clone(port));
    let Some(group) = opened.group else {
        let message = partition.status().fault.unwrap_or_default();
        let message = format!("the metadata cannot be used: {message}");
        return Err(OpenError::Unusable { path: dir, message });
    };
    let (sender, started) = mpsc::channel();
    if port.send(Input::AddGroup(group, sender)).is_ok() {
        // It hangs up once the group serves, or cannot.
        let _ = started.recv();
    }
    Ok(partition)
}

fn make_dirs(fs: &dyn Fs, data_dir: &Path, partitions_dir: &Path) -> io::Result<()> {
    fs.create_dir_all(partitions_dir)?;
    fs.sync_dir(data_dir)?;
    // Those above may have been created, too, as far as this node may look at them.
    for dir in data_dir.ancestors().skip(1).filter(|dir| !dir.as_os_str().is_empty()) {
        if fs.sync_dir(dir).is_err() {
            break;
        }
    }
    Ok(())
}

fn lock(data_dir: &Path) -> Result<fs::File, OpenError> {
    fs::create_dir_all(data_dir).map_err(unusable(data_dir))?;
    let path = data_dir.join("lock");
    let file = fs::OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(unusable(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(OpenError::InUse(data_dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(unusable(&path)(error)),
    }
}

fn unusable(path: &Path) -> impl Fn(io::Error) -> OpenError {
    let path: PathBuf = path.to_owned();
    move |error| OpenError::Unusable { path: path.clone(), message: error.to_string() }
}
