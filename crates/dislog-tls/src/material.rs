//! What the files hold, taken apart and checked.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::WebPkiClientVerifier;
use rustls::sign::CertifiedKey;

use crate::error::describe;
use crate::files::Contents;
use crate::{Files, Names, TlsError, provider};

/// What connections are made from.
pub(crate) struct Material {
    pub(crate) authorities: Arc<RootCertStore>,
    pub(crate) own: Option<Own>,
}

/// A certificate and its key.
pub(crate) struct Own {
    pub(crate) certified: Arc<CertifiedKey>,
    pub(crate) names: Names,
}

impl Material {
    /// Checks as much as can be checked before somebody connects: a mistake is found when it is
    /// made.
    pub(crate) fn new(files: &Files, contents: &Contents) -> Result<Material, TlsError> {
        let mut authorities = RootCertStore::empty();
        for certificate in certificates(&files.authorities, &contents.authorities)? {
            let unusable = |error: rustls::Error| unusable(&files.authorities, describe(&error));
            authorities.add(certificate).map_err(unusable)?;
        }
        let authorities = Arc::new(authorities);
        let own = match (&files.own, &contents.own) {
            (Some(paths), Some((chain, key))) => {
                let chain = certificates(&paths.certificate, chain)?;
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|error| unusable(&paths.key, format!("no private key ({error})")))?;
                let own = Own::new(chain, key, &paths.certificate, &paths.key)?;
                own.check_time(&paths.certificate)?;
                Some(own)
            }
            _ => None,
        };
        Ok(Material { authorities, own })
    }
}

impl Own {
    fn new(
        chain: Vec<CertificateDer<'static>>,
        key: PrivateKeyDer<'static>,
        path: &Path,
        key_path: &Path,
    ) -> Result<Own, TlsError> {
        let names = Names::of(&chain[0]).map_err(|problem| unusable(path, problem))?;
        let certified = CertifiedKey::from_der(chain, key, &provider());
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                unusable(path, format!("its key is another than that in {}", key_path.display()))
            }
            error => unusable(key_path, describe(&error)),
        })?;
        Ok(Own { certified: Arc::new(certified), names })
    }

    /// Whether it is valid now.
    fn check_time(&self, path: &Path) -> Result<(), TlsError> {
        let now_s = now_s();
        let problem = match () {
            () if now_s > self.names.not_after_s => "the certificate has expired: renew it",
            () if now_s < self.names.not_before_s => {
                "the certificate is not valid yet: compare the clocks"
            }
            () => return Ok(()),
        };
        Err(unusable(path, problem.to_owned()))
    }

    /// Whether others that know the same authorities would take it from one who dials. Clients may
    /// have their certificates from another authority than servers; nodes are both.
    pub(crate) fn check(
        &self,
        authorities: &Arc<RootCertStore>,
        path: &Path,
    ) -> Result<(), TlsError> {
        let verifier =
            WebPkiClientVerifier::builder_with_provider(Arc::clone(authorities), provider())
                .build()
                .map_err(|error| unusable(path, error.to_string()))?;
        let (own, between) = self.certified.cert.split_first().expect("there is a certificate");
        let checked = verifier.verify_client_cert(own, between, UnixTime::now());
        let problem = |error: rustls::Error| {
            describe(&error).replace("the other side's certificate", "the certificate")
        };
        checked.map(drop).map_err(|error| unusable(path, problem(error)))
    }
}

/// Seconds since 1970.
pub(crate) fn now_s() -> i64 {
    i64::try_from(UnixTime::now().as_secs()).unwrap_or(i64::MAX)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|error| unusable(path, format!("it is not PEM ({error})")))?;
    if found.is_empty() {
        return Err(unusable(path, "there is no certificate in it".to_owned()));
    }
    Ok(found)
}

pub(crate) fn unusable(path: &Path, problem: String) -> TlsError {
    TlsError::Unusable { path: path.to_owned(), problem }
}
