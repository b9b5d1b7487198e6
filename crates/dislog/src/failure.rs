//! Why a command failed, in the one form users see, and the exit codes that scripts rely on.

use std::fmt;
use std::process::ExitCode;

use dislog_client::Error;
use dislog_proto::reason;

/// How the program ends: a contract with scripts, described in `docs/cli.md`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// The command was refused or failed. For `verify`: damage was found.
    Failed = 1,
    /// Wrong arguments, or a file or directory named in them that cannot be used.
    Usage = 2,
    /// No such topic, partition or offset.
    NotFound = 3,
    /// No server could be reached, or none can do it at the moment: the same command may work
    /// later.
    Unavailable = 4,
    /// Ended by Ctrl-C, as shells count it.
    Interrupted = 130,
    /// Ended by SIGTERM, as shells count it.
    Terminated = 143,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// A failed command: what happened, and what to do next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    /// The exit code.
    pub(crate) exit: Exit,
    /// What happened, naming the input; no full stop.
    pub(crate) message: String,
    /// What to do next.
    pub(crate) hint: Option<String>,
}

impl Failure {
    /// A failure that ends with `exit`.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Failure {
        Failure { exit, message: message.into(), hint: None }
    }

    /// Wrong arguments.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure::new(Exit::Usage, message)
    }

    /// The same failure, saying what to do next.
    pub(crate) fn hint(self, hint: impl Into<String>) -> Failure {
        Failure { hint: Some(hint.into()), ..self }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let failure = Failure::new(exit(&error), error.to_string());
        match advice(&error) {
            Some(advice) => failure.hint(advice),
            None => failure,
        }
    }
}

fn exit(error: &Error) -> Exit {
    match error {
        Error::Address { .. } | Error::TopicName(_) | Error::Options(_) => Exit::Usage,
        Error::Refused { reason, .. } if reason == reason::TOKEN_NOT_FOUND => Exit::NotFound,
        Error::TopicNotFound(_)
        | Error::NoPartition { .. }
        | Error::OutOfRange { .. }
        | Error::Trimmed { .. } => Exit::NotFound,
        Error::Timeout { .. } | Error::Unreachable { .. } => Exit::Unavailable,
        Error::Refused { reason, .. } => match reason.as_str() {
            reason::NO_LEADER
            | reason::SHUTTING_DOWN
            | reason::OVERLOADED
            | reason::DISK_FULL
            | reason::LOG_STOPPED => Exit::Unavailable,
            reason::INVALID_REQUEST => Exit::Usage,
            _ => Exit::Failed,
        },
        Error::Abandoned { cause } => exit(cause),
        _ => Exit::Failed,
    }
}

fn advice(error: &Error) -> Option<String> {
    let advice = match error {
        Error::TopicNotFound(_) => {
            "`dislog topic list` shows topics and their partitions, \
             `dislog topic create` makes one"
        }
        Error::TopicExists(_) => {
            "`dislog topic describe` shows it, `dislog topic alter` changes it"
        }
        Error::NoPartition { partitions, .. } => {
            return Some(format!("partitions are counted from 0: the last is {}", partitions - 1));
        }
        Error::OutOfRange { .. } => {
            "`-o start` begins with the first record, `-o end -f` waits \
             for the next one"
        }
        Error::Trimmed { .. } => {
            "these records are gone; `-o start` begins with the first one left"
        }
        Error::Damaged { .. } | Error::BadBatch { .. } => {
            "stop the server and run `dislog verify` \
             on its data directory to see what is damaged"
        }
        Error::Tls { .. } => {
            "--tls-dir names the certificates of this client (`dislog cert client NAME` makes \
             them); docs/security.md explains each refusal"
        }
        Error::Timeout { .. } => "check that the server runs: `dislog cluster status`",
        Error::UnknownOutcome { .. } => "read the end of the topic before adding the records again",
        Error::Abandoned { cause } => return advice(cause),
        Error::Refused { reason, .. } => return refusal_advice(reason),
        _ => return None,
    };
    Some(advice.to_owned())
}

fn refusal_advice(refused: &str) -> Option<String> {
    let advice = match refused {
        reason::NO_LEADER | reason::SHUTTING_DOWN | reason::OVERLOADED => "try again in a moment",
        reason::UNAUTHENTICATED => {
            "give this client a certificate (`dislog cert client NAME`, then --tls-dir \
             certs/NAME) or a token in DISLOG_TOKEN (`dislog token create NAME`)"
        }
        reason::PERMISSION_DENIED => {
            "`dislog acl check - ACTION TOPIC` shows what the rules in the servers' auth_dir say"
        }
        reason::DISK_FULL => {
            "make room on the server's disk, or drop old records with \
             `dislog topic trim`; reading goes on meanwhile"
        }
        reason::LOG_STOPPED => {
            "the server's disk failed: see its output, repair the disk, restart it"
        }
        _ => return None,
    };
    Some(advice.to_owned())
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", self.message)?;
        match &self.hint {
            Some(hint) => write!(f, "\n hint: {hint}"),
            None => Ok(()),
        }
    }
}
