//! The reconciler: makes this node's partitions be as the metadata says.
//!
//! One thread owns the coming and going of partitions: it opens and creates what is missing, ends
//! and removes what was deleted, passes settings on. It compares what there is with what there
//! should be, so a wake that covers several changes, or a restart in the middle of one, comes to
//! the same.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, RwLock, RwLockReadGuard};

use dislog_log::fs::Fs;
use dislog_types::PartitionId;
use dislog_types::limits::TOPIC_PARTITIONS_MAX;
use tokio::sync::watch;

use super::Metadata;
use super::state::TopicLife;
use crate::partition::Partition;
use crate::partition::port::Port;
use crate::partition::progress::Progress;
use crate::partition::retention::RetentionPolicy;
use crate::partition::shared::{Fault, Life, Shared};
use crate::partition_dir;
use crate::raft::driver::Input;
use crate::raft::open::{OpenGroup, Opened};
use crate::settings::TopicSettings;

/// What wakes the reconciler.
pub(crate) enum Wake {
    /// The metadata changed.
    Changed,
    /// The node closes.
    End,
}

/// The partitions of this node, by name.
#[derive(Default)]
pub(crate) struct Partitions {
    open: RwLock<HashMap<PartitionId, Partition>>,
}

impl Partitions {
    /// The partitions, locked for a short while.
    pub(crate) fn open(&self) -> RwLockReadGuard<'_, HashMap<PartitionId, Partition>> {
        self.open.read().expect("nothing panics while the partitions are locked")
    }

    fn insert(&self, partition: Partition) {
        let mut open = self.open.write().expect("nothing panics while it is locked");
        open.insert(partition.id().clone(), partition);
    }

    fn remove(&self, id: &PartitionId) {
        self.open.write().expect("nothing panics while it is locked").remove(id);
    }
}

/// See the module.
pub(crate) struct Reconciler {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) partitions_dir: PathBuf,
    pub(crate) node_id: u64,
    pub(crate) port: Arc<Port>,
    pub(crate) metadata: Arc<Metadata>,
    pub(crate) partitions: Arc<Partitions>,
    /// One past the offset of the last command carried out.
    pub(crate) reconciled: watch::Sender<u64>,
    /// What was opened, by group; a group's number is never used again.
    pub(crate) opened: HashMap<u64, (PartitionId, TopicSettings)>,
}

impl Reconciler {
    /// Works until told to end.
    pub(crate) fn run(mut self, wakes: &Receiver<Wake>) {
        while let Ok(Wake::Changed) = wakes.recv() {
            self.reconcile();
        }
    }

    /// Makes everything be as the metadata says now.
    pub(crate) fn reconcile(&mut self) {
        let (topics, applied_offset) = {
            let state = self.metadata.state();
            (state.topics().cloned().collect::<Vec<_>>(), state.applied_offset())
        };
        self.end_deleted(&topics);
        let wanted = topics
            .iter()
            .flat_map(|life| (0..life.topic.partitions).map(move |partition| (life, partition)));
        let starting: Vec<_> = wanted.filter_map(|(life, p)| self.open_or_alter(life, p)).collect();
        for started in starting {
            // An error says that it can't serve; its handle knows why.
            let _ = started.recv();
        }
        self.reconciled.send_replace(applied_offset);
    }

    fn end_deleted(&mut self, topics: &[TopicLife]) {
        let wanted: std::collections::HashSet<u64> =
            topics.iter().map(|life| first_group(life.topic_id)).collect();
        let first_of = |group: u64| group - group % u64::from(TOPIC_PARTITIONS_MAX);
        let deleted = self.opened.extract_if(|group, _| !wanted.contains(&first_of(*group)));
        let deleted: Vec<_> = deleted.map(|(group, (id, _))| (group, id)).collect();
        for (group, id) in deleted {
            self.end(group, &id);
        }
    }

    fn end(&self, group: u64, id: &PartitionId) {
        let (done, ended) = mpsc::channel();
        if self.port.send(Input::EndGroup(group, Life::Deleted, done)).is_ok() {
            // Without an answer there was no such group, or no driver: nothing uses the files
            // either way.
            let _ = ended.recv();
        }
        let open = self.partitions.open().get(id).cloned();
        if let Some(partition) = open {
            partition.shared.end(Life::Deleted);
        }
        self.partitions.remove(id);
        let dir = dir(&self.partitions_dir, id);
        if let Err(error) = partition_dir::remove_own(&*self.fs, &dir, topic_of(group)) {
            let dir = dir.display();
            tracing::error!(%dir, %error, "not removed; it is tried again at the next start");
        }
    }

    /// Opens a partition unless it is open; the receiver hangs up or answers once it serves, or
    /// cannot.
    fn open_or_alter(&mut self, life: &TopicLife, partition: u32) -> Option<Receiver<()>> {
        let group = first_group(life.topic_id) + u64::from(partition);
        let settings = life.topic.settings;
        let id = PartitionId { topic: life.topic.name.clone(), partition };
        if let Some((_, known)) = self.opened.get_mut(&group) {
            if *known != settings {
                *known = settings;
                self.alter(&id, group, &settings);
            }
            return None;
        }
        let opened = self.open(&id, group, life);
        self.partitions.insert(Partition::new(opened.shared, Arc::clone(&self.port)));
        self.opened.insert(group, (id, settings));
        let (sender, started) = mpsc::channel();
        let added = self.port.send(Input::AddGroup(opened.group?, sender));
        added.ok().map(|()| started)
    }

    fn alter(&self, id: &PartitionId, group: u64, settings: &TopicSettings) {
        if let Some(log) = self.partitions.open().get(id).and_then(|open| open.shared.log.as_ref())
        {
            log.set_segment_bytes(settings.segment_bytes);
        }
        // Without a driver the node is closing, and opens with these settings.
        let _ = self.port.send(Input::SetRetention(group, RetentionPolicy::new(settings)));
    }

    fn open(&self, id: &PartitionId, group: u64, life: &TopicLife) -> Opened {
        let dir = dir(&self.partitions_dir, id);
        let claimed = partition_dir::claim(&*self.fs, &dir, life.topic_id, |topic_id| {
            self.metadata.state().was_deleted(topic_id)
        });
        if let Err(error) = claimed {
            let message = error.to_string();
            tracing::error!(partition = %id, message, "the partition cannot be opened");
            let fault = Some(Fault::Damaged(message));
            let shared = Shared::new(id.clone(), group, None, Progress::default(), fault);
            return Opened { shared: Arc::new(shared), group: None };
        }
        let settings = &life.topic.settings;
        let log = dislog_log::Config {
            segment_bytes: settings.segment_bytes,
            ..dislog_log::Config::default()
        };
        let open = OpenGroup {
            fs: Arc::clone(&self.fs),
            dir,
            log,
            id: id.clone(),
            group,
            node_id: self.node_id,
            voters: vec![self.node_id],
            policy: RetentionPolicy::new(settings),
            observer: None,
        };
        open.open()
    }
}

/// The directory of a partition.
pub(crate) fn dir(partitions_dir: &Path, id: &PartitionId) -> PathBuf {
    partitions_dir.join(id.to_string())
}

/// The group of a topic's first partition; the others follow. Group 0 is the metadata's own.
fn first_group(topic_id: u64) -> u64 {
    (topic_id + 1) * u64::from(TOPIC_PARTITIONS_MAX)
}

/// The topic whose partition a group is.
fn topic_of(group: u64) -> u64 {
    group / u64::from(TOPIC_PARTITIONS_MAX) - 1
}
