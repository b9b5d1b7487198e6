//! The `removals` file: up to where the metadata was known when a replica was removed last.
//!
//! ```text
//! data/removals    one past the offset of the last command that was carried out, decimal
//! ```
//!
//! What a node knows of the metadata may be less after a restart than before: what is known to be
//! committed is learnt from the leader again. A node that took its old knowledge for the present
//! would create anew, empty, a replica that it removed; and enough of such replicas would elect
//! each other and begin the partition anew beside the one that there is. So the file is written
//! before anything is removed, and until the metadata is known so far again, the node opens what it
//! has and creates nothing.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::{io, str};

use dislog_log::fs::Fs;

use crate::atomic_file;
use crate::error::OpenError;

/// The name of the file in the data directory.
const FILE_NAME: &str = "removals";

/// See the module.
#[derive(Debug)]
pub(crate) struct Removals {
    path: PathBuf,
    known: Mutex<u64>,
}

impl Removals {
    /// Reads the file in `data_dir`; without one, nothing was ever removed.
    pub(crate) fn open(fs: &dyn Fs, data_dir: &Path) -> Result<Removals, OpenError> {
        let path = data_dir.join(FILE_NAME);
        let unusable = |message: String| OpenError::Unusable { path: path.clone(), message };
        let content = atomic_file::read(fs, &path).map_err(|error| unusable(error.to_string()))?;
        let parse = |content: &[u8]| str::from_utf8(content).ok()?.trim().parse::<u64>().ok();
        let known = match content {
            None => 0,
            Some(content) => parse(&content).ok_or_else(|| {
                unusable("it is not a number; this node cannot go by what it knew".to_owned())
            })?,
        };
        Ok(Removals { path, known: Mutex::new(known) })
    }

    /// Takes note, durably, that something is about to be removed by a node that knows the metadata
    /// up to `known`.
    pub(crate) fn announce(&self, fs: &dyn Fs, known: u64) -> io::Result<()> {
        let mut before = self.lock();
        if known > *before {
            atomic_file::replace(fs, &self.path, format!("{known}\n").as_bytes())?;
            *before = known;
        }
        Ok(())
    }

    /// Up to where the metadata was known.
    pub(crate) fn known(&self) -> u64 {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, u64> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use dislog_log::fs::SimFs;

    use super::*;

    #[test]
    fn what_was_known_is_known_after_a_crash() {
        let (fs, dir) = (SimFs::new(1), Path::new("/"));
        let removals = Removals::open(&fs, dir).unwrap();
        assert_eq!(removals.known(), 0);
        removals.announce(&fs, 7).unwrap();
        removals.announce(&fs, 5).unwrap();
        fs.crash();
        assert_eq!(Removals::open(&fs, dir).unwrap().known(), 7);
        fs.put(&dir.join(FILE_NAME), b"rot");
        assert!(matches!(Removals::open(&fs, dir), Err(OpenError::Unusable { .. })));
    }
}
