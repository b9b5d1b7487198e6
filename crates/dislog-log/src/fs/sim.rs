//! A disk in memory that behaves as badly as a disk may.
//!
//! What is written is seen at once, as through a page cache, but survives [`SimFs::crash`] for
//! certain only once it was synced: of the writes since, each sector survives or not by the toss of
//! a coin, in no order; of the names created, renamed and removed in a directory since its sync, a
//! prefix survives. Faults are armed through [`SimFaults`]. Everything follows from one seed.
//!
//! Left out: latency, and reads that fail.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{File, Fs, Mapping};

/// What survives a crash or not as one piece.
const SECTOR_BYTES: usize = 512;

/// What goes wrong, and when. Counters count down; `None` means never.
#[derive(Clone, Debug, Default)]
pub struct SimFaults {
    /// After so many more writes, syncs, and changes of names, the machine is down: everything
    /// fails until `crash`.
    pub crash_after: Option<u64>,
    /// The sync after so many more fails, and what it covered is lost.
    pub fail_sync_after: Option<u64>,
    /// So many more bytes can be written; then the disk is full.
    pub space_bytes: Option<u64>,
    /// Syncs say they succeeded and do nothing: to test the tests.
    pub lying_syncs: bool,
}

/// A disk in memory. A cheap handle.
#[derive(Clone, Debug)]
pub struct SimFs(Arc<Mutex<Disk>>);

#[derive(Debug)]
struct Disk {
    random: u64,
    faults: SimFaults,
    down: bool,
    files: BTreeMap<u64, Inode>,
    next_file: u64,
    /// The names as programs see them; directories have no file.
    names: Names,
    durable_names: Names,
    /// Changes of names since the sync of their directory, oldest first.
    pending_names: Vec<NameChange>,
}

/// Files by their paths, as text: paths are slow to compare.
type Names = BTreeMap<OsString, Option<u64>>;

#[derive(Clone, Debug)]
struct NameChange {
    dir: PathBuf,
    /// Names removed, then names set.
    remove: Option<PathBuf>,
    set: Option<(PathBuf, Option<u64>)>,
}

#[derive(Debug, Default)]
struct Inode {
    content: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write { position: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl SimFs {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64) -> SimFs {
        let root = Names::from([(OsString::from("/"), None)]);
        SimFs(Arc::new(Mutex::new(Disk {
            random: seed,
            faults: SimFaults::default(),
            down: false,
            files: BTreeMap::new(),
            next_file: 1,
            names: root.clone(),
            durable_names: root,
            pending_names: Vec::new(),
        })))
    }

    /// Arms faults in place of those armed before.
    pub fn arm(&self, faults: SimFaults) {
        self.disk().faults = faults;
    }

    /// Cuts the power and turns it on again: what was not synced is partly lost. Disarms all
    /// faults.
    pub fn crash(&self) {
        let mut disk = self.disk();
        disk.crash();
    }

    /// Whether the machine went down by `crash_after`.
    #[must_use]
    pub fn is_down(&self) -> bool {
        self.disk().down
    }

    /// Flips one bit of a file, durably, as rot does.
    ///
    /// # Panics
    /// If there is no such file or position.
    pub fn flip_bit(&self, path: &Path, position: usize, bit: u8) {
        let mut disk = self.disk();
        let inode = disk.inode(path).expect("the file exists");
        inode.content[position] ^= 1 << bit;
        if let Some(byte) = inode.durable.get_mut(position) {
            *byte ^= 1 << bit;
        }
    }

    /// The bytes of a file as programs see them.
    ///
    /// # Panics
    /// If there is no such file.
    #[must_use]
    pub fn content(&self, path: &Path) -> Vec<u8> {
        self.disk().inode(path).expect("the file exists").content.clone()
    }

    /// Replaces a file, durably, creating it and its directory if needed.
    pub fn put(&self, path: &Path, content: &[u8]) {
        let mut disk = self.disk();
        let id = disk.next_file;
        disk.next_file += 1;
        let bytes = content.to_vec();
        disk.files.insert(id, Inode { content: bytes.clone(), durable: bytes, pending: vec![] });
        for dir in path.ancestors().skip(1) {
            disk.names.entry(dir.into()).or_insert(None);
            disk.durable_names.entry(dir.into()).or_insert(None);
        }
        disk.names.insert(path.into(), Some(id));
        disk.durable_names.insert(path.into(), Some(id));
    }

    fn disk(&self) -> MutexGuard<'_, Disk> {
        self.0.lock().expect("no thread panics while it holds the disk")
    }
}

impl Disk {
    /// SplitMix64 (Steele, Lea, Flood 2014).
    fn next_random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn coin(&mut self) -> bool {
        self.next_random() & 1 == 1
    }

    fn inode(&mut self, path: &Path) -> io::Result<&mut Inode> {
        match self.names.get(path.as_os_str()) {
            Some(Some(id)) => Ok(self.files.get_mut(id).expect("a name has its file")),
            Some(None) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    /// Counts an operation that changes something, and goes down at its time.
    fn step(&mut self) -> io::Result<()> {
        self.up()?;
        if let Some(left) = &mut self.faults.crash_after {
            if *left == 0 {
                self.down = true;
                return Err(io::Error::other("the machine is down"));
            }
            *left -= 1;
        }
        Ok(())
    }

    fn up(&self) -> io::Result<()> {
        if self.down { Err(io::Error::other("the machine is down")) } else { Ok(()) }
    }

    fn change_names(&mut self, change: NameChange) {
        apply_names(&mut self.names, &change);
        self.pending_names.push(change);
    }

    fn write(&mut self, id: u64, position: usize, bytes: &[u8]) -> io::Result<()> {
        let crashes_now = self.faults.crash_after == Some(0) && !self.down;
        let stepped = self.step();
        if stepped.is_err() && !crashes_now {
            return stepped;
        }
        let inode = self.files.get_mut(&id).expect("an open file exists");
        // Bytes that are there already have their place.
        let growth = (position + bytes.len()).saturating_sub(inode.content.len());
        let room = self.faults.space_bytes.unwrap_or(u64::MAX);
        let missing = growth.saturating_sub(usize::try_from(room).unwrap_or(usize::MAX));
        let taken = bytes.len().saturating_sub(missing);
        if let Some(space) = &mut self.faults.space_bytes {
            *space -= (growth - missing) as u64;
        }
        let change = Change::Write { position, bytes: bytes[..taken].to_vec() };
        apply(&mut inode.content, &change);
        inode.pending.push(change);
        // A write that the machine goes down in may have reached the disk in part.
        stepped?;
        if taken < bytes.len() { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }

    fn sync(&mut self, id: u64) -> io::Result<()> {
        self.step()?;
        if self.faults.lying_syncs {
            return Ok(());
        }
        let fails = match &mut self.faults.fail_sync_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let inode = self.files.get_mut(&id).expect("an open file exists");
        if fails {
            // The page cache marks the pages clean, so no later sync writes them.
            inode.pending.clear();
            return Err(io::Error::other("the disk failed to sync"));
        }
        for change in inode.pending.drain(..) {
            apply(&mut inode.durable, &change);
        }
        Ok(())
    }

    fn crash(&mut self) {
        self.faults = SimFaults::default();
        self.down = false;
        let ids: Vec<u64> = self.files.keys().copied().collect();
        for id in ids {
            let mut inode = self.files.remove(&id).expect("it was listed");
            for change in std::mem::take(&mut inode.pending) {
                self.survive(&mut inode.durable, &change);
            }
            inode.content.clone_from(&inode.durable);
            self.files.insert(id, inode);
        }
        let changes = std::mem::take(&mut self.pending_names);
        let survivors = self.next_random() as usize % (changes.len() + 1);
        for change in &changes[..survivors] {
            apply_names(&mut self.durable_names, change);
        }
        self.names.clone_from(&self.durable_names);
    }

    /// Applies what the coin leaves of an unsynced change.
    fn survive(&mut self, durable: &mut Vec<u8>, change: &Change) {
        match change {
            Change::SetLen(_) => {
                if self.coin() {
                    apply(durable, change);
                }
            }
            Change::Write { position, bytes } => {
                let all = self.next_random() % 4;
                for (start, sector) in sectors(*position, bytes) {
                    if all == 0 || (all != 1 && self.coin()) {
                        let bytes = sector.to_vec();
                        apply(durable, &Change::Write { position: start, bytes });
                    }
                }
            }
        }
    }
}

/// Splits a write where sectors end.
fn sectors(position: usize, bytes: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = position;
    let mut rest = bytes;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let (sector, behind) = rest.split_at(rest.len().min(SECTOR_BYTES - start % SECTOR_BYTES));
        let at = start;
        start += sector.len();
        rest = behind;
        Some((at, sector))
    })
}

fn apply(content: &mut Vec<u8>, change: &Change) {
    match change {
        Change::SetLen(len) => content.resize(*len, 0),
        Change::Write { position, bytes } => {
            let end = position + bytes.len();
            if content.len() < end {
                content.resize(end, 0);
            }
            content[*position..end].copy_from_slice(bytes);
        }
    }
}

fn apply_names(names: &mut Names, change: &NameChange) {
    if let Some(path) = &change.remove {
        names.remove(path.as_os_str());
        let below: Vec<OsString> = below(names, path).map(Into::into).collect();
        for name in below {
            names.remove(&name);
        }
    }
    if let Some((path, file)) = &change.set {
        names.insert(path.into(), *file);
    }
}

/// All that is in a directory, however deep.
fn below<'a>(names: &'a Names, dir: &Path) -> impl Iterator<Item = &'a Path> {
    let mut first = dir.as_os_str().to_owned();
    if first != "/" {
        first.push("/");
    }
    let prefix = first.clone();
    let is_below =
        move |name: &&OsString| name.as_encoded_bytes().starts_with(prefix.as_encoded_bytes());
    let names = names.range(first..).map(|(name, _)| name).take_while(is_below);
    names.map(Path::new)
}

fn parent(path: &Path) -> PathBuf {
    path.parent().map_or_else(|| PathBuf::from("/"), Path::to_path_buf)
}

impl Fs for SimFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.up()?;
        disk.inode(path)?;
        let id = disk.names[path.as_os_str()].expect("a file, as `inode` checked");
        Ok(Arc::new(SimFile { fs: self.clone(), id }))
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        let mut disk = self.disk();
        disk.step()?;
        if disk.names.contains_key(path.as_os_str()) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let dir = parent(path);
        if !disk.names.contains_key(dir.as_os_str()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let id = disk.next_file;
        disk.next_file += 1;
        disk.files.insert(id, Inode::default());
        let set = Some((path.to_owned(), Some(id)));
        disk.change_names(NameChange { dir, remove: None, set });
        Ok(Arc::new(SimFile { fs: self.clone(), id }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let file = *disk.names.get(from.as_os_str()).ok_or(io::ErrorKind::NotFound)?;
        let set = Some((to.to_owned(), file));
        disk.change_names(NameChange { dir: parent(to), remove: Some(from.to_owned()), set });
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        disk.inode(path)?;
        let remove = Some(path.to_owned());
        disk.change_names(NameChange { dir: parent(path), remove, set: None });
        Ok(())
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        let mut missing: Vec<&Path> =
            path.ancestors().filter(|dir| !disk.names.contains_key(dir.as_os_str())).collect();
        missing.reverse();
        for dir in missing.into_iter().filter(|dir| !dir.as_os_str().is_empty()) {
            let set = Some((dir.to_owned(), None));
            disk.change_names(NameChange { dir: parent(dir), remove: None, set });
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        if !disk.names.contains_key(path.as_os_str()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let remove = Some(path.to_owned());
        disk.change_names(NameChange { dir: parent(path), remove, set: None });
        Ok(())
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk();
        disk.step()?;
        if disk.faults.lying_syncs {
            return Ok(());
        }
        let (synced, left) =
            std::mem::take(&mut disk.pending_names).into_iter().partition(|c| c.dir == path);
        disk.pending_names = left;
        let synced: Vec<NameChange> = synced;
        for change in &synced {
            apply_names(&mut disk.durable_names, change);
        }
        Ok(())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        let disk = self.disk();
        disk.up()?;
        if !disk.names.contains_key(path.as_os_str()) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let inside = below(&disk.names, path).filter(|name| name.parent() == Some(path));
        Ok(inside.map(Path::to_owned).collect())
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        Ok(self.disk().faults.space_bytes.unwrap_or(u64::MAX))
    }

    fn random(&self) -> u64 {
        self.disk().next_random()
    }

    fn map(&self, path: &Path, _len: u64) -> io::Result<Arc<dyn Mapping>> {
        let mut disk = self.disk();
        disk.up()?;
        disk.inode(path)?;
        let id = disk.names[path.as_os_str()].expect("a file, as `inode` checked");
        Ok(Arc::new(SimFile { fs: self.clone(), id }))
    }
}

#[derive(Debug)]
struct SimFile {
    fs: SimFs,
    id: u64,
}

impl File for SimFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        let disk = self.fs.disk();
        disk.up()?;
        let content = &disk.files[&self.id].content;
        let start = usize::try_from(position).unwrap_or(usize::MAX).min(content.len());
        let bytes = buffer.len().min(content.len() - start);
        buffer[..bytes].copy_from_slice(&content[start..start + bytes]);
        Ok(bytes)
    }

    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        let position = usize::try_from(position).map_err(io::Error::other)?;
        self.fs.disk().write(self.id, position, &parts.concat())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.fs.disk().sync(self.id)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut disk = self.fs.disk();
        disk.step()?;
        let change = Change::SetLen(usize::try_from(len).map_err(io::Error::other)?);
        let inode = disk.files.get_mut(&self.id).expect("an open file exists");
        apply(&mut inode.content, &change);
        inode.pending.push(change);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        let disk = self.fs.disk();
        disk.up()?;
        Ok(disk.files[&self.id].content.len() as u64)
    }
}

impl Mapping for SimFile {
    fn copy_to(&self, buffer: &mut [u8], position: u64) {
        let disk = self.fs.disk();
        let start = usize::try_from(position).expect("positions in a mapping fit memory");
        buffer.copy_from_slice(&disk.files[&self.id].content[start..start + buffer.len()]);
    }
}
