//! What was decided is on record: in a topic of the cluster, and in files that are moved away.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use serde_json::Value;

use crate::cluster::{self, Cluster, RULES, Who, ok, until};

const AUDIT_RECORDS: &str = "/v1/topics/audit/records";

fn entries(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("whole lines of JSON")).collect()
}

#[test]
fn what_every_node_decides_is_in_the_topic() {
    let cluster = Cluster::of(3, |_, dir| {
        fs::write(dir.join("auth.toml"), "audit = \"topic:audit\"\n").unwrap();
        fs::write(dir.join("policy.csv"), format!("{RULES}p, *, audit, produce, deny\n")).unwrap();
    });
    cluster.make_client("eve");
    ok(&mut cluster.root(1, &["topic", "create", "orders.eu"]));
    for at in 0..3 {
        let records = format!("/v1/topics/secret-{at}/records");
        // Only nodes write it. First, so that it is on record when the others are.
        assert_eq!(cluster.curl(at, Who::Client("root"), "POST", AUDIT_RECORDS).0, 403);
        assert_eq!(cluster.curl(at, Who::Client("eve"), "POST", &records).0, 403);
        assert_eq!(cluster.curl(at, Who::Nobody, "POST", &records).0, 401);
    }
    let denied = |entry: &Value, subject: &str, by: &str, object: &str| {
        entry["subject"] == subject
            && entry["by"] == by
            && entry["object"] == object
            && entry["operation"] == "POST /v1/topics/{topic}/records"
            && entry["allowed"] == false
            && entry["from"].as_str().is_some_and(|from| from.starts_with("127.0.0.1:"))
    };
    let read = |at: usize| {
        // Until the first entry is there, there is no topic.
        let got = cluster.root(at, &["get", "audit"]).output().unwrap();
        entries(std::str::from_utf8(&got.stdout).unwrap())
    };
    until("all refusals are in the topic", || {
        let entries = read(0);
        (0..3).all(|at| {
            let secret = format!("secret-{at}");
            entries.iter().any(|entry| denied(entry, "eve", "certificate", &secret))
                && entries.iter().any(|entry| denied(entry, "anonymous", "nothing", &secret))
        })
    });
    let all = read(0);
    let of_root = all.iter().filter(|entry| denied(entry, "root", "certificate", "audit"));
    assert_eq!(of_root.count(), 3);
    let is_creation = |entry: &&Value| {
        entry["operation"] == "/log.v1.Admin/CreateTopic" && entry["allowed"] == true
    };
    assert_eq!(all.iter().filter(is_creation).count(), 1, "by whom it was asked for, and once");
    // Reading it is recorded, too: so it has grown since, but it is the same on every node.
    for at in 1..3 {
        assert_eq!(read(at)[..all.len()], all, "node {at}");
    }
}

#[test]
fn a_file_that_is_moved_away_under_load_loses_nothing() {
    const ATTEMPTS: usize = 80;
    let cluster = Cluster::of(1, |_, _| {});
    cluster.make_client("eve");
    let current = cluster.path("audit-0");
    let mut files: Vec<PathBuf> = vec![current.clone()];
    let (address, certs) = (cluster.nodes[0].address.clone(), cluster.path("certs"));
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            for n in 0..ATTEMPTS {
                let records = format!("/v1/topics/secret-{n}/records");
                let eve = Who::Client("eve");
                let (code, _) = cluster::curl(&address, &certs, eve, "POST", &records, "by curl");
                assert_eq!(code, 403);
            }
        });
        while !asking.is_finished() {
            let has_some = |path: &PathBuf| fs::metadata(path).is_ok_and(|file| file.len() > 0);
            until("there is something to move", || has_some(&current) || asking.is_finished());
            if has_some(&current) {
                let moved = cluster.path(&format!("audit-0.{}", files.len()));
                fs::rename(&current, &moved).unwrap();
                files.push(moved);
            }
        }
    });
    assert!(files.len() > 3, "it was moved more than once: {files:?}");
    let recorded = || {
        let text: String = files.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
        let entries = entries(&text);
        let denied = entries.iter().filter(|e| e["subject"] == "eve" && e["allowed"] == false);
        denied.map(|entry| entry["object"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    until("every refusal is in one of the files", || recorded().len() >= ATTEMPTS);
    let mut recorded = recorded();
    recorded.sort_unstable();
    let mut expected: Vec<String> = (0..ATTEMPTS).map(|n| format!("secret-{n}")).collect();
    expected.sort_unstable();
    assert_eq!(recorded, expected, "each once");
    for file in files.iter().filter(|file| file.exists()) {
        assert_eq!(fs::metadata(file).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
