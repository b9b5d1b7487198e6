//! Both sides of a node: it is dialled by clients and nodes, and dials nodes.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, OtherError, ServerConfig,
    SignatureScheme,
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsStream};

use crate::client::{connect, dialling, server_verifier};
use crate::error::describe;
use crate::files::Contents;
use crate::material::{Material, Own, unusable};
use crate::{
    ALPN_HTTP1, ALPN_HTTP2, ALPN_PEER, Files, HandshakeError, Names, NodeRole, Shown, Stream,
    TlsError, provider,
};

/// TLS as a node has it, from one reading of its files.
pub struct NodeTls {
    /// Who this node is.
    pub role: NodeRole,
    /// What its certificate says.
    pub names: Names,
    accepting: Arc<ServerConfig>,
    /// Those who dial this node.
    callers: Arc<dyn ClientCertVerifier>,
    /// Those whom it dials.
    nodes: Arc<dyn ServerCertVerifier>,
    /// To nodes, for frames.
    peer: Arc<ClientConfig>,
    /// To nodes, for requests.
    forward: Arc<ClientConfig>,
}

/// What one node sends another over a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Frames of the protocol between nodes.
    Frames,
    /// Requests, over HTTP/2.
    Requests,
}

impl NodeTls {
    /// Reads and checks the files.
    ///
    /// # Errors
    /// If they cannot be used, or the certificate is not that of a node.
    pub fn load(files: &Files) -> Result<NodeTls, TlsError> {
        NodeTls::new(files, &files.read()?)
    }

    pub(crate) fn new(files: &Files, contents: &Contents) -> Result<NodeTls, TlsError> {
        let Material { authorities, own } = Material::new(files, contents)?;
        let (Some(own), Some(paths)) = (own, &files.own) else {
            let problem = "a node needs a certificate and a key beside it".to_owned();
            return Err(unusable(&files.authorities, problem));
        };
        own.check(&authorities, &paths.certificate)?;
        let Own { certified, names } = own;
        let of_node = |problem: &str| unusable(&paths.certificate, problem.to_owned());
        let role = names.node_role().ok_or_else(|| {
            of_node(
                "it is not that of a node: it needs the alternative name \
                 URI:dislog://CLUSTER/node/NAME, which `dislog cert server` gives",
            )
        })?;
        if !names.serves {
            return Err(of_node("it is not made for servers (extended key usage)"));
        }
        let callers: Arc<dyn ClientCertVerifier> =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(&authorities), provider())
                // Who has no certificate may have a token, or ask how the node is.
                .allow_unauthenticated()
                .build()
                .map_err(|error| unusable(&files.authorities, error.to_string()))?;
        let nodes: Arc<dyn ServerCertVerifier> = Arc::new(NodeVerifier {
            hosts: server_verifier(&authorities, files)?,
            cluster: role.cluster.clone(),
        });
        let dial = |protocol| {
            Arc::new(dialling(Arc::clone(&nodes), Some(Arc::clone(&certified)), protocol))
        };
        Ok(NodeTls {
            peer: dial(ALPN_PEER),
            forward: dial(ALPN_HTTP2),
            accepting: Arc::new(accepting(Arc::clone(&callers), Arc::clone(&certified))),
            callers,
            nodes,
            role,
            names,
        })
    }

    /// Greets one who dialled. Takes as long as the other side likes.
    ///
    /// # Errors
    /// If one side refuses the other, or the connection breaks.
    pub async fn accept(&self, stream: TcpStream) -> Result<Stream, HandshakeError> {
        let stream = TlsAcceptor::from(Arc::clone(&self.accepting)).accept(stream).await?;
        Ok(Stream::Tls(Box::new(TlsStream::Server(stream))))
    }

    /// Checks what the other side of a connection has shown by the files of this reading, and by
    /// the time it is.
    ///
    /// # Errors
    /// Why it would be refused now.
    pub fn check(&self, shown: &Shown) -> Result<(), String> {
        let (own, between) = shown.chain.split_first().expect("there is a certificate");
        let now = UnixTime::now();
        let checked = match &shown.dialled {
            None => self.callers.verify_client_cert(own, between, now).map(drop),
            Some(name) => self.nodes.verify_server_cert(own, between, name, &[], now).map(drop),
        };
        checked.map_err(|error| describe(&error))
    }

    /// Greets the node at `authority` (`host:port`).
    ///
    /// # Errors
    /// If one side refuses the other, or the connection breaks.
    pub async fn connect(
        &self,
        authority: &str,
        stream: TcpStream,
        carried: Carried,
    ) -> Result<Stream, HandshakeError> {
        let config = match carried {
            Carried::Frames => &self.peer,
            Carried::Requests => &self.forward,
        };
        connect(Arc::clone(config), authority, stream).await
    }
}

fn accepting(callers: Arc<dyn ClientCertVerifier>, own: Arc<CertifiedKey>) -> ServerConfig {
    let resolver: Arc<dyn ResolvesServerCert> = Arc::new(SingleCertAndKey::from(own));
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])
        .expect("the provider has TLS 1.3")
        .with_client_cert_verifier(callers)
        .with_cert_resolver(resolver);
    config.alpn_protocols = [ALPN_HTTP2, ALPN_HTTP1, ALPN_PEER].map(<[u8]>::to_vec).into();
    // Nobody is let in for having been let in before: whose certificate has expired, or whose
    // authority is trusted no more, stays out.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config
}

/// Checks that the other side is a node of this cluster, beside what is checked of any server.
#[derive(Debug)]
struct NodeVerifier {
    hosts: Arc<dyn ServerCertVerifier>,
    cluster: String,
}

impl ServerCertVerifier for NodeVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let verified = self.hosts.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let role = Names::of(end_entity).ok().and_then(|names| names.node_role());
        let other = match role {
            Some(role) if role.cluster == self.cluster => return Ok(verified),
            Some(role) => format!("that of {role}, and not of a node of {:?}", self.cluster),
            None => "not that of a node".to_owned(),
        };
        let other = format!("the other side's certificate is {other}");
        let error = CertificateError::Other(OtherError(Arc::new(std::io::Error::other(other))));
        Err(error.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.hosts.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.hosts.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.hosts.supported_verify_schemes()
    }
}
