//! Readers see committed records only, as they are.

use dislog_cluster::StoredBatch;
use dislog_types::batch::{BatchHeader, records};

use super::{Verdict, must};
use crate::facts::Group;
use crate::workload;

/// Somebody has read this.
pub(crate) fn check(group: Option<&Group>, stored: &StoredBatch) -> Verdict {
    let header = BatchHeader::verify(&stored.batch).map_err(|error| error.to_string())?;
    let records = records(&header, &stored.batch).map_err(|error| error.to_string())?;
    for (offset, record) in (stored.base_offset..).zip(&records) {
        let at = usize::try_from(offset).unwrap_or(usize::MAX);
        let committed = group.and_then(|group| group.records.get(at)).copied();
        let read = workload::identity(record);
        must(committed.is_some() && read == committed, || {
            format!("offset {offset} reads {read:?}, committed is {committed:?}")
        })?;
    }
    must(records.len() == stored.record_count as usize, || {
        format!("{} records at {}, not {}", records.len(), stored.base_offset, stored.record_count)
    })
}
