//! Managing topics.

use serde_json::Value;

use crate::server;

#[test]
fn a_topic_from_creation_to_deletion() {
    let (_dir, _node, user) = server();
    let json = |args: &[&str]| -> Value {
        let args = [args, &["-o", "json"]].concat();
        serde_json::from_slice(&user.ok(&args, b"")).unwrap()
    };
    assert_eq!(json(&["topic", "list"]), Value::Array(Vec::new()));
    let created = json(&["topic", "create", "a", "b", "-p", "2", "--retention-time", "7d"]);
    assert_eq!(created[1]["name"], "b");
    assert_eq!(created[1]["partitions"].as_array().unwrap().len(), 2);
    assert_eq!(created[1]["retention_ms"], 604_800_000);

    let altered = json(&["topic", "alter", "a", "--retention-bytes", "1GiB"]);
    assert_eq!(altered["retention_bytes"], 1 << 30);
    assert_eq!(altered["retention_ms"], 604_800_000);
    assert_eq!(json(&["topic", "describe", "a"]), altered);

    user.ok(&["topic", "create", "a", "--if-not-exists"], b"");
    user.ok(&["add", "a", "-p", "1"], b"x\ny\nz\n");
    assert_eq!(
        user.ok_text(&["topic", "trim", "a", "-1", "--yes"]),
        "a-0: nothing to drop\na-1: dropped 2 records, it starts at offset 2 now\n"
    );
    assert_eq!(json(&["topic", "describe", "a"])["partitions"][1]["start_offset"], 2);
    assert_eq!(user.ok_text(&["get", "a"]), "z\n");

    let table = user.ok_text(&["topic", "ls"]);
    let rows: Vec<Vec<&str>> = table.lines().map(|row| row.split_whitespace().collect()).collect();
    assert_eq!(rows[0], ["TOPIC", "PARTITIONS", "RECORDS", "SIZE"]);
    assert_eq!(rows[1][..3], ["a", "2", "1"]);
    assert_eq!(rows[2][..3], ["b", "2", "0"]);

    assert_eq!(user.ok_text(&["topic", "delete", "a", "--yes"]), "deleted topic a with 1 record\n");
    user.ok(&["topic", "delete", "a", "--yes", "--if-exists"], b"");
    assert_eq!(json(&["topic", "list"]).as_array().unwrap().len(), 1);
}

#[test]
fn nothing_is_destroyed_unasked() {
    let (_dir, _node, user) = server();
    user.ok(&["add", "demo"], b"a\nb\n");
    for args in [&["topic", "delete", "demo"][..], &["topic", "trim", "demo", "1"]] {
        let refused = user.run(args, b"y\n");
        assert_eq!(refused.status.code(), Some(2), "{args:?}");
        assert!(refused.stderr.contains("--yes"), "{}", refused.stderr);
    }
    assert_eq!(user.ok_text(&["get", "demo"]), "a\nb\n");
}

#[test]
fn the_cluster_shows_its_server() {
    let (_dir, node, user) = server();
    user.ok(&["add", "demo"], b"a\n");
    let status: Value =
        serde_json::from_slice(&user.ok(&["cluster", "status", "-o", "json"], b"")).unwrap();
    assert_eq!(status["nodes"][0]["address"], node.address.as_str());
    assert_eq!(status["nodes"][0]["leads"], 1);
    assert_eq!(status["nodes"][0]["may_stop"], false);
    assert_eq!(status["faults"], Value::Array(Vec::new()));
    let table = user.ok_text(&["cluster", "status"]);
    assert!(table.contains("1 topic, 1 partition: every replica is in step\n"), "{table}");
}
