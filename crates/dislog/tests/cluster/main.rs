//! Three nodes and the commands about them, as whoever runs them sees it: real processes.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "support of tests may fail them")]

#[path = "../ports/mod.rs"]
mod ports;
mod spread;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tempfile::TempDir;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use self::ports::free_addresses;

/// How long anything may take before it counts as hanging.
const HANG: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// A process that is killed when the test is over, however it ends.
struct Process(Child);

impl Process {
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.0), signal).unwrap();
    }

    /// As Linux has it: it sleeps, or is over and waited for.
    fn state(&self) -> String {
        let status = fs::read_to_string(format!("/proc/{}/status", self.0.id()));
        let state = |line: &str| line.strip_prefix("State:").map(|state| state.trim().to_owned());
        status.ok().and_then(|status| status.lines().find_map(state)).unwrap_or_default()
    }

    fn ends(mut self) -> Option<i32> {
        let end = Instant::now() + HANG;
        while Instant::now() < end {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(LOOK_EVERY);
        }
        panic!("it does not end");
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Three servers and a user of them.
struct Cluster {
    dir: TempDir,
    addresses: Vec<String>,
    servers: Vec<Option<Process>>,
}

impl Cluster {
    /// Starts three, and waits until each sees the others.
    fn start() -> Cluster {
        Cluster::of(3)
    }

    fn of(count: usize) -> Cluster {
        let dir = tempfile::tempdir().unwrap();
        let addresses = free_addresses(count);
        let mut cluster = Cluster { dir, addresses, servers: Vec::new() };
        cluster.servers = (0..count).map(|number| Some(cluster.server(number))).collect();
        cluster.until_up(count);
        cluster
    }

    fn until_up(&self, count: usize) {
        self.until("all nodes are up", |status| {
            nodes(status).filter(|node| node["alive"] == true && node["answers"] == true).count()
                == count
        });
    }

    fn server(&self, number: usize) -> Process {
        let mut command = self.server_command(number);
        let said = File::options().append(true).create(true).open(self.said(number)).unwrap();
        Process(command.stderr(said).spawn().unwrap())
    }

    fn server_command(&self, number: usize) -> Command {
        let data_dir = self.dir.path().join(format!("data-{number}"));
        let mut command = dislog(self.dir.path());
        command
            .args(["server", "--insecure", "--listen", &self.addresses[number]])
            .stdin(Stdio::null());
        command.arg("--data-dir").arg(data_dir).args(["--name", &format!("n{number}")]);
        if number > 0 {
            command.args(["--join", &self.addresses.join(",")]);
        }
        command
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = dislog(self.dir.path());
        command.args(args).env("DISLOG_SERVERS", self.addresses.join(","));
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).stdin(Stdio::null()).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {}\n{stderr}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, args: &[&str]) -> Value {
        serde_json::from_slice(&self.run(&[args, &["-o", "json"]].concat()).stdout).unwrap()
    }

    fn until(&self, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let look = || {
            let output = self.run(&["cluster", "status", "-o", "json"]);
            serde_json::from_slice(&output.stdout).ok()
        };
        wait(look, holds).unwrap_or_else(|last| {
            panic!("it never came about that {what}: {last:?}\n{}", self.report())
        })
    }

    /// What the servers do, and what they said last.
    fn report(&self) -> String {
        let report = |(number, server): (usize, &Option<Process>)| {
            let state = server.as_ref().map(Process::state);
            let said = fs::read_to_string(self.said(number)).unwrap_or_default();
            let lines: Vec<&str> = said.lines().collect();
            let last = lines[lines.len().saturating_sub(30)..].join("\n");
            format!("n{number}, {}, {state:?}:\n{last}\n", self.addresses[number])
        };
        self.servers.iter().enumerate().map(report).collect()
    }

    /// Where a server writes what it says.
    fn said(&self, number: usize) -> PathBuf {
        self.dir.path().join(format!("said-{number}"))
    }

    fn add(&self, topic: &str, lines: &str) {
        let mut child = self.command(&["add", topic, "-q"]).stdin(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
        assert!(child.wait().unwrap().success());
    }

    /// Ends a server: killed, or told to.
    fn end(&mut self, number: usize, signal: Signal) {
        let server = self.servers[number].take().unwrap();
        server.signal(signal);
        server.ends();
    }
}

/// Waits until what is looked at is as it should be; nothing while it cannot be looked at.
fn until(what: &str, look: impl Fn() -> Option<Value>, holds: impl Fn(&Value) -> bool) -> Value {
    wait(look, holds).unwrap_or_else(|last| panic!("it never came about that {what}: {last:?}"))
}

/// What was looked at once it is as it should be; what was seen last, in place of a hang.
fn wait(
    look: impl Fn() -> Option<Value>,
    holds: impl Fn(&Value) -> bool,
) -> Result<Value, Option<String>> {
    let end = Instant::now() + HANG;
    let mut last = None;
    while Instant::now() < end {
        last = look();
        if let Some(value) = last.as_ref().filter(|value| holds(value)) {
            return Ok(value.clone());
        }
        std::thread::sleep(LOOK_EVERY);
    }
    Err(last.map(|value| value.to_string()))
}

fn dislog(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dislog"));
    command.env_clear().env("HOME", home);
    command
}

fn nodes(status: &Value) -> impl Iterator<Item = &Value> {
    status["nodes"].as_array().unwrap().iter()
}

fn node<'a>(status: &'a Value, name: &str) -> &'a Value {
    nodes(status).find(|node| node["name"] == name).unwrap_or(&Value::Null)
}

/// So many partitions, each with three replicas in step.
fn is_well(status: &Value, partitions: u64) -> bool {
    let in_step = |replica: &&Value| replica["in_step"] == true && replica["role"] != "learner";
    let replicas = status["replicas"].as_array().unwrap().iter().filter(in_step).count() as u64;
    status["partitions"]["total"] == partitions
        && status["partitions"]["under_replicated"] == 0
        && status["partitions"]["leaderless"] == 0
        && replicas == 3 * partitions
        && nodes(status).all(|node| node["may_stop"] == true)
}

/// The node that leads the first partition.
fn leader(status: &Value) -> Option<&Value> {
    let replicas = status["replicas"].as_array().unwrap();
    let leads = |replica: &&Value| replica["partition"] == 0 && replica["role"] == "leader";
    replicas.iter().find(leads).map(|replica| &replica["node"])
}

#[test]
fn a_cluster_is_shown_checked_and_compared() {
    let mut cluster = Cluster::start();
    cluster.ok(&["topic", "create", "demo", "--partitions", "2"]);
    cluster.add("demo", &"a record\n".repeat(1_000));
    let status = cluster.until("all is well", |status| is_well(status, 2));
    assert_eq!(status["cluster_id"].as_str().unwrap().len(), 16);
    assert_eq!(status["topics"], 1);
    assert_eq!(status["faults"], Value::Array(Vec::new()));
    assert_eq!(nodes(&status).filter(|node| node["role"] == "leader").count(), 1);
    assert_eq!(nodes(&status).map(|node| node["leads"].as_u64().unwrap()).sum::<u64>(), 2);
    for name in ["n0", "n1", "n2"] {
        let node = node(&status, name);
        assert_eq!((&node["replicas"], &node["lag_records"]), (&2.into(), &0.into()));
        cluster.ok(&["cluster", "check", name]);
        cluster.ok(&["cluster", "check", node["address"].as_str().unwrap()]);
        cluster.ok(&["cluster", "check", node["id"].as_str().unwrap()]);
    }
    assert_eq!(cluster.run(&["cluster", "check", "n3"]).status.code(), Some(3));
    let table = cluster.ok(&["cluster", "status"]);
    assert!(table.contains("1 topic, 2 partitions: every replica is in step\n"), "{table}");

    let digest = cluster.json(&["cluster", "digest", "demo"]);
    assert_eq!(digest["equal"], true, "{digest:#}");
    for partition in digest["partitions"].as_array().unwrap() {
        assert_eq!(partition["replicas"].as_array().unwrap().len(), 3, "{digest:#}");
    }
    assert_eq!(cluster.run(&["cluster", "digest", "none"]).status.code(), Some(3));

    for name in ["n0", "n1", "n2"] {
        let id = node(&status, name)["id"].clone();
        let hand_over = || {
            // On a busy machine another may be elected before it is looked at.
            cluster.ok(&["cluster", "transfer-leader", "demo", "0", name]);
            Some(cluster.json(&["cluster", "status"]))
        };
        until("the leadership was handed over", hand_over, |status| leader(status) == Some(&id));
    }

    cluster.end(2, Signal::KILL);
    cluster.until("the loss is seen", |status| {
        let (lost, partitions) = (node(status, "n2"), &status["partitions"]);
        lost["alive"] == false
            && lost["answers"] == false
            && partitions["under_replicated"] == 2
            && partitions["leaderless"] == 0
    });
    let refused = cluster.run(&["cluster", "check", "n1"]);
    assert_eq!(refused.status.code(), Some(1));
    let reasons = String::from_utf8(refused.stdout).unwrap();
    let reason = "1 of 3 voters would be left in step, 2 are needed: the metadata, demo-0, demo-1";
    assert!(reasons.contains(reason), "{reasons}");
    let digest = cluster.run(&["cluster", "digest"]);
    assert_eq!(digest.status.code(), Some(4), "{}", String::from_utf8_lossy(&digest.stderr));

    cluster.servers[2] = Some(cluster.server(2));
    cluster.until("all is well again", |status| is_well(status, 2));
    cluster.ok(&["cluster", "digest"]);
}

/// A leader without a majority gives its office up, but that hands nothing over.
#[test]
fn an_office_that_was_only_given_up_was_not_handed_over() {
    let cluster = Cluster::start();
    cluster.ok(&["topic", "create", "demo"]);
    let status = cluster.until("all is well", |status| is_well(status, 1));
    let (leading, others): (Vec<_>, Vec<_>) =
        nodes(&status).partition(|node| Some(&node["id"]) == leader(&status));
    let number = |node: &Value| cluster.addresses.iter().position(|at| node["address"] == **at);
    let signal = |signal| {
        for other in &others {
            cluster.servers[number(other).unwrap()].as_ref().unwrap().signal(signal);
        }
    };
    let asked = leading[0]["address"].as_str().unwrap();
    let target = others[0]["name"].as_str().unwrap();

    signal(Signal::STOP);
    let mut command = cluster.command(&["cluster", "transfer-leader", "demo", "0", target]);
    let mut handing = Process(command.env("DISLOG_SERVERS", asked).spawn().unwrap());
    let described = || {
        let mut asking = Asking::at(asked);
        asking.ask("GET", "/v1/topics/demo", b"");
        Some(asking.answer().1)
    };
    until("nobody leads", described, |topic| topic["partitions"][0]["leader"] == "");
    assert_eq!(handing.0.try_wait().unwrap().map(|status| status.code()), None);
    signal(Signal::CONT);
    assert_eq!(handing.ends(), Some(0));
}

#[test]
fn the_founder_is_found_by_nodes_that_found_each_other_before() {
    let (dir, addresses) = (tempfile::tempdir().unwrap(), free_addresses(3));
    let cluster = Cluster { dir, addresses, servers: Vec::new() };
    let early = [1, 2].map(|number| {
        let mut command = cluster.server_command(number);
        Process(command.args(["--log-filter", "info"]).stderr(Stdio::piped()).spawn().unwrap())
    });
    // Both are started before either is listened to.
    let _early = early.map(|mut early| {
        let mut said = BufReader::new(early.0.stderr.take().unwrap()).lines().map(Result::unwrap);
        assert!(said.any(|line| line.contains("sees a node")));
        // It goes on talking.
        std::thread::spawn(move || said.for_each(drop));
        early
    });
    let _founder = cluster.server(0);
    cluster.until_up(3);
}

#[test]
fn nodes_are_drained_and_removed_alive_and_dead() {
    let mut cluster = Cluster::start();
    cluster.ok(&["topic", "create", "demo", "--partitions", "3"]);
    cluster.add("demo", &"a record\n".repeat(1_000));
    cluster.until("all is well", |status| is_well(status, 3));

    cluster.ok(&["cluster", "drain", "n1", "--wait"]);
    cluster.until("nothing is lacking", |status| {
        let drained = node(status, "n1");
        status["partitions"]["under_replicated"] == 0
            && drained["may_stop"] == true
            && drained["draining"] == true
            && drained["replicas"] == 0
            && drained["role"] == "learner"
    });
    cluster.ok(&["cluster", "check", "n1"]);
    cluster.ok(&["cluster", "drain", "n1", "--undo"]);
    cluster.until("it has replicas again", |status| is_well(status, 3));
    cluster.ok(&["cluster", "digest"]);

    let unasked = cluster.run(&["cluster", "remove", "n1"]);
    assert_eq!(unasked.status.code(), Some(2));
    let removing = cluster.command(&["cluster", "remove", "n1", "--yes"]);
    let removing = removes_once_stopped(removing, || cluster.end(1, Signal::TERM));
    assert_eq!(removing, Some(0));
    cluster.until("there are two", |status| nodes(status).count() == 2);

    cluster.end(2, Signal::KILL);
    cluster.until("the loss is seen", |status| node(status, "n2")["alive"] == false);
    let last = cluster.run(&["cluster", "check", "n0"]);
    assert_eq!(last.status.code(), Some(1));
}

#[test]
fn a_dead_node_is_removed() {
    let mut cluster = Cluster::start();
    cluster.add("demo", "a record\n");
    cluster.until("all is well", |status| is_well(status, 1));
    cluster.end(1, Signal::KILL);
    cluster.until("the loss is seen", |status| node(status, "n1")["alive"] == false);
    cluster.ok(&["cluster", "remove", "n1", "--yes"]);
    let status = cluster.until("nothing is lacking", |status| {
        status["partitions"]["under_replicated"] == 0 && nodes(status).count() == 2
    });
    assert_eq!(status["faults"], Value::Array(Vec::new()));
    assert_eq!(cluster.ok(&["get", "demo"]), "a record\n");
}

/// Whoever follows the end of the log is sent elsewhere by a node that hears of no other. Whoever
/// watches its health is told that it cannot serve, and when it can again.
#[test]
fn followers_and_watchers_are_told_when_there_is_no_majority() {
    let mut cluster = Cluster::start();
    cluster.add("demo", "a record\n");
    cluster.until("all is well", |status| is_well(status, 1));
    let mut following = ["application/x-ndjson", "text/event-stream"].map(|form| {
        let mut asking = Asking::at(&cluster.addresses[0]);
        asking.follow("/v1/topics/demo/records?follow=true", form);
        assert!(asking.lines_until("a record").is_some(), "{form}");
        asking
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let endpoint = format!("http://{}", cluster.addresses[0]);
    let mut watch = runtime.block_on(async {
        let channel = tonic::transport::Endpoint::from_shared(endpoint).unwrap().connect().await;
        let mut health = HealthClient::new(channel.unwrap());
        health.watch(HealthCheckRequest::default()).await.unwrap().into_inner()
    });
    let mut told = || {
        let message = runtime.block_on(async { tokio::time::timeout(HANG, watch.message()).await });
        message.expect("it is silent").unwrap().expect("it ended").status()
    };
    assert_eq!(told(), ServingStatus::Serving);
    cluster.end(1, Signal::KILL);
    cluster.end(2, Signal::KILL);
    // A leader of its own may have been lost before, and found again.
    while told() != ServingStatus::NotServing {}
    for asking in &mut following {
        let said = asking.lines_until("NO_LEADER").expect("it ended without a word");
        assert!(said.contains(r#""retry":true"#), "{said}");
        assert_eq!(asking.lines_until("a record"), None);
    }
    for number in [1, 2] {
        cluster.servers[number] = Some(cluster.server(number));
    }
    while told() != ServingStatus::Serving {}
}

/// The exit code of a command that waits until a node is stopped.
fn removes_once_stopped(mut command: Command, stop: impl FnOnce()) -> Option<i32> {
    let mut child = Process(command.stderr(Stdio::piped()).spawn().unwrap());
    let said = BufReader::new(child.0.stderr.take().unwrap());
    let mut stop = Some(stop);
    for line in said.lines() {
        let line = line.unwrap();
        eprintln!("{line}");
        if line.starts_with("stop n1 now") {
            stop.take().unwrap()();
        }
    }
    child.ends()
}

/// A running `dislog dev` that has said that it is there.
fn dev(home: &Path, args: &[&str]) -> Process {
    let mut command = dislog(home);
    command.args(["dev", "--port", "0"]).args(args).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stdout = BufReader::new(child.stdout.take().unwrap());
    let process = Process(child);
    let ready = stdout.lines().any(|line| line.unwrap() == "Ctrl-C ends it.");
    assert!(ready, "it ended");
    process
}

fn added(home: &Path, line: &str) {
    let mut command = dislog(home);
    let mut child = command.args(["add", "demo", "-q"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(line.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success());
}

fn records(home: &Path) -> String {
    let output = dislog(home).args(["get", "demo"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn status(home: &Path) -> Option<Value> {
    let output = dislog(home).args(["cluster", "status", "-o", "json"]).output().unwrap();
    serde_json::from_slice(&output.stdout).ok()
}

#[test]
fn dev_grows_to_three_nodes_and_finds_its_records_again() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    for (round, nodes) in [(1, "1"), (2, "3"), (3, "3")] {
        let dev = dev(home, &["--nodes", nodes]);
        added(home, &format!("record {round}\n"));
        let all: String = (1..=round).map(|round| format!("record {round}\n")).collect();
        assert_eq!(records(home), all);
        if nodes == "3" {
            until("each has a replica", || status(home), |status| is_well(status, 1));
        }
        dev.signal(Signal::TERM);
        assert_eq!(dev.ends(), Some(0));
    }
    let fewer = dislog(home).args(["dev", "--port", "0"]).output().unwrap();
    assert_eq!(fewer.status.code(), Some(2));
    let said = String::from_utf8(fewer.stderr).unwrap();
    assert!(said.contains("a cluster of 3 nodes, not 1") && said.contains("--nodes 3"), "{said}");
}

#[test]
fn dev_kills_nodes_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path();
    let mut command = dislog(home);
    command.args(["dev", "--port", "0", "--nodes", "3", "--chaos=200ms"]).stdin(Stdio::null());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut said = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let dev = Process(child);
    let mut all = String::new();
    for round in 0..3 {
        assert!(said.any(|line| line.starts_with("chaos: ")), "it ended");
        let line = format!("record {round}\n");
        added(home, &line);
        all.push_str(&line);
        assert!(said.any(|line| line.ends_with("is started again")), "it ended");
    }
    // A node that was just started again may not know the topic yet, and says that it cannot tell.
    assert_eq!(records(home), all);
    dev.signal(Signal::INT);
    // What it says until then must not fill the pipe.
    said.for_each(drop);
    assert_eq!(dev.ends(), Some(0));
}

/// A connection for HTTP/1.1 that is kept.
struct Asking(BufReader<TcpStream>);

impl Asking {
    fn at(address: &str) -> Asking {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_nodelay(true).unwrap();
        Asking(BufReader::new(stream))
    }

    fn ask(&mut self, method: &str, path: &str, body: &[u8]) {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/octet-stream\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat()).unwrap();
    }

    /// Begins a stream.
    fn follow(&mut self, path: &str, form: &str) {
        let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {form}\r\n\r\n");
        self.0.get_mut().write_all(head.as_bytes()).unwrap();
    }

    /// Reads lines up to one with `text` in it, which it returns; none if the stream ends before.
    fn lines_until(&mut self, text: &str) -> Option<String> {
        let mut lines = (&mut self.0).lines().map(Result::unwrap).take_while(|line| line != "0");
        lines.find(|line| line.contains(text))
    }

    /// Status and body.
    fn answer(&mut self) -> (u16, Value) {
        let (mut status, mut length) = (0, 0);
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).unwrap();
            let line = line.trim_end().to_lowercase();
            if let Some(rest) = line.strip_prefix("http/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(bytes) = line.strip_prefix("content-length: ") {
                length = bytes.parse().unwrap();
            } else if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }
}

/// The other two acknowledge a record while a follower stands still. Whoever asks it for that
/// record gets it, although it has heard of nothing when it goes on.
#[test]
fn what_was_acknowledged_is_there_on_a_follower_that_has_yet_to_hear_of_it() {
    const ROUNDS: usize = 10;
    /// Less than after which a follower misses its leader, and asks to be one.
    const STILL_MAX: Duration = Duration::from_millis(400);
    /// Less than a follower waits for what it is asked for.
    const READ_MAX: Duration = Duration::from_millis(900);
    /// Takes longer to be written and synced than a request to be read.
    const RECORD: &[u8] = &[b'x'; 256 << 10];
    let cluster = Cluster::start();
    cluster.ok(&["topic", "create", "read"]);
    let well = cluster.until("all is well", |status| is_well(status, 1));
    let described = || {
        let mut asking = Asking::at(&cluster.addresses[0]);
        asking.ask("GET", "/v1/topics/read", b"");
        Some(asking.answer().1)
    };
    let led = |topic: &Value| topic["partitions"][0]["leader"].as_str() != Some("");
    let (mut rounds, end) = (0, Instant::now() + 3 * HANG);
    while rounds < ROUNDS {
        assert!(Instant::now() < end, "the machine is too slow for this test");
        // On a busy machine another may lead by now.
        let topic = until("there is a leader", described, led);
        let leader = nodes(&well).find(|node| node["id"] == topic["partitions"][0]["leader"]);
        let leader = &leader.unwrap()["address"];
        let leader = cluster.addresses.iter().position(|at| leader == at.as_str()).unwrap();
        let follower = (leader + 1) % 3;
        let process = cluster.servers[follower].as_ref().unwrap();
        let [mut adding, mut reading] =
            [leader, follower].map(|number| Asking::at(&cluster.addresses[number]));
        let still = Instant::now();
        process.signal(Signal::STOP);
        adding.ask("POST", "/v1/topics/read/records", RECORD);
        let (status, added) = adding.answer();
        let offset = added["offset"].as_u64();
        let path = format!("/v1/topics/read/records/{}", offset.unwrap_or_default());
        reading.ask("GET", &path, b"");
        process.signal(Signal::CONT);
        let was_still = still.elapsed();
        let (status_of_read, read) = reading.answer();
        // A disk may take longer than that for the record, and the leader may be another by now.
        let is_read = still.elapsed() < READ_MAX;
        if was_still < STILL_MAX && is_read && status != 503 {
            assert_eq!(status, 201, "{added}");
            assert_eq!(status_of_read, 200, "{} {}", read["detail"], read["title"]);
            assert_eq!(read["offset"].as_u64(), offset);
            rounds += 1;
        }
    }
}
