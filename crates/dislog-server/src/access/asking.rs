//! Somebody who asks for something: who that is, and whether they may.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::FromRequestParts;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use dislog_proto::{CLUSTER_OBJECT, DEFAULT_TOPIC, TOKEN_PREFIX, reason};
use dislog_types::{PartitionId, TopicName};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, header};
use tokio::sync::watch::Receiver;

use super::audit::{BY_NOTHING, Entry};
use super::table::{self, Need};
use super::token::{Digest, digest};
use super::{ANONYMOUS, Action, Guard, Mode, is_subject};
use crate::append::now_ms;
use crate::forward::{Hops, ON_BEHALF};
use crate::identity::{Caller, Subject};
use crate::node::Node;
use crate::status::{Failure, kinds};

/// What an operation is called that is not yet known better.
const HTTP: &str = "HTTP";

/// What a caller has proved their name by.
#[derive(Clone, Debug)]
enum Proof {
    /// The connection.
    Connection,
    /// Another node, which sends on what they ask.
    Node,
    /// A token of the cluster.
    Token { token_id: u64, ends_ms: Option<i64> },
    /// A JWT.
    Jwt { key: Digest, ends_ms: i64 },
}

/// One request of somebody. A cheap handle.
#[derive(Clone)]
pub(crate) struct Asking {
    /// Who, and from where.
    pub(crate) caller: Caller,
    /// How the request came here, and how it goes on.
    pub(crate) hops: Hops,
    operation: &'static str,
    proof: Proof,
    node: Node,
    /// Changes that came after the request; none if everything is permitted.
    changes: Option<Receiver<u64>>,
}

impl Asking {
    /// An RPC, as far as its head says: who asks is known, and permitted unless that takes more
    /// than the head.
    pub(crate) fn rpc(
        node: &Node,
        caller: &Caller,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Asking, Failure> {
        if !node.access.is_on() {
            return Ok(Asking::free(node, caller, headers, HTTP));
        }
        let (operation, need) = table::rpc(path);
        let asking = match need {
            Need::Nothing => return Ok(Asking::free(node, caller, headers, operation)),
            _ => Asking::identified(node, caller, headers, operation)?,
        };
        asking.has(need)?;
        Ok(asking)
    }

    /// An HTTP request, whose route is not known yet.
    pub(crate) fn http(node: &Node, caller: &Caller, headers: &HeaderMap) -> Asking {
        Asking::free(node, caller, headers, HTTP)
    }

    /// The same once the route is known: who asks is known, and permitted unless that takes more
    /// than the head.
    pub(crate) fn at_route(
        self,
        headers: &HeaderMap,
        route: &'static str,
        need: Need,
        topic: Option<&str>,
    ) -> Result<Asking, Failure> {
        if !self.node.access.is_on() || need == Need::Nothing {
            return Ok(self);
        }
        let asking = Asking::identified(&self.node, &self.caller, headers, route)?;
        match (need, topic) {
            (Need::Topic(action), Some(topic)) => asking.may(action, topic)?,
            (Need::Seeing, Some(topic)) => asking.may_see(topic)?,
            _ => asking.has(need)?,
        }
        Ok(asking)
    }

    /// Who asks for what these extensions belong to: the listener says so of every request.
    pub(crate) fn of(extensions: &Extensions) -> Asking {
        extensions.get().cloned().expect("the listener puts it into every request")
    }

    fn free(node: &Node, caller: &Caller, headers: &HeaderMap, operation: &'static str) -> Asking {
        Asking {
            caller: caller.clone(),
            hops: Hops::of(headers),
            operation,
            proof: Proof::Connection,
            node: node.clone(),
            changes: None,
        }
    }

    fn identified(
        node: &Node,
        caller: &Caller,
        headers: &HeaderMap,
        operation: &'static str,
    ) -> Result<Asking, Failure> {
        let mut asking = Asking::free(node, caller, headers, operation);
        // Subscribed before anything is decided, so that no later change is missed.
        asking.changes = Some(node.access.changed.subscribe());
        let identified = asking.identify(headers);
        if let Err(failure) = &identified {
            asking.record(None, CLUSTER_OBJECT, Err(&failure.message));
        }
        identified?;
        asking.hops = match &asking.caller.subject {
            Subject::Node(_) => asking.hops,
            subject => asking.hops.on_behalf_of(subject.name().into()),
        };
        Ok(asking)
    }

    fn identify(&mut self, headers: &HeaderMap) -> Result<(), Failure> {
        if let Subject::Node(_) = &self.caller.subject {
            if let Some(name) = headers.get(ON_BEHALF) {
                (self.caller.subject, self.proof) = (vouched(name)?, Proof::Node);
            }
            return Ok(());
        }
        if let Some(given) = headers.get(header::AUTHORIZATION) {
            (self.caller.subject, self.proof) = self.bearer(given)?;
        }
        match &self.caller.subject {
            Subject::Client(name) if !is_subject(name) => {
                let message = format!("{name:?} is the name of no subject: another certificate");
                Err(Failure::new(&kinds::UNAUTHENTICATED, message))
            }
            _ => Ok(()),
        }
    }

    fn bearer(&self, given: &HeaderValue) -> Result<(Subject, Proof), Failure> {
        let refused = |why: &str| Failure::new(&kinds::UNAUTHENTICATED, why);
        let access = &self.node.access;
        if !access.encrypted && !self.caller.from.ip().is_loopback() {
            return Err(refused(
                "a bearer token came over plaintext, where anybody may have seen it: revoke it, \
                 and use TLS",
            ));
        }
        let token = given.to_str().ok().and_then(|given| given.split_once(' '));
        let token = token.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
        let Some((_, token)) = token else {
            return Err(refused("the authorization is not understood: give `Bearer TOKEN`"));
        };
        let (token, now_ms) = (token.trim(), now_ms());
        if token.starts_with(TOKEN_PREFIX) {
            return self.own_token(token, now_ms);
        }
        let rules = access.rules();
        let rules = rules.ok_or_else(|| refused("the token is not one of this cluster"))?;
        let claimed = rules.verify(token, now_ms);
        let claimed = claimed.map_err(|why| refused(&format!("the token is refused: {why}")))?;
        if !is_subject(&claimed.subject) {
            return Err(refused("the token names nobody who can be a subject"));
        }
        let proof = Proof::Jwt { key: claimed.key, ends_ms: claimed.ends_ms };
        Ok((Subject::Bearer(claimed.subject.as_str().into()), proof))
    }

    fn own_token(&self, token: &str, now_ms: i64) -> Result<(Subject, Proof), Failure> {
        let cluster = &self.node.cluster;
        let Some(known) = cluster.token(&digest(token.as_bytes())) else {
            if !cluster.knows_metadata() {
                let why = "this node does not know the tokens of its cluster yet";
                return Err(Failure::new(&kinds::NO_LEADER, why));
            }
            let why = "the token is not one of this cluster, or was revoked";
            return Err(Failure::new(&kinds::UNAUTHENTICATED, why));
        };
        if !known.holds(now_ms) {
            let why = format!("the token of {} has expired", known.name);
            return Err(Failure::new(&kinds::UNAUTHENTICATED, why));
        }
        let proof = Proof::Token { token_id: known.token_id, ends_ms: known.expires_ms };
        Ok((Subject::Bearer(known.name.into()), proof))
    }

    /// Whether a need is met that says all by itself.
    fn has(&self, need: Need) -> Result<(), Failure> {
        match need {
            Need::Identity if self.caller.subject == Subject::Anonymous => {
                self.may_on_cluster(Action::Consume)
            }
            // Without rules nobody has a right to anything: their message need not be read.
            Need::Topic(action) if self.is_stranger() => self.decided(action, ""),
            Need::Seeing if self.is_stranger() => self.decided(Action::Consume, ""),
            need => match need.of_head() {
                Some((action, object)) => self.decided(action, object),
                None => Ok(()),
            },
        }
    }

    fn is_stranger(&self) -> bool {
        let is_by_identity = matches!(self.node.access.mode, Mode::Identity);
        is_by_identity && self.caller.subject == Subject::Anonymous
    }

    /// Refuses what the rules do not allow to be done to the topic that a request names.
    pub(crate) fn may(&self, action: Action, topic: &str) -> Result<(), Failure> {
        match self.changes {
            None => Ok(()),
            Some(_) => self.decided(action, object(topic)?),
        }
    }

    /// Refuses what the rules do not allow to be done to the cluster.
    pub(crate) fn may_on_cluster(&self, action: Action) -> Result<(), Failure> {
        match self.changes {
            None => Ok(()),
            Some(_) => self.decided(action, CLUSTER_OBJECT),
        }
    }

    /// Refuses to show a topic to somebody who has no right to it.
    pub(crate) fn may_see(&self, topic: &str) -> Result<(), Failure> {
        let Some(_) = self.changes else { return Ok(()) };
        let object = object(topic)?;
        if self.sees(object) {
            return Ok(());
        }
        let failure = self.refusal(None, object);
        self.record(None, object, Err(&failure.message));
        Err(failure)
    }

    /// Whether somebody has any right to a topic.
    pub(crate) fn sees(&self, topic: &str) -> bool {
        self.changes.is_none() || Action::ALL.iter().any(|action| self.is_allowed(*action, topic))
    }

    /// Whether somebody may know how a partition is. Those of the system have no secret names.
    pub(crate) fn sees_partition(&self, id: &PartitionId) -> bool {
        let is_of_user = id.topic.as_str().parse::<TopicName>().is_ok();
        !is_of_user || self.sees(id.topic.as_str())
    }

    /// The same of a probe, which is answered whoever asks: by their certificate alone.
    pub(crate) fn may_hear_of(&self, id: &PartitionId) -> bool {
        let topic = id.topic.as_str();
        let is_of_user = topic.parse::<TopicName>().is_ok();
        !is_of_user || Action::ALL.iter().any(|action| self.is_allowed(*action, topic))
    }

    /// What ends a stream that was permitted when this is not so any more.
    pub(crate) fn guard(&self, action: Action, topic: &str) -> Guard {
        let topic = if topic.is_empty() { DEFAULT_TOPIC } else { topic };
        self.guarded(Some((action, topic.to_owned())))
    }

    /// The same for one who has yet to say what it is about.
    pub(crate) fn guard_of_identity(&self) -> Guard {
        self.guarded(None)
    }

    fn guarded(&self, right: Option<(Action, String)>) -> Guard {
        let Some(changes) = &self.changes else { return Guard::none() };
        let ends_ms = match &self.proof {
            Proof::Connection | Proof::Node => None,
            Proof::Token { ends_ms, .. } => *ends_ms,
            Proof::Jwt { ends_ms, .. } => Some(*ends_ms),
        };
        Guard::new(self.clone(), right, changes.clone(), ends_ms)
    }

    /// Whether it is still so: what was proved, and what the rules say of it.
    pub(super) fn still(&self, right: Option<(Action, &str)>) -> Result<(), Failure> {
        let failure = match (self.caller.pass.why_over(), self.why_disproved(), right) {
            (Some(why), ..) => self.cut_off(&why),
            (None, Some(why), _) => Failure::new(&kinds::UNAUTHENTICATED, why),
            (None, None, None) => return Ok(()),
            (None, None, Some((action, object))) if self.is_allowed(action, object) => {
                return Ok(());
            }
            (None, None, Some((action, object))) => self.refusal(Some(action), object),
        };
        let object = right.map_or(CLUSTER_OBJECT, |(_, object)| object);
        self.record(right.map(|(action, _)| action), object, Err(&failure.message));
        Err(failure)
    }

    /// The connection is the caller's no more; or that of the node that has sent on what they ask,
    /// which is no fault of theirs.
    fn cut_off(&self, why: &str) -> Failure {
        let kind = match (&self.proof, &self.caller.subject) {
            (Proof::Node, _) | (_, Subject::Node(_)) => &kinds::NO_LEADER,
            _ => &kinds::CERTIFICATE_ENDED,
        };
        Failure::new(kind, why)
    }

    /// Why a token is worth nothing any more; nothing if it is, or if there is none.
    fn why_disproved(&self) -> Option<&'static str> {
        match &self.proof {
            Proof::Connection | Proof::Node => None,
            Proof::Token { token_id, .. } if !self.node.cluster.has_token(*token_id) => {
                Some("the token was revoked")
            }
            Proof::Jwt { key, .. }
                if !self.node.access.rules().is_some_and(|rules| rules.has_key(key)) =>
            {
                Some("the key of the token is not accepted any more")
            }
            Proof::Token { ends_ms: Some(ends_ms), .. } | Proof::Jwt { ends_ms, .. }
                if now_ms() >= *ends_ms =>
            {
                Some("the token has expired")
            }
            Proof::Token { .. } | Proof::Jwt { .. } => None,
        }
    }

    fn decided(&self, action: Action, object: &str) -> Result<(), Failure> {
        if self.is_allowed(action, object) {
            self.record(Some(action), object, Ok(()));
            return Ok(());
        }
        let failure = self.refusal(Some(action), object);
        self.record(Some(action), object, Err(&failure.message));
        Err(failure)
    }

    fn is_allowed(&self, action: Action, object: &str) -> bool {
        match (&self.caller.subject, &self.node.access.mode) {
            (Subject::Node(_), _) | (_, Mode::Off) => true,
            (subject, Mode::Identity) => *subject != Subject::Anonymous,
            (subject, Mode::Rules(watched)) => {
                watched.current().allow(subject.name(), action, object)
            }
        }
    }

    /// Says that somebody has no right to do this, or anything, to an object.
    fn refusal(&self, action: Option<Action>, object: &str) -> Failure {
        let name = action.map_or("", Action::name);
        let what = if action.is_some() { name } else { "anything on" };
        let subject = self.caller.subject.name();
        let failure = match &self.caller.subject {
            Subject::Anonymous => Failure::new(
                &kinds::UNAUTHENTICATED,
                "nobody is known to ask: give a client certificate or a bearer token",
            ),
            _ => Failure::new(
                &kinds::PERMISSION_DENIED,
                format!("{subject:?} has no right to {what} {object}"),
            ),
        };
        failure
            .with_text(reason::SUBJECT, subject)
            .with_text(reason::ACTION, name)
            .with_text(reason::OBJECT, object)
    }

    /// Records a decision, unless another node has done so or nobody asked.
    fn record(&self, action: Option<Action>, object: &str, outcome: Result<(), &str>) {
        let access = &self.node.access;
        let Caller { subject, from, .. } = &self.caller;
        if let Err(why) = outcome {
            access.denied.fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%subject, %from, operation = self.operation, object, why, "denied");
        }
        let is_recorded =
            matches!((&self.proof, subject), (Proof::Node, _) | (_, Subject::Node(_)));
        if !access.audit.is_on() || (is_recorded && outcome.is_ok()) {
            return;
        }
        access.audit.record(Entry {
            time_ms: now_ms(),
            subject: subject.name().into(),
            by: match (&self.proof, subject) {
                (Proof::Token { .. }, _) => "token",
                (Proof::Jwt { .. }, _) => "jwt",
                (Proof::Node, _) | (Proof::Connection, Subject::Node(_)) => "node",
                (Proof::Connection, Subject::Anonymous) => BY_NOTHING,
                (Proof::Connection, _) => "certificate",
            },
            from: *from,
            operation: self.operation,
            action: action.map_or("", Action::name),
            object: object.into(),
            allowed: outcome.is_ok(),
            why: outcome.err().map(Into::into),
        });
    }
}

/// The listener says of every request who asks.
impl<S: Sync> FromRequestParts<S> for Asking {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Asking, Self::Rejection> {
        Ok(Asking::of(&parts.extensions))
    }
}

/// The topic that a request names, which is not asked about unless it can be one.
fn object(topic: &str) -> Result<&str, Failure> {
    if topic.is_empty() {
        return Ok(DEFAULT_TOPIC);
    }
    topic.parse::<TopicName>()?;
    Ok(topic)
}

/// Who asks, says a node that sends it on.
fn vouched(name: &HeaderValue) -> Result<Subject, Failure> {
    let name = BASE64.decode(name).ok().and_then(|name| String::from_utf8(name).ok());
    let name = name.ok_or_else(|| Failure::invalid(format!("header {ON_BEHALF} is no name")))?;
    Ok(match name.as_str() {
        ANONYMOUS => Subject::Anonymous,
        name => Subject::Vouched(Arc::from(name)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_sent_on_arrives() {
        for name in ["alice", "Zoë, Inc", "spiffe://x/y"] {
            let header = HeaderValue::from_str(&BASE64.encode(name)).unwrap();
            assert_eq!(vouched(&header).unwrap(), Subject::Vouched(name.into()));
        }
        let anonymous = HeaderValue::from_str(&BASE64.encode(ANONYMOUS)).unwrap();
        assert_eq!(vouched(&anonymous).unwrap(), Subject::Anonymous);
        assert!(vouched(&HeaderValue::from_static("not base64!")).is_err());
    }

    #[test]
    fn what_is_not_a_topic_is_not_asked_about() {
        assert_eq!(object("").unwrap(), "default");
        assert_eq!(object("orders").unwrap(), "orders");
        for invalid in [CLUSTER_OBJECT, "a b", "*", "__metadata"] {
            assert!(object(invalid).is_err(), "{invalid}");
        }
    }
}
