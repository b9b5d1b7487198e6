//! The three files, named as cert-manager and Kubernetes name them.

use std::path::{Path, PathBuf};

use crate::TlsError;

/// The certificate, with those between it and the authority behind it.
const CERTIFICATE: &str = "tls.crt";

/// Its private key.
const KEY: &str = "tls.key";

/// The authorities that others' certificates may come from; several while one replaces another.
const AUTHORITIES: &str = "ca.crt";

/// What a file may have at most: more is no certificate.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where certificates are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Files {
    /// The authorities that the other side's certificate may come from.
    pub authorities: PathBuf,
    /// The own certificate and its key; a client may do without, and be nobody.
    pub own: Option<OwnFiles>,
}

/// Where the own certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OwnFiles {
    /// The certificate, and those between it and the authority.
    pub certificate: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What the files hold.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) authorities: Vec<u8>,
    /// Certificate and key.
    pub(crate) own: Option<(Vec<u8>, Vec<u8>)>,
}

impl Files {
    /// `tls.crt`, `tls.key` and `ca.crt` in a directory.
    #[must_use]
    pub fn in_dir(dir: &Path) -> Files {
        let own = OwnFiles { certificate: dir.join(CERTIFICATE), key: dir.join(KEY) };
        Files { authorities: dir.join(AUTHORITIES), own: Some(own) }
    }

    /// These files; a certificate needs its key.
    #[must_use]
    pub fn new(authorities: PathBuf, certificate: Option<PathBuf>, key: Option<PathBuf>) -> Files {
        let own = certificate.zip(key).map(|(certificate, key)| OwnFiles { certificate, key });
        Files { authorities, own }
    }

    /// The same, but without an own certificate if there is no such file.
    #[must_use]
    pub fn of_client(mut self) -> Files {
        self.own = self.own.filter(|own| own.certificate.exists());
        self
    }

    pub(crate) fn read(&self) -> Result<Contents, TlsError> {
        let own = self.own.as_ref();
        let own = own.map(|own| Ok((read(&own.certificate)?, read(&own.key)?))).transpose()?;
        Ok(Contents { authorities: read(&self.authorities)?, own })
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    let failed = |source| TlsError::Read { path: path.to_owned(), source };
    let bytes = std::fs::metadata(path).map_err(failed)?.len();
    if bytes > FILE_BYTES_MAX {
        let problem = format!("it has {bytes} bytes: that is no certificate or key");
        return Err(TlsError::Unusable { path: path.to_owned(), problem });
    }
    std::fs::read(path).map_err(failed)
}
