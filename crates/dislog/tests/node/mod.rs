//! A running `dislog server` as a supervisor sees it: a process, what it says, its signals, its use
//! of memory and processor.
//!
//! Linux only, like the limits it measures. Every test binary takes the part it needs.
#![allow(dead_code, unreachable_pub, missing_docs)]

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

pub mod door;
pub mod tls;

/// How long anything may take before it counts as hanging.
pub const HANG: Duration = Duration::from_secs(60);

/// `/proc` counts processor time in these; the number is part of Linux's interface to programs.
const TICKS_PER_SECOND: u64 = 100;

/// A running server on a free port. Dropping it kills it.
pub struct Node {
    /// Where it listens, `127.0.0.1:port`.
    pub address: String,
    pid: Pid,
    exited: Receiver<ExitStatus>,
    output: Arc<Mutex<String>>,
    is_down: bool,
}

impl Node {
    /// Starts a server on `data_dir`.
    pub fn start(data_dir: &Path) -> Node {
        let mut command = Command::new(binary());
        command.args(["server", "--insecure", "--listen", "127.0.0.1:0"]);
        command.arg("--data-dir").arg(data_dir);
        Node::spawn(command)
    }

    /// Starts a server that may have only so many files open.
    pub fn start_with_open_files(data_dir: &Path, open_files: u32) -> Node {
        let mut command = Command::new("sh");
        let script = "ulimit -n \"$0\" && \
             exec \"$1\" server --insecure --listen 127.0.0.1:0 --data-dir \"$2\"";
        command.args(["-c", script, &open_files.to_string(), env!("CARGO_BIN_EXE_dislog")]);
        command.arg(data_dir);
        Node::spawn(command)
    }

    /// Starts a server at an address, as a node of the cluster that others belong to; `command`
    /// runs the binary.
    pub fn start_at(
        mut command: Command,
        data_dir: &Path,
        address: &str,
        join: Option<&str>,
    ) -> Node {
        // Namespaces of the network have addresses of their own.
        command.args(["server", "--insecure=anywhere", "--listen", address]);
        command.arg("--data-dir").arg(data_dir);
        if let Some(join) = join {
            command.args(["--join", join]);
        }
        let mut node = Node::spawn(command);
        // What it says first may be the address of another node.
        address.clone_into(&mut node.address);
        node
    }

    /// Sends it a signal, and does not wait for anything.
    pub fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).expect("the process is there");
    }

    /// Stops it where it is, until `resume`: its connections stay open and nothing is answered.
    pub fn pause(&self) {
        kill_process(self.pid, Signal::STOP).expect("the process is there");
    }

    /// Lets it go on.
    pub fn resume(&self) {
        kill_process(self.pid, Signal::CONT).expect("the process is there");
    }

    /// Starts what listens on a port of this machine and says so.
    pub fn spawn(mut command: Command) -> Node {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DISLOG_") {
                command.env_remove(name);
            }
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the binary starts");
        let pid = Pid::from_child(&child);
        let output = Arc::new(Mutex::new(String::new()));
        let (found, address) = mpsc::channel();
        listen_to(child.stdout.take().expect("it is piped"), &output, found.clone());
        listen_to(child.stderr.take().expect("it is piped"), &output, found);
        let exited = reap(child);
        let Ok(address) = address.recv_timeout(HANG) else {
            let _ = kill_process(pid, Signal::KILL);
            panic!("the server did not say where it listens:\n{}", output.lock().unwrap());
        };
        Node { address, pid, exited, output, is_down: false }
    }

    /// SIGKILL for all at once: none sees another go.
    pub fn kill_all(nodes: Vec<Node>) {
        for node in &nodes {
            kill_process(node.pid, Signal::KILL).expect("the process is there");
        }
        for mut node in nodes {
            node.wait();
        }
    }

    /// Pulls the plug: SIGKILL, and waits until it is gone.
    pub fn kill(mut self) {
        self.signal_and_wait(Signal::KILL);
    }

    /// Stops it as a supervisor does, with SIGTERM: its exit status, and how long it took.
    pub fn terminate(mut self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        let status = self.signal_and_wait(Signal::TERM);
        (status, start.elapsed())
    }

    /// Everything it has said.
    pub fn output(&self) -> String {
        self.output.lock().unwrap().clone()
    }

    /// Memory in use at the moment, and the most there was.
    pub fn rss_bytes(&self) -> (u64, u64) {
        let status = self.proc("status");
        let kib = |name: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(name)).expect("Linux says");
            line.split_whitespace().nth(1).expect("a number").parse().expect("a number")
        };
        (kib("VmRSS:") << 10, kib("VmHWM:") << 10)
    }

    /// Processor time used since it started.
    pub fn cpu(&self) -> Duration {
        let stat = self.proc("stat");
        // The fields behind the name in parentheses, which may hold anything: utime is the 14th of
        // all, stime the 15th.
        let (_, fields) = stat.rsplit_once(')').expect("Linux says");
        let fields: Vec<&str> = fields.split_whitespace().collect();
        let ticks: u64 =
            [11, 12].map(|at| fields[at].parse::<u64>().expect("a number")).iter().sum();
        Duration::from_millis(ticks * 1_000 / TICKS_PER_SECOND)
    }

    /// How many files it has open.
    pub fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.pid.as_raw_nonzero());
        std::fs::read_dir(path).expect("the process is there").count()
    }

    fn proc(&self, file: &str) -> String {
        let path = format!("/proc/{}/{file}", self.pid.as_raw_nonzero());
        std::fs::read_to_string(path).expect("the process is there")
    }

    fn signal_and_wait(&mut self, signal: Signal) -> ExitStatus {
        kill_process(self.pid, signal).expect("the process is there");
        self.wait()
    }

    fn wait(&mut self) -> ExitStatus {
        let status = self.exited.recv_timeout(HANG);
        let status = status.unwrap_or_else(|_| panic!("it does not end:\n{}", self.output()));
        self.is_down = true;
        status
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if !self.is_down && self.exited.try_recv().is_err() {
            let _ = kill_process(self.pid, Signal::KILL);
            let _ = self.exited.recv_timeout(HANG);
        }
        if std::thread::panicking() {
            eprintln!("the server said:\n{}", self.output());
        }
    }
}

/// The program under test: `DISLOG_BINARY`, for long runs of one that was built elsewhere, or the
/// one that was built with the tests.
pub fn binary() -> OsString {
    std::env::var_os("DISLOG_BINARY").unwrap_or_else(|| env!("CARGO_BIN_EXE_dislog").into())
}

/// Keeps what the server says, and sends the address at which it says to serve.
fn listen_to(
    stream: impl Read + Send + 'static,
    output: &Arc<Mutex<String>>,
    found: Sender<String>,
) {
    let output = Arc::clone(output);
    std::thread::spawn(move || {
        for line in BufReader::new(stream).lines() {
            let Ok(line) = line else { return };
            if let Some(address) = address_in(&line) {
                // Nobody listens for a second one.
                let _ = found.send(address);
            }
            let mut output = output.lock().unwrap();
            output.push_str(&line);
            output.push('\n');
        }
    });
}

fn address_in(line: &str) -> Option<String> {
    // Other lines name other nodes.
    let (address, _) = line.split_once("\"addr\":\"")?.1.split_once('"')?;
    let parsed: SocketAddr = address.parse().ok()?;
    (parsed.port() != 0).then(|| address.to_owned())
}

fn reap(mut child: Child) -> Receiver<ExitStatus> {
    let (ended, exited) = mpsc::channel();
    std::thread::spawn(move || {
        let status = child.wait().expect("a child can be waited for");
        // A node that was dropped does not ask.
        let _ = ended.send(status);
    });
    exited
}
