//! Reading a partition: committed batches, straight from the log.
//!
//! Readers never ask Raft and hold nobody up: they read what the log has below the committed
//! offset. What is still in memory is answered at once; otherwise a blocking thread reads the disk.
//! At the end of the log they wait on [`Progress`], never in turns.

use dislog_log::{Frame, Log, ReadError as LogReadError};
use tokio::runtime::Handle;

use super::Partition;
use super::progress::{Progress, StoredBatch};
use super::shared::Life;
use crate::error::ReadError;

impl Partition {
    /// Stored batches from the one that holds `offset`, up to the committed offset, about
    /// `bytes_max` but at least one; none at the committed offset itself. The first batch may begin
    /// before `offset`. Safe to cancel.
    ///
    /// # Errors
    /// Each says why; none is worth a retry as it is, but for `Failed`.
    pub async fn read(&self, offset: u64, bytes_max: usize) -> Result<Vec<StoredBatch>, ReadError> {
        let progress = self.progress();
        let log = self.readable(progress, offset)?;
        if offset == progress.committed_offset {
            return Ok(Vec::new());
        }
        // consume 3: what is in memory is served at once; only the rest costs a thread.
        let committed_offset = progress.committed_offset;
        let frames = match log.read_cached(offset, committed_offset, bytes_max) {
            Some(frames) => frames,
            None => self.blocking(move |log| log.read(offset, committed_offset, bytes_max)).await?,
        };
        Ok(frames.into_iter().map(stored).collect())
    }

    /// Waits until `offset` is committed, trimmed, or never will be. Safe to cancel.
    ///
    /// # Errors
    /// If the partition ended before the offset was committed.
    pub async fn wait_for(&self, offset: u64) -> Result<Progress, ReadError> {
        // consume 2: a reader at the end sleeps on the committed offset.
        let mut watch = self.watch();
        let there = |progress: &Progress| progress.committed_offset > offset || progress.ended;
        let progress = match watch.wait_for(there).await {
            Ok(progress) => *progress,
            Err(_) => return Err(ReadError::Closing),
        };
        match progress.committed_offset > offset {
            true => Ok(progress),
            false => Err(self.ended().unwrap_or(ReadError::Closing)),
        }
    }

    /// The first committed offset whose timestamp is at or after `timestamp_ms`; the committed
    /// offset if none is.
    ///
    /// # Errors
    /// If the log cannot be read.
    pub async fn offset_at(&self, timestamp_ms: i64) -> Result<u64, ReadError> {
        let progress = self.progress();
        self.readable(progress, progress.start_offset)?;
        let offset = self.blocking(move |log| log.offset_at(timestamp_ms)).await?;
        Ok(offset.clamp(progress.start_offset, progress.committed_offset))
    }

    /// The log, if `offset` can be read from it.
    fn readable(&self, progress: Progress, offset: u64) -> Result<&Log, ReadError> {
        let Progress { start_offset, committed_offset, .. } = progress;
        if let Some(error) = self.ended() {
            return Err(error);
        }
        let Some(log) = &self.shared.log else {
            let fault = self.shared.health().fault.clone();
            let message = fault.map_or_else(String::new, |fault| fault.message().to_owned());
            return Err(ReadError::Failed(message));
        };
        if offset < start_offset {
            return Err(ReadError::Trimmed { offset, start_offset, committed_offset });
        }
        if offset > committed_offset {
            return Err(ReadError::BeyondEnd { offset, start_offset, committed_offset });
        }
        Ok(log)
    }

    fn ended(&self) -> Option<ReadError> {
        match self.shared.health().life {
            Life::Open => None,
            Life::Closing => Some(ReadError::Closing),
            Life::Deleted => Some(ReadError::Deleted(self.shared.id.clone())),
            Life::Moved => Some(ReadError::NoLeader(self.shared.id.clone())),
        }
    }

    async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Log) -> Result<T, LogReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        let log = self.shared.log.clone().expect("it was found readable");
        if Handle::try_current().is_err() {
            // Without a runtime there is nobody whose time a read could take.
            return read(&log).map_err(|error| self.read_error(error));
        }
        let outcome = tokio::task::spawn_blocking(move || read(&log)).await;
        let outcome = outcome.map_err(|error| ReadError::Failed(error.to_string()))?;
        outcome.map_err(|error| self.read_error(error))
    }

    fn read_error(&self, error: LogReadError) -> ReadError {
        // A file that is gone may have been deleted with its topic while it was read.
        if let Some(ended) = self.ended() {
            return ended;
        }
        let Progress { start_offset, committed_offset, .. } = self.progress();
        match error {
            LogReadError::Trimmed { offset, start_offset } => {
                ReadError::Trimmed { offset, start_offset, committed_offset }
            }
            LogReadError::BeyondEnd { offset, .. } => {
                ReadError::BeyondEnd { offset, start_offset, committed_offset }
            }
            LogReadError::Damaged(damage) => ReadError::Damaged {
                from_offset: damage.from_offset,
                to_offset: damage.to_offset,
                message: format!("{} at byte {}", damage.file.display(), damage.position),
            },
            LogReadError::Failed { .. } => ReadError::Failed(error.to_string()),
        }
    }
}

fn stored(frame: Frame) -> StoredBatch {
    StoredBatch {
        base_offset: frame.base_offset,
        record_count: frame.record_count,
        term: frame.term,
        timestamp_ms: frame.timestamp_ms,
        batch: frame.payload,
    }
}
