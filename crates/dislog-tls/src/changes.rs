//! Directories whose files are replaced while a node runs.
//!
//! The directories are watched, not the files: editors and tools replace files, and Kubernetes
//! replaces a symbolic link beside them. (A directory itself must stay.)

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use notify::{EventKind, RecommendedWatcher, RecursiveMode, Watcher as _};

/// Files that belong together are written one after the other: they are read when nothing has
/// changed for so long, ...
const QUIET: Duration = Duration::from_millis(100);

/// ... or something changes all the time.
const QUIET_MAX: Duration = Duration::from_secs(2);

/// Changes that are noticed from now on; begin to read only then, so that none is missed.
pub struct Changes {
    watcher: RecommendedWatcher,
    told: SyncSender<()>,
    events: Receiver<()>,
}

/// Ends the thread that looks at changes when it is dropped.
pub struct Watching {
    _watcher: RecommendedWatcher,
    told: SyncSender<()>,
}

impl Watching {
    /// As if something had changed: for what cannot be watched, such as files that another machine
    /// replaces, or a directory in the place of the one that was there.
    pub fn look(&self) {
        tell(&self.told);
    }
}

impl Changes {
    /// Watches the directories.
    ///
    /// # Errors
    /// If one cannot be watched: which one, if it is known, and why.
    pub fn of<'a>(
        dirs: impl IntoIterator<Item = &'a PathBuf>,
    ) -> Result<Changes, (Option<&'a Path>, String)> {
        let (told, events) = sync_channel(1);
        let sender = told.clone();
        let noticed = move |event: notify::Result<notify::Event>| {
            // An error may stand for a change that was missed.
            if event.as_ref().map_or(true, is_change) {
                tell(&sender);
            }
        };
        let mut watcher =
            notify::recommended_watcher(noticed).map_err(|error| (None, error.to_string()))?;
        for dir in dirs {
            let watched = watcher.watch(dir, RecursiveMode::NonRecursive);
            watched.map_err(|error| (Some(dir.as_path()), error.to_string()))?;
        }
        Ok(Changes { watcher, told, events })
    }

    /// Calls `changed` on a thread of its own after each change, once all is quiet again.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub fn each(
        self,
        thread: &str,
        changed: impl Fn() + Send + 'static,
    ) -> std::io::Result<Watching> {
        let Changes { watcher, told, events } = self;
        let builder = std::thread::Builder::new().name(thread.to_owned());
        builder.spawn(move || {
            while is_quiet_after_change(&events) {
                changed();
            }
        })?;
        Ok(Watching { _watcher: watcher, told })
    }
}

fn is_change(event: &notify::Event) -> bool {
    !matches!(event.kind, EventKind::Access(_))
}

fn tell(sender: &SyncSender<()>) {
    // A full channel says it already.
    let _ = sender.try_send(());
}

/// Waits for a change, and until all is quiet. False if nothing is watched any more.
fn is_quiet_after_change(events: &Receiver<()>) -> bool {
    if events.recv().is_err() {
        return false;
    }
    let until = Instant::now() + QUIET_MAX;
    loop {
        match events.recv_timeout(QUIET) {
            Ok(()) if Instant::now() < until => {}
            Ok(()) | Err(RecvTimeoutError::Timeout) => return true,
            Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
}
