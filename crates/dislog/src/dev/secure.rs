//! What a secured local cluster needs, made on the way: an authority, a certificate for each node,
//! and one for the commands of whoever tries it.
//!
//! The authority stays with the data, so that certificates which were given to other programs stay
//! of use; the rest is made anew at each start.

use std::path::{Path, PathBuf};

use dislog_client::{ClientTls, Files};

use crate::cert::{Authority, DAYS, Wanted, absolute};
use crate::failure::Failure;

/// What the authority calls the cluster.
const CLUSTER: &str = "dev";

/// Who the commands are.
const CLIENT: &str = "dev";

/// For how long the authority is valid.
const AUTHORITY_DAYS: u32 = 3_650;

/// Where they are.
pub(super) struct Certificates {
    dir: PathBuf,
}

impl Certificates {
    /// Makes what is missing for so many nodes that keep their data below `data_dir`.
    pub(super) fn make(data_dir: &Path, nodes: u32) -> Result<Certificates, Failure> {
        let certificates = Certificates { dir: absolute(data_dir).join("certs") };
        let dir = &certificates.dir;
        let authority = match dir.join("ca.crt").exists() {
            true => Authority::open(dir)?,
            false => Authority::create(dir, CLUSTER, AUTHORITY_DAYS, false)?,
        };
        for number in 1..=nodes {
            let wanted = Wanted::node(&format!("node-{number}"), &[])?;
            authority.issue(&wanted, DAYS, None)?.write(&certificates.of_node(number), true)?;
        }
        let wanted = Wanted::client(CLIENT)?;
        authority.issue(&wanted, DAYS, None)?.write(&certificates.of_client(), true)?;
        Ok(certificates)
    }

    /// What a node is given.
    pub(super) fn of_node(&self, number: u32) -> PathBuf {
        self.dir.join(format!("node-{number}"))
    }

    /// What the commands use.
    pub(super) fn of_client(&self) -> PathBuf {
        self.dir.join(CLIENT)
    }

    /// How the nodes are talked to.
    pub(super) fn client_tls(&self) -> Result<ClientTls, Failure> {
        let files = Files::in_dir(&self.of_client());
        ClientTls::new(files).map_err(|error| Failure::usage(error.to_string()))
    }
}
