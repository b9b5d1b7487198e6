use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};

use super::*;

struct Signer {
    ec: EcdsaKeyPair,
    ed: Ed25519KeyPair,
}

impl Signer {
    fn new() -> Signer {
        let random = SystemRandom::new();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        let ec = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random);
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        Signer { ec: ec.unwrap(), ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap() }
    }

    fn jwks(&self) -> Value {
        let point = &self.ec.public_key().as_ref()[1..];
        let (x, y) = (BASE64.encode(&point[..32]), BASE64.encode(&point[32..]));
        let ed = BASE64.encode(self.ed.public_key());
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "ec", "alg": "ES256", "x": x, "y": y},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": ed},
        ]})
    }

    fn keys(&self) -> KeySet {
        KeySet::parse(&self.jwks().to_string(), &issuer()).unwrap()
    }

    fn sign(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| BASE64.encode(value.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = match header["alg"].as_str().unwrap() {
            "EdDSA" => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
            "ES256" => {
                let signed = self.ec.sign(&SystemRandom::new(), message.as_bytes());
                signed.unwrap().as_ref().to_vec()
            }
            _ => Vec::new(),
        };
        format!("{message}.{}", BASE64.encode(signature))
    }
}

fn issuer() -> Issuer {
    Issuer { issuer: "https://issuer.example".into(), audience: "dislog".into() }
}

fn now_s() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

fn claims() -> Value {
    let exp = now_s() + 300;
    json!({"sub": "app", "iss": "https://issuer.example", "aud": "dislog", "exp": exp})
}

fn with(mut value: Value, key: &str, changed: Value) -> Value {
    value[key] = changed;
    value
}

#[test]
fn a_token_of_a_known_key_names_its_subject() {
    let signer = Signer::new();
    let keys = signer.keys();
    for header in [
        json!({"alg": "ES256", "kid": "ec"}),
        json!({"alg": "ES256"}),
        json!({"alg": "EdDSA", "kid": "ed", "typ": "JWT"}),
    ] {
        let claimed = keys.verify(&signer.sign(&header, &claims())).unwrap();
        assert_eq!(claimed.subject, "app");
        assert!(keys.has(&claimed.key) && !Signer::new().keys().has(&claimed.key));
        let ends_s = claims()["exp"].as_f64().unwrap() as i64 + 60;
        assert!((ends_s * 1_000 - claimed.ends_ms).abs() <= 2_000);
    }
    let several = with(claims(), "aud", json!(["other", "dislog"]));
    keys.verify(&signer.sign(&json!({"alg": "ES256"}), &several)).unwrap();
}

#[test]
fn whatever_is_wrong_with_it_is_refused() {
    let (signer, stranger) = (Signer::new(), Signer::new());
    let keys = signer.keys();
    let es256 = json!({"alg": "ES256", "kid": "ec"});
    for (changed, expected) in [
        (with(claims(), "exp", json!(now_s() - 120)), "expired"),
        (with(claims(), "exp", json!("tomorrow")), "exp"),
        (with(claims(), "exp", Value::Null), "exp"),
        (with(claims(), "nbf", json!(now_s() + 120)), "not valid yet"),
        (with(claims(), "iss", json!("https://other.example")), "issuer"),
        (with(claims(), "iss", Value::Null), "iss"),
        (with(claims(), "aud", json!("other")), "audience"),
        (with(claims(), "aud", Value::Null), "aud"),
        (with(claims(), "sub", Value::Null), ""),
    ] {
        let why = keys.verify(&signer.sign(&es256, &changed)).unwrap_err();
        assert!(why.contains(expected) || why == "it is not a valid token", "{changed}: {why}");
    }
    assert!(keys.verify(&stranger.sign(&es256, &claims())).unwrap_err().contains("signature"));
    for header in [
        json!({"alg": "none"}),
        json!({"alg": "HS256", "kid": "ec"}),
        json!({"alg": "ES256", "kid": "other"}),
        json!({"alg": "EdDSA", "kid": "ec"}),
        json!({"alg": "ES256", "kid": "ec", "crit": ["exp"], "exp": 1}),
        json!({"alg": "RS256", "kid": "ec"}),
    ] {
        assert!(keys.verify(&signer.sign(&header, &claims())).is_err(), "{header}");
    }
    for text in ["", "a", "a.b", "a.b.c", "..", "a.b.c.d"] {
        assert!(keys.verify(text).is_err(), "{text}");
    }
}

#[test]
fn an_altered_token_is_refused_wherever_it_was_altered() {
    let signer = Signer::new();
    let keys = signer.keys();
    let token = signer.sign(&json!({"alg": "ES256", "kid": "ec"}), &claims());
    for at in 0..token.len() {
        let mut altered = token.clone().into_bytes();
        altered[at] = if altered[at] == b'A' { b'B' } else { b'A' };
        let altered = String::from_utf8(altered).unwrap();
        assert!(keys.verify(&altered).is_err(), "byte {at}");
    }
}

#[test]
fn secrets_and_keys_that_cannot_be_used_are_refused() {
    let refused = |keys: Value| KeySet::parse(&json!({"keys": keys}).to_string(), &issuer()).err();
    assert!(refused(json!([{"kty": "oct", "k": "c2VjcmV0"}])).unwrap().contains("secret"));
    assert!(refused(json!([])).unwrap().contains("no key"));
    let p384 = json!([{"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}]);
    assert!(refused(p384).unwrap().contains("P-256"));
    let rs512 = json!([{"kty": "RSA", "alg": "RS512", "n": "AQAB", "e": "AQAB"}]);
    assert!(refused(rs512).unwrap().contains("RS512"));
    assert!(KeySet::parse("{}", &issuer()).is_err());
}
