//! What is said when something is wrong, word for word: it is read more often than anything else.

use crate::{User, server};

fn said(user: &User, args: &[&str], stdin: &[u8]) -> (i32, String) {
    let ended = user.run(args, stdin);
    let stderr = match &user.servers {
        Some(servers) => ended.stderr.replace(servers, "SERVER"),
        None => ended.stderr,
    };
    (ended.status.code().expect("it was not killed"), stderr)
}

#[test]
fn without_a_server() {
    let user = User::without_server();
    // It stays bound, so that nobody else gets it, and never listens.
    let place = tokio::net::TcpSocket::new_v4().unwrap();
    place.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let address = place.local_addr().unwrap().to_string();
    let (code, text) = said(&user, &["get", "demo", "--servers", &address], b"");
    assert_eq!(
        (code, text.replace(&address, "SERVER").as_str()),
        (
            4,
            "error: no server answers at SERVER: connection refused\n \
             hint: check the address, or start a server with `dislog dev` or `dislog server`\n"
        )
    );
    let profile = user.home.path().join(".config/dislog/profile.toml");
    std::fs::create_dir_all(profile.parent().unwrap()).unwrap();
    std::fs::write(&profile, format!("servers = ['{address}']\nwritten_by = 'dislog dev'\n"))
        .unwrap();
    let (code, text) = said(&user, &["topic", "list"], b"");
    let text = text.replace(&address, "SERVER").replace(&profile.display().to_string(), "PROFILE");
    assert_eq!(
        (code, text.as_str()),
        (
            4,
            "error: no server answers at SERVER (from PROFILE): connection refused\n \
             hint: start it again with `dislog dev`, or name another with --servers\n"
        )
    );
}

/// Arguments, standard input, exit code and standard error, for a user of a server whose topic
/// `demo` holds the offsets 1 and 2.
const GOLDEN: &[(&[&str], &[u8], i32, &str)] = &[
    (
        &["add", "demo", "--partition", "4"],
        b"x\n",
        3,
        "error: topic demo has no partition 4, it has 1\n \
             hint: `dislog topic list` shows topics and their partitions, `dislog topic create` \
             makes one\n",
    ),
    (
        &["topic", "create", "wide", "--partitions", "5000"],
        b"",
        2,
        "error: the server refused (INVALID_REQUEST): a topic has 1 to 1024 partitions, \
             not 5000\n",
    ),
    (
        &["get", "nosuch"],
        b"",
        3,
        "error: there is no topic nosuch: create it, or check its name\n \
             hint: `dislog topic list` shows the topics there are; adding a record creates one: \
             echo hi | dislog add nosuch\n",
    ),
    (
        &["get", "demo", "-o", "99"],
        b"",
        3,
        "error: offset 99 is outside demo-0, which begins at 1 and ends before 3\n \
             hint: `-o start` begins with the first record, `-o end -f` waits for the next one\n",
    ),
    (
        &["get", "demo", "-o", "0"],
        b"",
        3,
        "error: offsets 0 up to 1 of demo-0 were trimmed; go on from 1\n \
             hint: these records are gone; `-o start` begins with the first one left\n",
    ),
    (
        &["get", "demo", "-p", "1"],
        b"",
        3,
        "error: topic demo has no partition 1\n hint: it has 1, counted from 0\n",
    ),
    (
        &["get", "demo", "--format", "%x"],
        b"",
        2,
        "error: invalid value '%x' for '--format <FORMAT>': unknown verb %x; there are %v %V \
             (value, its length), %k %K (key), %h %H (headers), %t (topic), %p (partition), \
             %o (offset), %T %d (timestamp) and %%\n\nFor more information, try '--help'.\n",
    ),
    (
        &["add", "de/mo"],
        b"",
        2,
        "error: topic name \"de/mo\" has '/'; letters, digits, '.', '_' and '-' are allowed\n",
    ),
    (
        &["add", "demo", "no-such-file"],
        b"",
        2,
        "error: cannot read no-such-file: No such file or directory (os error 2)\n",
    ),
    (
        &["add", "demo", "-q", "--key-delimiter", ":"],
        b"a:b\nc\n",
        1,
        "error: line 2 of standard input has no key: \":\" is not in it\n \
             hint: every record needs --key-delimiter; what came before it was added\n",
    ),
    (
        &["topic", "create", "demo"],
        b"",
        1,
        "error: topic demo exists already\n \
             hint: `dislog topic describe` shows it, `dislog topic alter` changes it\n",
    ),
    (
        &["topic", "trim", "demo", "9", "--yes"],
        b"",
        3,
        "error: offset 9 is beyond the end of demo-0, which is 4\n \
             hint: give `end` to drop everything there is\n",
    ),
];

#[test]
fn with_a_server() {
    let (_dir, _node, user) = server();
    user.ok(&["add", "demo"], b"0\n1\n2\n");
    user.ok(&["topic", "trim", "demo", "1", "--yes"], b"");
    for (args, stdin, code, text) in GOLDEN {
        assert_eq!(said(&user, args, stdin), (*code, (*text).to_owned()), "{args:?}");
    }
}

#[test]
fn a_line_longer_than_a_record_is_named() {
    let (_dir, _node, user) = server();
    let input = [b"ok\n".to_vec(), vec![b'x'; 9 << 20]].concat();
    let text = "error: line 2 of standard input is larger than a record may be, 8,323,072 bytes\n \
                hint: split it, or choose another --delimiter; what came before it was added\n";
    assert_eq!(said(&user, &["add", "demo", "-q"], &input), (1, text.to_owned()));
    assert_eq!(user.ok_text(&["get", "demo"]), "ok\n");
}

#[test]
fn a_server_names_the_setting_it_cannot_use() {
    let user = User::without_server();
    let (code, text) = said(&user, &["server", "--listen", "nowhere"], b"");
    assert_eq!(code, 2);
    assert!(
        text.starts_with("error: ") && text.contains("listen") && text.contains("nowhere"),
        "{text}"
    );
    assert!(text.contains("\n hint: "), "{text}");
    let (code, text) = said(&user, &["verify", "/no/such/dir"], b"");
    assert_eq!(code, 2);
    assert!(text.contains("/no/such/dir"), "{text}");
}

/// Whoever names a certificate does not want to be without one.
#[test]
fn half_of_the_tls_variables_are_not_ignored() {
    let (_data, _node, user) = server();
    for (set, missing) in [
        (&["DISLOG_TLS_CERT", "DISLOG_TLS_KEY"][..], "DISLOG_TLS_CA is not set"),
        (&["DISLOG_TLS_KEY"], "DISLOG_TLS_CA is not set"),
        (&["DISLOG_TLS_CA", "DISLOG_TLS_CERT"], "only one of DISLOG_TLS_CERT and DISLOG_TLS_KEY"),
    ] {
        let mut command = user.command(&["topic", "list"]);
        command.envs(set.iter().map(|name| (name, "/some/file")));
        let output = command.output().unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && said.contains(missing), "{set:?}: {said}");
    }
}

#[test]
fn settings_are_printed_with_their_origin() {
    let user = User::without_server();
    let printed = user.ok_text(&["server", "--print-config", "--listen", "127.0.0.1:1"]);
    let line = printed.lines().find(|line| line.starts_with("listen")).unwrap();
    assert!(line.contains("\"127.0.0.1:1\"") && line.ends_with("# flag"), "{line}");
}

#[test]
fn every_shell_gets_its_completion() {
    let user = User::without_server();
    for shell in ["bash", "zsh", "fish"] {
        assert!(user.ok_text(&["completion", shell]).contains("consume"), "{shell}");
    }
}
