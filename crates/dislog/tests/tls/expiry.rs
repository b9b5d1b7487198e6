//! Connections that outlast what they were made with: the certificate, or the trust in whoever made
//! it.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::{BufMut, Bytes, BytesMut};
use dislog_client::{ConsumerOptions, End};
use dislog_proto::v1;
use h2::client::SendRequest;
use prost::Message;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;

/// How long certificates of these tests are valid: long enough to connect with them, on a busy
/// machine, too.
const LIFE: Duration = Duration::from_secs(6);

/// How much later than its certificate a connection may end: less than a request may take, which
/// would be the next thing to end it.
const LATE_MAX: Duration = Duration::from_secs(15);

/// A moment soon, in whole seconds as certificates have them.
fn soon() -> SystemTime {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    UNIX_EPOCH + Duration::from_secs((now + LIFE).as_secs())
}

fn valid_until(params: &mut CertificateParams, until: SystemTime) {
    params.not_after = date_time_ymd(1970, 1, 1) + until.duration_since(UNIX_EPOCH).unwrap();
}

/// Whether that was when a certificate ended, which is valid to the end of its last second.
fn is_on_time(what: &str, until: SystemTime) {
    let late = SystemTime::now().duration_since(until).expect("it is not too early");
    assert!(late < LATE_MAX, "{what}: {late:?} after the certificate");
}

/// What is read until the other side ends the connection.
async fn read_to_end(stream: &mut Stream) -> String {
    let mut read = Vec::new();
    let reading = timeout(HANG, stream.read_to_end(&mut read)).await;
    reading.expect("it is not ended").expect("it is ended as it should be");
    String::from_utf8(read).unwrap()
}

async fn http1(at: &str, tls_dir: &str, path: &str, accept: &str) -> Stream {
    let mut stream = connected(at, tls_dir, b"http/1.1").await;
    let head = format!("GET {path} HTTP/1.1\r\nhost: x\r\naccept: {accept}\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.flush().await.unwrap();
    stream
}

/// An HTTP/2 connection, and how it ends.
pub(super) async fn http2(
    at: &str,
    tls_dir: &str,
) -> (SendRequest<Bytes>, JoinHandle<Result<(), h2::Error>>) {
    let wire = connected(at, tls_dir, b"h2").await;
    let (requests, connection) = h2::client::handshake(wire).await.unwrap();
    (requests, tokio::spawn(connection))
}

/// The connection is ended by the server. What a client says last (an answer to the server's ping,
/// its own farewell) may find nobody there any more; nothing else may go wrong.
pub(super) async fn is_ended(connection: JoinHandle<Result<(), h2::Error>>) {
    let ended = timeout(HANG, connection).await.expect("it stays").unwrap();
    assert!(ended.as_ref().err().is_none_or(h2::Error::is_io), "{ended:?}");
}

/// A gRPC request of one message, or of none yet and more to come: the end of its answer.
async fn grpc(
    requests: &SendRequest<Bytes>,
    method: &str,
    message: Option<impl Message>,
) -> Result<http::HeaderMap, h2::Error> {
    let mut requests = requests.clone().ready().await?;
    let request = http::Request::post(format!("https://localhost/log.v1.Log/{method}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers");
    let (answer, mut sending) = requests.send_request(request.body(()).unwrap(), false)?;
    let mut sent = Ok(());
    if let Some(message) = message {
        let mut body = BytesMut::new();
        body.put_u8(0);
        body.put_u32(u32::try_from(message.encoded_len()).unwrap());
        message.encode(&mut body).unwrap();
        sent = sending.send_data(body.freeze(), true);
    }
    // Who is refused may be told so before it has sent everything: then the answer counts.
    let answer = answer.await.map_err(|error| sent.err().unwrap_or(error))?;
    let head = answer.headers().clone();
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let taken = data?.len();
        body.flow_control().release_capacity(taken)?;
    }
    Ok(body.trailers().await?.unwrap_or(head))
}

/// That the certificate has ended is what ended it.
fn is_told(what: &str, end: &http::HeaderMap) {
    let said = |name: &str| end.get(name).map_or("", |value| value.to_str().unwrap());
    assert_eq!(said("grpc-status"), "16", "{what}: {end:?}");
    assert!(said("grpc-message").contains("has%20expired"), "{what}: {end:?}");
}

fn create_demo(at: &str, tls_dir: &str) {
    ok(&["topic", "create", "demo", "--servers", at, "--tls-dir", tls_dir]);
}

#[test]
fn a_connection_ends_with_its_certificate() {
    let certs = Certs::new("orders");
    let data = tempfile::tempdir().unwrap();
    let node = server(data.path(), &certs.make("server", "anton"), &[]);
    let at = node.address.as_str();
    let alice = certs.make("client", "alice");
    create_demo(at, &alice);
    let until = soon();
    let brief = certs.odd("brief", |params| valid_until(params, until));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let mut kept = http1(at, &brief, "/v1/topics", "*/*").await;
        let tail = "/v1/topics/demo/records?follow=true";
        let mut events = http1(at, &brief, tail, "text/event-stream").await;
        let (requests, connection) = http2(at, &brief).await;
        let (other, other_connection) = http2(at, &alice).await;
        let follow = v1::ConsumeRequest { topic: "demo".into(), ..Default::default() };
        let streams = async {
            tokio::join!(
                grpc(&requests, "ConsumeStream", Some(follow.clone())),
                grpc(&requests, "ProduceStream", None::<v1::ProduceRequest>),
            )
        };
        let (consumed, produced) = timeout(HANG, streams).await.expect("streams go on");
        is_on_time("streams", until);
        is_told("ConsumeStream", &consumed.unwrap());
        is_told("ProduceStream", &produced.unwrap());
        is_ended(connection).await;
        assert!(requests.ready().await.is_err(), "nothing more can be asked over it");

        let events = read_to_end(&mut events).await;
        assert!(
            events.contains("event: error") && events.contains("CERTIFICATE_ENDED"),
            "{events}"
        );
        let kept = read_to_end(&mut kept).await;
        assert!(kept.starts_with("HTTP/1.1 200"), "{kept}");
        is_on_time("connections", until);
        // Others have nothing to do with it.
        let asked = grpc(&other, "GetServers", Some(v1::GetServersRequest::default()));
        assert_eq!(asked.await.unwrap()["grpc-status"], "0");
        other_connection.abort();
    });
    let said = node.output();
    assert!(said.contains("the certificate of this connection has expired: renew it"), "{said}");
}

/// One that follows the end of a topic, by the client library.
fn follower(runtime: &tokio::runtime::Runtime, at: &str, tls_dir: &str) -> dislog_client::Consumer {
    let _guard = runtime.enter();
    let options = ConsumerOptions {
        end: End::Never,
        reconnect_timeout: Duration::from_secs(5),
        ..ConsumerOptions::default()
    };
    client(&[at.to_owned()], tls_dir).consumer("demo", 0, options).unwrap()
}

#[test]
fn a_client_whose_certificate_was_renewed_goes_on_and_one_whose_was_not_is_told() {
    let certs = Certs::new("orders");
    let data = tempfile::tempdir().unwrap();
    let node = server(data.path(), &certs.make("server", "anton"), &[]);
    let at = node.address.as_str();
    let alice = certs.make("client", "alice");
    create_demo(at, &alice);
    let until = soon() + LIFE;
    let [renewed, expired] =
        ["renewed", "expired"].map(|name| certs.odd(name, |params| valid_until(params, until)));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut produced = 0;
    let mut produce = |tls_dir: &str| {
        let added = client(&[at.to_owned()], tls_dir);
        let record = vec![Record::new(format!("{produced}"))];
        runtime.block_on(added.produce("demo", 0, record, None)).unwrap();
        produced += 1;
    };
    produce(&alice);
    let mut followers = [&renewed, &expired].map(|tls_dir| follower(&runtime, at, tls_dir));
    for follower in &mut followers {
        assert_eq!(runtime.block_on(follower.next()).unwrap().unwrap().offset, 0);
    }
    ok(&["cert", "renew", &renewed, "--dir", &certs.at("")]);
    until_the_clock_shows(until + Duration::from_secs(2));
    produce(&alice);
    let [mut going_on, mut told] = followers;
    let next = runtime.block_on(async { timeout(HANG, going_on.next()).await });
    assert_eq!(next.expect("it hangs").unwrap().unwrap().offset, 1);
    let error = runtime.block_on(async { timeout(HANG, told.next()).await });
    let error = error.expect("it hangs").unwrap_err().to_string();
    assert!(error.contains("expired/tls.crt has expired: renew it"), "{error}");
}

fn until_the_clock_shows(moment: SystemTime) {
    while let Ok(left) = moment.duration_since(SystemTime::now()) {
        std::thread::sleep(left.max(Duration::from_millis(1)));
    }
}

/// The certificate of a node that ends then.
fn of_node(certs: &Certs, name: &str, until: SystemTime) -> String {
    let role = format!("dislog://orders/node/{name}").try_into().unwrap();
    certs.odd(name, |params| {
        valid_until(params, until);
        let names = ["127.0.0.1", "localhost"].map(String::from);
        params.subject_alt_names = CertificateParams::new(names).unwrap().subject_alt_names;
        params.subject_alt_names.push(SanType::URI(role));
    })
}

#[test]
fn a_node_says_when_its_certificate_ends() {
    let certs = Certs::new("orders");
    let data = tempfile::tempdir().unwrap();
    let alice = certs.make("client", "alice");
    let until = soon() + Duration::from_secs(3_600);
    let anton = of_node(&certs, "anton", until);
    let node = server(data.path(), &anton, &[]);
    super::until("it is said", || node.output().contains("this node's certificate ends soon"));
    // Written by this test as other tools do.
    assert!(node.output().contains("every user of this machine can read the key"));
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let metric = || -> u64 {
        let page = runtime.block_on(async {
            let mut stream = connected(&node.address, &alice, b"http/1.1").await;
            let head = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
            stream.write_all(head).await.unwrap();
            read_to_end(&mut stream).await
        });
        let name = "dislog_certificate_expiry_time_seconds ";
        page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).expect(&page)
    };
    assert_eq!(metric(), until.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs());
    ok(&["cert", "renew", &anton, "--dir", &certs.at("")]);
    let renewed = until + Duration::from_secs(86_400);
    let renewed = renewed.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    super::until("the renewed one is used", || metric() > renewed);
}

#[test]
fn nodes_go_on_with_renewed_certificates_and_shut_out_those_that_expired() {
    let certs = Certs::new("orders");
    let data = tempfile::tempdir().unwrap();
    let alice = certs.make("client", "alice");
    let until = soon() + 3 * LIFE;
    let dirs = ["anton", "berta", "caesar"].map(|name| of_node(&certs, name, until));
    let nodes = three_nodes(data.path(), &dirs, &alice);
    let at = nodes[0].address.as_str();
    let alive = || super::alive(at, &alice);
    create_demo(at, &alice);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let servers = nodes.iter().map(|node| node.address.clone()).collect();
    let load = Load::start(&runtime, servers, &alice);
    // All but one are renewed in time.
    for dir in &dirs[..2] {
        ok(&["cert", "renew", dir, "--dir", &certs.at("")]);
    }
    for node in &nodes[..2] {
        super::until("the new files are used", || {
            node.output().contains("new certificates are used")
        });
    }
    assert!(SystemTime::now() < until, "the machine is too slow for this test");
    until_the_clock_shows(until + Duration::from_secs(1));
    load.goes_on();
    super::until("the one that expired is shut out", || alive() == 2);
    load.goes_on();
    ok(&["cert", "renew", &dirs[2], "--dir", &certs.at("")]);
    super::until("it is let in again", || alive() == 3);
    load.goes_on();
    load.stop.store(true, Ordering::Relaxed);
    let mut failed = runtime.block_on(load.failed).unwrap();
    // What is under way when its leader is cut off may have been added or not.
    failed.retain(|error| !matches!(error, Error::UnknownOutcome { .. }));
    assert!(failed.is_empty(), "{failed:?}");
}
