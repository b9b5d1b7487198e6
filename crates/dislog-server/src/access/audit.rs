//! The record of what was decided: who, from where, did what to what, allowed or not.
//!
//! A line of JSON for each decision (a request or a stream, not a record), to a file or a topic. It
//! never holds up what was decided: entries wait in a queue of a limited length. When that is full,
//! those are left out first that were allowed and changed nothing but records; how many were left
//! out is recorded, too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dislog_types::{Record, TopicName};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::Action;
use crate::append;
use crate::complaint::Complaint;
use crate::forward::Hops;
use crate::node::Node;
use crate::status::Failure;

/// Entries that wait to be written.
const QUEUE_MAX: usize = 16_384;

/// How somebody proved who they are, who did not.
pub(super) const BY_NOTHING: &str = "nothing";

/// What is kept free in the queue for denials and changes; half of it for changes alone, which no
/// number of denials may keep out.
const RESERVED: usize = QUEUE_MAX / 4;

/// Entries that are written at a time.
const BATCH_MAX: usize = 512;

/// How long to wait after a failure to write.
const RETRY: Duration = Duration::from_secs(1);

/// Where the record goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub(crate) enum AuditTo {
    /// Nowhere.
    #[default]
    Off,
    /// To the end of a file.
    File(PathBuf),
    /// To a topic.
    Topic(TopicName),
}

impl TryFrom<String> for AuditTo {
    type Error = String;

    fn try_from(text: String) -> Result<AuditTo, String> {
        text.parse()
    }
}

impl FromStr for AuditTo {
    type Err = String;

    fn from_str(text: &str) -> Result<AuditTo, String> {
        match text.split_once(':') {
            None if text == "off" => Ok(AuditTo::Off),
            Some(("file", path)) if !path.is_empty() => Ok(AuditTo::File(path.into())),
            Some(("topic", name)) => {
                let name = name.parse();
                name.map(AuditTo::Topic).map_err(|error| format!("audit is {text:?}: {error}"))
            }
            _ => Err(format!("audit is {text:?}: give \"off\", \"file:PATH\" or \"topic:NAME\"")),
        }
    }
}

/// One decision.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Entry {
    pub(super) time_ms: i64,
    pub(super) subject: Box<str>,
    /// What the subject was proved by.
    pub(super) by: &'static str,
    pub(super) from: SocketAddr,
    /// The RPC or route.
    pub(super) operation: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    pub(super) action: &'static str,
    pub(super) object: Box<str>,
    pub(super) allowed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<Box<str>>,
}

/// Takes entries.
#[derive(Default)]
pub(crate) struct Audit {
    queue: Option<mpsc::Sender<Entry>>,
    dropped: Arc<AtomicU64>,
}

/// What is to be written, and where.
pub(crate) struct Queue {
    entries: mpsc::Receiver<Entry>,
    dropped: Arc<AtomicU64>,
    sink: Sink,
}

enum Sink {
    File(AppendTo),
    Topic(TopicName),
}

impl Audit {
    /// A record there; the file must be one that can be written.
    pub(super) fn open(to: &AuditTo) -> Result<(Audit, Option<Queue>), String> {
        let sink = match to {
            AuditTo::Off => return Ok((Audit::default(), None)),
            AuditTo::File(path) => {
                let file = AppendTo::open(path);
                let problem =
                    |error| format!("audit file {} cannot be written: {error}", path.display());
                Sink::File(file.map_err(problem)?)
            }
            AuditTo::Topic(topic) => Sink::Topic(topic.clone()),
        };
        let (queue, entries) = mpsc::channel(QUEUE_MAX);
        let dropped = Arc::new(AtomicU64::new(0));
        let audit = Audit { queue: Some(queue), dropped: Arc::clone(&dropped) };
        Ok((audit, Some(Queue { entries, dropped, sink })))
    }

    pub(super) fn is_on(&self) -> bool {
        self.queue.is_some()
    }

    /// How many entries were left out.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Never waits.
    pub(super) fn record(&self, entry: Entry) {
        let Some(queue) = &self.queue else { return };
        let is_change = entry.action == Action::Admin.name();
        let kept_free = match (entry.allowed, is_change) {
            (true, true) => 0,
            // Strangers are the many, and say the least.
            (false, _) if entry.by == BY_NOTHING => 2 * RESERVED,
            (false, _) => RESERVED / 2,
            (true, false) => RESERVED,
        };
        if queue.capacity() <= kept_free || queue.try_send(entry).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Queue {
    /// Writes what comes, and once `finish` is told what is left, one more time.
    pub(crate) async fn write(mut self, node: Node, mut finish: oneshot::Receiver<()>) {
        let (mut entries, mut failed) = (Vec::new(), Complaint::default());
        let mut told = 0;
        let mut finishing = false;
        while !finishing {
            tokio::select! {
                _ = self.entries.recv_many(&mut entries, BATCH_MAX) => {}
                // Told or let go: both mean that the node ends.
                _ = &mut finish => finishing = true,
            }
            if finishing {
                self.entries.close();
                while let Ok(entry) = self.entries.try_recv() {
                    entries.push(entry);
                }
            }
            let dropped = self.dropped.load(Ordering::Relaxed);
            let left_out = (dropped > told).then_some(dropped - told);
            while let Err(error) = self.sink.write(&node, &entries, left_out).await {
                if finishing || failed.is_due() {
                    let entries = entries.len();
                    tracing::error!(%error, entries, "the audit cannot be written");
                }
                if finishing {
                    return;
                }
                tokio::select! {
                    () = tokio::time::sleep(RETRY) => {}
                    _ = &mut finish => finishing = true,
                }
            }
            told = dropped;
            entries.clear();
        }
    }
}

impl Sink {
    async fn write(
        &mut self,
        node: &Node,
        entries: &[Entry],
        left_out: Option<u64>,
    ) -> Result<(), String> {
        #[derive(Serialize)]
        struct LeftOut {
            time_ms: i64,
            left_out: u64,
        }
        let line = |entry| serde_json::to_vec(entry).expect("an entry is plain JSON");
        let mut lines: Vec<Vec<u8>> = entries.iter().map(line).collect();
        if let Some(left_out) = left_out {
            let entry = LeftOut { time_ms: append::now_ms(), left_out };
            lines.push(serde_json::to_vec(&entry).expect("an entry is plain JSON"));
        }
        if lines.is_empty() {
            return Ok(());
        }
        match self {
            Sink::File(file) => file.append(&lines).await.map_err(|error| error.to_string()),
            Sink::Topic(topic) => {
                let produced = produce(node, topic, lines).await;
                produced.map_err(|failure| failure.message)
            }
        }
    }
}

async fn produce(node: &Node, topic: &TopicName, lines: Vec<Vec<u8>>) -> Result<(), Failure> {
    let created_ms = append::now_ms();
    let records = lines.into_iter().map(|line| Record { created_ms, ..Record::new(line) });
    let append = append::from_records(&records.collect::<Vec<_>>(), None, None)?;
    let pending = append::submit(node, topic.as_str(), 0, append, Hops::default()).await?;
    append::outcome(node, pending, false).await.map(drop)
}

/// A file that grows at its end. It may be moved away: what follows then goes to a new one.
struct AppendTo {
    path: PathBuf,
    file: Arc<File>,
}

impl AppendTo {
    fn open(path: &Path) -> io::Result<AppendTo> {
        Ok(AppendTo { path: path.to_owned(), file: Arc::new(open(path)?) })
    }

    async fn append(&mut self, lines: &[Vec<u8>]) -> io::Result<()> {
        let mut text = Vec::with_capacity(lines.iter().map(|line| line.len() + 1).sum());
        for line in lines {
            text.extend_from_slice(line);
            text.push(b'\n');
        }
        let (path, file) = (self.path.clone(), Arc::clone(&self.file));
        let writing = tokio::task::spawn_blocking(move || {
            let file = if is_at(&file, &path)? { file } else { Arc::new(open(&path)?) };
            (&*file).write_all(&text)?;
            io::Result::Ok(file)
        });
        // An error of the task means that the runtime ends.
        self.file = writing.await.map_err(io::Error::other)??;
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(0o600).open(path)
}

/// Whether the file is still the one of its name.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let open = file.metadata()?;
    match fs::metadata(path) {
        Ok(found) => Ok((found.dev(), found.ino()) == (open.dev(), open.ino())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(allowed: bool, action: Action) -> Entry {
        Entry {
            time_ms: 1,
            subject: "alice".into(),
            by: "token",
            from: SocketAddr::from(([127, 0, 0, 1], 9)),
            operation: "/log.v1.Log/Produce",
            action: action.name(),
            object: "t".into(),
            allowed,
            why: (!allowed).then(|| "no".into()),
        }
    }

    #[test]
    fn where_to_is_said_in_one_of_three_forms() {
        assert_eq!("off".parse(), Ok(AuditTo::Off));
        assert_eq!("file:/var/log/a:b".parse(), Ok(AuditTo::File("/var/log/a:b".into())));
        assert_eq!("topic:audit".parse(), Ok(AuditTo::Topic("audit".parse().unwrap())));
        for wrong in ["", "on", "file:", "topic:", "topic:a b", "/var/log/audit"] {
            assert!(wrong.parse::<AuditTo>().unwrap_err().contains("audit is"), "{wrong}");
        }
    }

    #[test]
    fn denials_and_changes_are_kept_when_there_is_too_much_of_the_rest() {
        let to = AuditTo::Topic("audit".parse().unwrap());
        let (audit, queue) = Audit::open(&to).unwrap();
        let stranger = || Entry { by: BY_NOTHING, ..entry(false, Action::Produce) };
        let fitting = |entry: &dyn Fn() -> Entry| {
            let dropped = audit.dropped();
            (0..QUEUE_MAX).for_each(|_| audit.record(entry()));
            QUEUE_MAX - (audit.dropped() - dropped) as usize
        };
        assert_eq!(fitting(&stranger), QUEUE_MAX - 2 * RESERVED);
        assert_eq!(fitting(&|| entry(true, Action::Produce)), RESERVED);
        assert_eq!(fitting(&|| entry(false, Action::Produce)), RESERVED / 2);
        assert_eq!(fitting(&|| entry(true, Action::Admin)), RESERVED / 2);
        drop(queue);
    }

    #[tokio::test]
    async fn a_file_that_is_moved_away_is_begun_anew() {
        let dir = tempfile::tempdir().unwrap();
        let (path, moved) = (dir.path().join("audit"), dir.path().join("audit.1"));
        let mut file = AppendTo::open(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        file.append(&[b"1".to_vec(), b"2".to_vec()]).await.unwrap();
        fs::rename(&path, &moved).unwrap();
        file.append(&[b"3".to_vec()]).await.unwrap();
        file.append(&[b"4".to_vec()]).await.unwrap();
        assert_eq!(fs::read_to_string(&moved).unwrap(), "1\n2\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "3\n4\n");
    }

    #[test]
    fn an_entry_is_a_line_of_json() {
        let line = serde_json::to_string(&entry(false, Action::Consume)).unwrap();
        let expected = concat!(
            r#"{"time_ms":1,"subject":"alice","by":"token","from":"127.0.0.1:9","#,
            r#""operation":"/log.v1.Log/Produce","action":"consume","object":"t","#,
            r#""allowed":false,"why":"no"}"#,
        );
        assert_eq!(line, expected);
    }
}
