//! JWTs of all three algorithms, shown to a real process: right, altered, and made to deceive.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
    RSA_PKCS1_SHA512, RsaEncoding, RsaKeyPair, RsaPublicKeyComponents,
};
use rustls::pki_types::PrivatePkcs8KeyDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Who, ok, refused, until};

/// Made by `openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048`, for this and nothing
/// else: ring signs with RSA keys, but does not make any.
const RSA_KEY: &[u8] = include_bytes!("rsa-for-tests.pem");

const RECORDS: &str = "/v1/topics/orders.eu/records";

/// An issuer with a key of each kind.
struct Issuer {
    rsa: RsaKeyPair,
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Issuer {
    fn new() -> Issuer {
        let (random, signing) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let rsa = PrivatePkcs8KeyDer::from_pem_slice(RSA_KEY).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(signing, &random).unwrap();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Issuer {
            rsa: RsaKeyPair::from_pkcs8(rsa.secret_pkcs8_der()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(signing, ec.as_ref(), &random).unwrap(),
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
        }
    }

    fn jwks(&self) -> Value {
        let RsaPublicKeyComponents { n, e } =
            RsaPublicKeyComponents::<Vec<u8>>::from(self.rsa.public_key());
        let point = &self.ec.public_key().as_ref()[1..];
        let text = |bytes: &[u8]| BASE64.encode(bytes);
        let ed = text(self.ed.public_key().as_ref());
        json!({"keys": [
            {"kty": "RSA", "kid": "RS256", "alg": "RS256", "n": text(&n), "e": text(&e)},
            {"kty": "EC", "crv": "P-256", "kid": "ES256", "use": "sig",
             "x": text(&point[..32]), "y": text(&point[32..])},
            {"kty": "OKP", "crv": "Ed25519", "kid": "EdDSA", "x": ed},
        ]})
    }

    /// A token by the key `kid`, which says that it is by `alg`.
    fn token(&self, kid: &str, alg: &str, claims: &Value) -> String {
        let encode = |value: &Value| BASE64.encode(value.to_string());
        let header = json!({"alg": alg, "kid": kid, "typ": "JWT"});
        let message = format!("{}.{}", encode(&header), encode(claims));
        let signature = self.signature(kid, alg, message.as_bytes());
        format!("{message}.{}", BASE64.encode(signature))
    }

    fn signature(&self, kid: &str, alg: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        let rsa = |padding: &'static dyn RsaEncoding| {
            let mut signature = vec![0; self.rsa.public().modulus_len()];
            self.rsa.sign(padding, &random, message, &mut signature).unwrap();
            signature
        };
        match (alg, kid) {
            ("none", _) => Vec::new(),
            // With what everybody knows as the secret: so a library that goes by `alg` is deceived.
            ("HS256", _) => {
                let secret = match kid {
                    "RS256" => self.rsa.public_key().as_ref(),
                    "ES256" => self.ec.public_key().as_ref(),
                    _ => self.ed.public_key().as_ref(),
                };
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
            }
            ("RS512", _) => rsa(&RSA_PKCS1_SHA512),
            (_, "RS256") => rsa(&RSA_PKCS1_SHA256),
            (_, "ES256") => self.ec.sign(&random, message).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(message).as_ref().to_vec(),
        }
    }
}

fn claims(subject: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    claims_until(subject, now.as_secs() + 600)
}

fn claims_until(subject: &str, exp: u64) -> Value {
    json!({"sub": subject, "iss": "https://issuer", "aud": "dislog", "exp": exp})
}

/// A node that takes the tokens of an issuer.
fn cluster_of(issuer: &Issuer) -> Cluster {
    Cluster::of(1, |_, dir| {
        let settings = fs::read_to_string(dir.join("auth.toml")).unwrap();
        let jwt = "[jwt]\nissuer = \"https://issuer\"\naudience = \"dislog\"\n";
        fs::write(dir.join("auth.toml"), settings + jwt).unwrap();
        fs::write(dir.join("jwks.json"), issuer.jwks().to_string()).unwrap();
    })
}

/// The same with one character another, at each part of the token.
fn altered(token: &str) -> Vec<String> {
    let ends = token.match_indices('.').map(|(at, _)| at).chain([token.len()]);
    // Not the last character of a part: some of its bits may say nothing.
    let places = ends.map(|end| end - 10);
    let change = |at: usize| {
        let mut changed = token.as_bytes().to_vec();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        String::from_utf8(changed).unwrap()
    };
    places.map(change).collect()
}

#[test]
fn jwts_are_good_as_they_were_signed_and_not_otherwise() {
    const KINDS: [&str; 3] = ["RS256", "ES256", "EdDSA"];
    let issuer = Issuer::new();
    let cluster = cluster_of(&issuer);
    ok(&mut cluster.root(0, &["topic", "create", "orders.eu"]));
    let post = |token: &str| cluster.curl(0, Who::Bearer(token), "POST", RECORDS);
    let mut refused = Vec::new();
    for kind in KINDS {
        let good = issuer.token(kind, kind, &claims("app"));
        assert_eq!(post(&good).0, 201, "{kind}");
        assert_eq!(post(&issuer.token(kind, kind, &claims("eve"))).0, 403, "{kind}");
        refused.extend(altered(&good));
        // The signature of one, with the claims of another.
        let (_, signature) = good.rsplit_once('.').unwrap();
        let root = issuer.token(kind, kind, &claims("root"));
        refused.push(format!("{}.{signature}", root.rsplit_once('.').unwrap().0));
        for alg in ["none", "NONE", "HS256", "RS512"] {
            refused.push(issuer.token(kind, alg, &claims("root")));
        }
        // By one key, said to be by the others.
        for other in KINDS.into_iter().filter(|other| *other != kind) {
            refused.push(issuer.token(kind, other, &claims("root")));
        }
    }
    // With the text of the key set as the secret, too.
    let message = issuer.token("RS256", "HS256", &claims("root"));
    let (message, _) = message.rsplit_once('.').unwrap();
    let secret = hmac::Key::new(hmac::HMAC_SHA256, issuer.jwks().to_string().as_bytes());
    let signature = BASE64.encode(hmac::sign(&secret, message.as_bytes()));
    refused.push(format!("{message}.{signature}"));
    for token in &refused {
        let (code, body) = post(token);
        assert_eq!(code, 401, "{token} {body}");
        assert!(!body.contains(token.as_str()), "{body}");
    }
    let added = ok(&mut cluster.root(0, &["get", "orders.eu"]));
    assert_eq!(added, "by curl\n".repeat(KINDS.len()), "nothing else was added");
    until("every refusal is recorded", || {
        let audit = cluster.audit(0);
        let is_refusal = |line: &&str| line.contains("the token is refused");
        audit.lines().filter(is_refusal).count() == refused.len()
    });
    let said = cluster.nodes[0].output() + &cluster.audit(0);
    assert!(refused.iter().all(|token| !said.contains(token.as_str())), "no token is recorded");
}

#[test]
fn what_a_jwt_began_ends_with_it() {
    /// A token is taken for so long after it has expired: clocks differ.
    const LEEWAY_S: u64 = 60;
    let issuer = Issuer::new();
    let cluster = cluster_of(&issuer);
    ok(&mut cluster.root(0, &["topic", "create", "orders.eu"]));
    let ends = (SystemTime::now() + Duration::from_secs(5)).duration_since(UNIX_EPOCH).unwrap();
    let token = issuer.token("EdDSA", "EdDSA", &claims_until("app", ends.as_secs() - LEEWAY_S));
    let began = Instant::now();
    // Over gRPC, by a client that gives up once it is told that it is nobody.
    let mut following = cluster.bearer(&token, 0, &["get", "orders.eu", "--follow"]);
    let events = format!("https://{}{RECORDS}?follow=true", cluster.nodes[0].address);
    let mut tail = Command::new("curl");
    tail.args(["-sSN", "-H", "accept: text/event-stream", "--cacert"]);
    tail.arg(cluster.path("certs/ca.crt")).arg(events);
    tail.args(["-H", &format!("authorization: Bearer {token}")]);
    let tail = std::thread::spawn(move || ok(&mut tail));
    let said = refused(&mut following);
    assert!(said.contains("the token has expired"), "{said}");
    let events = tail.join().unwrap();
    assert!(
        events.contains("event: error") && events.contains("the token has expired"),
        "{events}"
    );
    let over = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    assert!(over.as_secs() >= ends.as_secs(), "not before");
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(cluster.curl(0, Who::Bearer(&token), "POST", RECORDS).0, 401);
}
