//! Who gets in and who does not: real processes, real certificates.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "support of tests may fail them")]

mod expiry;
#[path = "../node/mod.rs"]
mod node;
mod replay;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use dislog_client::{Client, ClientOptions, ClientTls, Error, Files, Record};
use dislog_tls::{NodeTls, Stream};
use node::{HANG, Node};
use rcgen::{
    CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair, SanType, date_time_ymd,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// How often is looked whether something has happened.
const LOOK_EVERY: Duration = Duration::from_millis(20);

fn dislog(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_dislog"));
    command.args(args).env_clear().env("HOME", "/nonexistent").stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    dislog(args).output().unwrap()
}

fn ok(args: &[&str]) -> String {
    let output = run(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Standard error of a command that fails.
fn refused(args: &[&str]) -> String {
    let output = run(args);
    assert!(!output.status.success(), "{args:?} succeeds");
    String::from_utf8(output.stderr).unwrap()
}

fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !is_so() {
        assert!(Instant::now() < end, "not in time: {what}");
        std::thread::sleep(LOOK_EVERY);
    }
}

/// A directory with an authority and what it made.
struct Certs(TempDir);

impl Certs {
    fn new(cluster: &str) -> Certs {
        let certs = Certs(tempfile::tempdir().unwrap());
        ok(&["cert", "ca", "--cluster", cluster, "--dir", &certs.at("")]);
        certs
    }

    fn at(&self, name: &str) -> String {
        self.path(name).to_str().unwrap().to_owned()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn make(&self, kind: &str, name: &str) -> String {
        ok(&["cert", kind, name, "--dir", &self.at("")]);
        self.at(name)
    }

    /// A certificate that the commands do not make, of a client unless `change` says otherwise.
    fn odd(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
        let read = |file: &str| std::fs::read_to_string(self.path(file)).unwrap();
        let key = KeyPair::from_pem(&read("ca.key")).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&read("ca.crt"), key).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2120, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &issuer).unwrap();
        std::fs::create_dir(self.path(name)).unwrap();
        let write = |file: &str, text: &str| {
            std::fs::write(self.path(name).join(file), text).unwrap();
        };
        write("tls.crt", &certificate.pem());
        write("tls.key", &key.serialize_pem());
        write("ca.crt", &read("ca.crt"));
        self.at(name)
    }
}

/// A node with certificates.
fn server(data: &Path, tls_dir: &str, more: &[&str]) -> Node {
    let mut command = dislog(&["server", "--listen", "127.0.0.1:0", "--tls-dir", tls_dir]);
    command.args(more).arg("--data-dir").arg(data);
    Node::spawn(command)
}

/// A node for each of three directories of certificates, all of one cluster, as `client` sees them.
fn three_nodes(data: &Path, tls_dirs: &[String], client: &str) -> Vec<Node> {
    let mut nodes: Vec<Node> = Vec::new();
    for (number, tls_dir) in tls_dirs.iter().enumerate() {
        let join = nodes.first().map(|first| ["--join".to_owned(), first.address.clone()]);
        let join: Vec<&str> = join.iter().flatten().map(String::as_str).collect();
        nodes.push(server(&data.join(number.to_string()), tls_dir, &join));
    }
    until("three nodes are there", || alive(&nodes[0].address, client) == 3);
    nodes
}

/// A connection with the certificate of `tls_dir` that offers `protocol`.
async fn connected(address: &str, tls_dir: &str, protocol: &[u8]) -> Stream {
    let config = node::tls::config(Path::new(tls_dir), protocol);
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let name = rustls::pki_types::ServerName::try_from("localhost").unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect(name, stream).await.unwrap();
    Stream::Tls(Box::new(tokio_rustls::TlsStream::Client(stream)))
}

/// What is answered to one who speaks the protocol of nodes.
async fn peer_answer(mut stream: Stream) -> String {
    stream.write_all(b"\0DISLOG PEER\r\n\r\n").await.unwrap();
    stream.flush().await.unwrap();
    let mut answer = Vec::new();
    let reading = tokio::time::timeout(HANG, stream.read_to_end(&mut answer));
    // How it ends makes no difference.
    let _ = reading.await.expect("the connection is ended");
    String::from_utf8_lossy(&answer).into_owned()
}

/// Bytes that are sent as they are, and what comes back.
fn raw(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer);
    answer
}

/// The first message of a client that speaks TLS 1.2 at most.
fn tls12_client_hello() -> Vec<u8> {
    // Version, random, no session, one cipher suite, no compression, then signature algorithms,
    // groups and point formats: all that a server needs.
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]);
    let extensions =
        [&[0, 13, 0, 4, 0, 2, 4, 3][..], &[0, 10, 0, 4, 0, 2, 0, 23], &[0, 11, 0, 2, 1, 0]]
            .concat();
    body.extend([0, u8::try_from(extensions.len()).unwrap()]);
    body.extend(extensions);
    let len = |n: usize| u8::try_from(n).unwrap();
    let handshake = [&[1, 0, 0, len(body.len())][..], &body].concat();
    [&[22, 3, 1, 0, len(handshake.len())][..], &handshake].concat()
}

/// What happens again and again is logged, once.
fn is_said_once(node: &Node, what: &str) {
    until("it is logged", || node.output().contains(what));
    assert_eq!(node.output().matches(what).count(), 1, "{}", node.output());
}

#[test]
fn whoever_does_not_belong_is_refused() {
    let (certs, others) = (Certs::new("orders"), Certs::new("orders"));
    let data = tempfile::tempdir().unwrap();
    let node = server(&data.path().join("a"), &certs.make("server", "anton"), &[]);
    let at = node.address.as_str();
    let alice = certs.make("client", "alice");
    let with = |tls_dir: &str| refused(&["topic", "list", "--servers", at, "--tls-dir", tls_dir]);
    ok(&["topic", "create", "demo", "--servers", at, "--tls-dir", &alice]);
    let state = || {
        let list = ok(&["topic", "list", "--servers", at, "--tls-dir", &alice]);
        let status = ["cluster", "status", "-o", "json", "--servers", at, "--tls-dir", &alice];
        let status: serde_json::Value = serde_json::from_str(&ok(&status)).unwrap();
        (list, status["nodes"].as_array().map(Vec::len))
    };
    let before = state();

    let nobody = certs.at("nobody");
    std::fs::create_dir(&nobody).unwrap();
    std::fs::copy(certs.path("ca.crt"), certs.path("nobody/ca.crt")).unwrap();
    let said = with(&nobody);
    assert!(said.contains("UNAUTHENTICATED") && said.contains("dislog cert client"), "{said}");
    let eve = others.make("client", "eve");
    assert!(with(&eve).contains("not from an authority in ca.crt"), "{}", with(&eve));
    std::fs::copy(certs.path("ca.crt"), others.path("eve/ca.crt")).unwrap();
    assert!(with(&eve).contains("refuses our certificate"), "{}", with(&eve));
    let late = certs.odd("late", |params| params.not_after = date_time_ymd(2021, 1, 1));
    assert!(with(&late).contains("has expired"), "{}", with(&late));
    let early = certs.odd("early", |params| params.not_before = date_time_ymd(2119, 1, 1));
    assert!(with(&early).contains("not valid yet"), "{}", with(&early));
    refused_by_the_server(&node, &[&eve, &late, &early]);

    // Protocols that are not spoken.
    assert_eq!(raw(at, &tls12_client_hello()), [21, 3, 3, 0, 2, 2, 70], "protocol_version");
    let http = String::from_utf8(raw(at, b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n")).unwrap();
    assert!(http.starts_with("HTTP/1.1 400 ") && http.contains("speaks TLS"), "{http}");
    let said = refused(&["topic", "list", "--servers", at]);
    assert!(said.contains("speaks TLS") && said.contains("--tls-dir"), "{said}");
    let peer = raw(at, b"\0DISLOG PEER\r\n\r\n");
    assert!(String::from_utf8_lossy(&peer).contains("speaks TLS"), "{peer:?}");
    until("it is logged", || node.output().contains("it does not speak TLS"));

    // Certificates that are good, but not for that.
    let other_node = certs.odd("other-node", |params| {
        let role = "dislog://payments/node/anton".to_owned().try_into().unwrap();
        params.subject_alt_names = vec![SanType::URI(role)];
    });
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for tls_dir in [&alice, &other_node] {
        let answer = async { peer_answer(connected(at, tls_dir, b"dislog-peer").await).await };
        let answer = runtime.block_on(answer);
        assert!(answer.contains("not that of a node of this cluster"), "{tls_dir}: {answer}");
    }
    is_said_once(&node, "not that of a node of this cluster");
    let wrong_name = runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(at).await.unwrap();
        let tls = ClientTls::new(Files::in_dir(Path::new(&alice))).unwrap();
        tls.connect("elsewhere.example:8400", stream).await.unwrap_err().to_string()
    });
    assert!(wrong_name.contains("for another host name"), "{wrong_name}");

    // Nodes that do not belong here.
    let foreign = others.make("server", "foreign");
    let foreign = server(&data.path().join("b"), &foreign, &["--join", at]);
    until("the foreign node is refused", || foreign.output().contains("cannot reach a node"));
    assert!(foreign.output().contains("authority"), "{}", foreign.output());

    assert_eq!(state(), before, "nothing has changed");
    std::fs::remove_dir_all(certs.path("alice")).unwrap();
    assert_eq!(node.terminate().0.code(), Some(0));
}

/// A client of ours does not even dial with certificates like these; the server must refuse them
/// by itself.
fn refused_by_the_server(node: &Node, tls_dirs: &[&String]) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for tls_dir in tls_dirs {
        let ended = runtime.block_on(async {
            let mut stream = connected(&node.address, tls_dir, b"http/1.1").await;
            // Either may notice first.
            let _ = stream.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await;
            let mut answer = Vec::new();
            let read = tokio::time::timeout(HANG, stream.read_to_end(&mut answer)).await.unwrap();
            (read.is_err(), answer)
        });
        assert_eq!(ended, (true, Vec::new()), "{tls_dir}");
    }
    for why in ["is not from an authority", "has expired", "is not valid yet"] {
        let logged = format!("the other side's certificate {why}");
        until(why, || node.output().contains(&logged));
    }
}

#[test]
fn nodes_start_protected_or_not_at_all() {
    let data = tempfile::tempdir().unwrap();
    let dir = data.path().to_str().unwrap();
    let said = refused(&["server", "--data-dir", dir, "--listen", "127.0.0.1:0"]);
    assert!(said.contains("dislog cert") && said.contains("--insecure"), "{said}");
    let said = refused(&["server", "--data-dir", dir, "--listen", "0.0.0.0:0", "--insecure"]);
    assert!(said.contains("--insecure=anywhere"), "{said}");
    let certs = Certs::new("orders");
    let alice = certs.make("client", "alice");
    let args = ["server", "--data-dir", dir, "--listen", "127.0.0.1:0", "--tls-dir", &alice];
    assert!(refused(&args).contains("not that of a node"), "{}", refused(&args));
    let node = Node::start(data.path());
    assert!(node.output().contains("INSECURE"), "it says so");
    let tls = ["topic", "list", "--servers", &node.address, "--tls-dir", &alice];
    assert!(refused(&tls).contains("does not speak TLS"), "{}", refused(&tls));
}

#[test]
fn certificates_are_not_replaced_by_accident() {
    let certs = Certs::new("orders");
    let again = refused(&["cert", "ca", "--dir", &certs.at("")]);
    assert!(again.contains("ca.key exists") && again.contains("--force"), "{again}");
    certs.make("client", "alice");
    assert!(refused(&["cert", "client", "alice", "--dir", &certs.at("")]).contains("exists"));
    let rsa = refused(&["cert", "client", "bob", "--key-type", "rsa", "--dir", &certs.at("")]);
    assert!(rsa.contains("openssl genpkey"), "{rsa}");
    for wrong in ["a/b", "..", "", "anonymous", "a\nb"] {
        refused(&["cert", "client", wrong, "--dir", &certs.at("")]);
    }
    let shown = ok(&["cert", "show", "-o", "json", &certs.at("alice"), &certs.at("")]);
    let shown: serde_json::Value = serde_json::from_str(&shown).unwrap();
    assert_eq!((&shown[0]["subject"], &shown[0]["role"]), (&"alice".into(), &"client".into()));
    // Within the second in which it was made, not even a second of the year is over.
    assert!(matches!(shown[0]["days_left"].as_u64(), Some(364 | 365)), "{shown}");
    assert_eq!(shown[1]["role"], "authority");
}

/// Keeps adding records, over one connection and over a new one for each.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: tokio::task::JoinHandle<Vec<Error>>,
}

impl Load {
    fn start(runtime: &tokio::runtime::Runtime, servers: Vec<String>, tls_dir: &str) -> Load {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let client = client(&servers, tls_dir);
        let (stopped, counted, tls_dir) = (stop.clone(), done.clone(), tls_dir.to_owned());
        let failed = runtime.spawn(async move {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                let new = self::client(&servers, &tls_dir);
                for client in [&client, &new] {
                    let produced = client.produce("demo", 0, vec![Record::new("x")], None).await;
                    failed.extend(produced.err());
                }
                counted.fetch_add(1, Ordering::Relaxed);
            }
            failed
        });
        Load { stop, done, failed }
    }

    /// Waits until a few were added since it was called.
    fn goes_on(&self) {
        let before = self.done.load(Ordering::Relaxed);
        until("records are added", || self.done.load(Ordering::Relaxed) > before + 2);
    }
}

/// How many nodes are alive, and answer, as one of them sees it.
fn alive(at: &str, tls_dir: &str) -> usize {
    let args = ["cluster", "status", "-o", "json", "--servers", at, "--tls-dir", tls_dir];
    let status: serde_json::Value = serde_json::from_slice(&run(&args).stdout).unwrap_or_default();
    let alive = |node: &&serde_json::Value| node["alive"] == true && node["answers"] == true;
    status["nodes"].as_array().map_or(0, |nodes| nodes.iter().filter(alive).count())
}

fn client(servers: &[String], tls_dir: &str) -> Client {
    // Files that are being replaced may not fit each other for a while.
    let end = Instant::now() + HANG;
    let tls = loop {
        match ClientTls::new(Files::in_dir(Path::new(tls_dir))) {
            Ok(tls) => break tls,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
    };
    let options = ClientOptions { tls: Some(tls), ..ClientOptions::default() };
    Client::connect(servers, options).unwrap()
}

#[test]
fn certificates_and_their_authority_are_replaced_under_load() {
    let (old, new) = (Certs::new("orders"), Certs::new("orders"));
    let data = tempfile::tempdir().unwrap();
    let dirs: Vec<String> =
        ["anton", "berta", "caesar"].map(|name| old.make("server", name)).into();
    let alice = old.make("client", "alice");
    let nodes = three_nodes(data.path(), &dirs, &alice);
    let at = nodes[0].address.as_str();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let servers = nodes.iter().map(|node| node.address.clone()).collect();
    let load = Load::start(&runtime, servers, &alice);
    load.goes_on();
    // With the certificate of the old authority, which is not used for a new one.
    let (_requests, old_timer) = runtime.block_on(expiry::http2(at, &alice));
    let taken = |count: usize| {
        let new = |node: &Node| node.output().matches("new certificates are used").count();
        until("the new files are used", || nodes.iter().all(|node| new(node) >= count));
        load.goes_on();
    };
    let all: Vec<&String> = dirs.iter().chain([&alice]).collect();

    // A bad file changes nothing.
    let crt = Path::new(&dirs[0]).join("tls.crt");
    let good = std::fs::read(&crt).unwrap();
    std::fs::write(&crt, "no certificate").unwrap();
    until("it is said", || nodes[0].output().contains("the old ones stay in use"));
    load.goes_on();
    std::fs::write(&crt, good).unwrap();
    // Certificates of the same authority.
    for dir in &all {
        ok(&["cert", "renew", dir, "--dir", &old.at("")]);
    }
    taken(1);
    // Another authority: known to all first, then used, then the only one.
    for dir in &all {
        let mut known = std::fs::read_to_string(old.path("ca.crt")).unwrap();
        known += &std::fs::read_to_string(new.path("ca.crt")).unwrap();
        std::fs::write(Path::new(dir).join("ca.crt"), known).unwrap();
    }
    taken(2);
    for dir in &all {
        ok(&["cert", "renew", dir, "--dir", &new.at("")]);
    }
    taken(3);
    assert!(!old_timer.is_finished(), "its authority is still trusted");
    for dir in &all {
        std::fs::copy(new.path("ca.crt"), Path::new(dir).join("ca.crt")).unwrap();
    }
    taken(4);
    load.stop.store(true, Ordering::Relaxed);
    let failed = runtime.block_on(load.failed).unwrap();
    // A leader may lose its office on a busy machine, and says so; but not by any of this.
    let lost_office = |error: &Error| {
        matches!(error, Error::UnknownOutcome { last, .. }
            if last.contains("the outcome of the append is unknown"))
    };
    assert!(failed.iter().all(lost_office) && failed.len() <= 2, "{failed:?}");
    runtime.block_on(expiry::is_ended(old_timer));

    // Who still has a certificate of the old one stays out; nodes know each other by the new one.
    let bob = old.make("client", "bob");
    let said = refused(&["topic", "list", "--servers", at, "--tls-dir", &bob]);
    assert!(said.contains("authority"), "{said}");
    let tls = NodeTls::load(&Files::in_dir(Path::new(&dirs[2]))).unwrap();
    assert_eq!(tls.role.to_string(), "dislog://orders/node/caesar");
}

#[test]
fn a_secured_local_cluster_is_as_easy_as_an_open_one() {
    let home = tempfile::tempdir().unwrap();
    let command = |args: &[&str]| {
        let mut command = dislog(args);
        command.env("HOME", home.path());
        command
    };
    let mut dev = command(&["dev", "--secure", "--port", "0"]);
    let mut dev = dev.stdout(Stdio::piped()).spawn().unwrap();
    let profile = home.path().join(".config/dislog/profile.toml");
    until("it is up", || profile.exists());
    let topic = command(&["topic", "create", "demo"]).output().unwrap();
    assert!(topic.status.success(), "{}", String::from_utf8_lossy(&topic.stderr));
    let key = home.path().join(".local/share/dislog/dev/certs/dev/tls.key");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(key).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let pid = rustix::process::Pid::from_child(&dev);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    dev.wait().unwrap();
}

/// OpenSSL's, with RSA keys and an authority in between that the nodes do not know.
#[test]
fn certificates_of_another_tool_do_as_well() {
    if Command::new("openssl").arg("version").output().is_err() {
        eprintln!("skipped: there is no openssl on this machine");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("alice")).unwrap();
    let script = r#"
        key() { openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out $1; }
        sign() { # name, extensions
            key $1.key
            openssl req -new -key $1.key -subj /CN=$1 -out $1.csr
            printf "$2" > $1.ext
            openssl x509 -req -in $1.csr -CA between.crt -CAkey between.key -days 30 \
                -extfile $1.ext -out $1.only
            cat $1.only between.crt > $1.crt
        }
        key ca.key
        openssl req -x509 -new -key ca.key -subj /CN=company -days 30 -out ca.crt
        key between.key
        openssl req -new -key between.key -subj /CN=between -out between.csr
        printf "basicConstraints=critical,CA:true\nkeyUsage=keyCertSign" > between.ext
        openssl x509 -req -in between.csr -CA ca.crt -CAkey ca.key -days 30 \
            -extfile between.ext -out between.crt
        sign tls "extendedKeyUsage=serverAuth,clientAuth
subjectAltName=DNS:localhost,IP:127.0.0.1,URI:dislog://orders/node/anton"
        sign alice "extendedKeyUsage=clientAuth"
        mv alice.crt alice/tls.crt
        mv alice.key alice/tls.key
        cp ca.crt alice/
    "#;
    let made = Command::new("sh").args(["-e", "-c", script]).current_dir(dir.path()).output();
    let made = made.unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let node = server(&dir.path().join("data"), dir.path().to_str().unwrap(), &[]);
    let alice = dir.path().join("alice");
    let alice = alice.to_str().unwrap();
    ok(&["topic", "create", "demo", "--servers", &node.address, "--tls-dir", alice]);
}
