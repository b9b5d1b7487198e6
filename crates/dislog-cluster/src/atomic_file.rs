//! Small files that are replaced as a whole: after a crash at any moment there is either the old
//! content or the new.

use std::io;
use std::path::{Path, PathBuf};

use dislog_log::fs::Fs;

/// The most bytes a small file may have: a larger one is not ours, and is not read into memory.
const FILE_BYTES_MAX: u64 = 64 << 10;

/// Replaces the content of `path`, durably: written beside it, synced, renamed over it, directory
/// synced.
pub(crate) fn replace(fs: &dyn Fs, path: &Path, content: &[u8]) -> io::Result<()> {
    let temporary = temporary_path(path);
    fs.remove_if_there(&temporary)?;
    let file = fs.create(&temporary)?;
    file.write_at(&[content], 0)?;
    file.sync_data()?;
    fs.rename(&temporary, path)?;
    fs.sync_dir(path.parent().unwrap_or(Path::new(".")))
}

/// The content of `path`, or `None` if there is no such file.
pub(crate) fn read(fs: &dyn Fs, path: &Path) -> io::Result<Option<Vec<u8>>> {
    let file = match fs.open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    let len = file.len()?;
    if len > FILE_BYTES_MAX {
        let message = format!("{} has {len} bytes, more than such a file has", path.display());
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    let len = usize::try_from(len).expect("the limit fits memory");
    let mut content = vec![0; len];
    let read = file.read_at(&mut content, 0)?;
    content.truncate(read);
    Ok(Some(content))
}

fn temporary_path(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    path.with_file_name(name)
}
