//! Rules, tokens and audit on a secured cluster of three real processes.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "support of tests may fail them")]

mod node;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use node::{HANG, Node};
use tempfile::TempDir;

/// How often is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const RULES: &str = "p, root, *, *\np, app, orders.*, produce\np, app, orders.*, consume\n";

fn dislog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dislog"));
    command.args(args).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that fails.
fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Three nodes with certificates, the same rules, and an audit each.
struct Cluster {
    dir: TempDir,
    nodes: Vec<Node>,
}

impl Cluster {
    fn start() -> Cluster {
        let mut cluster = Cluster { dir: tempfile::tempdir().unwrap(), nodes: Vec::new() };
        let certs = cluster.at("certs");
        ok(&mut dislog(&["cert", "ca", "--cluster", "x", "--dir", &certs]));
        ok(&mut dislog(&["cert", "client", "root", "--dir", &certs]));
        for number in 0..3 {
            let name = format!("node-{number}");
            ok(&mut dislog(&["cert", "server", &name, "--dir", &certs]));
            let auth_dir = cluster.path(&format!("auth-{number}"));
            fs::create_dir(&auth_dir).unwrap();
            let audit = cluster.path(&format!("audit-{number}"));
            let settings = format!("audit = \"file:{}\"\n", audit.display());
            fs::write(auth_dir.join("auth.toml"), settings).unwrap();
            fs::write(auth_dir.join("policy.csv"), RULES).unwrap();
            let mut command = dislog(&["server", "--listen", "127.0.0.1:0", "--auth-dir"]);
            command.arg(&auth_dir).args(["--tls-dir", &format!("{certs}/{name}"), "--data-dir"]);
            command.arg(cluster.path(&format!("data-{number}")));
            if let Some(first) = cluster.nodes.first() {
                command.args(["--join", &first.address]);
            }
            cluster.nodes.push(Node::spawn(command));
        }
        until("three nodes that know each other", || {
            (0..3).all(|at| {
                let status = cluster.root(at, &["cluster", "status", "-o", "json"]).output();
                let text = String::from_utf8(status.unwrap().stdout).unwrap();
                cluster.nodes.iter().all(|node| text.contains(&node.address))
            })
        });
        cluster
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A command of somebody with the certificate of root, at one node.
    fn root(&self, node: usize, args: &[&str]) -> Command {
        let mut command = dislog(args);
        command.env("DISLOG_SERVERS", &self.nodes[node].address);
        command.env("DISLOG_TLS_DIR", self.path("certs/root"));
        command
    }

    /// A command of somebody with a token.
    fn bearer(&self, token: &str, node: usize, args: &[&str]) -> Command {
        let mut command = dislog(args);
        command.env("DISLOG_SERVERS", &self.nodes[node].address);
        command.env("DISLOG_TLS_CA", self.path("certs/ca.crt")).env("DISLOG_TOKEN", token);
        command
    }

    fn curl(&self, node: usize, token: Option<&str>, method: &str, path: &str) -> (u16, String) {
        let mut command = Command::new("curl");
        command.args(["-sS", "-w", "\n%{http_code}", "-X", method, "--cacert"]);
        command.arg(self.path("certs/ca.crt"));
        if let Some(token) = token {
            command.args(["-H", &format!("authorization: Bearer {token}")]);
        }
        if method == "POST" {
            command.args(["-d", "by curl"]);
        }
        command.arg(format!("https://{}{path}", self.nodes[node].address));
        let Output { stdout, stderr, .. } = command.output().unwrap();
        let text = String::from_utf8(stdout).unwrap();
        let (body, code) = text.rsplit_once('\n').unwrap();
        let failed = String::from_utf8_lossy(&stderr);
        (code.parse().unwrap_or_else(|_| panic!("{text} {failed}")), body.to_owned())
    }

    fn audit(&self, node: usize) -> String {
        fs::read_to_string(self.path(&format!("audit-{node}"))).unwrap_or_default()
    }
}

fn set_rules(cluster: &Cluster, node: usize, rules: &str) {
    let path = cluster.path(&format!("auth-{node}/policy.csv"));
    replace(&path, rules);
}

/// As tools do it: another file takes the place of the old one.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

#[test]
fn rules_and_tokens_hold_on_every_node_and_for_what_is_sent_on() {
    let cluster = Cluster::start();
    ok(&mut cluster.root(0, &["topic", "create", "orders.eu", "secret"]));
    let token = ok(&mut cluster.root(1, &["token", "create", "app", "--expires", "1h"]));
    let token = token.trim();
    assert!(token.starts_with("dislog_"));
    until("all nodes know the token", || {
        (0..3).all(|at| cluster.curl(at, Some(token), "GET", "/v1/topics").0 == 200)
    });
    // Whichever node is asked: two of three have to send it on, and the leader decides again.
    for at in 0..3 {
        let records = "/v1/topics/orders.eu/records";
        let (code, body) = cluster.curl(at, Some(token), "POST", records);
        assert_eq!(code, 201, "{body}");
        let (code, body) = cluster.curl(at, Some(token), "POST", "/v1/topics/secret/records");
        assert!(code == 403 && body.contains("no right to produce secret"), "{code} {body}");
        let (code, _) = cluster.curl(at, None, "POST", records);
        assert_eq!(code, 401);
        let (code, body) = cluster.curl(at, Some(token), "GET", "/v1/topics");
        assert!(code == 200 && body.contains("orders.eu") && !body.contains("secret"), "{body}");
        // Who is sent on is who asked, not the node that sends.
        let why = refused(&mut cluster.bearer(token, at, &["topic", "delete", "-y", "orders.eu"]));
        assert!(why.contains("no right to admin orders.eu"), "{why}");
        let why = refused(&mut cluster.bearer(token, at, &["token", "create", "root"]));
        assert!(why.contains("no right to admin @cluster"), "{why}");
    }
    let got = ok(&mut cluster.bearer(token, 0, &["get", "orders.eu"]));
    assert_eq!(got, "by curl\n".repeat(3));
    let forged = "dislog_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    assert_eq!(cluster.curl(0, Some(forged), "GET", "/v1/topics").0, 401);

    // By a certificate without the right, nobody can pretend to send on what root asks.
    let mut pretending = Command::new("curl");
    pretending.args(["-sS", "-H", "dislog-on-behalf-of: cm9vdA", "--cacert"]);
    pretending.arg(cluster.path("certs/ca.crt"));
    pretending.args(["-H", &format!("authorization: Bearer {token}")]);
    let url = format!("https://{}/v1/topics/secret", cluster.nodes[0].address);
    assert!(ok(pretending.arg(url)).contains("PERMISSION_DENIED"));

    // Revoked by way of one node, it is worth nothing at any.
    ok(&mut cluster.root(2, &["token", "revoke", "--yes", "app"]));
    until("no node takes the token", || {
        (0..3).all(|at| cluster.curl(at, Some(token), "GET", "/v1/topics").0 == 401)
    });
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
