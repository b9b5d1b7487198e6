//! Starting, ending, and what happens to commands when servers, readers and users come and go.

use std::io::{Read, Write};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::node::door::Door;
use crate::node::{HANG, Node};
use crate::{User, server};

/// A supervisor's patience.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// The address in the first line of `dislog dev`.
fn dev_address(line: &str) -> String {
    let rest = line.split("listens on ").nth(1).expect(line);
    rest.split(' ').next().expect(line).to_owned()
}

#[test]
fn after_dev_the_next_command_just_works() {
    let user = User::without_server();
    let mut dev = user.start(&["dev", "--port", "0"]);
    let address = dev_address(&dev.line());
    while dev.line() != "Ctrl-C ends it." {}
    user.ok(&["add", "demo"], b"hi\n");
    assert_eq!(user.ok_text(&["get", "demo"]), "hi\n");
    let data = user.home.path().join(".local/share/dislog/dev/node.toml");
    assert!(data.exists(), "{} is missing", data.display());

    dev.signal(Signal::INT);
    assert_eq!(dev.wait().code(), Some(0));
    assert!(!user.home.path().join(".config/dislog/profile.toml").exists());
    let gone = user.run(&["get", "demo", "--servers", &address], b"");
    assert_eq!(gone.status.code(), Some(4), "{}", gone.stderr);

    let again = user.start(&["dev", "--port", "0"]);
    while again.line() != "Ctrl-C ends it." {}
    assert_eq!(user.ok_text(&["get", "demo"]), "hi\n");
}

#[test]
fn a_second_dev_says_what_is_in_the_way() {
    let user = User::without_server();
    let dev = user.start(&["dev", "--port", "0"]);
    let port = dev_address(&dev.line()).split(':').nth(1).unwrap().to_owned();
    let same_port = user.run(&["dev", "--port", &port], b"");
    assert_eq!(same_port.status.code(), Some(1));
    assert!(same_port.stderr.contains("choose another port with --port"), "{}", same_port.stderr);
    let same_data = user.run(&["dev", "--port", "0"], b"");
    assert_eq!(same_data.status.code(), Some(1));
    assert!(same_data.stderr.contains("in use by another process"), "{}", same_data.stderr);
    user.ok(&["add", "demo"], b"still there\n");
}

#[test]
fn sigterm_ends_a_server_at_once_even_with_open_streams() {
    // In the best of a few attempts: the disk stands still now and then.
    let mut took = Vec::new();
    while took.len() < 4 && took.iter().all(|took| *took >= SHUTDOWN_MAX) {
        took.push(ended_with_open_streams());
    }
    assert!(took.iter().any(|took| *took < SHUTDOWN_MAX), "{took:?}");
    assert!(took.iter().all(|took| *took < Duration::from_secs(15)), "{took:?}");
}

fn ended_with_open_streams() -> Duration {
    let (_dir, node, user) = server();
    user.ok(&["add", "demo"], b"a\n");
    let follower = user.start(&["get", "demo", "-f"]);
    let (adder, mut input) = user.start_with_input(&["add", "demo"]);
    input.write_all(b"b\n").unwrap();
    assert_eq!([follower.line(), follower.line()], ["a", "b"]);
    let (status, took) = node.terminate();
    assert_eq!(status.code(), Some(0));
    drop(adder);
    took
}

#[test]
fn a_clean_restart_changes_nothing() {
    let (dir, node, user) = server();
    user.ok(&["add", "demo"], b"a\nb\n");
    let before = user.ok(&["get", "demo", "--format", "json"], b"");
    assert!(node.terminate().0.success());
    let node = Node::start(dir.path());
    let user = User::of(&node.address);
    assert_eq!(user.ok(&["get", "demo", "--format", "json"], b""), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn adding_survives_kill_9_without_loss_or_doubles() {
    let data_dir = tempfile::tempdir().unwrap();
    let door = Door::open().await;
    let node = Node::start(data_dir.path());
    door.lead_to(Some(node.address.clone()));
    let user = User::of(&door.address);
    let follower = User::of(&node.address);
    let (mut adder, mut input) = user.start_with_input(&["add", "demo", "-q"]);
    let lines: String = (0..200_000).map(|n| format!("record number {n}\n")).collect();
    let (first, second) = lines.split_at(lines.len() / 2);

    // The input is written by a thread, as nobody reads it while the server is away.
    let (first, second) = (first.to_owned(), second.to_owned());
    let (go_on, gone_on) = std::sync::mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        input.write_all(first.as_bytes()).unwrap();
        gone_on.recv().unwrap();
        input.write_all(second.as_bytes()).unwrap();
    });
    while !follower.run(&["get", "demo", "-n", "1"], b"").stdout.starts_with(b"record number 0") {}
    go_on.send(()).unwrap();
    door.lead_to(None);
    node.kill();
    let node = Node::start(data_dir.path());
    door.lead_to(Some(node.address.clone()));

    writing.join().unwrap();
    assert!(adder.wait().success(), "adding failed");
    assert!(user.ok(&["get", "demo"], b"") == lines.as_bytes(), "lost, doubled or out of order");
}

#[tokio::test(flavor = "multi_thread")]
async fn following_survives_a_restart() {
    let data_dir = tempfile::tempdir().unwrap();
    let door = Door::open().await;
    let node = Node::start(data_dir.path());
    door.lead_to(Some(node.address.clone()));
    let user = User::of(&door.address);
    user.ok(&["add", "demo"], b"before\n");
    let follower = user.start(&["get", "demo", "-f"]);
    assert_eq!(follower.line(), "before");
    door.lead_to(None);
    assert!(node.terminate().0.success());
    let node = Node::start(data_dir.path());
    door.lead_to(Some(node.address.clone()));
    user.ok(&["add", "demo"], b"after\n");
    assert_eq!(follower.line(), "after");
}

#[test]
fn a_line_is_added_when_it_is_written_not_when_the_input_ends() {
    let (_dir, _node, user) = server();
    user.ok(&["topic", "create", "demo"], b"");
    let follower = user.start(&["get", "demo", "-f"]);
    let (_adder, mut input) = user.start_with_input(&["add", "demo"]);
    for line in ["one", "two"] {
        writeln!(input, "{line}").unwrap();
        assert_eq!(follower.line(), line);
    }
}

#[test]
fn a_failed_delivery_ends_adding_though_the_input_is_silent() {
    let (_data, node, user) = server();
    user.ok(&["topic", "create", "demo"], b"");
    let (mut adding, mut input) = user.start_with_input(&["add", "demo", "--timeout", "10s"]);
    input.write_all(b"before\n").unwrap();
    let end = Instant::now() + HANG;
    while user.ok_text(&["get", "demo"]) != "before\n" {
        assert!(Instant::now() < end, "it is not added");
    }
    node.kill();
    input.write_all(b"after\n").unwrap();
    let code = adding.wait().code();
    let mut said = String::new();
    adding.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("added 1 record") && said.contains("error: "), "{said}");
    // It may have been on its way to the node when that died.
    let on_its_way = said.contains("the outcome is UNKNOWN");
    assert_eq!(code, Some(if on_its_way { 1 } else { 4 }), "{said}");
}

#[test]
fn ctrl_c_while_adding_keeps_what_was_read() {
    assert!((0..20).any(|_| interrupted_while_adding()), "the machine is too slow for this test");
}

/// Checks what becomes of adding that is ended by two signals; false if they were not at once.
fn interrupted_while_adding() -> bool {
    /// Less than after which a second signal is one of its own.
    const AT_ONCE: Duration = Duration::from_millis(200);
    let (_dir, _node, user) = server();
    user.ok(&["topic", "create", "demo"], b"");
    let follower = user.start(&["get", "demo", "-f"]);
    let (mut adder, mut input) = user.start_with_input(&["add", "demo"]);
    input.write_all(b"one\n").unwrap();
    assert_eq!(follower.line(), "one");
    // As `timeout` does it: twice at once is one signal.
    let first = Instant::now();
    adder.signal(Signal::INT);
    adder.signal(Signal::TERM);
    let were_at_once = first.elapsed() < AT_ONCE;
    let code = adder.wait().code();
    if !were_at_once {
        return false;
    }
    assert!(matches!(code, Some(130 | 143)), "{code:?}");
    let mut said = String::new();
    adder.child.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("ended by a signal; 1 record had been added"), "{said}");
    assert_eq!(user.ok_text(&["get", "demo"]), "one\n");
    true
}

#[test]
fn a_reader_that_has_enough_is_no_failure() {
    let (_dir, _node, user) = server();
    let lines: String = (0..100_000).map(|n| format!("{n}\n")).collect();
    user.ok(&["add", "demo"], lines.as_bytes());
    for args in [&["get", "demo"][..], &["get", "demo", "-f"], &["get", "demo", "-f", "-o", "end"]]
    {
        let mut child = user.command(args).stdin(Stdio::null()).spawn().unwrap();
        drop(child.stdout.take());
        let started = Instant::now();
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
        assert!(started.elapsed() < crate::HANG, "{args:?}");
    }
}

#[test]
fn closed_outputs_make_nothing_panic() {
    let (_dir, _node, user) = server();
    let script =
        r#"echo hi | "$0" add demo 2>&- >&- && "$0" topic list >&- 2>&-; "$0" get none >&- 2>&-"#;
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_dislog")]).env_clear();
    command.env("HOME", user.home.path()).env("DISLOG_SERVERS", user.servers.as_ref().unwrap());
    assert_eq!(command.status().unwrap().code(), Some(3));
    assert_eq!(user.ok_text(&["get", "demo"]), "hi\n");

    let mut nobody_listens = user.command(&["get", "none"]).stdin(Stdio::null()).spawn().unwrap();
    drop(nobody_listens.stderr.take());
    assert_eq!(nobody_listens.wait().unwrap().code(), Some(3));
}

#[test]
fn verify_finds_a_flipped_byte() {
    let (dir, node, user) = server();
    user.ok(&["add", "demo"], b"a record to be damaged\n");
    user.ok(&["add", "demo"], b"a record behind it\n");
    assert!(node.terminate().0.success());
    let data_dir = dir.path().display().to_string();
    let sound = user.ok_text(&["verify", &data_dir]);
    assert!(sound.contains("demo-0") && sound.contains("sound"), "{sound}");

    let store = dir.path().join("partitions/demo-0/00000000000000000000.store");
    let mut bytes = std::fs::read(&store).unwrap();
    let at = bytes.windows(6).position(|window| window == b"record").unwrap();
    bytes[at] ^= 1;
    std::fs::write(&store, bytes).unwrap();
    let damaged = user.run(&["verify", &data_dir, "--format", "json"], b"");
    assert_eq!(damaged.status.code(), Some(1), "{}", damaged.stderr);
    let report: serde_json::Value = serde_json::from_slice(&damaged.stdout).unwrap();
    let partition = report.as_array().unwrap().iter().find(|p| p["partition"] == "demo-0").unwrap();
    let findings = partition["findings"].as_array().unwrap();
    let finding = findings.iter().find(|finding| finding["kind"] == "damage").unwrap();
    assert_eq!(finding["file"], store.display().to_string());
    assert_eq!((&finding["from_offset"], &finding["to_offset"]), (&0.into(), &1.into()));
    assert!(damaged.stderr.contains("damaged"), "{}", damaged.stderr);
}
