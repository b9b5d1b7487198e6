//! The file system of the machine.

use std::fs::{self, OpenOptions};
use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use super::mapped::MappedFile;
use super::{File, Fs, Mapping};

/// Parts given to the system in one call; Linux takes 1024 (`IOV_MAX`).
const PARTS_MAX: usize = 1_024;

/// So much is asked of the system at once. What is not in memory it has the disk read in one go,
/// and who syncs meanwhile waits for that. What is written it copies, into memory that may have to
/// be made first, and lets nobody else have the processor for so long: then it is others' turn.
const PIECE_BYTES_MAX: usize = 128 << 10;

/// The file system of the machine.
#[derive(Clone, Copy, Debug, Default)]
pub struct RealFs;

impl Fs for RealFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = match OpenOptions::new().read(true).write(true).open(path) {
            // Enough to verify a log that one may only look at; a write then fails.
            Err(error) if is_read_only(&error) => fs::File::open(path)?,
            other => other?,
        };
        read_no_further(&file);
        Ok(Arc::new(RealFile(file)))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::create_dir_all(path)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        fs::File::open(path)?.sync_all()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(path)? {
            paths.push(entry?.path());
        }
        paths.sort_unstable();
        Ok(paths)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn random(&self) -> u64 {
        // Every `RandomState` has keys of its own, seeded by the system.
        RandomState::new().hash_one(std::process::id())
    }

    fn map(&self, path: &Path, len: u64) -> io::Result<Arc<dyn Mapping>> {
        Ok(Arc::new(MappedFile::new(&fs::File::open(path)?, len)?))
    }
}

/// The system is to read what it is asked for, and not up to many MiB behind that: as above. It is
/// free to do so all the same.
fn read_no_further(file: &fs::File) {
    #[cfg(target_os = "linux")]
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::Random);
    #[cfg(not(target_os = "linux"))]
    let _ = file;
}

fn is_read_only(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

#[derive(Debug)]
struct RealFile(fs::File);

impl File for RealFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buffer.len() {
            let end = buffer.len().min(done + PIECE_BYTES_MAX);
            match self.0.read_at(&mut buffer[done..end], position + done as u64) {
                Ok(0) => break,
                Ok(bytes) => done += bytes,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let (mut slices, mut bytes, mut position) = (Vec::new(), 0, position);
        for part in parts {
            let mut rest = *part;
            while !rest.is_empty() {
                let (piece, later) = rest.split_at(rest.len().min(PIECE_BYTES_MAX - bytes));
                slices.push(IoSlice::new(piece));
                bytes += piece.len();
                rest = later;
                if bytes == PIECE_BYTES_MAX || slices.len() == PARTS_MAX {
                    position = write_all_vectored_at(&self.0, &mut slices, position)?;
                    slices.clear();
                    bytes = 0;
                    thread::yield_now();
                }
            }
        }
        write_all_vectored_at(&self.0, &mut slices, position)?;
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }
}

/// Writes all of `slices` at `position` and returns where they end.
fn write_all_vectored_at(
    file: &fs::File,
    mut slices: &mut [IoSlice<'_>],
    mut position: u64,
) -> io::Result<u64> {
    IoSlice::advance_slices(&mut slices, 0);
    while !slices.is_empty() {
        match rustix::io::pwritev(file, slices, position) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(bytes) => {
                position += bytes as u64;
                IoSlice::advance_slices(&mut slices, bytes);
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(position)
}
