//! Files that are written as a whole or not at all, and replaced only when that was asked for.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::failure::{Exit, Failure};

/// Who may read a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Readers {
    /// Its owner.
    Owner,
    /// Everybody.
    All,
}

/// A file to write.
pub(super) struct NewFile {
    pub(super) path: PathBuf,
    pub(super) text: String,
    pub(super) readers: Readers,
}

/// Writes them all in the order given; without `force` none, if one of them exists.
pub(super) fn write(files: &[NewFile], force: bool) -> Result<(), Failure> {
    if !force && let Some(there) = files.iter().find(|file| file.path.exists()) {
        return Err(exists(&there.path));
    }
    files.iter().try_for_each(|file| write_one(file, force))
}

fn exists(path: &Path) -> Failure {
    Failure::new(Exit::Failed, format!("{} exists", path.display()))
        .hint("--force replaces it; --out or --dir names another place")
}

fn write_one(file: &NewFile, force: bool) -> Result<(), Failure> {
    let NewFile { path, text, readers } = file;
    match put(path, text.as_bytes(), *readers, force) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(exists(path)),
        Err(error) => {
            Err(Failure::new(Exit::Failed, format!("cannot write {}: {error}", path.display())))
        }
    }
}

fn put(path: &Path, bytes: &[u8], readers: Readers, force: bool) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(dir)?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".new-{:016x}", rand::random::<u64>()));
    let new = dir.join(name);
    let mode = if readers == Readers::Owner { 0o600 } else { 0o644 };
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        // A link is refused if there is a file of that name; a renamed file takes its place.
        if force { fs::rename(&new, path) } else { fs::hard_link(&new, path) }
    })();
    // Gone already if it was renamed.
    let _ = fs::remove_file(&new);
    written?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn nothing_is_replaced_by_accident_and_keys_are_private() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str, readers| NewFile {
            path: dir.path().join("a").join(name),
            text: text.to_owned(),
            readers,
        };
        let both = |text| [file("k", text, Readers::Owner), file("c", text, Readers::All)];
        write(&both("1")[1..], false).unwrap();
        let failure = write(&both("2"), false).unwrap_err();
        assert!(failure.message.contains("exists"), "{failure}");
        assert!(!dir.path().join("a/k").exists(), "all or none");
        write(&both("3"), true).unwrap();
        assert_eq!(fs::read_to_string(dir.path().join("a/c")).unwrap(), "3");
        let mode = fs::metadata(dir.path().join("a/k")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path().join("a")).unwrap().count(), 2, "nothing is left over");
    }
}
