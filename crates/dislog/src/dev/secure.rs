//! What a secured local cluster needs, made on the way: an authority, a certificate for each node,
//! one for the commands of whoever tries it, and rules that let these commands do everything.
//!
//! The authority stays with the data, so that certificates which were given to other programs stay
//! of use; the rest is made anew at each start.

use std::fs;
use std::path::{Path, PathBuf};

use dislog_client::{ClientTls, Files};

use crate::cert::{Authority, DAYS, Wanted, absolute};
use crate::failure::{Exit, Failure};

/// What the authority calls the cluster.
const CLUSTER: &str = "dev";

/// Who the commands are.
const CLIENT: &str = "dev";

/// What may be done at first.
const RULES: &str = "\
# Who may do what: subject, topic or pattern, action (produce, consume, admin, *), perhaps deny.
# It is read again when it changes. See docs/access-control.md.
p, dev, *, *
";

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
        certificates.make_rules()?;
        Ok(certificates)
    }

    /// The commands may do everything, nobody else anything: to be changed by whoever tries it.
    fn make_rules(&self) -> Result<(), Failure> {
        let policy = self.auth_dir().join("policy.csv");
        if policy.exists() {
            return Ok(());
        }
        let written = fs::create_dir_all(self.auth_dir()).and_then(|()| fs::write(&policy, RULES));
        written.map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot write {}: {error}", policy.display()))
        })
    }

    /// Where the rules of all nodes are.
    pub(super) fn auth_dir(&self) -> PathBuf {
        self.dir.join("auth")
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
