//! Who may do what: identity by bearer token, rules by Casbin, a record of what was decided.
//!
//! ```text
//!   connection ─ Caller ─▶ bearer token? ─▶ Asking ─▶ may it? ─▶ work
//!    (certificate)         token, jwt         │      rules        │
//!                                             └──────▶ audit      └─ streams: Guard
//! ```
//!
//! Every request becomes an [`Asking`], which knows who asks and decides; [`table`] says what each
//! RPC and route needs. A decision is made once for a subject, an action and an object, and is
//! remembered for as long as the rules are the same ([`rules`]): it is not on the path of a record.
//! What lasts holds a [`Guard`], which ends it when a right or a token is withdrawn.
//!
//! Nodes are not subject to rules. What they send on carries the name of who asked, and is decided
//! again where it arrives; that name is believed of nodes only.
//!
//! Left out: certificates and what a connection proves ([`identity`](crate::identity)).

mod asking;
pub(crate) mod audit;
mod guard;
mod jwt;
mod policy;
mod rules;
mod selection;
pub(crate) mod table;
pub(crate) mod token;
mod watch;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch as tokio_watch;

pub(crate) use self::asking::Asking;
use self::audit::{Audit, AuditTo, Queue};
pub(crate) use self::guard::Guard;
pub(crate) use self::policy::Explained;
use self::rules::Rules;
use self::watch::Watched;
use crate::config::Config;
use crate::node::Node;

/// The subject of whoever has not proved who they are.
pub(crate) const ANONYMOUS: &str = "anonymous";

/// What roles may be called by, so that nobody can be called like a role.
const ROLE_PREFIX: &str = "role:";

/// The longest name of a subject.
const SUBJECT_BYTES_MAX: usize = 200;

/// What rules are about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Adding records.
    Produce,
    /// Getting records.
    Consume,
    /// Everything else that changes something, or shows what is nobody's business.
    Admin,
}

impl Action {
    /// How many there are.
    const COUNT: usize = 3;

    /// All of them.
    const ALL: [Action; Action::COUNT] = [Action::Produce, Action::Consume, Action::Admin];

    /// As rules have it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Action::Produce => "produce",
            Action::Consume => "consume",
            Action::Admin => "admin",
        }
    }

    /// The action of a name.
    pub(crate) fn of_name(name: &str) -> Option<Action> {
        Action::ALL.into_iter().find(|action| action.name() == name)
    }
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[error("auth_dir = {path:?}: {problem}")]
pub struct AccessError {
    path: PathBuf,
    problem: String,
}

/// Whether, and by what, access is controlled.
enum Mode {
    /// Whoever reaches the port may do everything.
    Off,
    /// Whoever has proved who they are may do everything.
    Identity,
    /// By rules.
    Rules(Watched),
}

/// See the module.
pub(crate) struct Access {
    mode: Mode,
    /// Whether connections are encrypted: only then may tokens come from afar.
    encrypted: bool,
    /// Changes whenever something that was permitted may not be any more.
    changed: tokio_watch::Sender<u64>,
    audit: Audit,
    denied: AtomicU64,
}

impl Access {
    /// As the settings say. What is to be recorded comes out of the queue.
    pub(crate) fn open(
        config: &Config,
        encrypted: bool,
    ) -> Result<(Access, Option<Queue>), AccessError> {
        let changed = tokio_watch::Sender::new(0);
        let Some(dir) = &config.auth_dir else {
            let mode = if encrypted { Mode::Identity } else { Mode::Off };
            let audit = Audit::default();
            let denied = AtomicU64::new(0);
            return Ok((Access { mode, encrypted, changed, audit, denied }, None));
        };
        let failed = |problem| AccessError { path: dir.clone(), problem };
        let tell = changed.clone();
        let watched = Watched::start(dir, move || tell.send_modify(|revision| *revision += 1));
        let watched = watched.map_err(failed)?;
        if !encrypted {
            tracing::warn!(
                "rules without TLS: nodes cannot prove who they are, so whoever reaches the port \
                 can pretend to be one"
            );
        }
        let (audit, queue) = Audit::open(&watched.current().audit).map_err(failed)?;
        let (mode, denied) = (Mode::Rules(watched), AtomicU64::new(0));
        Ok((Access { mode, encrypted, changed, audit, denied }, queue))
    }

    /// Whether anything is asked of callers at all.
    pub(crate) fn is_on(&self) -> bool {
        !matches!(self.mode, Mode::Off)
    }

    /// What has happened, for `/metrics`.
    pub(crate) fn tally(&self) -> Tally {
        Tally {
            denied: self.denied.load(Ordering::Relaxed),
            unrecorded: self.audit.dropped(),
            is_stale: matches!(&self.mode, Mode::Rules(watched) if watched.is_stale()),
        }
    }

    /// Reads the rules again, soon.
    pub(crate) fn look(&self) {
        if let Mode::Rules(watched) = &self.mode {
            watched.look();
        }
    }

    fn rules(&self) -> Option<Arc<Rules>> {
        match &self.mode {
            Mode::Off | Mode::Identity => None,
            Mode::Rules(watched) => Some(watched.current()),
        }
    }

    /// The rules of the moment by the first digits of their digest; empty without rules.
    pub(crate) fn policy(&self) -> String {
        self.rules().map(|rules| rules.digest.clone()).unwrap_or_default()
    }

    /// What is decided, with the rules that apply.
    pub(crate) fn explain(&self, subject: &str, action: Action, object: &str) -> Explained {
        match (self.rules(), &self.mode) {
            (Some(rules), _) => rules.explain(subject, action, object),
            (None, Mode::Identity) => Explained { allowed: subject != ANONYMOUS, rules: vec![] },
            (None, _) => Explained { allowed: true, rules: Vec::new() },
        }
    }
}

/// What has happened since the node was started.
pub(crate) struct Tally {
    /// Requests that were refused, and streams that were ended.
    pub(crate) denied: u64,
    /// Decisions that were not recorded.
    pub(crate) unrecorded: u64,
    /// The rules in the directory cannot be used, so that older ones are.
    pub(crate) is_stale: bool,
}

/// Tells the guards when tokens come and go, until the node is closing.
pub(crate) async fn follow_tokens(node: Node) {
    let mut changes = node.cluster.changes();
    let mut revision = node.cluster.tokens_revision();
    loop {
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = node.closing.wait() => return,
        }
        let now = node.cluster.tokens_revision();
        if now != revision {
            revision = now;
            node.access.changed.send_modify(|revision| *revision += 1);
        }
    }
}

/// Whether somebody may be called so: like nobody, or like a role, would be more than a name.
pub(crate) fn is_subject(name: &str) -> bool {
    let plain = !name.chars().any(char::is_control);
    let is_special = name == ANONYMOUS || name == "*" || name.starts_with(ROLE_PREFIX);
    (1..=SUBJECT_BYTES_MAX).contains(&name.len()) && plain && !is_special
}
