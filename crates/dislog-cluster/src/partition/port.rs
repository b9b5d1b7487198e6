//! The way from handles to the driver: its channel, and the permits that bound what is on the way.

use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::raft::driver::Input;
use crate::settings::{APPEND_OVERHEAD_BYTES, CONTROL_REQUESTS_MAX};

/// One per node, shared by all handles.
pub(crate) struct Port {
    driver: Sender<Input>,
    append_bytes: Arc<Semaphore>,
    append_bytes_max: u32,
    control: Arc<Semaphore>,
}

/// The driver has ended.
#[derive(Debug)]
pub(crate) struct Gone;

impl Port {
    /// A port to a driver that lets `append_bytes_max` bytes of appends be under way.
    pub(crate) fn new(driver: Sender<Input>, append_bytes_max: usize) -> Port {
        let most = usize::try_from(u32::MAX).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        let append_bytes_max = append_bytes_max.clamp(1, most);
        Port {
            driver,
            append_bytes: Arc::new(Semaphore::new(append_bytes_max)),
            append_bytes_max: u32::try_from(append_bytes_max).expect("it is clamped"),
            control: Arc::new(Semaphore::new(CONTROL_REQUESTS_MAX)),
        }
    }

    /// Waits until an append of `bytes` may be under way. First come, first served.
    pub(crate) async fn append_permit(&self, bytes: usize) -> Result<OwnedSemaphorePermit, Gone> {
        let bytes = u32::try_from(bytes + APPEND_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        // One that is larger than all that may be under way goes alone.
        let bytes = bytes.min(self.append_bytes_max);
        let permit = Arc::clone(&self.append_bytes).acquire_many_owned(bytes).await;
        permit.map_err(|_| Gone)
    }

    /// A permit for an append of `bytes`, if there is one right now.
    pub(crate) fn try_append_permit(&self, bytes: usize) -> Option<OwnedSemaphorePermit> {
        let bytes = u32::try_from(bytes + APPEND_OVERHEAD_BYTES).unwrap_or(u32::MAX);
        Arc::clone(&self.append_bytes).try_acquire_many_owned(bytes).ok()
    }

    /// Waits until a request other than an append may be under way.
    pub(crate) async fn control_permit(&self) -> Result<OwnedSemaphorePermit, Gone> {
        Arc::clone(&self.control).acquire_owned().await.map_err(|_| Gone)
    }

    /// Gives something to the driver. Does not block.
    pub(crate) fn send(&self, input: Input) -> Result<(), Gone> {
        self.driver.send(input).map_err(|_| Gone)
    }
}

impl Drop for Port {
    /// With the last handle gone nobody can close the node any more, so it closes itself.
    fn drop(&mut self) {
        let _ = self.driver.send(Input::Close(None));
    }
}
