//! The side that dials, as a client does.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustls::client::ResolvesClientCert;
use rustls::client::danger::ServerCertVerifier;
use rustls::pki_types::ServerName;
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use crate::files::Contents;
use crate::material::{Material, now_s};
use crate::{ALPN_HTTP2, Files, HandshakeError, Stream, TlsError, provider};

/// TLS for a client of the log: HTTP/2 to any server with a certificate from the authorities and
/// for the name that is dialled. A cheap handle.
///
/// The files are read again for each connection, so a program that runs for years needs no restart
/// when its certificate is renewed; while they cannot be used, it goes on with what it has.
#[derive(Clone)]
pub struct ClientTls {
    files: Files,
    loaded: Arc<Mutex<Loaded>>,
}

struct Loaded {
    contents: Contents,
    usable: Usable,
}

/// What connections are made with.
#[derive(Clone)]
struct Usable {
    config: Arc<ClientConfig>,
    /// Until when, seconds since 1970; without a certificate of one's own, for ever.
    not_after_s: Option<i64>,
}

/// Certificate and key are two files: whoever reads them while they are replaced can see one of
/// each. So files that do not fit together are read again, this often.
const READS_MAX: u32 = 10;

/// Between reading files that did not fit together and reading them again.
const BETWEEN_READS: Duration = Duration::from_millis(50);

impl ClientTls {
    /// Reads and checks the files. Waits for up to half a second if they do not fit together: they
    /// may be just being replaced.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn new(files: Files) -> Result<ClientTls, TlsError> {
        let read = || {
            let contents = files.read()?;
            let usable = usable(&files, &contents)?;
            Ok(Loaded { contents, usable })
        };
        let mut loaded = read();
        for _ in 1..READS_MAX {
            if !matches!(loaded, Err(TlsError::Unusable { .. })) {
                break;
            }
            thread::sleep(BETWEEN_READS);
            loaded = read();
        }
        let loaded = Arc::new(Mutex::new(loaded?));
        Ok(ClientTls { files, loaded })
    }

    /// Greets the server at `authority` (`host:port`) over a connection to it.
    ///
    /// # Errors
    /// If one side refuses the other, or the connection breaks.
    pub async fn connect(
        &self,
        authority: &str,
        stream: TcpStream,
    ) -> Result<Stream, HandshakeError> {
        let Usable { config, not_after_s } = self.current().await;
        let has_expired = not_after_s.is_some_and(|not_after_s| now_s() > not_after_s);
        if let Some(own) = self.files.own.as_ref().filter(|_| has_expired) {
            // The server would say so, too, but not always be heard.
            let path = own.certificate.display();
            let why = format!("the certificate in {path} has expired: renew it");
            return Err(HandshakeError::Refused(why));
        }
        connect(config, authority, stream).await
    }

    async fn current(&self) -> Usable {
        let tls = self.clone();
        let read_again = tokio::task::spawn_blocking(move || tls.read_again());
        if let Ok(Err(error)) = read_again.await {
            tracing::warn!(%error, "new certificate files cannot be used, going on with the old");
        }
        self.loaded.lock().unwrap_or_else(PoisonError::into_inner).usable.clone()
    }

    fn read_again(&self) -> Result<(), TlsError> {
        let contents = self.files.read()?;
        if self.loaded.lock().unwrap_or_else(PoisonError::into_inner).contents == contents {
            return Ok(());
        }
        let usable = usable(&self.files, &contents)?;
        *self.loaded.lock().unwrap_or_else(PoisonError::into_inner) = Loaded { contents, usable };
        Ok(())
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").field("files", &self.files).finish_non_exhaustive()
    }
}

fn usable(files: &Files, contents: &Contents) -> Result<Usable, TlsError> {
    let Material { authorities, own } = Material::new(files, contents)?;
    let verifier = server_verifier(&authorities, files)?;
    let not_after_s = own.as_ref().map(|own| own.names.not_after_s);
    let config = Arc::new(dialling(verifier, own.map(|own| own.certified), ALPN_HTTP2));
    Ok(Usable { config, not_after_s })
}

/// Checks that servers have a certificate from the authorities, and for their name.
pub(crate) fn server_verifier(
    authorities: &Arc<RootCertStore>,
    files: &Files,
) -> Result<Arc<dyn ServerCertVerifier>, TlsError> {
    use rustls::client::WebPkiServerVerifier;
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::clone(authorities), provider()).build();
    let unusable = |error: rustls::server::VerifierBuilderError| {
        crate::material::unusable(&files.authorities, error.to_string())
    };
    Ok(verifier.map_err(unusable)?)
}

/// One who dials, with or without a certificate.
pub(crate) fn dialling(
    verifier: Arc<dyn ServerCertVerifier>,
    own: Option<Arc<CertifiedKey>>,
    protocol: &[u8],
) -> ClientConfig {
    let builder = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match own {
        Some(own) => {
            let resolver: Arc<dyn ResolvesClientCert> = Arc::new(SingleCertAndKey::from(own));
            builder.with_client_cert_resolver(resolver)
        }
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![protocol.to_vec()];
    // Servers give no tickets: each connection shows its certificate.
    config.resumption = rustls::client::Resumption::disabled();
    config
}

/// Greets the server at `authority`, `host:port`.
pub(crate) async fn connect(
    config: Arc<ClientConfig>,
    authority: &str,
    stream: TcpStream,
) -> Result<Stream, HandshakeError> {
    let name = server_name(authority)?;
    let stream = TlsConnector::from(config).connect(name, stream).await?;
    Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
}

/// The name in `authority`, `host:port`, that a certificate is to have.
pub(crate) fn server_name(authority: &str) -> Result<ServerName<'static>, HandshakeError> {
    let host = authority.rsplit_once(':').map_or(authority, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| {
        let message = format!("{host:?} is no host name that a certificate could have");
        HandshakeError::Io(io::Error::new(io::ErrorKind::InvalidInput, message))
    })
}
