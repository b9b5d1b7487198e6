//! The threads that do to disks what takes time: votes, writes and syncs, and the upkeep of logs.
//!
//! The driver hands a job over and goes on; the outcome comes back through its channel. The driver
//! gives at most one job of each kind per log at a time, and of those that write ahead one for so
//! many bytes, so the queues here are bounded by the number of logs and the bytes under way. Syncs
//! go first: somebody waits for them. A sync that is the only one may be done by the driver itself,
//! with the same [`Tools`].

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::{io, iter};

use dislog_log::fs::Fs;
use dislog_log::{Checkpoint, Log, LogError};

use super::driver::Input;
use super::fetch::FetchJob;
use super::members_file::{self, History};
use super::new_start_file::NewStart;
use super::persist::Beside;
use super::vote_file::{self, Vote};
use crate::partition::retention::{self, Due, RetentionPolicy};

/// Makes durable what a group has staged.
pub(crate) struct SyncJob {
    pub(super) group: u64,
    pub(super) log: Log,
    /// The directory of the log.
    pub(super) dir: PathBuf,
    /// What to put there first.
    pub(super) beside: Beside,
    /// The term that is on disk then. What was staged since in a later one waits for its vote: a
    /// replica whose vote is older than its log cannot be started.
    pub(super) term: u64,
    /// Bytes of the entries.
    pub(super) bytes: u64,
}

/// Writes what was staged while a sync runs.
pub(crate) struct AheadJob {
    pub(super) log: Log,
    /// The term that is on disk.
    pub(super) term: u64,
}

/// Begins a log anew at another start.
pub(crate) struct InstallJob {
    pub(super) group: u64,
    pub(super) log: Log,
    pub(super) dir: PathBuf,
    pub(super) vote: Vote,
    pub(super) start: NewStart,
}

/// What an [`InstallJob`] came to.
pub(crate) struct Installed {
    pub(super) group: u64,
    pub(super) result: Result<(), LogError>,
}

/// What a [`SyncJob`] came to.
pub(crate) struct Synced {
    pub(super) group: u64,
    pub(super) result: Result<(), LogError>,
}

/// Upkeep of a log.
pub(crate) struct UpkeepJob {
    pub(super) group: u64,
    pub(super) log: Log,
    pub(super) task: UpkeepTask,
}

/// What there is to do.
pub(super) enum UpkeepTask {
    /// Replace the checkpoint.
    Checkpoint(Checkpoint),
    /// Move the start and delete what is below it.
    Trim(Checkpoint),
    /// Find out what is no longer to be kept.
    Retention(RetentionPolicy, retention::Moment),
}

/// What an [`UpkeepJob`] came to.
pub(crate) struct Kept {
    pub(super) group: u64,
    pub(super) result: Result<Due, LogError>,
}

/// Does jobs, one after the other or at once, and sends what they came to. Two twins: the threads,
/// and the simulator, which does a job when it pleases, or never.
pub(crate) trait Workers: Send {
    /// Takes on a job.
    fn take(&self, job: Job);

    /// No more will come.
    fn end(&self);
}

/// A job.
pub(crate) enum Job {
    /// See there.
    Sync(SyncJob),
    /// See there. Nobody waits for it.
    Ahead(AheadJob),
    /// See there.
    Install(InstallJob),
    /// See there.
    Fetch(FetchJob),
    /// See there.
    Upkeep(UpkeepJob),
}

/// The threads. A cheap handle.
#[derive(Clone)]
pub(super) struct SyncThreads {
    queue: Arc<Queue>,
}

struct Queue {
    jobs: Mutex<Jobs>,
    changed: Condvar,
}

#[derive(Default)]
struct Jobs {
    syncs: VecDeque<SyncJob>,
    ahead: VecDeque<AheadJob>,
    installs: VecDeque<InstallJob>,
    fetches: VecDeque<FetchJob>,
    upkeep: VecDeque<UpkeepJob>,
    ended: bool,
}

/// What the threads work with.
pub(crate) struct Tools {
    pub(crate) fs: Arc<dyn Fs>,
    pub(crate) results: Sender<Input>,
}

impl SyncThreads {
    /// Starts `count` threads, at least one.
    pub(super) fn start(
        count: usize,
        tools: impl Fn() -> Tools,
    ) -> io::Result<(SyncThreads, Vec<JoinHandle<()>>)> {
        let queue = Arc::new(Queue { jobs: Mutex::new(Jobs::default()), changed: Condvar::new() });
        let threads: io::Result<Vec<_>> = iter::repeat_with(|| (Arc::clone(&queue), tools()))
            .take(count.max(1))
            .enumerate()
            .map(|(number, (queue, tools))| {
                let work = move || queue.work(&tools);
                thread::Builder::new().name(format!("dislog-sync-{number}")).spawn(work)
            })
            .collect();
        Ok((SyncThreads { queue }, threads?))
    }
}

impl Workers for SyncThreads {
    fn take(&self, job: Job) {
        let mut jobs = self.queue.jobs();
        match job {
            Job::Sync(job) => jobs.syncs.push_back(job),
            Job::Ahead(job) => jobs.ahead.push_back(job),
            Job::Install(job) => jobs.installs.push_back(job),
            Job::Fetch(job) => jobs.fetches.push_back(job),
            Job::Upkeep(job) => jobs.upkeep.push_back(job),
        }
        drop(jobs);
        self.queue.changed.notify_one();
    }

    /// Lets the threads end once the queue is empty.
    fn end(&self) {
        self.queue.jobs().ended = true;
        self.queue.changed.notify_all();
    }
}

impl Queue {
    fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().expect("nothing panics while the queue is locked")
    }

    fn next(&self) -> Option<Job> {
        let mut jobs = self.jobs();
        loop {
            if let Some(job) = jobs.syncs.pop_front() {
                return Some(Job::Sync(job));
            }
            if let Some(job) = jobs.ahead.pop_front() {
                return Some(Job::Ahead(job));
            }
            if let Some(job) = jobs.installs.pop_front() {
                return Some(Job::Install(job));
            }
            if let Some(job) = jobs.fetches.pop_front() {
                return Some(Job::Fetch(job));
            }
            if let Some(job) = jobs.upkeep.pop_front() {
                return Some(Job::Upkeep(job));
            }
            if jobs.ended {
                return None;
            }
            jobs = self.changed.wait(jobs).expect("nothing panics while the queue is locked");
        }
    }

    fn work(&self, tools: &Tools) {
        while let Some(job) = self.next() {
            tools.work(job);
        }
    }
}

impl Tools {
    /// Does a job and sends what it came to; blocks.
    pub(crate) fn work(&self, job: Job) {
        let result = match job {
            Job::Sync(job) => Input::Synced(self.sync(&job)),
            Job::Ahead(job) => {
                // What it leaves, or fails to do, the next sync does or finds again.
                let _ = guarded("write ahead", PathBuf::new(), || {
                    job.log.write_ahead(job.term);
                    Ok(())
                });
                return;
            }
            Job::Install(job) => Input::Installed(self.install(job)),
            Job::Fetch(job) => Input::Fetched(job.work()),
            Job::Upkeep(job) => Input::Kept(self.upkeep(job)),
        };
        // Without a driver nobody waits for it.
        let _ = self.results.send(result);
    }

    /// Does a sync; blocks.
    pub(super) fn sync(&self, job: &SyncJob) -> Synced {
        // produce 7: write and sync everything staged; the vote first, if there is one.
        let result = guarded("sync", job.dir.clone(), || {
            self.write_beside(&job.dir, job.beside.vote, job.beside.members.as_ref())?;
            job.log.flush_terms(job.term).map(|_| ())
        });
        Synced { group: job.group, result }
    }

    fn write_beside(
        &self,
        dir: &Path,
        vote: Option<Vote>,
        members: Option<&History>,
    ) -> Result<(), LogError> {
        if let Some(vote) = vote {
            vote_file::write(&*self.fs, dir, vote)
                .map_err(|error| file_error(vote_file::path(dir), &error))?;
        }
        if let Some(members) = members {
            members_file::write(&*self.fs, dir, members)
                .map_err(|error| file_error(members_file::path(dir), &error))?;
        }
        Ok(())
    }

    fn install(&self, job: InstallJob) -> Installed {
        let InstallJob { group, log, dir, vote, start } = job;
        let result = guarded("begin anew", dir.clone(), || {
            self.write_beside(&dir, Some(vote), None)?;
            start.begin(&*self.fs, &dir, &log)
        });
        Installed { group, result }
    }

    fn upkeep(&self, job: UpkeepJob) -> Kept {
        let UpkeepJob { group, log, task } = job;
        let result = guarded("upkeep", PathBuf::from(format!("group {group}")), || match task {
            UpkeepTask::Checkpoint(checkpoint) => {
                log.write_checkpoint(&checkpoint).map(|()| Due::default())
            }
            UpkeepTask::Trim(checkpoint) => log.trim(&checkpoint).map(|()| Due::default()),
            UpkeepTask::Retention(policy, moment) => Ok(retention::evaluate(&log, policy, moment)),
        });
        Kept { group, result }
    }
}

/// A panic in the log stops that log alone; the outcome of what it was doing is not known.
fn guarded<T>(
    operation: &'static str,
    path: PathBuf,
    work: impl FnOnce() -> Result<T, LogError>,
) -> Result<T, LogError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| {
        let message = "it panicked; see the messages on standard error".to_owned();
        Err(LogError::Stopped { operation, path, message })
    })
}

pub(super) fn file_error(path: PathBuf, error: &io::Error) -> LogError {
    match error.kind() {
        io::ErrorKind::StorageFull => LogError::DiskFull { path },
        _ => LogError::Stopped { operation: "write", path, message: error.to_string() },
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use bytes::Bytes;
    use dislog_log::fs::SimFs;
    use dislog_log::{Config, Frame, Kind};

    use super::*;

    fn start_of_term(term: u64) -> Frame {
        Frame {
            kind: Kind::LeaderStart,
            term,
            raft_index: term,
            base_offset: 0,
            record_count: 0,
            timestamp_ms: 0,
            payload: Bytes::new(),
        }
    }

    #[test]
    fn what_is_staged_behind_a_sync_is_not_on_disk_before_its_vote() {
        let (fs, dir) = (SimFs::new(1), Path::new("/"));
        let (log, _) = Log::open(Arc::new(fs.clone()), dir, Config::default()).unwrap();
        let tools = Tools { fs: Arc::new(fs.clone()), results: mpsc::channel().0 };
        let job = |term| SyncJob {
            group: 7,
            log: log.clone(),
            dir: dir.to_owned(),
            beside: Beside { vote: Some(Vote { term, voted_for: 1 }), members: None },
            term,
            bytes: 0,
        };
        log.stage(vec![start_of_term(1)]).unwrap();
        let first = job(1);
        // The thread comes to it only now.
        log.stage(vec![start_of_term(2)]).unwrap();
        assert_eq!(tools.sync(&first).result, Ok(()));
        assert_eq!((log.bounds().durable_raft_index, log.bounds().last_raft_index), (1, 2));
        assert_eq!(tools.sync(&job(2)).result, Ok(()));
        assert_eq!(log.bounds().durable_raft_index, 2);
    }
}
