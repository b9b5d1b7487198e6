//! A simulated disk whose syncs can be held up.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use dislog_log::fs::{File, Fs, Mapping, SimFs};

/// See the module.
#[derive(Clone, Debug)]
pub(crate) struct GatedFs {
    sim: SimFs,
    gate: Arc<Gate>,
}

#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
    writes: AtomicUsize,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    waiting: usize,
}

/// A closed gate; dropping it opens it.
pub(crate) struct Closed(Arc<Gate>);

impl GatedFs {
    pub(crate) fn new(sim: SimFs) -> GatedFs {
        GatedFs { sim, gate: Arc::default() }
    }

    pub(crate) fn sim(&self) -> SimFs {
        self.sim.clone()
    }

    pub(crate) fn crash(&self) {
        self.sim.crash();
    }

    /// Holds up syncs from now on.
    pub(crate) fn close_gate(&self) -> Closed {
        self.gate.state.lock().unwrap().closed = true;
        Closed(Arc::clone(&self.gate))
    }

    /// Writes so far.
    pub(crate) fn written(&self) -> usize {
        self.gate.writes.load(Ordering::SeqCst)
    }

    fn gated(&self, file: Arc<dyn File>) -> Arc<dyn File> {
        Arc::new(GatedFile { file, gate: Arc::clone(&self.gate) })
    }
}

impl Closed {
    /// Returns once a sync waits at the gate.
    pub(crate) fn entered(&self) {
        let state = self.0.state.lock().unwrap();
        drop(self.0.changed.wait_while(state, |state| state.waiting == 0).unwrap());
    }

    pub(crate) fn open_gate(self) {}
}

impl Drop for Closed {
    fn drop(&mut self) {
        self.0.state.lock().unwrap().closed = false;
        self.0.changed.notify_all();
    }
}

impl Gate {
    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.waiting += 1;
        self.changed.notify_all();
        self.changed.wait_while(state, |state| state.closed).unwrap().waiting -= 1;
    }
}

impl Fs for GatedFs {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.sim.open(path).map(|file| self.gated(file))
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn File>> {
        self.sim.create(path).map(|file| self.gated(file))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.sim.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.sim.remove(path)
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.sim.create_dir_all(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.sim.remove_dir_all(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.sim.sync_dir(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<PathBuf>> {
        self.sim.list(path)
    }
    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        self.sim.available_bytes(path)
    }
    fn random(&self) -> u64 {
        self.sim.random()
    }
    fn map(&self, path: &Path, len: u64) -> io::Result<Arc<dyn Mapping>> {
        self.sim.map(path, len)
    }
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn File>,
    gate: Arc<Gate>,
}

impl File for GatedFile {
    fn read_at(&self, buffer: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buffer, position)
    }
    fn write_at(&self, parts: &[&[u8]], position: u64) -> io::Result<()> {
        self.gate.writes.fetch_add(1, Ordering::SeqCst);
        self.file.write_at(parts, position)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}
