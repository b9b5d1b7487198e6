//! Where `produce` gets its records: standard input or files, read and split by a thread of their
//! own.
//!
//! A thread, because reading standard input blocks for as long as it likes. At most
//! [`GROUPS_WAITING_MAX`] groups wait to be sent, so an input faster than the server waits in its
//! pipe.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dislog_client::{Header, Record};
use dislog_types::limits::RECORD_BYTES_MAX;
use indicatif::HumanCount;
use memchr::memmem;
use tokio::sync::mpsc;

use crate::failure::{Exit, Failure};
use crate::produce::split::{Ending, SplitError, Splitter};

/// Groups that may wait to be sent. Each holds what one read completed: at most one record's limit
/// and a chunk.
const GROUPS_WAITING_MAX: usize = 2;

/// The most records in a group: bounds the deliveries that wait together.
const GROUP_RECORDS_MAX: usize = 4_096;

/// How inputs become records.
#[derive(Clone, Debug)]
pub(crate) struct Layout {
    /// What ends a record.
    pub(crate) ending: Ending,
    /// What each record has for a key.
    pub(crate) key: Key,
    /// What each record has for headers.
    pub(crate) headers: Vec<Header>,
}

/// What a record has for a key.
#[derive(Clone, Debug)]
pub(crate) enum Key {
    /// None.
    None,
    /// The same for all.
    Fixed(Bytes),
    /// What stands before the first of this sequence; the value is what stands behind it.
    Before(Vec<u8>),
}

/// Records that were read together.
#[derive(Debug)]
pub(crate) struct Group {
    /// The records.
    pub(crate) records: Vec<Record>,
    /// Bytes of input they took.
    pub(crate) input_bytes: u64,
}

/// Bytes of all inputs, if they are known beforehand.
///
/// # Errors
/// If a file is not there or is a directory: better known before the first record is added.
pub(crate) fn check(files: &[PathBuf]) -> Result<Option<u64>, Failure> {
    let mut total = if files.is_empty() { None } else { Some(0) };
    for file in files.iter().filter(|file| !is_stdin(file)) {
        let metadata = std::fs::metadata(file).map_err(|error| unreadable(file, &error))?;
        if metadata.is_dir() {
            return Err(unreadable(file, &io::Error::from(io::ErrorKind::IsADirectory)));
        }
        let known = metadata.is_file();
        total = total.filter(|_| known).map(|total| total + metadata.len());
    }
    let has_stdin = files.iter().any(|file| is_stdin(file));
    Ok(total.filter(|_| !has_stdin))
}

fn is_stdin(file: &Path) -> bool {
    file.as_os_str() == "-"
}

fn unreadable(file: &Path, error: &io::Error) -> Failure {
    Failure::new(Exit::Usage, format!("cannot read {}: {error}", file.display()))
}

/// Reads files, or standard input if there are none, in a thread of its own.
pub(crate) fn read(
    files: Vec<PathBuf>,
    layout: Layout,
) -> Result<mpsc::Receiver<Result<Group, Failure>>, Failure> {
    let (sender, receiver) = mpsc::channel(GROUPS_WAITING_MAX);
    let files = if files.is_empty() { vec![PathBuf::from("-")] } else { files };
    let reader = Reader { layout, sender };
    std::thread::Builder::new()
        .name("input".to_owned())
        .spawn(move || reader.run(&files))
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot read the input: {error}")))?;
    Ok(receiver)
}

struct Reader {
    layout: Layout,
    sender: mpsc::Sender<Result<Group, Failure>>,
}

/// The receiver is gone: nobody wants more.
struct Unwanted;

impl Reader {
    fn run(&self, files: &[PathBuf]) {
        for file in files {
            match self.file(file) {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => {
                    let _ = self.sender.blocking_send(Err(failure));
                    return;
                }
                Err(Unwanted) => return,
            }
        }
    }

    fn file(&self, path: &Path) -> Result<Result<(), Failure>, Unwanted> {
        if is_stdin(path) {
            return self.input(&mut io::stdin().lock(), "standard input");
        }
        match File::open(path) {
            Ok(mut file) => self.input(&mut file, &path.display().to_string()),
            Err(error) => Ok(Err(unreadable(path, &error))),
        }
    }

    fn input(&self, input: &mut dyn Read, name: &str) -> Result<Result<(), Failure>, Unwanted> {
        let mut splitter = Splitter::new(self.layout.ending.clone(), RECORD_BYTES_MAX);
        let mut values = Vec::new();
        loop {
            let first = splitter.count() + 1;
            let more = splitter.records(input, &mut values);
            if let Err(failure) = self.send(&mut values, first, name)? {
                return Ok(Err(failure));
            }
            match more {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(())),
                Err(error) => return Ok(Err(self.split_failure(error, name))),
            }
        }
    }

    /// Sends values as records, up to the first that cannot be one.
    fn send(
        &self,
        values: &mut Vec<Bytes>,
        first: u64,
        name: &str,
    ) -> Result<Result<(), Failure>, Unwanted> {
        let created_ms = now_ms();
        let ending_bytes = match &self.layout.ending {
            Ending::Delimiter(delimiter) => delimiter.len() as u64,
            Ending::Input => 0,
        };
        let mut values = values.drain(..).zip(first..).peekable();
        while values.peek().is_some() {
            let mut group = Group { records: Vec::new(), input_bytes: 0 };
            let mut refused = None;
            for (value, number) in values.by_ref().take(GROUP_RECORDS_MAX) {
                group.input_bytes += value.len() as u64 + ending_bytes;
                match self.record(value, created_ms) {
                    Ok(record) => group.records.push(record),
                    Err(why) => {
                        refused = Some(why.failure(&self.place(number, name)));
                        break;
                    }
                }
            }
            self.sender.blocking_send(Ok(group)).map_err(|_| Unwanted)?;
            if let Some(failure) = refused {
                return Ok(Err(failure));
            }
        }
        Ok(Ok(()))
    }

    fn record(&self, text: Bytes, created_ms: i64) -> Result<Record, Refused> {
        let (key, value) = match &self.layout.key {
            Key::None => (None, text),
            Key::Fixed(key) => (Some(key.clone()), text),
            Key::Before(separator) => match memmem::find(&text, separator) {
                Some(at) => (Some(text.slice(..at)), text.slice(at + separator.len()..)),
                None => return Err(Refused::NoKey(separator.clone())),
            },
        };
        let record = Record { key, value, headers: self.layout.headers.clone(), created_ms };
        match record.content_bytes() {
            bytes if bytes > RECORD_BYTES_MAX => Err(Refused::TooLong),
            _ => Ok(record),
        }
    }

    fn split_failure(&self, error: SplitError, name: &str) -> Failure {
        match error {
            SplitError::Read(error) => {
                Failure::new(Exit::Failed, format!("cannot read {name}: {error}"))
            }
            SplitError::TooLong { number } => Refused::TooLong.failure(&self.place(number, name)),
        }
    }

    fn place(&self, number: u64, name: &str) -> String {
        match &self.layout.ending {
            Ending::Input => name.to_owned(),
            Ending::Delimiter(delimiter) if delimiter == b"\n" => {
                format!("line {} of {name}", HumanCount(number))
            }
            Ending::Delimiter(_) => format!("record {} of {name}", HumanCount(number)),
        }
    }
}

/// Why bytes are no record.
enum Refused {
    TooLong,
    NoKey(Vec<u8>),
}

impl Refused {
    fn failure(&self, place: &str) -> Failure {
        match self {
            Refused::TooLong => {
                let limit = HumanCount(RECORD_BYTES_MAX as u64);
                let message = format!("{place} is larger than a record may be, {limit} bytes");
                Failure::new(Exit::Failed, message)
                    .hint("split it, or choose another --delimiter; what came before it was added")
            }
            Refused::NoKey(separator) => {
                let separator = separator.escape_ascii();
                Failure::new(
                    Exit::Failed,
                    format!("{place} has no key: \"{separator}\" is not in it"),
                )
                .hint("every record needs --key-delimiter; what came before it was added")
            }
        }
    }
}

fn now_ms() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX)
}
