//! TLS as a client of another make speaks it: nothing of ours checks anything on this side.

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// With the certificate and the authority in `dir`; offers `protocol`.
pub fn config(dir: &Path, protocol: &[u8]) -> rustls::ClientConfig {
    let read = |file: &str| std::fs::read(dir.join(file)).unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&read("ca.crt")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(roots)
        .with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(&read("tls.crt")).unwrap()],
            PrivateKeyDer::from_pem_slice(&read("tls.key")).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    config
}
