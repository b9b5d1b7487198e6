//! The only way out: standard output and standard error.
//!
//! - Standard output carries results and nothing else. It is buffered; [`Output::flush`] before
//!   waiting for anything.
//! - A reader that went away (`dislog get demo | head`) is no failure: it surfaces as `Closed`
//!   and ends the program with success.
//! - Standard error carries what is said about the work. Nobody reading it never stops the work.

use std::io::{self, BufWriter, IsTerminal, Write};
use std::os::fd::AsFd;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;
use tokio::io::Interest;
use tokio::net::unix::pipe;

use crate::failure::{Exit, Failure};

/// Bytes gathered before they are written: large enough that writing costs little beside making
/// them.
const BUFFER_BYTES: usize = 256 << 10;

/// How a command ends early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The reader of standard output went away: success.
    Closed,
    /// Failed.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Stop {
        Stop::Failed(failure)
    }
}

impl From<io::Error> for Stop {
    /// An error of writing to standard output.
    fn from(error: io::Error) -> Stop {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Stop::Closed,
            _ => Stop::Failed(
                Failure::new(Exit::Failed, format!("cannot write to standard output: {error}"))
                    .hint("check the disk or device the output goes to"),
            ),
        }
    }
}

/// What every command returns.
pub(crate) type Outcome = Result<(), Stop>;

/// How results other than records are shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For programs: one JSON document, with stable field names.
    Json,
}

/// Standard output.
#[derive(Debug)]
pub(crate) struct Output {
    writer: BufWriter<io::Stdout>,
}

impl Output {
    /// Standard output, buffered.
    pub(crate) fn stdout() -> Output {
        Output { writer: BufWriter::with_capacity(BUFFER_BYTES, io::stdout()) }
    }

    /// Whether a person is reading.
    pub(crate) fn is_terminal(&self) -> bool {
        self.writer.get_ref().is_terminal()
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        Ok(self.writer.write_all(bytes)?)
    }

    /// Writes a line.
    pub(crate) fn line(&mut self, line: &str) -> Outcome {
        Ok(writeln!(self.writer, "{line}")?)
    }

    /// Writes one JSON document: indented for people, on one line otherwise.
    pub(crate) fn json(&mut self, value: &impl Serialize) -> Outcome {
        let text = match self.is_terminal() {
            true => serde_json::to_string_pretty(value),
            false => serde_json::to_string(value),
        };
        self.line(&text.expect("results have string keys and no failing parts"))
    }

    /// Writes a table; the columns named in `numbers` are aligned to the right.
    pub(crate) fn table(
        &mut self,
        header: &[&str],
        numbers: &[&str],
        rows: Vec<Vec<String>>,
    ) -> Outcome {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(header.to_vec());
        for row in rows {
            table.add_row(row);
        }
        for (column, name) in table.column_iter_mut().zip(header) {
            column.set_padding((0, 2));
            if numbers.contains(name) {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        table.trim_fmt().lines().try_for_each(|line| self.line(line))
    }

    /// Hands everything written to the system.
    pub(crate) fn flush(&mut self) -> Outcome {
        Ok(self.writer.flush()?)
    }
}

/// Returns once standard output is a pipe that nobody reads any more; never, if that cannot be
/// known. A command that waits for something to write would not notice otherwise.
pub(crate) async fn reader_gone() {
    // Unchecked, because the checked form makes the pipe non-blocking for everybody who shares it.
    let watched =
        io::stdout().as_fd().try_clone_to_owned().and_then(pipe::Sender::from_owned_fd_unchecked);
    if let Ok(watched) = watched
        && watched.ready(Interest::ERROR).await.is_ok_and(|ready| ready.is_error())
    {
        return;
    }
    std::future::pending::<()>().await;
}

/// Says something about the work on standard error. If nobody listens, nothing is lost.
pub(crate) fn note(text: &dyn std::fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}
