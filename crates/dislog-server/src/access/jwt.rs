//! JSON Web Tokens (RFC 7519) that others made: whom they name, if a known key signed them.
//!
//! - A key says which algorithm is used with it, never the token: so neither `none` nor a public
//!   key taken for a secret gets anybody in.
//! - Issuer, audience and expiry must be there and right; `nbf` if it is there.
//! - A token with critical extensions is refused (RFC 7515 §4.1.11): none is known here.

use std::sync::Once;

use jsonwebtoken::crypto::{CryptoProvider, JwtVerifier, KeyUtils};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::signature::Verifier;
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, Validation};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents,
    UnparsedPublicKey,
};
use serde::Deserialize;

use super::token::{Digest, digest};

/// How much the clocks of issuer and node may differ.
const LEEWAY_S: u64 = 60;

/// The most keys of a set: without a key id, each has to be tried.
const KEYS_MAX: usize = 32;

/// Who makes tokens, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Issuer {
    /// The `iss` of tokens.
    pub(super) issuer: String,
    /// One of the `aud` of tokens.
    pub(super) audience: String,
}

/// The keys that tokens may be signed with.
pub(super) struct KeySet {
    keys: Vec<Key>,
}

struct Key {
    id: Option<String>,
    digest: Digest,
    key: DecodingKey,
    validation: Validation,
}

/// What a token proves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claimed {
    pub(super) subject: String,
    /// Unix milliseconds, leeway included.
    pub(super) ends_ms: i64,
    /// The key that signed it.
    pub(super) key: Digest,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

impl KeySet {
    /// Reads a key set (RFC 7517 §5).
    pub(super) fn parse(text: &str, issuer: &Issuer) -> Result<KeySet, String> {
        static PROVIDER: Once = Once::new();
        // Another one could only be there if this program had installed it.
        PROVIDER.call_once(|| {
            let _ = RING.install_default();
        });
        let set: JwkSet =
            serde_json::from_str(text).map_err(|error| format!("it is no key set: {error}"))?;
        let keys: Result<Vec<Key>, String> = (0..)
            .zip(&set.keys)
            .filter(|(_, jwk)| jwk.common.public_key_use != Some(PublicKeyUse::Encryption))
            .map(|(at, jwk)| Key::of(jwk, issuer).map_err(|error| format!("key {at}: {error}")))
            .collect();
        let keys = keys?;
        match keys.len() {
            0 => Err("it has no key to verify with".to_owned()),
            1..=KEYS_MAX => Ok(KeySet { keys }),
            count => Err(format!("it has {count} keys, the limit is {KEYS_MAX}")),
        }
    }

    /// Whether the set has this key.
    pub(super) fn has(&self, key: &Digest) -> bool {
        self.keys.iter().any(|known| known.digest == *key)
    }

    /// Whom a token names; or why it is worth nothing, without a word of the token itself.
    pub(super) fn verify(&self, token: &str) -> Result<Claimed, String> {
        let header = jsonwebtoken::decode_header(token)
            .map_err(|error| format!("it is no JWT that can be read here: {}", plain(&error)))?;
        if header.crit.is_some() {
            return Err("it has critical extensions, and none is known here".to_owned());
        }
        let meant = |key: &&Key| match (&header.kid, &key.id) {
            (Some(id), Some(known)) => id == known,
            _ => true,
        };
        let fits = |key: &&Key| key.validation.algorithms.contains(&header.alg);
        let mut why = format!("no key of the key set is of its id and algorithm {:?}", header.alg);
        for key in self.keys.iter().filter(meant).filter(fits) {
            match jsonwebtoken::decode::<Claims>(token, &key.key, &key.validation) {
                Ok(decoded) => return key.claimed(&decoded.claims),
                Err(error) => why = plain(&error),
            }
        }
        Err(why)
    }
}

impl Key {
    fn of(jwk: &Jwk, issuer: &Issuer) -> Result<Key, String> {
        let algorithm = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => Algorithm::RS256,
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                Algorithm::ES256
            }
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                Algorithm::EdDSA
            }
            AlgorithmParameters::OctetKey(_) => {
                return Err("it is a shared secret, which would have to be here: give a public \
                            key (RSA, P-256 or Ed25519)"
                    .to_owned());
            }
            _ => return Err("give an RSA, P-256 or Ed25519 key".to_owned()),
        };
        let said = jwk.common.key_algorithm.map(|algorithm| algorithm.to_string());
        let known = format!("{algorithm:?}");
        if said.as_ref().is_some_and(|said| *said != known) {
            return Err(format!("its alg is {}: there is only {known}", said.unwrap_or_default()));
        }
        let key = DecodingKey::from_jwk(jwk).map_err(|error| plain(&error))?;
        let mut validation = Validation::new(algorithm);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        validation.set_issuer(&[&issuer.issuer]);
        validation.set_audience(&[&issuer.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let text = serde_json::to_vec(&jwk.algorithm).map_err(|error| error.to_string())?;
        Ok(Key { id: jwk.common.key_id.clone(), digest: digest(&text), key, validation })
    }

    fn claimed(&self, claims: &Claims) -> Result<Claimed, String> {
        let ends_s = claims.exp + LEEWAY_S as f64;
        let subject = claims.sub.clone();
        // Beyond what a number can say is as good as never.
        Ok(Claimed { subject, ends_ms: (ends_s * 1_000.0) as i64, key: self.digest })
    }
}

/// What is wrong, in a few words: messages of parsers may quote what they read.
fn plain(error: &Error) -> String {
    let what = match error.kind() {
        ErrorKind::InvalidSignature => "its signature is not that of a known key",
        ErrorKind::ExpiredSignature => "it has expired",
        ErrorKind::ImmatureSignature => "it is not valid yet",
        ErrorKind::InvalidIssuer => "its issuer is another",
        ErrorKind::InvalidAudience => "it is meant for another audience",
        ErrorKind::MissingRequiredClaim(claim) => return format!("it has no valid {claim:?}"),
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName => {
            "its algorithm is not that of the key"
        }
        _ => "it is not a valid token",
    };
    what.to_owned()
}

/// The library's own providers would bring another implementation of all this into the program.
static RING: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    key_utils: KeyUtils::new_unimplemented(),
};

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let family = match algorithm {
        Algorithm::ES256 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        Algorithm::RS256 => AlgorithmFamily::Rsa,
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    };
    match key.family() == family {
        true => Ok(Box::new(Ring { algorithm: *algorithm, key: key.kind().clone() })),
        false => Err(ErrorKind::InvalidKeyFormat.into()),
    }
}

struct Ring {
    algorithm: Algorithm,
    key: DecodingKeyKind,
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(
        &self,
        message: &[u8],
        signature: &Vec<u8>,
    ) -> Result<(), jsonwebtoken::signature::Error> {
        let verified = match (&self.key, self.algorithm) {
            (DecodingKeyKind::RsaModulusExponent { n, e }, Algorithm::RS256) => {
                let key = RsaPublicKeyComponents { n, e };
                key.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), Algorithm::ES256) => {
                UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, key).verify(message, signature)
            }
            (DecodingKeyKind::SecretOrDer(key), Algorithm::EdDSA) => {
                UnparsedPublicKey::new(&ED25519, key).verify(message, signature)
            }
            _ => Err(ring::error::Unspecified),
        };
        verified.map_err(|_| jsonwebtoken::signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

#[cfg(test)]
#[path = "jwt_tests.rs"]
mod tests;
