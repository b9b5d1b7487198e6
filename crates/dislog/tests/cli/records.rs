//! Records in, records out.

use crate::{User, server};

/// Bytes that look like nothing in particular and hold every byte.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

#[test]
fn what_goes_in_comes_out_byte_for_byte() {
    let (_dir, _node, user) = server();
    let mut noisy = noise(1 << 20);
    noisy.push(b'\n');
    let many: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
    let megabyte = [vec![b'm'; 1 << 20], b"\n".to_vec()].concat();
    let largest = [vec![b'x'; dislog_types::limits::RECORD_BYTES_MAX], b"\n".to_vec()].concat();
    let inputs: [(&str, &[u8]); 7] = [
        ("nothing", b""),
        ("one-empty", b"\n"),
        ("ninety-empty", &[b'\n'; 90]),
        ("noise", &noisy),
        ("many", many.as_bytes()),
        ("megabyte", &megabyte.repeat(5)),
        ("largest", &largest),
    ];
    user.ok(&["topic", "create", "nothing"], b"");
    for (topic, input) in inputs {
        user.ok(&["add", topic], input);
        assert!(user.ok(&["get", topic], b"") == input, "{topic} came back changed");
    }
    for compression in ["lz4", "zstd"] {
        user.ok(&["add", compression, "-z", compression], many.as_bytes());
        assert!(user.ok(&["get", compression], b"") == many.as_bytes(), "{compression}");
    }
}

#[test]
fn a_last_line_without_its_end_is_a_record() {
    let (_dir, _node, user) = server();
    user.ok(&["add", "demo"], b"a\n\nb");
    assert_eq!(user.ok(&["get", "demo"], b""), b"a\n\nb\n");
}

#[test]
fn files_and_delimiters() {
    let (dir, _node, user) = server();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let (first, second) = (path("first"), path("second"));
    std::fs::write(&first, b"1\n2").unwrap();
    std::fs::write(&second, b"3\xff\0\n").unwrap();

    user.ok(&["add", "lines", &first, "-", &second], b"in between\n");
    assert_eq!(user.ok(&["get", "lines"], b""), b"1\n2\nin between\n3\xff\0\n");

    user.ok(&["add", "whole", "--whole", &first, &second], b"");
    assert_eq!(user.ok(&["get", "whole", "-d", ""], b""), b"1\n23\xff\0\n");
    assert_eq!(user.ok(&["get", "whole", "--format", r"%V\n"], b""), b"3\n4\n");

    user.ok(&["add", "zeros", "-d", r"\0"], b"a\nb\0\0c");
    assert_eq!(user.ok(&["get", "zeros", "-d", r"\0"], b""), b"a\nb\0\0c\0");

    user.ok(&["add", "long", "-d", r"\x0d\x0a.\r\n"], b"a\r\n\r\n.\r\nb\r\n.\r\n");
    assert_eq!(user.ok_text(&["get", "long", "--format", "[%v]"]), "[a\r\n][b]");
}

#[test]
fn keys_headers_and_formats() {
    let (_dir, _node, user) = server();
    user.ok(&["add", "demo", "-k", "all", "-H", "from: here", "-H", "b:x:y"], b"one\n");
    user.ok(&["add", "demo", "--key-delimiter", "::"], b"a::1\n::\nb::2::3\n");
    user.ok(&["add", "demo"], b"\xff\n");
    assert_eq!(
        user.ok(&["get", "demo", "--format", r"%t %p %o %K %k|%v|%h\n"], b""),
        b"demo 0 0 3 all|one|from=here,b=x:y\n\
          demo 0 1 1 a|1|\n\
          demo 0 2 0 ||\n\
          demo 0 3 1 b|2::3|\n\
          demo 0 4 -1 |\xff|\n"
    );
    let json = user.ok_text(&["get", "demo", "--format", "json"]);
    let lines: Vec<serde_json::Value> =
        json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[0]["headers"][1]["value"], "x:y");
    assert_eq!(lines[1]["key"], "a");
    assert_eq!(lines[4]["value_base64"], "/w==");
    assert!(lines[4].get("key").is_none());
    let times: Vec<i64> = lines.iter().map(|line| line["timestamp_ms"].as_i64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
}

/// A topic with the records 0 to 9, the first five of them trimmed away, and one more.
fn numbered(user: &User) {
    user.ok(&["add", "demo"], b"0\n1\n2\n3\n4\n5\n6\n7\n8\n9\n");
    user.ok(&["topic", "trim", "demo", "2", "--yes"], b"");
}

#[test]
fn ranges() {
    let (_dir, _node, user) = server();
    numbered(&user);
    let get = |args: &[&str]| {
        let args = [&["get", "demo"], args].concat();
        user.ok_text(&args).replace('\n', " ").trim_end().to_owned()
    };
    for (range, expected) in [
        ("start", "2 3 4 5 6 7 8 9"),
        ("end", ""),
        ("7", "7 8 9"),
        ("10", ""),
        ("4:6", "4 5"),
        (":4", "2 3"),
        ("8:100", "8 9"),
        ("5:5", ""),
        ("+3", "5 6 7 8 9"),
        ("-2", "8 9"),
        ("-100", "2 3 4 5 6 7 8 9"),
        ("-4:-2", "6 7"),
        ("start:end", "2 3 4 5 6 7 8 9"),
        ("@-1h", "2 3 4 5 6 7 8 9"),
        ("@-2h:-1h", ""),
        ("@2020-01-01:end", "2 3 4 5 6 7 8 9"),
        ("@4000000000", ""),
    ] {
        assert_eq!(get(&["-o", range]), expected, "{range}");
    }
    assert_eq!(get(&["-n", "3"]), "2 3 4");
    assert_eq!(get(&["-n", "0"]), "");
    assert_eq!(get(&["-o", "-5", "-n", "2"]), "5 6");
    assert_eq!(get(&["-f", "-o", "8:10"]), "8 9");
    assert_eq!(get(&["-f", "-n", "1"]), "2");
}

#[test]
fn a_time_finds_the_first_record_at_or_after_it() {
    let (_dir, _node, user) = server();
    user.ok(&["add", "demo"], b"before\n");
    let first = user.ok_text(&["get", "demo", "--format", "%T"]);
    // The next record has a later time only once the clock has moved on.
    let timestamp = |text: String| text.parse::<u128>().unwrap();
    let first = timestamp(first);
    let now_ms = || std::time::UNIX_EPOCH.elapsed().unwrap().as_millis();
    while now_ms() <= first {
        std::thread::yield_now();
    }
    user.ok(&["add", "demo"], b"after\n");
    let second = timestamp(user.ok_text(&["get", "demo", "-o", "1", "--format", "%T"]));
    assert!(second > first);
    assert_eq!(user.ok_text(&["get", "demo", "-o", &format!("@{first}")]), "before\nafter\n");
    assert_eq!(user.ok_text(&["get", "demo", "-o", &format!("@{second}")]), "after\n");
    assert_eq!(user.ok_text(&["get", "demo", "-o", &format!("@:{second}")]), "before\n");
    assert_eq!(user.ok_text(&["get", "demo", "-o", &format!("@{first}:{second}")]), "before\n");
    assert_eq!(user.ok_text(&["get", "demo", "-o", &format!("@{}", second + 1)]), "");
}

#[test]
fn partitions() {
    let (_dir, _node, user) = server();
    user.ok(&["topic", "create", "demo", "--partitions", "3"], b"");
    user.ok(&["add", "demo", "--partition", "1"], b"in 1\n");
    user.ok(&["add", "demo", "--partition", "2"], b"in 2\n");
    assert_eq!(user.ok_text(&["get", "demo", "--format", r"%p %v\n"]), "1 in 1\n2 in 2\n");
    assert_eq!(user.ok_text(&["get", "demo", "-p", "2"]), "in 2\n");

    let follower = user.start(&["get", "demo", "-f", "-n", "3"]);
    let mut seen = [follower.line(), follower.line()];
    seen.sort();
    assert_eq!(seen, ["in 1", "in 2"]);
    user.ok(&["add", "demo", "--partition", "0"], b"in 0\n");
    assert_eq!(follower.line(), "in 0");

    let keyed: String = (0..100).map(|n| format!("{}:{n}\n", n % 7)).collect();
    user.ok(&["add", "demo", "--key-delimiter", ":"], keyed.as_bytes());
    let placed = user.ok_text(&["get", "demo", "--format", r"%k %p\n"]);
    let mut places: Vec<&str> = placed.lines().filter(|line| !line.starts_with(' ')).collect();
    places.sort_unstable();
    places.dedup();
    assert_eq!(places.len(), 7, "every key has one partition: {places:?}");
}

#[test]
fn what_was_added_is_said() {
    let (_dir, _node, user) = server();
    let ended = user.run(&["add", "demo"], b"a\nb\n");
    assert!(
        ended.stderr.starts_with("added 2 records to demo, offsets 0 to 1 (4 B in "),
        "{}",
        ended.stderr
    );
    assert_eq!(user.run(&["add", "demo", "-q"], b"a\n").stderr, "");
    let ended = user.run(&["add", "demo", "-o", "json"], b"a\nb\n");
    assert_eq!(ended.stderr, "");
    let said: serde_json::Value = serde_json::from_slice(&ended.stdout).unwrap();
    assert_eq!(said["records"], 2);
    assert_eq!(said["partitions"][0]["first_offset"], 3);
    assert_eq!(said["partitions"][0]["last_offset"], 4);
}
