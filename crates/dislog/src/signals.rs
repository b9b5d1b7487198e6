//! SIGINT and SIGTERM: the first asks to end, the second ends. SIGHUP is what a command makes of
//! it: the end of a terminal, or to read files again.

use std::future::pending;
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
    /// If SIGHUP ends it, too.
    hangup: Option<Signal>,
    last: Option<Instant>,
}

/// Listens for SIGHUP, which from then on no longer kills the program.
#[derive(Debug)]
pub(crate) struct Hangups(Signal);

impl Hangups {
    /// Starts to listen.
    pub(crate) fn listen() -> Result<Hangups, Failure> {
        listen(SignalKind::hangup()).map(Hangups)
    }

    /// Waits for the next one.
    pub(crate) async fn next(&mut self) {
        // There is always a next one, as far as the runtime knows.
        let _ = self.0.recv().await;
    }
}

impl Signals {
    /// Starts to listen.
    pub(crate) fn listen() -> Result<Signals, Failure> {
        Ok(Signals {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: None,
            last: None,
        })
    }

    /// The same for a program that ends with its terminal, and does so in good order.
    pub(crate) fn listen_on_terminal() -> Result<Signals, Failure> {
        Ok(Signals { hangup: Some(listen(SignalKind::hangup())?), ..Signals::listen()? })
    }

    /// Waits for the next one; returns the exit code of a program that it ends.
    pub(crate) async fn next(&mut self) -> Exit {
        loop {
            let hangup = async {
                match &mut self.hangup {
                    Some(hangup) => hangup.recv().await,
                    None => pending().await,
                }
            };
            let exit = tokio::select! {
                _ = self.interrupt.recv() => Exit::Interrupted,
                _ = self.terminate.recv() => Exit::Terminated,
                _ = hangup => Exit::Terminated,
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

fn listen(kind: SignalKind) -> Result<Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::new(Exit::Failed, format!("cannot listen for signals: {error}")))
}
