//! A secured cluster of real processes, and those who ask it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::node::{HANG, Node};

/// How often is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);

pub(crate) const RULES: &str =
    "p, root, *, *\np, app, orders.*, produce\np, app, orders.*, consume\n";

/// The binary, without anything of whoever runs the tests.
pub(crate) fn dislog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dislog"));
    command.args(args).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

/// Standard output of a command that succeeds.
pub(crate) fn ok(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that fails.
pub(crate) fn refused(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(!output.status.success(), "{command:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

pub(crate) fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// Nodes with certificates, the same rules, and an audit each.
pub(crate) struct Cluster {
    pub(crate) dir: TempDir,
    pub(crate) nodes: Vec<Node>,
}

/// Who somebody proves to be, by whatever means.
#[derive(Clone, Copy)]
pub(crate) enum Who<'a> {
    /// By none.
    Nobody,
    /// By a token.
    Bearer(&'a str),
    /// By a certificate.
    Client(&'a str),
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        Cluster::of(3, |_, _| {})
    }

    /// So many nodes; `prepare` may change what the files in the directory of a node's rules say.
    pub(crate) fn of(count: usize, prepare: impl Fn(usize, &Path)) -> Cluster {
        let mut cluster = Cluster { dir: tempfile::tempdir().unwrap(), nodes: Vec::new() };
        let certs = cluster.at("certs");
        ok(&mut dislog(&["cert", "ca", "--cluster", "x", "--dir", &certs]));
        cluster.make_client("root");
        for number in 0..count {
            let name = format!("node-{number}");
            ok(&mut dislog(&["cert", "server", &name, "--dir", &certs]));
            let auth_dir = cluster.path(&format!("auth-{number}"));
            fs::create_dir(&auth_dir).unwrap();
            let audit = cluster.path(&format!("audit-{number}"));
            let settings = format!("audit = \"file:{}\"\n", audit.display());
            fs::write(auth_dir.join("auth.toml"), settings).unwrap();
            fs::write(auth_dir.join("policy.csv"), RULES).unwrap();
            prepare(number, &auth_dir);
            let mut command = dislog(&["server", "--listen", "127.0.0.1:0", "--auth-dir"]);
            command.arg(&auth_dir).args(["--tls-dir", &format!("{certs}/{name}"), "--data-dir"]);
            command.arg(cluster.path(&format!("data-{number}")));
            if let Some(first) = cluster.nodes.first() {
                command.args(["--join", &first.address]);
            }
            cluster.nodes.push(Node::spawn(command));
        }
        until("nodes that know each other", || {
            (0..count).all(|at| {
                let status = cluster.root(at, &["cluster", "status", "-o", "json"]).output();
                let text = String::from_utf8(status.unwrap().stdout).unwrap();
                cluster.nodes.iter().all(|node| text.contains(&node.address))
            })
        });
        cluster
    }

    /// Makes a certificate for a client.
    pub(crate) fn make_client(&self, name: &str) {
        ok(&mut dislog(&["cert", "client", name, "--dir", &self.at("certs")]));
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    /// A command of somebody with the certificate of root, at one node.
    pub(crate) fn root(&self, node: usize, args: &[&str]) -> Command {
        let mut command = dislog(args);
        command.env("DISLOG_SERVERS", &self.nodes[node].address);
        command.env("DISLOG_TLS_DIR", self.path("certs/root"));
        command
    }

    /// A command of somebody with a token.
    pub(crate) fn bearer(&self, token: &str, node: usize, args: &[&str]) -> Command {
        let mut command = dislog(args);
        command.env("DISLOG_SERVERS", &self.nodes[node].address);
        command.env("DISLOG_TLS_CA", self.path("certs/ca.crt")).env("DISLOG_TOKEN", token);
        command
    }

    /// Status and body of what is answered to curl; what it posts is one record.
    pub(crate) fn curl(
        &self,
        node: usize,
        who: Who<'_>,
        method: &str,
        path: &str,
    ) -> (u16, String) {
        let body = if method == "POST" { "by curl" } else { "" };
        self.curl_with(node, who, method, path, body)
    }

    pub(crate) fn curl_with(
        &self,
        node: usize,
        who: Who<'_>,
        method: &str,
        path: &str,
        body: &str,
    ) -> (u16, String) {
        curl(&self.nodes[node].address, &self.path("certs"), who, method, path, body)
    }

    pub(crate) fn audit(&self, node: usize) -> String {
        fs::read_to_string(self.path(&format!("audit-{node}"))).unwrap_or_default()
    }
}

/// Status and body of what is answered to curl, with certificates below `certs`.
pub(crate) fn curl(
    address: &str,
    certs: &Path,
    who: Who<'_>,
    method: &str,
    path: &str,
    body: &str,
) -> (u16, String) {
    let mut command = Command::new("curl");
    command.args(["-sS", "-w", "\n%{http_code}", "-X", method, "--cacert"]);
    command.arg(certs.join("ca.crt"));
    match who {
        Who::Nobody => {}
        Who::Bearer(token) => {
            command.args(["-H", &format!("authorization: Bearer {token}")]);
        }
        Who::Client(name) => {
            let dir = certs.join(name);
            command.arg("--cert").arg(dir.join("tls.crt")).arg("--key").arg(dir.join("tls.key"));
        }
    }
    if !body.is_empty() {
        command.args(["-d", body]);
    }
    command.arg(format!("https://{address}{path}"));
    let Output { stdout, stderr, .. } = command.output().unwrap();
    let text = String::from_utf8(stdout).unwrap();
    let (body, code) = text.rsplit_once('\n').unwrap();
    let failed = String::from_utf8_lossy(&stderr);
    assert!(failed.is_empty(), "{method} {path}: {failed}");
    (code.parse().unwrap(), body.to_owned())
}

pub(crate) fn set_rules(cluster: &Cluster, node: usize, rules: &str) {
    replace(&cluster.path(&format!("auth-{node}/policy.csv")), rules);
}

/// As tools do it: another file takes the place of the old one.
fn replace(path: &Path, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}
