//! Certificate files that change while a node runs.
//!
//! What is read counts only if all of it fits together, so that a certificate whose key has yet to
//! be written waits for it.

use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch::{Receiver, Sender};

use crate::changes::{Changes, Watching};
use crate::files::Contents;
use crate::{Files, NodeTls, TlsError};

/// A file's mode that lets every user of the machine read it. That a group can is how keys reach
/// services on many systems.
const OTHERS_READ: u32 = 0o004;

/// The TLS of a node, as its files say at the moment.
pub struct Watched {
    shared: Arc<Shared>,
    /// Ends the thread when it is dropped.
    watching: Watching,
}

struct Shared {
    files: Files,
    current: Mutex<(Contents, Arc<NodeTls>)>,
    /// Told when `current` is another.
    replaced: Sender<()>,
}

impl Watched {
    /// Reads the files, and again whenever they change.
    ///
    /// # Errors
    /// If they cannot be used or watched.
    pub fn start(files: Files) -> Result<Watched, TlsError> {
        // Watched before they are read, so that no change is missed.
        let not_watched = |path: &Path, problem| TlsError::Watch { path: path.to_owned(), problem };
        let dirs = directories(&files);
        let changes = Changes::of(&dirs)
            .map_err(|(dir, problem)| not_watched(dir.unwrap_or(&files.authorities), problem))?;
        let contents = files.read()?;
        let first = Arc::new(NodeTls::new(&files, &contents)?);
        warn_of_mode(&files);
        let (current, replaced) = (Mutex::new((contents, first)), Sender::new(()));
        let shared = Arc::new(Shared { files, current, replaced });
        let reading = Arc::clone(&shared);
        let watching = changes
            .each("certificates", move || reading.changed())
            .map_err(|source| not_watched(&shared.files.authorities, source.to_string()))?;
        Ok(Watched { shared, watching })
    }

    /// Reads the files again, soon, also if nobody has noticed a change.
    pub fn look(&self) {
        self.watching.look();
    }

    /// Notices when what is [`current`](Watched::current) is replaced from now on.
    #[must_use]
    pub fn replaced(&self) -> Receiver<()> {
        self.shared.replaced.subscribe()
    }

    /// What to use for a connection that is made now.
    #[must_use]
    pub fn current(&self) -> Arc<NodeTls> {
        Arc::clone(&self.shared.current.lock().unwrap_or_else(PoisonError::into_inner).1)
    }
}

impl Shared {
    /// Whether something else is used from now on.
    fn read_again(&self) -> Result<Option<Arc<NodeTls>>, TlsError> {
        let contents = self.files.read()?;
        let current = || self.current.lock().unwrap_or_else(PoisonError::into_inner);
        if current().0 == contents {
            return Ok(None);
        }
        let new = Arc::new(NodeTls::new(&self.files, &contents)?);
        let cluster = current().1.role.cluster.clone();
        if new.role.cluster != cluster {
            let problem =
                format!("it is that of {}, but this node is one of {cluster:?}", new.role);
            return Err(crate::material::unusable(&self.files.authorities, problem));
        }
        *current() = (contents, Arc::clone(&new));
        self.replaced.send_replace(());
        Ok(Some(new))
    }

    fn changed(&self) {
        match self.read_again() {
            Ok(Some(new)) => {
                tracing::info!(node = %new.role, "new certificates are used for new connections");
                warn_of_mode(&self.files);
            }
            Ok(None) => {}
            Err(error) => tracing::error!(
                %error, "new certificates cannot be used: the old ones stay in use"
            ),
        }
    }
}

/// Whoever can read a key can be this node.
fn warn_of_mode(files: &Files) {
    let Some(own) = &files.own else { return };
    // It was read a moment ago, so there is nothing to say if it is gone.
    let mode = std::fs::metadata(&own.key).map_or(0, |key| key.permissions().mode() & 0o777);
    if mode & OTHERS_READ != 0 {
        let (key, mode) = (own.key.display(), format_args!("{mode:o}"));
        tracing::warn!(%key, %mode, "every user of this machine can read the key: chmod o-r it");
    }
}

fn directories(files: &Files) -> BTreeSet<PathBuf> {
    let own = files.own.iter().flat_map(|own| [&own.certificate, &own.key]);
    own.chain([&files.authorities]).map(|path| directory(path)).collect()
}

fn directory(path: &Path) -> PathBuf {
    match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
        _ => PathBuf::from("."),
    }
}
