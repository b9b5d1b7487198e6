//! The tokens of the cluster: by what whom they name is told, and never the tokens themselves.

use std::collections::BTreeMap;

use super::command::CreateToken;
use crate::error::TopicError;

/// The most tokens there are at once: every node holds all of them in memory.
pub const TOKENS_MAX: usize = 10_000;

/// The longest name of a token.
pub const TOKEN_NAME_BYTES_MAX: usize = 200;

/// The SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// What is known of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// No other token has or had the same.
    pub token_id: u64,
    /// Whom it names; several may name the same, so that one can take the place of another.
    pub name: String,
    /// When it was created, Unix milliseconds.
    pub created_ms: i64,
    /// When it stops being worth anything, Unix milliseconds; `None`: never.
    pub expires_ms: Option<i64>,
    /// Who asked for it.
    pub created_by: String,
}

/// See the module.
///
/// - Every digest belongs to a token, and every token has one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tokens {
    tokens: BTreeMap<u64, (TokenDigest, Token)>,
    digests: BTreeMap<TokenDigest, u64>,
    /// One past the offset of the last command that changed something.
    revision: u64,
}

impl Token {
    /// Whether it is worth something at that time.
    #[must_use]
    pub fn holds(&self, now_ms: i64) -> bool {
        self.expires_ms.is_none_or(|expires_ms| now_ms < expires_ms)
    }
}

impl Tokens {
    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Token> {
        self.tokens.values().map(|(_, token)| token)
    }

    /// The token of an id.
    pub(crate) fn get(&self, token_id: u64) -> Option<&Token> {
        self.tokens.get(&token_id).map(|(_, token)| token)
    }

    /// The token with a digest.
    pub(crate) fn find(&self, digest: &TokenDigest) -> Option<&Token> {
        self.get(*self.digests.get(digest)?)
    }

    /// Another once tokens came or went.
    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    /// Applies the command at `offset`, whose offset becomes the token's id.
    pub(super) fn create(
        &mut self,
        offset: u64,
        created_ms: i64,
        create: CreateToken,
    ) -> Result<(), TopicError> {
        let CreateToken { name, digest, expires_ms, created_by } = create;
        check_token_name(&name)?;
        let invalid = |what: &str| TopicError::Invalid(what.to_owned());
        let digest: TokenDigest =
            digest.try_into().map_err(|_| invalid("the digest of a token has 32 bytes"))?;
        if self.digests.contains_key(&digest) {
            return Err(invalid("there is such a token already"));
        }
        // The time is that of the command, so that every node comes to the same.
        self.forget(|token| !token.holds(created_ms));
        if self.tokens.len() >= TOKENS_MAX {
            let message = format!("there are {TOKENS_MAX} tokens: revoke some");
            return Err(TopicError::Invalid(message));
        }
        let expires_ms = (expires_ms != 0).then_some(expires_ms);
        let token = Token { token_id: offset, name, created_ms, expires_ms, created_by };
        self.digests.insert(digest, offset);
        self.tokens.insert(offset, (digest, token));
        self.revision = offset + 1;
        Ok(())
    }

    /// Applies the command at `offset`.
    pub(super) fn revoke(&mut self, offset: u64, token_id: u64) -> Result<(), TopicError> {
        if self.get(token_id).is_none() {
            return Err(TopicError::Invalid(format!("there is no token {token_id}")));
        }
        self.forget(|token| token.token_id == token_id);
        self.revision = offset + 1;
        Ok(())
    }

    fn forget(&mut self, which: impl Fn(&Token) -> bool) {
        let digests = &mut self.digests;
        self.tokens.retain(|_, (digest, token)| {
            let gone = which(token);
            if gone {
                digests.remove(digest);
            }
            !gone
        });
    }
}

/// Refuses a name that could not be told from others in rules and records.
pub(crate) fn check_token_name(name: &str) -> Result<(), TopicError> {
    let plain = |c: char| !c.is_control() && !c.is_whitespace() && !matches!(c, ',' | '"');
    if (1..=TOKEN_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(plain) {
        return Ok(());
    }
    let shown: String = name.chars().take(40).collect();
    Err(TopicError::Invalid(format!(
        "{shown:?} cannot be the name of a token: give 1 to {TOKEN_NAME_BYTES_MAX} bytes without \
         spaces, commas and quotes"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(name: &str, digest: u8, expires_ms: i64) -> CreateToken {
        let created_by = "root".to_owned();
        CreateToken { name: name.to_owned(), digest: vec![digest; 32], expires_ms, created_by }
    }

    #[test]
    fn a_token_is_found_by_its_digest_until_it_is_revoked() {
        let mut tokens = Tokens::default();
        tokens.create(4, 100, create("app", 1, 0)).unwrap();
        tokens.create(5, 100, create("app", 2, 200)).unwrap();
        assert_eq!(tokens.revision(), 6);
        assert_eq!(tokens.find(&[1; 32]).unwrap().token_id, 4);
        assert_eq!(tokens.find(&[2; 32]).unwrap().expires_ms, Some(200));
        assert!(tokens.find(&[3; 32]).is_none());
        tokens.revoke(6, 4).unwrap();
        assert!(tokens.find(&[1; 32]).is_none() && tokens.get(4).is_none());
        assert!(tokens.revoke(7, 4).is_err());
        assert_eq!((tokens.revision(), tokens.all().count()), (7, 1));
    }

    #[test]
    fn expired_tokens_make_room() {
        let mut tokens = Tokens::default();
        tokens.create(1, 100, create("app", 1, 200)).unwrap();
        assert!(tokens.get(1).unwrap().holds(199) && !tokens.get(1).unwrap().holds(200));
        tokens.create(2, 200, create("app", 1, 0)).unwrap_err();
        tokens.create(3, 200, create("app", 2, 0)).unwrap();
        assert!(tokens.find(&[1; 32]).is_none());
    }

    #[test]
    fn what_cannot_be_is_refused_and_changes_nothing() {
        let mut tokens = Tokens::default();
        for name in ["", "a b", "a,b", "a\"b", "a\nb", &"n".repeat(201)] {
            tokens.create(1, 0, create(name, 1, 0)).unwrap_err();
        }
        let short = CreateToken { digest: vec![1; 31], ..create("app", 1, 0) };
        tokens.create(1, 0, short).unwrap_err();
        assert_eq!(tokens, Tokens::default());
    }
}
