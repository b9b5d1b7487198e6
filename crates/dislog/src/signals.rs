//! SIGINT and SIGTERM: the first asks to end, the second ends.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};

/// Signals so close together are one: `timeout` sends to the process and to its group, and a
/// terminal to everybody in the foreground. A person who means it presses again later.
const SAME_MOMENT: Duration = Duration::from_millis(250);

/// Listens for SIGINT and SIGTERM, which from then on no longer kill the program.
#[derive(Debug)]
pub(crate) struct Signals {
    interrupt: Signal,
    terminate: Signal,
    last: Option<Instant>,
}

impl Signals {
    /// Starts to listen.
    pub(crate) fn listen() -> Result<Signals, Failure> {
        let listen = |kind| {
            signal(kind).map_err(|error| {
                Failure::new(Exit::Failed, format!("cannot listen for signals: {error}"))
            })
        };
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            last: None,
        })
    }

    /// Waits for the next one; returns the exit code of a program that it ends.
    pub(crate) async fn next(&mut self) -> Exit {
        loop {
            let exit = tokio::select! {
                _ = self.interrupt.recv() => Exit::Interrupted,
                _ = self.terminate.recv() => Exit::Terminated,
            };
            let now = Instant::now();
            let is_new = self.last.is_none_or(|last| now.duration_since(last) > SAME_MOMENT);
            if is_new {
                self.last = Some(now);
                return exit;
            }
        }
    }
}
