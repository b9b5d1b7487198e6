//! What the files of the directory say: read together, used together, replaced together.
//!
//! ```text
//!   auth_dir/policy.csv   who may do what                                 must be there
//!            model.conf   how that is meant, if not by the default model
//!            auth.toml    the audit; issuer and audience of JWTs
//!            jwks.json    the keys that JWTs are signed with
//! ```
//!
//! What was decided and verified once by these rules is remembered with them, and so is gone with
//! them: nothing outlives the rules it follows from.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

use serde::Deserialize;
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::block_in_place;

use super::jwt::{Claimed, Issuer, KeySet};
use super::policy::{Explained, Policy};
use super::token::{Digest, digest};
use super::{Action, AuditTo};

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 4 << 20;

/// Decisions that are remembered; then it begins again.
const DECISIONS_MAX: usize = 1 << 16;

/// JWTs that are remembered as verified; then it begins again.
const VERIFIED_MAX: usize = 1 << 12;

/// What the files hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Files {
    policy: String,
    model: Option<String>,
    settings: Option<String>,
    keys: Option<String>,
}

/// `auth.toml`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Settings {
    #[serde(default)]
    audit: AuditTo,
    jwt: Option<Issuer>,
}

/// The rules of a moment.
pub(super) struct Rules {
    policy: Policy,
    keys: Option<KeySet>,
    /// Where decisions are recorded.
    pub(super) audit: AuditTo,
    /// The first digits of a digest of what the rules follow from.
    pub(super) digest: String,
    decisions: RwLock<Decisions>,
    verified: RwLock<HashMap<Digest, Arc<Claimed>>>,
}

type ByObject = HashMap<Box<str>, [Option<bool>; Action::COUNT]>;

#[derive(Default)]
struct Decisions {
    /// By subject and object; by action within.
    by_subject: HashMap<Box<str>, ByObject>,
    count: usize,
}

impl Files {
    /// Reads them.
    pub(super) fn read(dir: &Path) -> Result<Files, String> {
        let policy = read(&dir.join("policy.csv"))?.ok_or_else(|| {
            "policy.csv is not there, so that nobody could do anything: write who may do what, a \
             line such as `p, root, *, *` each"
                .to_owned()
        })?;
        Ok(Files {
            policy,
            model: read(&dir.join("model.conf"))?,
            settings: read(&dir.join("auth.toml"))?,
            keys: read(&dir.join("jwks.json"))?,
        })
    }

    /// Of what decides: where decisions are recorded may differ from node to node.
    fn digest(&self, issuer: Option<&Issuer>) -> String {
        let part = |text: &Option<String>| digest(text.as_deref().unwrap_or_default().as_bytes());
        let of_issuer = |part: fn(&Issuer) -> &String| {
            digest(issuer.map(part).map_or(&[][..], |text| text.as_bytes()))
        };
        let parts = [
            digest(self.policy.as_bytes()),
            part(&self.model),
            part(&self.keys),
            of_issuer(|issuer| &issuer.issuer),
            of_issuer(|issuer| &issuer.audience),
        ];
        let whole = digest(parts.as_flattened());
        whole[..6].iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

fn read(path: &Path) -> Result<Option<String>, String> {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let problem = |error: &dyn std::fmt::Display| format!("{name} cannot be read: {error}");
    match fs::metadata(path) {
        Ok(found) if found.len() > FILE_BYTES_MAX => {
            Err(problem(&format_args!("it has more than {FILE_BYTES_MAX} bytes")))
        }
        Ok(_) => fs::read_to_string(path).map(Some).map_err(|error| problem(&error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(problem(&error)),
    }
}

impl Rules {
    /// Makes rules of files. The error names the file, and the line where there is one.
    pub(super) fn new(files: &Files) -> Result<Rules, String> {
        let policy = Policy::parse(files.model.as_deref(), &files.policy)?;
        let settings = files.settings.as_deref().map(toml::from_str::<Settings>).transpose();
        let settings = settings.map_err(|error| format!("auth.toml: {error}"))?;
        let Settings { audit, jwt } = settings.unwrap_or_default();
        let keys = match (&files.keys, &jwt) {
            (Some(keys), Some(issuer)) => {
                let keys = KeySet::parse(keys, issuer);
                Some(keys.map_err(|error| format!("jwks.json: {error}"))?)
            }
            (None, None) => None,
            (Some(_), None) => {
                return Err(
                    "jwks.json is there, but auth.toml does not say whose tokens are meant: \
                     give it [jwt] with issuer and audience"
                        .to_owned(),
                );
            }
            (None, Some(_)) => {
                return Err(
                    "auth.toml has [jwt], but there is no jwks.json with the keys".to_owned()
                );
            }
        };
        let digest = files.digest(jwt.as_ref());
        let (decisions, verified) = (RwLock::default(), RwLock::default());
        Ok(Rules { policy, keys, audit, digest, decisions, verified })
    }

    /// How many rules there are.
    pub(super) fn count(&self) -> usize {
        self.policy.rules()
    }

    /// Whether `subject` may do `action` to `object`: remembered, or decided now.
    pub(super) fn allow(&self, subject: &str, action: Action, object: &str) -> bool {
        let known = |decisions: &Decisions| {
            let decisions = decisions.by_subject.get(subject)?.get(object)?;
            decisions[action as usize]
        };
        let decisions = self.decisions.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(allowed) = known(&decisions) {
            return allowed;
        }
        drop(decisions);
        let allowed = self.decided(subject, action, object);
        let mut decisions = self.decisions.write().unwrap_or_else(PoisonError::into_inner);
        if decisions.count >= DECISIONS_MAX {
            *decisions = Decisions::default();
        }
        decisions.count += 1;
        let of_subject = decisions.by_subject.entry(subject.into()).or_default();
        of_subject.entry(object.into()).or_default()[action as usize] = Some(allowed);
        allowed
    }

    fn decided(&self, subject: &str, action: Action, object: &str) -> bool {
        match self.policy.asks_all_rules() {
            true => apart(|| self.policy.allows(subject, action, object)),
            false => self.policy.allows(subject, action, object),
        }
    }

    /// The same, with the rules that apply.
    pub(super) fn explain(&self, subject: &str, action: Action, object: &str) -> Explained {
        apart(|| self.policy.explain(subject, action, object))
    }

    /// Whom a JWT names; or why it is worth nothing.
    pub(super) fn verify(&self, token: &str, now_ms: i64) -> Result<Arc<Claimed>, String> {
        let Some(keys) = &self.keys else {
            return Err("it is no token of this cluster, and JWTs are not accepted here".to_owned());
        };
        let digest = digest(token.as_bytes());
        let verified = self.verified.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(claimed) = verified.get(&digest) {
            return match now_ms < claimed.ends_ms {
                true => Ok(Arc::clone(claimed)),
                false => Err("it has expired".to_owned()),
            };
        }
        drop(verified);
        let claimed = Arc::new(keys.verify(token)?);
        let mut verified = self.verified.write().unwrap_or_else(PoisonError::into_inner);
        if verified.len() >= VERIFIED_MAX {
            verified.clear();
        }
        verified.insert(digest, Arc::clone(&claimed));
        Ok(claimed)
    }

    /// Whether JWTs that this key has signed are still accepted.
    pub(super) fn has_key(&self, key: &Digest) -> bool {
        self.keys.as_ref().is_some_and(|keys| keys.has(key))
    }
}

/// Does what may take milliseconds, while others take care of the other tasks of this thread.
fn apart<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => block_in_place(work),
        // Nobody else could take care of them, or there are none.
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::policy::DEFAULT_MODEL;
    use super::*;

    fn files(policy: &str) -> Files {
        Files { policy: policy.to_owned(), model: None, settings: None, keys: None }
    }

    fn error(files: &Files) -> String {
        Rules::new(files).err().unwrap()
    }

    #[test]
    fn what_was_decided_is_remembered_for_each_subject_action_and_object() {
        let rules = Rules::new(&files("p, a, t, produce\np, b, t, consume\n")).unwrap();
        for _ in 0..2 {
            assert!(rules.allow("a", Action::Produce, "t"));
            assert!(!rules.allow("a", Action::Consume, "t"));
            assert!(!rules.allow("a", Action::Produce, "u"));
            assert!(!rules.allow("b", Action::Produce, "t"));
            assert!(rules.allow("b", Action::Consume, "t"));
        }
        assert_eq!(rules.decisions.read().unwrap().count, 5);
    }

    #[test]
    fn memory_of_decisions_is_bounded() {
        let rules = Rules::new(&files("p, a, *, produce\n")).unwrap();
        rules.decisions.write().unwrap().count = DECISIONS_MAX;
        assert!(rules.allow("a", Action::Produce, "t"));
        assert_eq!(rules.decisions.read().unwrap().count, 1);
    }

    #[test]
    fn files_that_do_not_fit_together_are_refused() {
        let good = files("p, a, t, produce\n");
        assert!(Rules::new(&good).is_ok());
        let jwt = "[jwt]\nissuer = \"i\"\naudience = \"a\"\n".to_owned();
        let only_settings = Files { settings: Some(jwt.clone()), ..good.clone() };
        assert!(error(&only_settings).contains("no jwks.json"));
        let only_keys = Files { keys: Some("{}".into()), ..good.clone() };
        assert!(error(&only_keys).contains("[jwt]"));
        let bad_keys = Files { keys: Some("{}".into()), settings: Some(jwt), ..good.clone() };
        assert!(error(&bad_keys).starts_with("jwks.json: "));
        for settings in ["audit = \"nowhere\"", "audits = \"off\"", "[jwt]\nissuer = \"i\""] {
            let bad = Files { settings: Some(settings.to_owned()), ..good.clone() };
            assert!(error(&bad).starts_with("auth.toml"), "{settings}");
        }
        assert!(error(&files("p, a, t")).contains("policy.csv line 1"));
    }

    #[test]
    fn other_files_have_another_digest() {
        let digest = |files: &Files| Rules::new(files).unwrap().digest;
        let one = digest(&files("p, a, t, produce\n"));
        assert_eq!(one, digest(&files("p, a, t, produce\n")));
        assert_ne!(one, digest(&files("p, a, t, consume\n")));
        assert_eq!(one.len(), 12);
        let settings = Some("audit = \"topic:audit\"".to_owned());
        assert_eq!(one, digest(&Files { settings, ..files("p, a, t, produce\n") }));
    }

    /// `DISLOG_MEASURE=1 cargo test --release -p dislog-server quickly -- --nocapture`
    #[test]
    fn decisions_are_made_quickly_and_remembered() {
        let is_measured = std::env::var_os("DISLOG_MEASURE").is_some();
        let counts: &[u32] = if is_measured { &[1_000, 10_000] } else { &[1_000] };
        for count in counts {
            let policy: String = (1..=*count)
                .map(|n| format!("p, user{n}, orders{n}.*, produce, allow\n"))
                .collect();
            let (user, topic) = (format!("user{count}"), format!("orders{count}"));
            let times = |files: &Files| {
                let rules = Rules::new(files).unwrap();
                // The shortest: another process may have been scheduled meanwhile.
                let time = |name: &dyn Fn(u32) -> String| {
                    let one = |n| {
                        let (name, start) = (name(n), Instant::now());
                        assert!(rules.allow(&user, Action::Produce, &name));
                        start.elapsed()
                    };
                    (0..10).map(one).min().unwrap()
                };
                (time(&|n| format!("{topic}.{n}")), time(&|_| format!("{topic}.4")))
            };
            let (new, known) = times(&files(&policy));
            let own_model = Files { model: Some(DEFAULT_MODEL.to_owned()), ..files(&policy) };
            let (new_by_own, known_by_own) = times(&own_model);
            if is_measured {
                println!("{count} rules: a new decision {new:?}, a remembered one {known:?}");
                println!("by a model of one's own: {new_by_own:?}, {known_by_own:?}");
            }
            assert!(new * 5 < new_by_own && known_by_own * 5 < new_by_own);
        }
    }
}
