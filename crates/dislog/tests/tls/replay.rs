//! What a node said to another, recorded on its way and said again by somebody else.
//!
//! Over TLS nothing of it is heard: keys are agreed anew for each connection. In plaintext nobody
//! can tell it from a node's own words; but what nodes say to each other may arrive late and twice
//! anyway, so that it changes nothing either.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::node::{HANG, Node};
use crate::{Certs, dislog, until};

/// How often all that was recorded is said again.
const TIMES: usize = 3;

/// A node ends a connection over which nothing sensible comes at once, if the machine lets it;
/// whoever waited for the end of the handshake would wait 30 s.
const ENDED_MAX: Duration = Duration::from_secs(15);

/// How long a node that answered is given to take in the rest.
const SILENCE: Duration = Duration::from_millis(300);

/// As much as a node says to one that it takes for a node.
const GREETING_BYTES_MIN: usize = 32;

/// Whoever dials over TLS says more than this: a certificate, at least.
const HANDSHAKE_BYTES_MIN: usize = 600;

const PEER_PREFACE: &[u8] = b"\0DISLOG PEER\r\n\r\n";

const NAMES: [&str; 3] = ["anton", "berta", "caesar"];

/// What each of those who dialled has said so far.
type Recorded = Arc<Mutex<Vec<Vec<u8>>>>;

/// The address at which a node is dialled, where somebody listens in.
struct Tap {
    address: String,
    target: watch::Sender<Option<String>>,
    recorded: Recorded,
}

impl Tap {
    async fn open() -> Tap {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (target, mut leads_to) = watch::channel(None::<String>);
        let recorded = Recorded::default();
        let recording = Arc::clone(&recorded);
        tokio::spawn(async move {
            let target = leads_to.wait_for(Option::is_some).await.unwrap().clone().unwrap();
            while let Ok((dialler, _)) = listener.accept().await {
                let Ok(node) = TcpStream::connect(&target).await else { continue };
                let ((from, back), (answers, to)) = (dialler.into_split(), node.into_split());
                tokio::spawn(record(from, to, Arc::clone(&recording)));
                tokio::spawn(pass_on(answers, back));
            }
        });
        Tap { address, target, recorded }
    }

    /// All of it, in the order in which it was begun.
    fn recorded(&self) -> Vec<Vec<u8>> {
        self.recorded.lock().unwrap().clone()
    }
}

async fn record(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, recorded: Recorded) {
    let at = {
        let mut recorded = recorded.lock().unwrap();
        recorded.push(Vec::new());
        recorded.len() - 1
    };
    let mut bytes = vec![0; 64 << 10];
    while let Ok(read @ 1..) = from.read(&mut bytes).await {
        recorded.lock().unwrap()[at].extend_from_slice(&bytes[..read]);
        if to.write_all(&bytes[..read]).await.is_err() {
            return;
        }
    }
}

async fn pass_on(mut answers: OwnedReadHalf, mut back: OwnedWriteHalf) {
    // How it ends makes no difference.
    let _ = tokio::io::copy(&mut answers, &mut back).await;
}

/// Says it to a node, which answers with so many bytes or ends the connection: how many it were.
async fn say(address: &str, words: &[u8], enough: usize) -> usize {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut answers, mut to) = stream.into_split();
    // The node may have ended it before all is said.
    let _ = timeout(HANG, to.write_all(words)).await.expect("it is read, or refused");
    let (mut answered, mut bytes) = (0, vec![0; 4 << 10]);
    while answered < enough {
        match timeout(ENDED_MAX, answers.read(&mut bytes)).await.expect("it is heard") {
            Ok(0) | Err(_) => return answered,
            Ok(read) => answered += read,
        }
    }
    let rest = async { while let Ok(1..) = answers.read(&mut bytes).await {} };
    let _ = timeout(SILENCE, rest).await;
    answered
}

/// Three nodes, of which the first is dialled by way of a tap.
struct Tapped {
    data: TempDir,
    certs: Option<(Certs, String)>,
    tap: Tap,
    nodes: Vec<Node>,
}

impl Tapped {
    fn start(runtime: &Runtime, is_secure: bool) -> Tapped {
        let certs = is_secure.then(|| {
            let certs = Certs::new("orders");
            let alice = certs.make("client", "alice");
            for name in NAMES {
                certs.make("server", name);
            }
            (certs, alice)
        });
        let tap = runtime.block_on(Tap::open());
        let data = tempfile::tempdir().unwrap();
        let mut tapped = Tapped { data, certs, tap, nodes: Vec::new() };
        let first = tapped.spawn(NAMES[0], &["--advertise", &tapped.tap.address]);
        tapped.tap.target.send_replace(Some(first.address.clone()));
        tapped.nodes.push(first);
        for name in &NAMES[1..] {
            let node = tapped.spawn(name, &["--join", &tapped.tap.address]);
            tapped.nodes.push(node);
        }
        tapped
    }

    fn spawn(&self, name: &str, more: &[&str]) -> Node {
        let mut command = dislog(&["server", "--name", name, "--listen", "127.0.0.1:0"]);
        command.args(more).arg("--data-dir").arg(self.data.path().join(name));
        match &self.certs {
            Some((certs, _)) => command.args(["--tls-dir", &certs.at(name)]),
            None => command.arg("--insecure"),
        };
        Node::spawn(command)
    }

    /// A command at one node.
    fn at(&self, node: usize, args: &[&str]) -> Command {
        let mut command = dislog(args);
        command.env("DISLOG_SERVERS", &self.nodes[node].address);
        if let Some((_, alice)) = &self.certs {
            command.env("DISLOG_TLS_DIR", Path::new(alice));
        }
        command
    }

    fn ok(&self, node: usize, args: &[&str]) -> String {
        let output = self.at(node, args).output().unwrap();
        let failed = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {failed}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Adds one record, by way of any node.
    fn add(&self, node: usize, record: &str) {
        let file = self.data.path().join("record");
        std::fs::write(&file, format!("{record}\n")).unwrap();
        let mut command = self.at(node, &["add", "demo"]);
        let output = command.stdin(std::fs::File::open(file).unwrap()).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Waits until the replicas are the same, byte for byte.
    fn until_equal(&self) {
        until("replicas are equal", || {
            self.at(0, &["cluster", "digest"]).output().unwrap().status.success()
        });
    }

    fn cluster(&self) -> serde_json::Value {
        let status = self.at(0, &["cluster", "status", "-o", "json"]).output().unwrap();
        serde_json::from_slice(&status.stdout).unwrap_or_default()
    }

    /// The nodes by name and address, and whether their replicas are to go elsewhere.
    fn members(&self) -> Vec<String> {
        let status = self.cluster();
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let text = |node: serde_json::Value| {
            format!("{} {} {}", node["name"], node["address"], node["draining"])
        };
        let mut members: Vec<String> = nodes.into_iter().map(text).collect();
        members.sort_unstable();
        members
    }
}

/// Makes a history, with a node that goes and comes back, so that some of it is over.
fn with_a_history(tapped: &mut Tapped) -> Vec<String> {
    until("three nodes are there", || {
        let status = tapped.cluster();
        let alive = |node: &&serde_json::Value| node["alive"] == true && node["answers"] == true;
        status["nodes"].as_array().is_some_and(|nodes| nodes.iter().filter(alive).count() == 3)
    });
    tapped.ok(0, &["topic", "create", "demo", "--replicas", "3"]);
    let records: Vec<String> = (0..12).map(|n| format!("record {n}")).collect();
    for (n, record) in records.iter().enumerate() {
        tapped.add(n % 3, record);
        if n == 6 {
            let last = tapped.nodes.pop().unwrap();
            assert_eq!(last.terminate().0.code(), Some(0));
            let address = tapped.tap.address.clone();
            let again = tapped.spawn(NAMES[2], &["--join", &address]);
            tapped.nodes.push(again);
        }
    }
    records
}

fn replayed(is_secure: bool) {
    let runtime = Runtime::new().unwrap();
    let mut tapped = Tapped::start(&runtime, is_secure);
    let mut records = with_a_history(&mut tapped);
    let all = |records: &[String]| -> String {
        records.iter().map(|record| format!("{record}\n")).collect()
    };
    let all_of = all(&records);
    assert_eq!(tapped.ok(0, &["get", "demo"]), all_of);
    tapped.until_equal();
    let members = tapped.members();
    assert_eq!(members.len(), 3);

    let recorded = tapped.tap.recorded();
    let of_nodes: Vec<&Vec<u8>> = match is_secure {
        // Who speaks in which is not to be seen. Some gave up before they were greeted.
        true => recorded.iter().filter(|words| words.len() > HANDSHAKE_BYTES_MIN).collect(),
        // Requests of clients are another matter: without TLS anybody may make them.
        false => recorded.iter().filter(|words| words.starts_with(PEER_PREFACE)).collect(),
    };
    let most = of_nodes.iter().map(|words| words.len()).max().unwrap_or(0);
    assert!(of_nodes.len() >= 3 && most > 1_000, "{} of at most {most}", of_nodes.len());
    let node = tapped.nodes[0].address.clone();
    for words in (0..TIMES).flat_map(|_| of_nodes.clone()) {
        if is_secure {
            // It returns, so the connection was ended.
            runtime.block_on(say(&node, words, usize::MAX));
        } else {
            let answered = runtime.block_on(say(&node, words, GREETING_BYTES_MIN));
            assert!(answered >= GREETING_BYTES_MIN, "it is not greeted as a node: {answered}");
        }
    }
    if is_secure {
        let refused = "refused a connection";
        until("it is said", || tapped.nodes[0].output().contains(refused));
        let said = tapped.nodes[0].output();
        let line = said.lines().find(|line| line.contains(refused)).unwrap();
        assert!(line.contains("decrypt"), "{line}");
    }

    assert_eq!(tapped.members(), members);
    assert_eq!(tapped.ok(0, &["get", "demo"]), all_of, "nothing was added or changed");
    for n in 12..16 {
        records.push(format!("record {n}"));
        tapped.add(n % 3, &records[n]);
    }
    let all_of = all(&records);
    for at in 0..3 {
        assert_eq!(tapped.ok(at, &["get", "demo"]), all_of, "node {at}");
    }
    tapped.until_equal();
    for node in &tapped.nodes {
        assert!(!node.output().contains("panicked"), "{}", node.output());
    }
}

#[test]
fn over_tls_nothing_that_was_recorded_is_heard_again() {
    replayed(true);
}

#[test]
fn in_plaintext_what_was_recorded_changes_nothing() {
    replayed(false);
}
