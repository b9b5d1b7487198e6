//! What is done about tokens and rules by those who administer them.
//!
//! Each node decides by the tokens that it knows, and hears of others a moment later than the
//! leader of the metadata. So whoever makes or revokes a token is told only when all nodes that
//! answer know of it: a new token is good everywhere at once, and a revoked one nowhere any more.
//! Asking when an unknown token is shown would let anybody with garbage cause that work.

use std::time::Duration;

use dislog_cluster::{NodeInfo, Peer, Token};
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::{CLUSTER_OBJECT, v1};
use dislog_types::TopicName;
use futures_util::future::join_all;
use tonic::transport::Channel;

use crate::access::{self, Action, Asking, Explained, token};
use crate::append::now_ms;
use crate::forward::Hops;
use crate::node::Node;
use crate::status::{Failure, kinds};
use crate::topics::{changed_by, sent_on};

/// How long is waited for nodes that do not answer; they know when they are there again.
const KNOWN_WAIT_MAX: Duration = Duration::from_secs(2);

/// Makes a token, which is kept nowhere: only the answer has it.
pub(crate) async fn create(
    node: &Node,
    asking: &Asking,
    request: v1::CreateTokenRequest,
) -> Result<v1::CreateTokenResponse, Failure> {
    let hops = &asking.hops;
    if !access::is_subject(&request.name) {
        return Err(Failure::invalid(format!("a token cannot prove the name {:?}", request.name)));
    }
    let now_ms = now_ms();
    if request.expires_ms != 0 && request.expires_ms <= now_ms {
        return Err(Failure::invalid(format!(
            "the token would have expired: expires_ms is {}, now is {now_ms}",
            request.expires_ms
        )));
    }
    if let Some(peer) = changed_by(node, hops)? {
        let call =
            async |mut admin: AdminClient<Channel>| admin.create_token(hops.next(request)).await;
        return sent_on(node, &peer, call).await;
    }
    let secret = token::create()
        .map_err(|_| Failure::new(&kinds::LOG_STOPPED, "the system has no random numbers"))?;
    let expires_ms = (request.expires_ms != 0).then_some(request.expires_ms);
    let digest = token::digest(secret.as_bytes());
    let by = asking.caller.subject.name();
    let created = node.cluster.create_token(&request.name, digest, expires_ms, by).await?;
    until_known(node, hops).await;
    Ok(v1::CreateTokenResponse { secret, token: Some(described(created)) })
}

/// All tokens that there were when it was asked for.
pub(crate) async fn list(node: &Node) -> Result<v1::ListTokensResponse, Failure> {
    node.knows_all_changes().await?;
    let tokens = node.cluster.tokens().into_iter().map(described).collect();
    Ok(v1::ListTokensResponse { tokens })
}

/// Returns once the other nodes know what was changed about tokens: none can list them before.
async fn until_known(node: &Node, hops: &Hops) {
    let own_id = node.cluster.node_id();
    let mut others = node.cluster.nodes();
    others.retain(|other| other.alive && other.node_id != own_id);
    let asked = others.into_iter().map(|other| async move {
        let NodeInfo { node_id, address, .. } = other;
        let peer = Peer { node_id, address: address.into() };
        let request = hops.on_own_behalf().next(v1::ListTokensRequest {});
        let call = async |mut admin: AdminClient<Channel>| admin.list_tokens(request).await;
        if let Err(failure) = sent_on(node, &peer, call).await {
            tracing::warn!(node_id, why = failure.message, "may not know of a token's change yet");
        }
    });
    if tokio::time::timeout(KNOWN_WAIT_MAX, join_all(asked)).await.is_err() {
        tracing::warn!("not all nodes have said that they know of a token's change");
    }
}

/// Makes a token worthless, or all of a name.
pub(crate) async fn revoke(
    node: &Node,
    asking: &Asking,
    request: v1::RevokeTokenRequest,
) -> Result<v1::RevokeTokenResponse, Failure> {
    let hops = &asking.hops;
    if let Some(peer) = changed_by(node, hops)? {
        let call =
            async |mut admin: AdminClient<Channel>| admin.revoke_token(hops.next(request)).await;
        return sent_on(node, &peer, call).await;
    }
    let meant =
        |token: &Token| token.name == request.token || token.token_id.to_string() == request.token;
    let tokens: Vec<Token> = node.cluster.tokens().into_iter().filter(meant).collect();
    if tokens.is_empty() {
        let message = format!("there is no token of id or name {:?}", request.token);
        return Err(Failure::new(&kinds::TOKEN_NOT_FOUND, message));
    }
    for token in &tokens {
        node.cluster.revoke_token(token.token_id).await?;
    }
    until_known(node, hops).await;
    Ok(v1::RevokeTokenResponse { revoked: tokens.into_iter().map(described).collect() })
}

/// Explains what this node decides. Everybody may ask about themselves.
pub(crate) fn check(
    node: &Node,
    asking: &Asking,
    request: v1::CheckAccessRequest,
) -> Result<v1::CheckAccessResponse, Failure> {
    let own = asking.caller.subject.name();
    let subject = if request.subject.is_empty() { own.to_owned() } else { request.subject };
    if subject != own {
        asking.may_on_cluster(Action::Admin)?;
    }
    let action = Action::of_name(&request.action).ok_or_else(|| {
        let given = &request.action;
        Failure::invalid(format!("{given:?} is no action: give produce, consume or admin"))
    })?;
    let object = match request.object.as_str() {
        CLUSTER_OBJECT => CLUSTER_OBJECT.to_owned(),
        topic => topic.parse::<TopicName>()?.to_string(),
    };
    let policy = node.access.policy();
    let Explained { allowed, rules } = node.access.explain(&subject, action, &object);
    let why = match (allowed, rules.is_empty(), policy.is_empty()) {
        (_, _, true) if !node.access.is_on() => "access is not controlled",
        (_, _, true) => "there are no rules: whoever has proved who they are may do everything",
        (true, _, _) => "allowed by rules",
        (false, true, _) => "no rule allows it",
        (false, false, _) => "denied by rules",
    };
    let (why, node_id) = (why.to_owned(), node.id());
    Ok(v1::CheckAccessResponse { allowed, rules, policy, why, subject, node_id })
}

fn described(token: Token) -> v1::Token {
    let Token { token_id, name, created_ms, expires_ms, created_by } = token;
    v1::Token {
        id: token_id.to_string(),
        name,
        created_ms,
        expires_ms: expires_ms.unwrap_or(0),
        created_by,
    }
}
