//! What can go wrong, in words that name the file and what to do.

use std::error::Error as StdError;
use std::io;
use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError, Error, InvalidMessage, PeerIncompatible};

/// Why certificate files cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("cannot use {}: {problem}", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, and what to do.
        problem: String,
    },
    /// The directory cannot be watched for changes.
    #[error("cannot watch {} for new certificates: {problem}", path.display())]
    Watch {
        /// The directory.
        path: PathBuf,
        /// Why.
        problem: String,
    },
}

/// Why there is no TLS connection.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The connection broke.
    #[error(transparent)]
    Io(io::Error),
    /// One side does not trust or understand the other. To repeat it is of no use.
    #[error("{0}")]
    Refused(String),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> HandshakeError {
        match tls_error(&error) {
            Some(refused) => HandshakeError::Refused(describe(refused)),
            None => HandshakeError::Io(error),
        }
    }
}

impl From<HandshakeError> for io::Error {
    fn from(error: HandshakeError) -> io::Error {
        match error {
            HandshakeError::Io(error) => error,
            refused => io::Error::new(io::ErrorKind::InvalidData, refused),
        }
    }
}

/// Why one side refused the other, if that is what is behind an error.
#[must_use]
pub fn refusal_in(error: &(dyn StdError + 'static)) -> Option<String> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(HandshakeError::Refused(why)) = error.downcast_ref() {
            return Some(why.clone());
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            if let Some(refused) = tls_error(io) {
                return Some(describe(refused));
            }
            if let Some(inner) = io.get_ref() {
                cause = Some(inner);
                continue;
            }
        }
        cause = error.source();
    }
    None
}

fn tls_error(error: &io::Error) -> Option<&Error> {
    error.get_ref()?.downcast_ref()
}

/// What happened, for people who set up certificates.
pub(crate) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(why) => of_certificate(why),
        Error::InvalidMessage(
            InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
        ) => "the other side does not speak TLS".to_owned(),
        Error::PeerIncompatible(
            PeerIncompatible::SupportedVersionsExtensionRequired
            | PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::ServerDoesNotSupportTls12Or13
            | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
        ) => "the other side does not speak TLS 1.3".to_owned(),
        Error::AlertReceived(alert) => of_alert(*alert),
        other => other.to_string(),
    }
}

fn of_certificate(why: &CertificateError) -> String {
    let said = match why {
        // The latter if another authority has the same name.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "the other side's certificate is not from an authority in ca.crt".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "the other side's certificate has expired: renew it".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "the other side's certificate is not valid yet: compare the clocks".to_owned()
        }
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            "the other side's certificate is for another host name: dial a name it has, or make it \
             with --host NAME"
                .to_owned()
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "the other side's certificate is not made for this side of a connection (extended key \
             usage)"
                .to_owned()
        }
        CertificateError::Other(other) => other.0.to_string(),
        other => return format!("the other side's certificate is refused: {other}"),
    };
    match why {
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("{said} (dialled {}; it has {})", expected.to_str(), presented.join(", "))
        }
        _ => said,
    }
}

fn of_alert(alert: AlertDescription) -> String {
    let said = match alert {
        AlertDescription::UnknownCA | AlertDescription::DecryptError => {
            "the other side refuses our certificate: not from an authority it knows"
        }
        AlertDescription::CertificateExpired => {
            "the other side refuses our certificate: it has expired or is not valid yet"
        }
        AlertDescription::CertificateRequired => "the other side wants a certificate",
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => "the other side refuses our certificate",
        AlertDescription::ProtocolVersion => "the other side does not speak TLS 1.3",
        AlertDescription::NoApplicationProtocol => {
            "the other side does not speak this protocol: is it a Dislog server?"
        }
        other => return format!("the other side refuses the connection: {other:?}"),
    };
    said.to_owned()
}
