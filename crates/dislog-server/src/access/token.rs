//! Tokens of our own: 256 random bits behind a prefix, of which only the digest is kept.
//!
//! A slow hash protects passwords, which can be guessed. Nobody guesses 256 random bits, so SHA-256
//! is enough, and a request costs less than a microsecond of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use dislog_proto::TOKEN_PREFIX;
use ring::digest::{SHA256, digest as hash};
use ring::rand::{SecureRandom as _, SystemRandom};

/// A SHA-256.
pub(crate) type Digest = [u8; 32];

/// A new token. It is shown once and kept nowhere.
pub(crate) fn create() -> Result<String, ring::error::Unspecified> {
    let mut bits = [0; 32];
    SystemRandom::new().fill(&mut bits)?;
    Ok(format!("{TOKEN_PREFIX}{}", BASE64.encode(bits)))
}

/// The SHA-256 of something.
pub(crate) fn digest(bytes: &[u8]) -> Digest {
    hash(&SHA256, bytes).as_ref().try_into().expect("a SHA-256 has 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_long_and_differ() {
        let (one, two) = (create().unwrap(), create().unwrap());
        assert!(one != two && one.starts_with("dislog_"));
        assert_eq!(one.len(), TOKEN_PREFIX.len() + 43);
        assert!(digest(one.as_bytes()) != digest(two.as_bytes()));
    }
}
