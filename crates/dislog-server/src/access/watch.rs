//! The directory of the rules, watched: new files count as soon as they are whole.
//!
//! What cannot be used changes nothing, and is said.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dislog_tls::{Changes, Watching};

use super::rules::{Files, Rules};

/// The rules of a directory, those of the moment.
pub(super) struct Watched {
    shared: Arc<Shared>,
    /// Ends the thread when it is dropped.
    watching: Watching,
}

struct Shared {
    dir: PathBuf,
    current: Mutex<(Files, Arc<Rules>)>,
    /// What is in the directory cannot be used, so that older rules are.
    is_stale: AtomicBool,
    changed: Box<dyn Fn() + Send + Sync>,
}

impl Watched {
    /// Reads the rules, and again whenever they change; `changed` is told then.
    pub(super) fn start(
        dir: &Path,
        changed: impl Fn() + Send + Sync + 'static,
    ) -> Result<Watched, String> {
        // Watched before it is read, so that no change is missed.
        let not_watched = |problem: String| format!("it cannot be watched: {problem}");
        let changes =
            Changes::of([&dir.to_owned()]).map_err(|(_, problem)| not_watched(problem))?;
        let files = Files::read(dir)?;
        let rules = Arc::new(Rules::new(&files)?);
        tracing::info!(rules = rules.count(), policy = rules.digest, "access is by rules");
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            current: Mutex::new((files, rules)),
            is_stale: AtomicBool::new(false),
            changed: Box::new(changed),
        });
        let reading = Arc::clone(&shared);
        let watching = changes
            .each("rules", move || reading.directory_changed())
            .map_err(|error| not_watched(error.to_string()))?;
        Ok(Watched { shared, watching })
    }

    /// The rules of the moment.
    pub(super) fn current(&self) -> Arc<Rules> {
        Arc::clone(&self.shared.lock().1)
    }

    /// Reads the directory again, soon, also if nobody has noticed a change.
    pub(super) fn look(&self) {
        self.watching.look();
    }

    /// Whether what is in the directory cannot be used, so that older rules are.
    pub(super) fn is_stale(&self) -> bool {
        self.shared.is_stale.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, (Files, Arc<Rules>)> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_again(&self) -> Result<(), String> {
        let files = Files::read(&self.dir)?;
        if self.lock().0 == files {
            return Ok(());
        }
        let rules = Arc::new(Rules::new(&files)?);
        let before = std::mem::replace(&mut *self.lock(), (files, Arc::clone(&rules))).1;
        tracing::info!(rules = rules.count(), policy = rules.digest, "new rules are in use");
        if before.audit != rules.audit {
            tracing::warn!("auth.toml has another audit: that takes a restart of the node");
        }
        (self.changed)();
        Ok(())
    }

    fn directory_changed(&self) {
        let read = self.read_again();
        self.is_stale.store(read.is_err(), Ordering::Relaxed);
        if let Err(error) = read {
            let dir = self.dir.display();
            tracing::error!(%dir, error, "new rules cannot be used: the old ones stay in use");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::access::Action;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn until(condition: impl Fn() -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !condition() {
            assert!(Instant::now() < deadline, "it does not happen");
            std::thread::yield_now();
        }
    }

    #[test]
    fn new_rules_count_and_bad_ones_change_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.csv");
        fs::write(&policy, "p, a, t, produce\n").unwrap();
        // Elsewhere, and then put there: what is written there could be read half-done.
        let elsewhere = tempfile::tempdir().unwrap();
        let write = |rules: &str| {
            let new = elsewhere.path().join("new");
            fs::write(&new, rules).unwrap();
            fs::rename(&new, &policy).unwrap();
        };
        let (told, changes) = mpsc::channel();
        let watched = Watched::start(dir.path(), move || told.send(()).unwrap()).unwrap();
        let may = |action| watched.current().allow("a", action, "t");
        assert!(may(Action::Produce) && !may(Action::Consume));

        write("p, a, t, consume\n");
        changes.recv_timeout(PATIENCE).unwrap();
        assert!(!may(Action::Produce) && may(Action::Consume) && !watched.is_stale());

        write("p, a, t, everything\n");
        until(|| watched.is_stale());
        assert!(may(Action::Consume));
        fs::remove_file(&policy).unwrap();
        write("p, a, t, *\n");
        changes.recv_timeout(PATIENCE).unwrap();
        until(|| !watched.is_stale());
        assert!(may(Action::Produce));
    }

    #[test]
    fn a_link_that_is_exchanged_is_a_change() {
        // As Kubernetes does with what it mounts.
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for (version, action) in [("..1", "produce"), ("..2", "consume")] {
            fs::create_dir(at(version)).unwrap();
            let policy = at(version).join("policy.csv");
            fs::write(policy, format!("p, a, t, {action}\n")).unwrap();
        }
        symlink("..1", at("..data")).unwrap();
        symlink("..data/policy.csv", at("policy.csv")).unwrap();
        let (told, changes) = mpsc::channel();
        let watched = Watched::start(dir.path(), move || told.send(()).unwrap()).unwrap();
        assert!(watched.current().allow("a", Action::Produce, "t"));
        symlink("..2", at("..tmp")).unwrap();
        fs::rename(at("..tmp"), at("..data")).unwrap();
        changes.recv_timeout(PATIENCE).unwrap();
        assert!(watched.current().allow("a", Action::Consume, "t"));
        assert!(!watched.current().allow("a", Action::Produce, "t"));
    }

    #[test]
    fn without_a_policy_there_are_no_rules() {
        let dir = tempfile::tempdir().unwrap();
        let error = Watched::start(dir.path(), || {}).err().unwrap();
        assert!(error.contains("policy.csv is not there"), "{error}");
    }
}
