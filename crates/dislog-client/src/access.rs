//! Bearer tokens: the one that a client shows, and the calls that manage those of a cluster and ask
//! what its rules say.

use std::fmt;
use std::net::IpAddr;

use dislog_proto::v1;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::{Request, Status};

use crate::client::whole_topic;
use crate::retry::Repeat;
use crate::{Client, Error, NodeClient};

/// A bearer token to show to servers. Whoever has it is who it names, so it is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct AccessToken(MetadataValue<Ascii>);

impl AccessToken {
    /// A token, as `dislog token create` printed it, or a JWT.
    ///
    /// # Errors
    /// [`Error::Options`] if it cannot be one.
    pub fn new(token: &str) -> Result<AccessToken, Error> {
        let wrong = || Error::Options("a token is letters, digits and -._~+/ in one word".into());
        let token = token.trim();
        if token.is_empty() || token.contains(char::is_whitespace) {
            return Err(wrong());
        }
        let value = MetadataValue::try_from(format!("Bearer {token}"));
        let mut value: MetadataValue<Ascii> = value.map_err(|_| wrong())?;
        value.set_sensitive(true);
        Ok(AccessToken(value))
    }
}

impl fmt::Debug for AccessToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AccessToken(…)")
    }
}

/// Shows a token with each request over one connection.
#[derive(Clone, Debug)]
pub(crate) enum Bearer {
    /// There is none.
    Nothing,
    /// This one.
    Token(AccessToken),
    /// There is one, but whoever listens on the way would have it.
    Unsafe,
}

impl Bearer {
    /// What is shown to `server`.
    pub(crate) fn to(server: &str, token: Option<&AccessToken>, encrypted: bool) -> Bearer {
        match token {
            None => Bearer::Nothing,
            Some(token) if encrypted || is_here(server) => Bearer::Token(token.clone()),
            Some(_) => Bearer::Unsafe,
        }
    }
}

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        match self {
            Bearer::Nothing => Ok(request),
            Bearer::Token(AccessToken(value)) => {
                request.metadata_mut().insert("authorization", value.clone());
                Ok(request)
            }
            Bearer::Unsafe => Err(Status::failed_precondition(
                "a token is not sent over plaintext, where others would see it: use TLS",
            )),
        }
    }
}

/// Whether bytes for that address do not leave this machine.
fn is_here(server: &str) -> bool {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
}

/// What a cluster knows of a token: not the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenInfo {
    /// Its id.
    pub id: String,
    /// Whom it names.
    pub name: String,
    /// When it was created, Unix milliseconds.
    pub created_ms: i64,
    /// When it expires, Unix milliseconds, if ever.
    pub expires_ms: Option<i64>,
    /// Who asked for it.
    pub created_by: String,
}

/// What the rules of a node say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessInfo {
    /// About whom.
    pub subject: String,
    /// Whether it is allowed.
    pub allowed: bool,
    /// The rules that apply, those that deny first.
    pub rules: Vec<String>,
    /// The rules of the node, by the first digits of a digest; none without rules.
    pub policy: Option<String>,
    /// Why, for people.
    pub why: String,
    /// The node.
    pub node_id: String,
}

impl Client {
    /// Makes a token that proves to be `name`. It is known to nobody but the caller, then.
    ///
    /// # Errors
    /// [`Error::Refused`] if the name cannot be used or it is not permitted. Repeated only where
    /// it is sure that none was made.
    pub async fn create_token(
        &self,
        name: &str,
        expires_ms: Option<i64>,
    ) -> Result<(String, TokenInfo), Error> {
        let expires_ms = expires_ms.unwrap_or(0);
        let request = v1::CreateTokenRequest { name: name.to_owned(), expires_ms };
        let what = "creating the token";
        let answer = self
            .call(&whole_topic(None), None, what, Repeat::Doubles, |connection| {
                let request = request.clone();
                async move { connection.admin().create_token(request).await }
            })
            .await?;
        Ok((answer.secret, answer.token.unwrap_or_default().into()))
    }

    /// The tokens that were created and not revoked.
    ///
    /// # Errors
    /// [`Error::Refused`] if it is not permitted.
    pub async fn list_tokens(&self) -> Result<Vec<TokenInfo>, Error> {
        let what = "listing tokens";
        let answer = self
            .call(&whole_topic(None), None, what, Repeat::Harmless, |connection| async move {
                connection.admin().list_tokens(v1::ListTokensRequest {}).await
            })
            .await?;
        Ok(answer.tokens.into_iter().map(TokenInfo::from).collect())
    }

    /// Makes the token of an id worthless, or all of a name. Returns them.
    ///
    /// # Errors
    /// [`Error::Refused`] if there is none, also when an earlier attempt of this call revoked it,
    /// or if it is not permitted.
    pub async fn revoke_token(&self, id_or_name: &str) -> Result<Vec<TokenInfo>, Error> {
        let request = v1::RevokeTokenRequest { token: id_or_name.to_owned() };
        let what = "revoking the token";
        let answer = self
            .call(&whole_topic(None), None, what, Repeat::Harmless, |connection| {
                let request = request.clone();
                async move { connection.admin().revoke_token(request).await }
            })
            .await?;
        Ok(answer.revoked.into_iter().map(TokenInfo::from).collect())
    }
}

impl NodeClient {
    /// What the rules of this node say of `subject`; empty: of the one who asks.
    ///
    /// # Errors
    /// [`Error::Refused`] if the action or the topic cannot be, or to ask is not permitted.
    pub async fn check_access(
        &self,
        subject: &str,
        action: &str,
        object: &str,
    ) -> Result<AccessInfo, Error> {
        let request = v1::CheckAccessRequest {
            subject: subject.to_owned(),
            action: action.to_owned(),
            object: object.to_owned(),
        };
        let mut admin = self.connection.admin();
        let call = admin.check_access(request);
        let answer = self.ask("checking access", &whole_topic(None), None, call).await?;
        Ok(AccessInfo {
            subject: answer.subject,
            allowed: answer.allowed,
            rules: answer.rules,
            policy: Some(answer.policy).filter(|policy| !policy.is_empty()),
            why: answer.why,
            node_id: answer.node_id,
        })
    }
}

impl From<v1::Token> for TokenInfo {
    fn from(token: v1::Token) -> TokenInfo {
        TokenInfo {
            id: token.id,
            name: token.name,
            created_ms: token.created_ms,
            expires_ms: Some(token.expires_ms).filter(|expires_ms| *expires_ms != 0),
            created_by: token.created_by,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_printed() {
        let token = AccessToken::new(" dislog_abc\n").unwrap();
        let bearer = Bearer::to("127.0.0.1:1", Some(&token), false);
        for shown in [format!("{token:?}"), format!("{bearer:?}")] {
            assert!(!shown.contains("abc"), "{shown}");
        }
        for wrong in ["", "a b", "ä\u{7f}"] {
            assert!(AccessToken::new(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_token_leaves_the_machine_only_encrypted() {
        let token = AccessToken::new("dislog_abc").unwrap();
        let shown = |server: &str, encrypted| {
            matches!(Bearer::to(server, Some(&token), encrypted), Bearer::Token(_))
        };
        for here in ["127.0.0.1:8400", "localhost:8400", "[::1]:8400"] {
            assert!(shown(here, false), "{here}");
        }
        for far in ["10.0.0.1:8400", "localhost.evil:8400", "[2001:db8::1]:8400"] {
            assert!(!shown(far, false) && shown(far, true), "{far}");
        }
        let refused = Bearer::to("10.0.0.1:1", Some(&token), false).call(Request::new(()));
        assert!(refused.unwrap_err().message().contains("plaintext"));
        let request = Bearer::to("[::1]:1", Some(&token), false).call(Request::new(())).unwrap();
        assert_eq!(request.metadata().get("authorization").unwrap(), "Bearer dislog_abc");
    }
}
