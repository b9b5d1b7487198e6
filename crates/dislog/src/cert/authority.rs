//! An authority, and the certificates it makes.

use std::fs;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use dislog_tls::{Names, NodeRole};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, SerialNumber,
};

use super::store::{self, NewFile, Readers};
use crate::failure::{Exit, Failure};

/// Clocks differ: a certificate is valid a little before it is made.
const CLOCKS_DIFFER_S: i64 = 3_600;

const DAY_S: i64 = 86_400;

/// By these a node can always be dialled where it runs.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// What a certificate is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    name: String,
    role: Role,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Role {
    /// A node that is dialled by these.
    Node {
        hosts: Vec<String>,
    },
    Client,
}

impl Wanted {
    /// The certificate of a node that is dialled by `hosts`, and from its own machine.
    pub(crate) fn node(name: &str, hosts: &[String]) -> Result<Wanted, Failure> {
        check(name, "a node")?;
        let mut all: Vec<String> = hosts.iter().map(|host| host.trim().to_owned()).collect();
        if let Some(host) = all.iter().find(|host| host.contains(':') && is_no_address(host)) {
            return Err(Failure::usage(format!("{host:?} is no host name or address"))
                .hint("give it without a port: a certificate is for all ports of a host"));
        }
        let local = LOCAL.iter().filter(|local| !hosts.iter().any(|host| host == *local));
        all.extend(local.map(|local| (*local).to_owned()));
        Ok(Wanted { name: name.to_owned(), role: Role::Node { hosts: all } })
    }

    /// The certificate of a client.
    pub(crate) fn client(name: &str) -> Result<Wanted, Failure> {
        check(name, "a client")?;
        Ok(Wanted { name: name.to_owned(), role: Role::Client })
    }

    /// The same as another certificate is for.
    pub(super) fn like(names: &Names) -> Result<Wanted, Failure> {
        let addresses = names.addresses.iter().map(ToString::to_string);
        let hosts = names.hosts.iter().cloned().chain(addresses).collect();
        if let Some(node) = names.node_role() {
            return Ok(Wanted { name: node.name, role: Role::Node { hosts } });
        }
        match names.subject() {
            Some(name) if !names.is_authority => Wanted::client(name),
            _ => Err(Failure::usage("that is not the certificate of a node or client")
                .hint("an authority is replaced in steps: see docs/security.md")),
        }
    }

    /// Whose it is.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// For people.
    pub(super) fn describe(&self) -> String {
        match &self.role {
            Role::Node { hosts } => format!("the node {} ({})", self.name, hosts.join(", ")),
            Role::Client => format!("the client {}", self.name),
        }
    }
}

fn is_no_address(host: &str) -> bool {
    host.parse::<IpAddr>().is_err()
}

/// A name is a subject, a part of a URI and a directory.
fn check(name: &str, whose: &str) -> Result<(), Failure> {
    let is_word = NodeRole::parse(&format!("dislog://x/node/{name}")).is_some();
    if is_word && !name.starts_with('.') && name != "anonymous" {
        return Ok(());
    }
    Err(Failure::usage(format!("{name:?} is no name of {whose}"))
        .hint("use letters, digits, '.', '_' and '-'; \"anonymous\" is nobody's name"))
}

/// An authority with its key.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
    cluster: String,
    not_after_s: i64,
}

/// A certificate, its key, and whose it is.
pub(crate) struct Issued {
    certificate: String,
    key: String,
    authority: String,
}

impl Authority {
    /// Makes one and writes it.
    pub(crate) fn create(
        dir: &Path,
        cluster: &str,
        days: u32,
        force: bool,
    ) -> Result<Authority, Failure> {
        check(cluster, "a cluster")?;
        // A name of its own: by it others find the authority of a certificate.
        let common_name = format!("{cluster} CA {:08x}", rand::random::<u32>());
        let mut params = params(&common_name, days, i64::MAX);
        params.distinguished_name.push(DnType::OrganizationName, cluster);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![
            KeyUsagePurpose::KeyCertSign,
            KeyUsagePurpose::CrlSign,
            KeyUsagePurpose::DigitalSignature,
        ];
        let key = new_key()?;
        let pem = params.self_signed(&key).map_err(|error| failed(&error))?.pem();
        let file =
            |name: &str, text: String, readers| NewFile { path: dir.join(name), text, readers };
        let files = [
            file("ca.key", key.serialize_pem(), Readers::Owner),
            file("ca.crt", pem, Readers::All),
        ];
        store::write(&files, force)?;
        Authority::open(dir)
    }

    /// The one in a directory.
    pub(crate) fn open(dir: &Path) -> Result<Authority, Failure> {
        let path = dir.join("ca.crt");
        let (pem, names) = first_certificate(&path).map_err(|failure| {
            failure.hint("make an authority with `dislog cert ca`, or name another with --dir")
        })?;
        let key = read_key(&dir.join("ca.key"))?;
        let unusable =
            |error| Failure::new(Exit::Failed, format!("cannot use {}: {error}", path.display()));
        let issuer = Issuer::from_ca_cert_pem(&pem, key).map_err(unusable)?;
        let cluster = names.organization.clone().unwrap_or_else(|| "dislog".to_owned());
        check(&cluster, "a cluster")?;
        Ok(Authority { issuer, pem, cluster, not_after_s: names.not_after_s })
    }

    /// Makes a certificate, for a new key unless one is given.
    pub(crate) fn issue(
        &self,
        wanted: &Wanted,
        days: u32,
        key: Option<KeyPair>,
    ) -> Result<Issued, Failure> {
        let mut params = params(&wanted.name, days, self.not_after_s);
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        if let Role::Node { hosts } = &wanted.role {
            params.extended_key_usages.push(ExtendedKeyUsagePurpose::ServerAuth);
            let role = NodeRole { cluster: self.cluster.clone(), name: wanted.name.clone() };
            let role = role.to_string().try_into().map_err(|error| failed(&error))?;
            params.subject_alt_names = vec![SanType::URI(role)];
            for host in hosts {
                params.subject_alt_names.push(alternative_name(host)?);
            }
        }
        let key = key.map_or_else(new_key, Ok)?;
        let certificate = params.signed_by(&key, &self.issuer).map_err(|error| failed(&error))?;
        Ok(Issued {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
            authority: self.pem.clone(),
        })
    }
}

impl Issued {
    /// Writes `tls.key`, `tls.crt` and `ca.crt`.
    pub(crate) fn write(self, dir: &Path, force: bool) -> Result<(), Failure> {
        let authority = self.authority.clone();
        store::write(&self.files(dir, authority), force)
    }

    /// Writes `tls.key` and `tls.crt`, and adds the authority to `ca.crt` if it is not there.
    pub(super) fn replace(self, dir: &Path) -> Result<(), Failure> {
        let path = dir.join("ca.crt");
        let known = fs::read_to_string(&path).unwrap_or_default();
        let authorities = match known.replace('\r', "").contains(self.authority.trim_end()) {
            true => known,
            false if known.is_empty() || known.ends_with('\n') => known + self.authority.as_str(),
            false => format!("{known}\n{}", self.authority),
        };
        store::write(&self.files(dir, authorities), true)
    }

    /// The authority comes first and the certificate last: what is there at any moment fits.
    fn files(self, dir: &Path, authorities: String) -> [NewFile; 3] {
        let file = |name: &str, text, readers| NewFile { path: dir.join(name), text, readers };
        [
            file("ca.crt", authorities, Readers::All),
            file("tls.key", self.key, Readers::Owner),
            file("tls.crt", self.certificate, Readers::All),
        ]
    }
}

fn params(common_name: &str, days: u32, not_after_max_s: i64) -> CertificateParams {
    let now = jiff::Timestamp::now().as_second();
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, common_name);
    let moment = |seconds: i64| {
        let since_1970 = Duration::from_secs(seconds.unsigned_abs());
        rcgen::date_time_ymd(1970, 1, 1) + since_1970
    };
    params.not_before = moment(now - CLOCKS_DIFFER_S);
    params.not_after = moment((now + i64::from(days) * DAY_S).min(not_after_max_s));
    // Positive and not too long (RFC 5280 §4.1.2.2).
    let mut serial: [u8; 16] = rand::random();
    serial[0] = serial[0] & 0x7f | 0x40;
    params.serial_number = Some(SerialNumber::from_slice(&serial));
    params
}

fn alternative_name(host: &str) -> Result<SanType, Failure> {
    if let Ok(address) = host.parse() {
        return Ok(SanType::IpAddress(address));
    }
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._*".contains(c);
    if host.is_empty() || !host.chars().all(is_plain) {
        return Err(Failure::usage(format!("{host:?} is no host name or address")));
    }
    Ok(SanType::DnsName(host.to_owned().try_into().map_err(|error| failed(&error))?))
}

fn new_key() -> Result<KeyPair, Failure> {
    KeyPair::generate().map_err(|error| failed(&error))
}

fn failed(error: &rcgen::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot make a certificate: {error}"))
}

/// A private key of any kind that can sign.
pub(super) fn read_key(path: &Path) -> Result<KeyPair, Failure> {
    let unusable = |error: &dyn std::fmt::Display| {
        Failure::usage(format!("cannot use the private key {}: {error}", path.display()))
    };
    let pem = fs::read_to_string(path).map_err(|error| unusable(&error))?;
    KeyPair::from_pem(&pem).map_err(|error| {
        unusable(&error).hint("it must be PKCS#8: `openssl pkcs8 -topk8 -nocrypt` makes it so")
    })
}

/// The first certificate in a file, as PEM, and what it says.
pub(super) fn first_certificate(path: &Path) -> Result<(String, Names), Failure> {
    let unusable = |problem: String| {
        Failure::usage(format!("cannot use the certificate {}: {problem}", path.display()))
    };
    let pem = fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let names = Names::of_pem(&pem).map_err(unusable)?;
    Ok((String::from_utf8_lossy(&pem).into_owned(), names))
}

/// Where a directory of certificates is, for messages and profiles.
pub(crate) fn absolute(dir: &Path) -> PathBuf {
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}
