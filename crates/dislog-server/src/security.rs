//! Whether connections are encrypted, and who is on their other side.
//!
//! Everything that is dialled or accepted goes by one [`Security`]: TLS with the certificates of
//! the moment, or plaintext if that was asked for.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use dislog_tls::{
    Carried, Files, HandshakeError, Names, NodeTls, Shown, Stream, TlsError, Watched,
};
use tokio::net::TcpStream;
use tokio::sync::watch::Receiver;

use crate::config::{Config, Insecure};
use crate::identity::Subject;
use crate::pass::Pass;

/// What the first byte of a connection is if TLS is spoken: a record with a handshake.
const TLS_HANDSHAKE: u8 = 22;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SecurityError {
    /// Neither certificates nor plaintext.
    #[error("no certificates are given, and plaintext was not asked for")]
    Neither,
    /// Certificates and plaintext.
    #[error("tls_dir and insecure are both set, but a node has one port: choose one")]
    Both,
    /// Plaintext would leave the machine.
    #[error(
        "insecure = \"loopback\" listens on loopback only, and {0} is not: whoever reached it \
         could read and write everything"
    )]
    Exposed(SocketAddr),
    /// The certificates cannot be used.
    #[error("tls_dir = {path:?}: {source}")]
    Certificates {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: TlsError,
    },
}

/// See the module. A cheap handle.
#[derive(Clone)]
pub(crate) struct Security {
    tls: Option<Arc<Watched>>,
}

/// Why one who dialled is not served.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unwelcome {
    /// The connection broke, or one side refused the other.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// It does not speak TLS, but here TLS is spoken.
    #[error("it does not speak TLS")]
    Plaintext(TcpStream),
}

impl Security {
    /// Bytes as they are.
    pub(crate) fn plaintext() -> Security {
        Security { tls: None }
    }

    /// As the settings say, for a node that listens at `addr`.
    ///
    /// # Errors
    /// If they say nothing, or what cannot be.
    pub(crate) fn open(config: &Config, addr: SocketAddr) -> Result<Security, SecurityError> {
        match (&config.tls_dir, config.insecure) {
            (None, Insecure::No) => Err(SecurityError::Neither),
            (Some(_), Insecure::Loopback | Insecure::Anywhere) => Err(SecurityError::Both),
            (None, Insecure::Loopback) if !addr.ip().is_loopback() => {
                Err(SecurityError::Exposed(addr))
            }
            (None, Insecure::Loopback | Insecure::Anywhere) => {
                tracing::warn!(
                    "INSECURE: nothing is encrypted, whoever reaches this node may do everything"
                );
                Ok(Security::plaintext())
            }
            (Some(path), Insecure::No) => {
                let watched = Watched::start(Files::in_dir(path));
                let failed = |source| SecurityError::Certificates { path: path.clone(), source };
                Ok(Security { tls: Some(Arc::new(watched.map_err(failed)?)) })
            }
        }
    }

    /// Whether callers have to prove who they are.
    pub(crate) fn is_on(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads the certificates again, soon.
    pub(crate) fn look(&self) {
        if let Some(watched) = &self.tls {
            watched.look();
        }
    }

    /// What its connections offer the other nodes at the moment, if they are encrypted.
    pub(crate) fn current(&self) -> Option<Arc<NodeTls>> {
        self.tls.as_ref().map(|watched| watched.current())
    }

    /// Notices when that is replaced.
    pub(crate) fn replaced(&self) -> Option<Receiver<()>> {
        self.tls.as_ref().map(|watched| watched.replaced())
    }

    /// Greets one who dialled, and says who that is, and for how long. Takes as long as the other
    /// side likes.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Result<(Stream, Subject, Pass), Unwelcome> {
        let Some(watched) = &self.tls else {
            return Ok((Stream::Plain(stream), Subject::Anonymous, Pass::default()));
        };
        let mut first = [0];
        let read = stream.peek(&mut first).await.map_err(HandshakeError::Io)?;
        if read == 0 {
            return Err(HandshakeError::Io(io::ErrorKind::UnexpectedEof.into()).into());
        }
        if first != [TLS_HANDSHAKE] {
            return Err(Unwelcome::Plaintext(stream));
        }
        // Before they are taken, so that no later ones are missed.
        let replaced = watched.replaced();
        let tls = watched.current();
        let stream = Box::pin(tls.accept(stream)).await?;
        let subject = subject(&stream, &tls);
        let pass = Pass::new(Shown::by_caller(&stream), watched, replaced);
        Ok((stream, subject, pass))
    }

    /// A connection to the node at `address`.
    pub(crate) async fn dial(
        &self,
        address: &str,
        carried: Carried,
    ) -> Result<(Stream, Pass), HandshakeError> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let Some(watched) = &self.tls else { return Ok((Stream::Plain(stream), Pass::default())) };
        let replaced = watched.replaced();
        let stream = Box::pin(watched.current().connect(address, stream, carried)).await?;
        let pass = Pass::new(Shown::by_dialled(&stream, address)?, watched, replaced);
        Ok((stream, pass))
    }
}

/// Who the certificate names, which the handshake has checked.
fn subject(stream: &Stream, tls: &NodeTls) -> Subject {
    let Some(certificate) = stream.certificate() else { return Subject::Anonymous };
    let names = Names::of(certificate).unwrap_or_default();
    match (names.node_role(), names.subject()) {
        (Some(role), _) if role.cluster == tls.role.cluster => {
            Subject::Node(role.to_string().into())
        }
        (_, Some(name)) => Subject::Client(name.into()),
        (_, None) => {
            tracing::debug!("a certificate names nobody: its holder counts as having none");
            Subject::Anonymous
        }
    }
}
