//! The command line as its users see it: the real binary, against a real server.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "support of tests may fail them")]

mod errors;
mod life;
#[path = "../node/mod.rs"]
mod node;
mod records;
mod topics;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};

use node::{HANG, Node};
use tempfile::TempDir;

/// A user with an empty home, and usually a server.
struct User {
    home: TempDir,
    servers: Option<String>,
}

/// What a command left behind.
struct Ended {
    status: ExitStatus,
    stdout: Vec<u8>,
    stderr: String,
}

/// A command that is still running.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl User {
    fn of(address: &str) -> User {
        User { servers: Some(address.to_owned()), ..User::without_server() }
    }

    fn without_server() -> User {
        User { home: tempfile::tempdir().unwrap(), servers: None }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dislog"));
        command.args(args).env_clear().env("HOME", self.home.path());
        if let Some(servers) = &self.servers {
            command.env("DISLOG_SERVERS", servers);
        }
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a command to its end.
    fn run(&self, args: &[&str], stdin: &[u8]) -> Ended {
        let mut child = self.command(args).stdin(Stdio::piped()).spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        let output = std::thread::scope(|scope| {
            // A command may end without reading everything.
            scope.spawn(move || input.write_all(stdin));
            child.wait_with_output().unwrap()
        });
        let stderr = String::from_utf8(output.stderr).unwrap();
        Ended { status: output.status, stdout: output.stdout, stderr }
    }

    /// Runs a command that succeeds; returns its standard output.
    fn ok(&self, args: &[&str], stdin: &[u8]) -> Vec<u8> {
        let ended = self.run(args, stdin);
        assert!(ended.status.success(), "{args:?}: {}\n{}", ended.status, ended.stderr);
        ended.stdout
    }

    fn ok_text(&self, args: &[&str]) -> String {
        String::from_utf8(self.ok(args, b"")).unwrap()
    }

    /// Starts a command whose lines are read as they come.
    fn start(&self, args: &[&str]) -> Running {
        Running::new(self.command(args).stdin(Stdio::null()))
    }

    fn start_with_input(&self, args: &[&str]) -> (Running, ChildStdin) {
        let mut running = Running::new(self.command(args).stdin(Stdio::piped()));
        let stdin = running.child.stdin.take().unwrap();
        (running, stdin)
    }
}

impl Running {
    fn new(command: &mut Command) -> Running {
        let mut child = command.spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines() {
                // A test that has seen enough does not listen any more.
                let Ok(line) = line else { return };
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Running { child, lines }
    }

    /// The next line it writes.
    fn line(&self) -> String {
        self.lines.recv_timeout(HANG).expect("it writes a line")
    }

    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.child), signal)
            .unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        self.child.wait().unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server with an empty log, and a user of it.
fn server() -> (TempDir, Node, User) {
    let data_dir = tempfile::tempdir().unwrap();
    let node = Node::start(data_dir.path());
    let user = User::of(&node.address);
    (data_dir, node, user)
}
