//! Who a certificate names.
//!
//! The **subject** is its common name or else its first URI, the **node role** a URI among its
//! alternative names, which every tool that makes certificates can write:
//!
//! ```text
//!   dislog://orders/node/anton      a node of the cluster "orders", called anton
//! ```
//!
//! It is worth what the authority is: two clusters with one authority are told apart by the name of
//! the cluster, two with authorities of their own also if both have the same name.

use std::fmt;
use std::net::IpAddr;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::x509::AttributeTypeAndValue;

/// How the URI of a node begins.
const SCHEME: &str = "dislog://";

/// What stands between the cluster and the node.
const NODE: &str = "/node/";

/// The longest subject: it is written into logs and compared with rules.
const SUBJECT_BYTES_MAX: usize = 256;

/// What a certificate says of whom it belongs to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// The common name.
    pub common_name: Option<String>,
    /// The organisation: in an authority that `dislog cert ca` made, the cluster.
    pub organization: Option<String>,
    /// URIs among the alternative names.
    pub uris: Vec<String>,
    /// Host names among the alternative names.
    pub hosts: Vec<String>,
    /// Addresses among the alternative names.
    pub addresses: Vec<IpAddr>,
    /// From when it is valid, seconds since 1970.
    pub not_before_s: i64,
    /// Until when it is valid, seconds since 1970.
    pub not_after_s: i64,
    /// Whether it may be used by the side that is dialled.
    pub serves: bool,
    /// Whether it may be used by the side that dials.
    pub dials: bool,
    /// Whether it is an authority.
    pub is_authority: bool,
}

/// The role of a node in one cluster.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeRole {
    /// Which cluster.
    pub cluster: String,
    /// What the node is called.
    pub name: String,
}

impl Names {
    /// What a certificate says.
    ///
    /// # Errors
    /// If it is none.
    pub fn of(certificate: &CertificateDer<'_>) -> Result<Names, String> {
        let (_, parsed) = X509Certificate::from_der(certificate)
            .map_err(|error| format!("it is no X.509 certificate ({error})"))?;
        let unreadable = |error: &dyn fmt::Display| format!("an extension is unreadable ({error})");
        let mut names = Names {
            common_name: parsed.subject().iter_common_name().next().and_then(text),
            organization: parsed.subject().iter_organization().next().and_then(text),
            not_before_s: parsed.validity().not_before.timestamp(),
            not_after_s: parsed.validity().not_after.timestamp(),
            serves: true,
            dials: true,
            is_authority: parsed.is_ca(),
            ..Names::default()
        };
        if let Some(usage) = parsed.extended_key_usage().map_err(|error| unreadable(&error))? {
            names.serves = usage.value.server_auth || usage.value.any;
            names.dials = usage.value.client_auth || usage.value.any;
        }
        let others = parsed.subject_alternative_name().map_err(|error| unreadable(&error))?;
        for name in others.iter().flat_map(|others| &others.value.general_names) {
            match name {
                GeneralName::URI(uri) => names.uris.push((*uri).to_owned()),
                GeneralName::DNSName(host) => names.hosts.push((*host).to_owned()),
                GeneralName::IPAddress(bytes) => names.addresses.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(names)
    }

    /// What the first certificate in a PEM file says.
    ///
    /// # Errors
    /// If there is none.
    pub fn of_pem(pem: &[u8]) -> Result<Names, String> {
        match CertificateDer::pem_slice_iter(pem).next() {
            Some(Ok(certificate)) => Names::of(&certificate),
            Some(Err(error)) => Err(format!("it is not PEM ({error})")),
            None => Err("there is no certificate in it".to_owned()),
        }
    }

    /// By what name rules and records of what was done know the holder; none if the certificate
    /// names nobody in a way that could be written in a line.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        let subject = self.common_name.as_ref().or(self.uris.first())?;
        let fits = (1..=SUBJECT_BYTES_MAX).contains(&subject.len());
        let is_plain = !subject.chars().any(char::is_control) && subject.trim() == subject;
        (fits && is_plain).then_some(subject)
    }

    /// The role of a node, if it has one.
    #[must_use]
    pub fn node_role(&self) -> Option<NodeRole> {
        self.uris.iter().find_map(|uri| NodeRole::parse(uri))
    }
}

impl NodeRole {
    /// The role that a URI stands for.
    #[must_use]
    pub fn parse(uri: &str) -> Option<NodeRole> {
        let (cluster, name) = uri.strip_prefix(SCHEME)?.split_once(NODE)?;
        let is_word = |word: &str| {
            let allowed = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            !word.is_empty() && word.len() <= SUBJECT_BYTES_MAX && word.chars().all(allowed)
        };
        let role = NodeRole { cluster: cluster.to_owned(), name: name.to_owned() };
        (is_word(cluster) && is_word(name)).then_some(role)
    }
}

impl fmt::Display for NodeRole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}{NODE}{}", self.cluster, self.name)
    }
}

fn text(attribute: &AttributeTypeAndValue<'_>) -> Option<String> {
    attribute.as_str().ok().filter(|text| !text.is_empty()).map(str::to_owned)
}

fn address(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(bytes.into());
    }
    <[u8; 16]>::try_from(bytes).ok().map(IpAddr::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_is_a_uri_of_three_parts() {
        let role = NodeRole::parse("dislog://orders/node/anton").unwrap();
        assert_eq!((role.cluster.as_str(), role.name.as_str()), ("orders", "anton"));
        assert_eq!(role.to_string(), "dislog://orders/node/anton");
        for wrong in [
            "dislog://orders/client/anton",
            "dislog://orders/node/",
            "dislog:///node/anton",
            "dislog://orders/node/a/node/b",
            "dislog://or ders/node/anton",
            "https://orders/node/anton",
            "x dislog://orders/node/anton",
        ] {
            assert_eq!(NodeRole::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_subject_fits_into_a_line() {
        let named = |name: &str| Names { common_name: Some(name.into()), ..Names::default() };
        assert_eq!(named("alice").subject(), Some("alice"));
        for wrong in ["", "a\nb", " a", "a\0", &"x".repeat(300)] {
            assert_eq!(named(wrong).subject(), None, "{wrong:?}");
        }
        let uris = vec!["spiffe://x/alice".to_owned()];
        let by_uri = Names { uris, ..Names::default() };
        assert_eq!(by_uri.subject(), Some("spiffe://x/alice"));
    }
}
