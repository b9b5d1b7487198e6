//! What the other side of a connection has shown, which is checked again while the connection
//! lasts: a certificate ends, and so does the trust in an authority.

use rustls::pki_types::{CertificateDer, ServerName};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

use crate::{HandshakeError, Stream, client};

/// The certificate of the other side, and those between it and an authority.
///
/// Invariant: there is at least one, and the first is its own.
pub struct Shown {
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// By which name it was dialled, if it was.
    pub(crate) dialled: Option<ServerName<'static>>,
    /// The last second of each, since 1970.
    not_after_s: Vec<i64>,
}

impl Shown {
    /// By one who dialled; nothing without a certificate.
    #[must_use]
    pub fn by_caller(stream: &Stream) -> Option<Shown> {
        Shown::of(stream, None)
    }

    /// By one who was dialled at `authority`, `host:port`; nothing if that was plaintext.
    ///
    /// # Errors
    /// If nobody could have a certificate for that name.
    pub fn by_dialled(stream: &Stream, authority: &str) -> Result<Option<Shown>, HandshakeError> {
        Ok(Shown::of(stream, Some(client::server_name(authority)?)))
    }

    fn of(stream: &Stream, dialled: Option<ServerName<'static>>) -> Option<Shown> {
        let chain = stream.certificates();
        chain.first()?;
        // What cannot be read names nobody, and does not get anybody in.
        let end = |certificate: &CertificateDer<'_>| {
            let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
            Some(parsed.validity().not_after.timestamp())
        };
        let not_after_s = chain.iter().filter_map(end).collect();
        Some(Shown { chain: chain.to_vec(), dialled, not_after_s })
    }

    /// When the next of them has ended, seconds since 1970; nothing if all have at `now_s`.
    ///
    /// Not all of them need be of use, so that one has ended does not say that the other side would
    /// be refused: check it then.
    #[must_use]
    pub fn next_end_s(&self, now_s: i64) -> Option<i64> {
        let ended = self.not_after_s.iter().map(|last_s| last_s.saturating_add(1));
        ended.filter(|end_s| *end_s > now_s).min()
    }
}
