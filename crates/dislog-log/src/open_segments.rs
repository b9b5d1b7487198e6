//! Which sealed segments are held open: the last few that were read, so that ten thousand segments
//! don't need ten thousand descriptors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use crate::segment::Segment;

/// Sealed segments of one log that may be open at a time; readers at different places of the log
/// use one each.
const OPEN_SEALED_SEGMENTS_MAX: usize = 8;

/// The segments that were read last, the most recent at the back.
#[derive(Debug, Default)]
pub(crate) struct OpenSegments(Mutex<VecDeque<Arc<Segment>>>);

impl OpenSegments {
    /// Notes that a sealed segment was used, and closes the one that was not used for longest.
    pub(crate) fn touch(&self, segment: &Arc<Segment>) {
        let mut open = self.0.lock().expect("no panic while it is held");
        if open.back().is_some_and(|last| Arc::ptr_eq(last, segment)) {
            return;
        }
        open.retain(|other| !Arc::ptr_eq(other, segment));
        open.push_back(Arc::clone(segment));
        if open.len() > OPEN_SEALED_SEGMENTS_MAX
            && let Some(oldest) = open.pop_front()
        {
            oldest.close();
        }
    }

    /// Notes that a segment is gone.
    pub(crate) fn forget(&self, segment: &Arc<Segment>) {
        let mut open = self.0.lock().expect("no panic while it is held");
        open.retain(|other| !Arc::ptr_eq(other, segment));
        segment.close();
    }
}
