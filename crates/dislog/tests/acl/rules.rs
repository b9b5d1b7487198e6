//! The same rules and tokens on every node, and for what nodes do for each other.

use std::fs;
use std::process::Command;

use rustix::process::Signal;

use crate::cluster::{Cluster, RULES, Who, ok, refused, set_rules, until};

#[test]
fn rules_and_tokens_hold_on_every_node_and_for_what_is_sent_on() {
    let cluster = Cluster::start();
    ok(&mut cluster.root(0, &["topic", "create", "orders.eu", "secret"]));
    let token = ok(&mut cluster.root(1, &["token", "create", "app", "--expires", "1h"]));
    let token = token.trim();
    assert!(token.starts_with("dislog_"));
    // Whichever node is asked: two of three have to send it on, and the leader decides again.
    for at in 0..3 {
        let records = "/v1/topics/orders.eu/records";
        let (code, body) = cluster.curl(at, Who::Bearer(token), "POST", records);
        assert_eq!(code, 201, "{body}");
        let (code, body) =
            cluster.curl(at, Who::Bearer(token), "POST", "/v1/topics/secret/records");
        assert!(code == 403 && body.contains("no right to produce secret"), "{code} {body}");
        let (code, _) = cluster.curl(at, Who::Nobody, "POST", records);
        assert_eq!(code, 401);
        let (code, body) = cluster.curl(at, Who::Bearer(token), "GET", "/v1/topics");
        assert!(code == 200 && body.contains("orders.eu") && !body.contains("secret"), "{body}");
        // Who is sent on is who asked, not the node that sends.
        let why = refused(&mut cluster.bearer(token, at, &["topic", "delete", "-y", "orders.eu"]));
        assert!(why.contains("no right to admin orders.eu"), "{why}");
        let why = refused(&mut cluster.bearer(token, at, &["token", "create", "root"]));
        assert!(why.contains("no right to admin @cluster"), "{why}");
    }
    // Whether nodes may be stopped also depends on what is not shown.
    let check = ["cluster", "check", &cluster.nodes[0].address];
    let why = refused(&mut cluster.bearer(token, 0, &check));
    assert!(why.contains("rights of somebody who may see every topic"), "{why}");
    let got = ok(&mut cluster.bearer(token, 0, &["get", "orders.eu"]));
    assert_eq!(got, "by curl\n".repeat(3));
    let forged = "dislog_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(cluster.curl(0, Who::Bearer(forged), "GET", "/v1/topics").0, 401);

    // By a certificate without the right, nobody can pretend to send on what root asks.
    let mut pretending = Command::new("curl");
    pretending.args(["-sS", "-H", "dislog-on-behalf-of: cm9vdA", "--cacert"]);
    pretending.arg(cluster.path("certs/ca.crt"));
    pretending.args(["-H", &format!("authorization: Bearer {token}")]);
    let url = format!("https://{}/v1/topics/secret", cluster.nodes[0].address);
    assert!(ok(pretending.arg(url)).contains("PERMISSION_DENIED"));

    // Revoked by way of one node, it is worth nothing at any.
    ok(&mut cluster.root(2, &["token", "revoke", "--yes", "app"]));
    for at in 0..3 {
        shows(&cluster, at, token, 401, "revoked");
    }
    until("it is recorded who did what", || {
        let audit = cluster.audit(2);
        let is_revoked = |line: &str| {
            line.contains("RevokeToken")
                && line.contains("\"subject\":\"root\"")
                && line.contains("\"by\":\"certificate\"")
                && line.contains("\"allowed\":true")
        };
        audit.lines().any(is_revoked)
    });
    let audit = cluster.audit(0);
    let is_of_app = |line: &&str| line.contains("\"app\"") && line.contains("\"secret\"");
    let denied = audit.lines().filter(is_of_app);
    assert!(denied.clone().count() >= 1);
    assert!(denied.clone().all(|line| line.contains("\"allowed\":false")), "{audit}");
    for at in 0..3 {
        let said = cluster.nodes[at].output() + &cluster.audit(at);
        assert!(!said.contains(token), "the token is in what node {at} said");
    }
}

#[test]
fn nodes_with_other_rules_are_found_and_bad_rules_change_nothing() {
    let cluster = Cluster::start();
    let check = |action: &str, topic: &str| {
        let mut command = cluster.root(0, &["acl", "check", "app", action, topic]);
        command.output().unwrap()
    };
    let said = check("produce", "orders.eu");
    let text = String::from_utf8(said.stdout).unwrap();
    assert!(said.status.success(), "{text}");
    let rule = "policy.csv:2: p, app, orders.*, produce, allow";
    assert_eq!(text.matches(rule).count(), 3, "{text}");
    assert_eq!(check("produce", "secret").status.code(), Some(1));

    set_rules(&cluster, 1, "p, root, *, *\n");
    until("the other rules are found", || {
        let said = check("produce", "orders.eu");
        let why = String::from_utf8(said.stderr).unwrap();
        said.status.code() == Some(1) && why.contains("different rules")
    });
    set_rules(&cluster, 1, RULES);
    until("the rules are the same again", || check("produce", "orders.eu").status.success());
    set_rules(&cluster, 1, "p, root, *, everything\n");
    until("the node says what is wrong", || {
        let said = cluster.nodes[1].output();
        said.contains("policy.csv line 1") && said.contains("the old ones stay in use")
    });
    assert!(check("produce", "orders.eu").status.success());
}

#[test]
fn a_token_is_good_everywhere_when_it_is_made_and_nowhere_when_it_is_revoked() {
    let cluster = Cluster::start();
    for round in 0..8 {
        let (one, other) = (round % 3, (round + 1) % 3);
        let token = ok(&mut cluster.root(one, &["token", "create", "app"]));
        for at in 0..3 {
            shows(&cluster, at, token.trim(), 200, &format!("made by way of {one}"));
        }
        ok(&mut cluster.root(other, &["token", "revoke", "--yes", "app"]));
        for at in 0..3 {
            shows(&cluster, at, token.trim(), 401, &format!("revoked by way of {other}"));
        }
    }
}

/// A node knows of a token's change; at once, unless one says that it could not wait for all.
fn shows(cluster: &Cluster, at: usize, token: &str, expected: u16, what: &str) {
    let (code, body) = cluster.curl(at, Who::Bearer(token), "GET", "/v1/topics");
    if code == expected {
        return;
    }
    let said = cluster.nodes.iter().any(|node| node.output().contains("a token's change"));
    assert!(said, "{what}, shown to {at}: {code} {body}");
    until(what, || cluster.curl(at, Who::Bearer(token), "GET", "/v1/topics").0 == expected);
}

#[test]
fn sighup_makes_a_node_read_again_what_it_could_not_notice() {
    let cluster = Cluster::of(1, |_, _| {});
    let token = ok(&mut cluster.root(0, &["token", "create", "app"]));
    let list = || cluster.curl(0, Who::Bearer(token.trim()), "GET", "/v1/topics/orders.eu").0;
    assert_eq!(list(), 404, "it may see whether it exists");
    // Another directory in the place of the one that is watched.
    let (auth, new) = (cluster.path("auth-0"), cluster.path("auth-new"));
    fs::create_dir(&new).unwrap();
    for file in ["auth.toml", "policy.csv"] {
        fs::copy(auth.join(file), new.join(file)).unwrap();
    }
    fs::rename(&auth, cluster.path("auth-old")).unwrap();
    fs::rename(&new, &auth).unwrap();
    set_rules(&cluster, 0, "p, root, *, *\n");
    cluster.nodes[0].signal(Signal::HUP);
    until("the new rules are in use", || list() == 403);
    assert!(cluster.nodes[0].output().contains("certificates and rules are read again"));
    ok(&mut cluster.root(0, &["topic", "list"]));
}

#[test]
fn a_probe_names_partitions_to_those_who_may_know_of_them() {
    let mut cluster = Cluster::start();
    ok(&mut cluster.root(0, &["topic", "create", "secret"]));
    for client in ["app", "nobody"] {
        cluster.make_client(client);
    }
    set_rules(&cluster, 0, "p, root, *, *\np, app, secret, consume\n");
    for node in cluster.nodes.drain(1..) {
        node.kill();
    }
    let ready = |who| cluster.curl(0, who, "GET", "/readyz");
    until("the node is alone", || {
        let (code, why) = ready(Who::Client("root"));
        code == 503 && why.contains("secret")
    });
    // By the new rules, that is.
    until("who may read it is told, too", || ready(Who::Client("app")).1.contains("secret"));
    for who in [Who::Nobody, Who::Client("nobody")] {
        let (code, why) = ready(who);
        assert_eq!(code, 503);
        assert!(why.contains("partitions that cannot serve: 1"), "{why}");
        assert!(!why.contains("secret"), "{why}");
    }
}
