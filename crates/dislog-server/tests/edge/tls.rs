//! Connections that never become one: they hold no place, little memory, and not for long.

use std::path::Path;
use std::time::{Duration, Instant};

use dislog_server::Insecure;
use dislog_tls::{ClientTls, Files};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::node::{soon, start_in};

/// An authority, and the certificate of a node.
fn make_certificates(dir: &Path) {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::from_params(&authority, authority_key);
    let mut params = CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    let role = "dislog://x/node/one".to_owned().try_into().unwrap();
    params.subject_alt_names.push(SanType::URI(role));
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    std::fs::write(dir.join("ca.crt"), root).unwrap();
    std::fs::write(dir.join("tls.crt"), certificate).unwrap();
    std::fs::write(dir.join("tls.key"), key.serialize_pem()).unwrap();
}

#[tokio::test]
async fn a_handshake_that_is_not_finished_ends_in_time() {
    const HEADER_TIMEOUT: Duration = Duration::from_secs(3);
    let dir = tempfile::tempdir().unwrap();
    make_certificates(dir.path());
    let tls_dir = dir.path().to_owned();
    let tls = ClientTls::new(Files::in_dir(&tls_dir)).unwrap();
    let node = start_in(dir, |config| {
        config.insecure = Insecure::No;
        config.tls_dir = Some(tls_dir);
        config.connections_max = 1;
        config.header_timeout_ms = HEADER_TIMEOUT.as_millis().try_into().unwrap();
    })
    .await;
    let started = Instant::now();
    let mut half_open = Vec::new();
    // Nothing; the first byte; most of a message; and one that finishes its handshake and is
    // silent.
    for start in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"] {
        let mut stream = soon(TcpStream::connect(node.addr())).await.unwrap();
        soon(stream.write_all(start)).await.unwrap();
        half_open.push(stream);
    }
    // None of them has the one place that there is.
    let stream = soon(TcpStream::connect(node.addr())).await.unwrap();
    let mut silent = soon(tls.connect("localhost:1", stream)).await.unwrap();
    for mut stream in half_open {
        let mut rest = Vec::new();
        // It may be told why.
        let _ = soon(stream.read_to_end(&mut rest)).await;
    }
    let mut rest = Vec::new();
    let _ = soon(silent.read_to_end(&mut rest)).await;
    assert!(rest.is_empty());
    assert!(started.elapsed() >= HEADER_TIMEOUT, "{:?}", started.elapsed());
}
