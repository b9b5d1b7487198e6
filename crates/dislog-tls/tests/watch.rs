//! Certificate files that are replaced the way tools replace them.

#![allow(clippy::unwrap_used, reason = "support of tests may fail them")]

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant};

use dislog_tls::{Files, Watched};
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
};

const HANG: Duration = Duration::from_secs(60);

struct Made {
    authority: String,
    certificate: String,
    key: String,
}

/// A certificate of a node from an authority of its own.
fn made(role: &str) -> Made {
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let root = authority.self_signed(&authority_key).unwrap().pem();
    let issuer = Issuer::from_params(&authority, authority_key);
    let mut params = CertificateParams::default();
    params.subject_alt_names = vec![SanType::URI(role.to_owned().try_into().unwrap())];
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, &issuer).unwrap().pem();
    Made { authority: root, certificate, key: key.serialize_pem() }
}

impl Made {
    fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).unwrap();
        std::fs::write(dir.join("ca.crt"), &self.authority).unwrap();
        std::fs::write(dir.join("tls.crt"), &self.certificate).unwrap();
        std::fs::write(dir.join("tls.key"), &self.key).unwrap();
    }
}

fn until_node(watched: &Watched, name: &str) {
    let end = Instant::now() + HANG;
    while watched.current().role.name != name {
        assert!(Instant::now() < end, "{name} is not used");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_link_that_kubernetes_swaps_and_files_one_by_one() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    made("dislog://x/node/one").write(&dir.join("..1"));
    symlink("..1", dir.join("..data")).unwrap();
    for file in ["ca.crt", "tls.crt", "tls.key"] {
        symlink(Path::new("..data").join(file), dir.join(file)).unwrap();
    }
    let watched = Watched::start(Files::in_dir(dir)).unwrap();
    assert_eq!(watched.current().role.name, "one");

    made("dislog://x/node/two").write(&dir.join("..2"));
    symlink("..2", dir.join("..data_tmp")).unwrap();
    std::fs::rename(dir.join("..data_tmp"), dir.join("..data")).unwrap();
    until_node(&watched, "two");

    // One file after the other, with time between them: what does not fit together is not used.
    let three = made("dislog://x/node/three");
    let put = |file: &str, text: &str| {
        let new = dir.join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, dir.join(file)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
    };
    put("ca.crt", &three.authority);
    put("tls.key", &three.key);
    assert_eq!(watched.current().role.name, "two");
    put("tls.crt", &three.certificate);
    until_node(&watched, "three");
}
