//! Who may do what: every RPC and every route, refused and recorded; rights and tokens that come
//! and go.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use dislog_proto::v1::admin_client::AdminClient;
use dislog_proto::v1::log_client::LogClient;
use dislog_proto::{reason, v1};
use futures_util::stream;
use prost::Message;
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

use crate::http_client::{Answer, open, read_until, send};
use crate::node::{Node, PATIENCE, assert_fails, consume_from, produce_to, soon, start_in, values};
use crate::registered;

/// Enough to begin with: whoever is there may make tokens.
const OPEN: &str = "p, anonymous, @cluster, admin\n";

/// Those of the tests.
const RULES: &str = "p, root, *, *\np, app, orders.*, produce\np, app, orders.*, consume\n";

struct Guarded {
    node: Node,
    auth_dir: PathBuf,
    root: String,
    app: String,
    nobody: String,
}

impl Guarded {
    async fn start() -> Guarded {
        Guarded::start_with(|_| {}).await
    }

    /// A node with rules and three tokens, of which one may nothing.
    async fn start_with(prepare: impl FnOnce(&PathBuf)) -> Guarded {
        let dir = tempfile::tempdir().unwrap();
        let auth_dir = dir.path().join("auth");
        fs::create_dir(&auth_dir).unwrap();
        let audit = dir.path().join("audit");
        let settings = format!("audit = \"file:{}\"\n", audit.display());
        fs::write(auth_dir.join("auth.toml"), settings).unwrap();
        fs::write(auth_dir.join("policy.csv"), OPEN).unwrap();
        prepare(&auth_dir);
        let of_node = auth_dir.clone();
        let node = start_in(dir, |config| config.auth_dir = Some(of_node)).await;
        let mut admin = node.admin().await;
        let mut tokens = Vec::new();
        for name in ["root", "app", "nobody"] {
            let request = v1::CreateTokenRequest { name: name.to_owned(), expires_ms: 0 };
            tokens.push(soon(admin.create_token(request)).await.unwrap().into_inner().secret);
        }
        let [root, app, nobody] = tokens.try_into().unwrap();
        let guarded = Guarded { node, auth_dir, root, app, nobody };
        guarded.set_rules(RULES).await;
        guarded
    }

    /// Replaces the rules, and waits until they are in use.
    async fn set_rules(&self, rules: &str) {
        let before = self.policy().await;
        self.write_rules(rules);
        let changed = async {
            while self.policy().await == before {
                tokio::task::yield_now().await;
            }
        };
        soon(changed).await;
    }

    /// Puts a file in the place of the other: one that is written there could be read half-done.
    fn write_rules(&self, rules: &str) {
        let new = self.node.dir.path().join("policy.csv.new");
        fs::write(&new, rules).unwrap();
        fs::rename(new, self.auth_dir.join("policy.csv")).unwrap();
    }

    /// The digest of the rules in use.
    async fn policy(&self) -> String {
        let request = v1::CheckAccessRequest {
            action: "admin".into(),
            object: "t".into(),
            ..v1::CheckAccessRequest::default()
        };
        let answer = soon(self.admin(&self.root).await.check_access(request)).await.unwrap();
        answer.into_inner().policy
    }

    async fn admin(&self, token: &str) -> AdminClient<Service> {
        AdminClient::new(bearer(self.node.channel().await, token))
    }

    async fn log(&self, token: &str) -> LogClient<Service> {
        LogClient::new(bearer(self.node.channel().await, token))
    }

    async fn http(&self, line: &str, token: Option<&str>, body: &str) -> Answer {
        let header = token.map(|token| format!("authorization: Bearer {token}"));
        let headers: Vec<&str> = header.iter().map(String::as_str).collect();
        send(&self.node, line, &headers, body.as_bytes()).await
    }

    /// What was recorded, once it says so often that `subject` was denied.
    async fn audit(&self, subject: &str, denied: usize) -> Vec<Value> {
        let path = self.node.dir.path().join("audit");
        let deadline = tokio::time::Instant::now() + PATIENCE;
        loop {
            let text = fs::read_to_string(&path).unwrap();
            let entries = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            let entries: Vec<Value> = entries.collect();
            let is_one = |e: &&Value| e["subject"] == subject && e["allowed"] == false;
            if entries.iter().filter(is_one).count() >= denied {
                return entries;
            }
            assert!(tokio::time::Instant::now() < deadline, "not recorded: {text}");
            tokio::task::yield_now().await;
        }
    }
}

type Service = InterceptedService<Channel, Bearer>;

/// Shows a token, if there is one.
#[derive(Clone)]
struct Bearer(Option<MetadataValue<Ascii>>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

fn bearer(channel: Channel, token: &str) -> Service {
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    InterceptedService::new(channel, Bearer(Some(value)))
}

fn nothing(channel: Channel) -> Service {
    InterceptedService::new(channel, Bearer(None))
}

/// A request that names topic `t`, whatever the RPC.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    #[prost(string, tag = "1")]
    of_admin: String,
    #[prost(string, tag = "10")]
    of_log: String,
}

/// Calls an RPC and reads its first answer.
async fn call(service: Service, path: &str) -> Result<(), Status> {
    let is_of_log = path.starts_with("/log.v1.Log/");
    let name = |said: bool| if said { "t".to_owned() } else { String::new() };
    let is_of_admin = path.starts_with("/log.v1.Admin/");
    let asked = Asked { of_admin: name(is_of_admin), of_log: name(is_of_log) };
    let mut grpc = tonic::client::Grpc::new(service);
    grpc.ready().await.map_err(|error| Status::from_error(Box::new(error)))?;
    let request = Request::new(stream::iter([asked]));
    let codec = ProstCodec::<Asked, ()>::default();
    let answer = grpc.streaming(request, path.parse().unwrap(), codec).await?;
    answer.into_inner().message().await.map(drop)
}

#[tokio::test]
async fn every_rpc_is_refused_to_those_who_have_no_right() {
    const REFUSED: [Code; 2] = [Code::Unauthenticated, Code::PermissionDenied];
    const FOR_ALL_KNOWN: &[&str] = &[
        "/log.v1.Log/GetServers",
        "/log.v1.Admin/ListTopics",
        "/log.v1.Admin/DescribeCluster",
        "/log.v1.Admin/DescribeReplicas",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    ];
    let guarded = Guarded::start().await;
    let channel = guarded.node.channel().await;
    let mut denied = 0;
    for path in registered::rpcs() {
        let anonymous = soon(call(nothing(channel.clone()), &path)).await;
        let known = soon(call(bearer(channel.clone(), &guarded.nobody), &path)).await;
        if path.starts_with("/grpc.health.v1.Health/") {
            let codes = [anonymous, known].map(|o| o.err().map_or(Code::Ok, |s| s.code()));
            assert!(codes.iter().all(|code| !REFUSED.contains(code)), "{path} {codes:?}");
            continue;
        }
        assert_fails(anonymous, Code::Unauthenticated, reason::UNAUTHENTICATED);
        if FOR_ALL_KNOWN.contains(&path.as_str()) {
            let code = known.as_ref().err().map_or(Code::Ok, Status::code);
            assert!(!REFUSED.contains(&code), "{path}: {known:?}");
            continue;
        }
        let said = assert_fails(known, Code::PermissionDenied, reason::PERMISSION_DENIED);
        assert_eq!(said[reason::SUBJECT], "nobody", "{path}");
        assert!(["t", "@cluster"].contains(&said[reason::OBJECT].as_str()), "{path} {said:?}");
        denied += 1;
    }
    // Nothing was done, and all is recorded.
    let mut admin = guarded.admin(&guarded.root).await;
    let topics = soon(admin.list_topics(v1::ListTopicsRequest {})).await.unwrap();
    assert_eq!(topics.into_inner().topics, []);
    let tokens = soon(admin.list_tokens(v1::ListTokensRequest {})).await.unwrap();
    assert_eq!(tokens.into_inner().tokens.len(), 3);
    let entries = guarded.audit("nobody", denied).await;
    let paths: BTreeSet<&str> = entries
        .iter()
        .filter(|entry| entry["subject"] == "nobody")
        .map(|entry| entry["operation"].as_str().unwrap())
        .collect();
    assert!(
        registered::rpcs().iter().filter(|path| path.starts_with("/log.v1.")).all(|path| {
            FOR_ALL_KNOWN.contains(&path.as_str()) || paths.contains(path.as_str())
        })
    );
    assert!(entries.iter().all(|entry| entry["from"].as_str().unwrap().starts_with("127.0.0.1:")));
}

#[tokio::test]
async fn every_route_is_refused_to_those_who_have_no_right() {
    const FOR_ALL: &[&str] = &["GET /livez", "GET /readyz"];
    const FOR_ALL_KNOWN: &[&str] = &["GET /v1/topics", "GET /v1/cluster", "GET /openapi.json"];
    let guarded = Guarded::start().await;
    let document = guarded.http("GET /openapi.json", Some(&guarded.root), "").await.json();
    let mut routes = 0;
    for (path, methods) in document["paths"].as_object().unwrap() {
        for method in methods.as_object().unwrap().keys() {
            routes += 1;
            let line = format!("{} {path}", method.to_uppercase());
            let asked = line.replace("{topic}", "t").replace("{offset}", "0");
            let body = if line == "POST /v1/topics" { r#"{"name":"t"}"# } else { "" };
            let anonymous = guarded.http(&asked, None, body).await;
            let known = guarded.http(&asked, Some(&guarded.nobody), body).await;
            if FOR_ALL.contains(&line.as_str()) {
                assert_eq!((anonymous.status, known.status), (200, 200), "{line}");
                continue;
            }
            anonymous.problem(401, reason::UNAUTHENTICATED);
            assert_eq!(anonymous.headers["www-authenticate"], "Bearer realm=\"dislog\"");
            if FOR_ALL_KNOWN.contains(&line.as_str()) {
                assert_eq!(known.status, 200, "{line}");
                continue;
            }
            known.problem(403, reason::PERMISSION_DENIED);
            assert_eq!(known.json()["subject"], "nobody", "{line}");
        }
    }
    assert!(routes >= 16);
    let topics = guarded.http("GET /v1/topics", Some(&guarded.root), "").await.json();
    assert_eq!(topics["topics"], json!([]));
    let entries = guarded.audit("nobody", routes - FOR_ALL.len() - FOR_ALL_KNOWN.len()).await;
    assert!(entries.iter().any(|entry| entry["operation"] == "DELETE /v1/topics/{topic}"));
}

#[tokio::test]
async fn rights_are_to_topics_and_lists_show_no_others() {
    let guarded = Guarded::start().await;
    let (root, app) = (Some(guarded.root.as_str()), Some(guarded.app.as_str()));
    let post = |topic: &str| format!("POST /v1/topics/{topic}/records");
    assert_eq!(guarded.http(&post("orders.eu"), app, "1").await.status, 201);
    assert_eq!(guarded.http(&post("secret"), root, "2").await.status, 201);
    let denied = guarded.http(&post("secret"), app, "3").await;
    let detail = denied.problem(403, reason::PERMISSION_DENIED);
    assert_eq!(detail, r#""app" has no right to produce secret"#);
    guarded.http(&post("orders"), app, "4").await.problem(403, reason::PERMISSION_DENIED);
    // Absent or not, it is the same to who may not know.
    let absent = guarded.http("GET /v1/topics/absent", app, "").await;
    absent.problem(403, reason::PERMISSION_DENIED);
    guarded.http("GET /v1/topics/secret", app, "").await.problem(403, reason::PERMISSION_DENIED);
    let names = |answer: Answer| -> Vec<String> {
        let topics = answer.json()["topics"].as_array().unwrap().clone();
        topics.iter().map(|topic| topic["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(guarded.http("GET /v1/topics", app, "").await), ["orders.eu"]);
    assert_eq!(names(guarded.http("GET /v1/topics", root, "").await), ["orders.eu", "secret"]);
    let mut admin = guarded.admin(&guarded.app).await;
    let replicas = soon(admin.describe_replicas(v1::DescribeReplicasRequest {})).await.unwrap();
    let replicas = replicas.into_inner().replicas;
    assert!(replicas.iter().any(|replica| replica.topic == "orders.eu"));
    assert!(replicas.iter().all(|replica| replica.topic != "secret"));
    let mut log = guarded.log(&guarded.app).await;
    for (topic, is_seen) in [("orders.eu", true), ("secret", false), ("absent", false)] {
        let request = v1::GetServersRequest { topic: topic.into(), partition: 0 };
        let servers = soon(log.get_servers(request)).await.unwrap().into_inner().servers;
        assert_eq!(servers.iter().any(|server| server.is_replica), is_seen, "{topic}");
    }
}

#[tokio::test]
async fn streams_end_when_the_right_to_them_is_withdrawn() {
    let guarded = Guarded::start().await;
    let mut log = guarded.log(&guarded.app).await;
    soon(log.produce(produce_to("orders.eu", &["1"]))).await.unwrap();
    let following = soon(log.consume_stream(consume_from("orders.eu", 0))).await.unwrap();
    let mut following = following.into_inner();
    assert_eq!(values(&soon(following.message()).await.unwrap().unwrap().records), ["1"]);
    let (requests, queue) = mpsc::channel(1);
    requests.send(produce_to("orders.eu", &["2"])).await.unwrap();
    let producing = soon(log.produce_stream(ReceiverStream::new(queue))).await.unwrap();
    let mut producing = producing.into_inner();
    assert_eq!(soon(producing.message()).await.unwrap().unwrap().offset, 1);
    assert_eq!(values(&soon(following.message()).await.unwrap().unwrap().records), ["2"]);
    let token = format!("authorization: Bearer {}", guarded.app);
    let line = "GET /v1/topics/orders.eu/records?follow=true";
    let headers = ["accept: application/x-ndjson", &token];
    let mut lines = open(guarded.node.addr(), line, &headers).await;
    read_until(&mut lines, "\"offset\":1").await;

    // Other rules that still permit it end nothing.
    guarded.set_rules(&format!("{RULES}p, other, t, produce\n")).await;
    requests.send(produce_to("orders.eu", &["3"])).await.unwrap();
    assert_eq!(soon(producing.message()).await.unwrap().unwrap().offset, 2);
    assert_eq!(values(&soon(following.message()).await.unwrap().unwrap().records), ["3"]);

    guarded.set_rules("p, root, *, *\n").await;
    let denied = (Code::PermissionDenied, reason::PERMISSION_DENIED);
    assert_fails(soon(following.message()).await, denied.0, denied.1);
    assert_fails(soon(producing.message()).await, denied.0, denied.1);
    let last = read_until(&mut lines, "PERMISSION_DENIED").await;
    assert!(last.contains("\"error\""), "{last}");
    assert_fails(soon(log.produce(produce_to("orders.eu", &["4"]))).await, denied.0, denied.1);
}

#[tokio::test]
async fn a_revoked_token_is_worth_nothing_and_ends_what_it_began() {
    let guarded = Guarded::start().await;
    let mut log = guarded.log(&guarded.app).await;
    soon(log.produce(produce_to("orders.eu", &["1"]))).await.unwrap();
    let following = soon(log.consume_stream(consume_from("orders.eu", 0))).await.unwrap();
    let mut following = following.into_inner();
    soon(following.message()).await.unwrap();
    // One that has not said yet what it is for.
    let (_silent, requests) = mpsc::channel(1);
    let silent = soon(log.produce_stream(ReceiverStream::new(requests))).await.unwrap();
    let mut admin = guarded.admin(&guarded.root).await;
    let revoke = v1::RevokeTokenRequest { token: "app".into() };
    let revoked = soon(admin.revoke_token(revoke.clone())).await.unwrap().into_inner().revoked;
    assert_eq!(revoked.len(), 1);
    assert_fails(soon(admin.revoke_token(revoke)).await, Code::NotFound, reason::TOKEN_NOT_FOUND);
    let refused = (Code::Unauthenticated, reason::UNAUTHENTICATED);
    assert_fails(soon(following.message()).await, refused.0, refused.1);
    assert_fails(soon(silent.into_inner().message()).await, refused.0, refused.1);
    assert_fails(soon(log.produce(produce_to("orders.eu", &["2"]))).await, refused.0, refused.1);
    let answer = guarded.http("GET /v1/topics", Some(&guarded.app), "").await;
    let why = answer.problem(401, reason::UNAUTHENTICATED);
    assert!(why.contains("revoked") && !why.contains(&guarded.app), "{why}");

    // It stays so after a restart, and the others stay good.
    let Guarded { node, auth_dir, root, app, nobody } = guarded;
    soon(node.server.shutdown()).await;
    let of_node = auth_dir.clone();
    let node = start_in(node.dir, |config| config.auth_dir = Some(of_node)).await;
    let guarded = Guarded { node, auth_dir, root, app, nobody };
    let list = guarded.http("GET /v1/topics", Some(&guarded.root), "").await;
    assert_eq!(list.status, 200);
    guarded.http("GET /v1/topics", Some(&guarded.app), "").await.problem(401, "UNAUTHENTICATED");
    // What is kept of a token is not the token.
    let text = fs::read_to_string(guarded.node.dir.path().join("audit")).unwrap();
    assert!(!text.contains("dislog_"), "{text}");
}

#[tokio::test]
async fn an_expired_token_ends_what_it_began() {
    let guarded = Guarded::start().await;
    let mut log = guarded.log(&guarded.app).await;
    soon(log.produce(produce_to("orders.eu", &["1"]))).await.unwrap();
    let mut admin = guarded.admin(&guarded.root).await;
    let create = |expires_ms| v1::CreateTokenRequest { name: "app".into(), expires_ms };
    let past = soon(admin.create_token(create(1))).await;
    assert_fails(past, Code::InvalidArgument, reason::INVALID_REQUEST);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let soon_ms = i64::try_from(now.as_millis()).unwrap() + 4_000;
    let token = soon(admin.create_token(create(soon_ms))).await.unwrap().into_inner().secret;
    let mut log = guarded.log(&token).await;
    let following = soon(log.consume_stream(consume_from("orders.eu", 0))).await.unwrap();
    let mut following = following.into_inner();
    soon(following.message()).await.unwrap();
    let refused = (Code::Unauthenticated, reason::UNAUTHENTICATED);
    assert_fails(soon(following.message()).await, refused.0, refused.1);
    assert_fails(soon(log.produce(produce_to("orders.eu", &["2"]))).await, refused.0, refused.1);
}

#[tokio::test]
async fn bad_rules_change_nothing_and_show() {
    let guarded = Guarded::start().await;
    let metrics = async || {
        let answer = guarded.http("GET /metrics", Some(&guarded.root), "").await;
        answer.text().to_owned()
    };
    assert!(metrics().await.contains("dislog_access_rules_stale 0"));
    guarded.write_rules("p, root, *, everything\n");
    let stale = async {
        while !metrics().await.contains("dislog_access_rules_stale 1") {
            tokio::task::yield_now().await;
        }
    };
    soon(stale).await;
    let app = Some(guarded.app.as_str());
    let post = "POST /v1/topics/orders.eu/records";
    assert_eq!(guarded.http(post, app, "1").await.status, 201);
}

#[tokio::test]
async fn rules_are_explained_to_those_they_are_about() {
    let guarded = Guarded::start().await;
    let check = |subject: &str, action: &str, object: &str| v1::CheckAccessRequest {
        subject: subject.into(),
        action: action.into(),
        object: object.into(),
    };
    let mut admin = guarded.admin(&guarded.app).await;
    let own = soon(admin.check_access(check("", "produce", "orders.eu"))).await.unwrap();
    let own = own.into_inner();
    assert!(own.allowed && own.subject == "app");
    assert_eq!(own.rules, ["policy.csv:2: p, app, orders.*, produce, allow"]);
    let other = soon(admin.check_access(check("root", "produce", "t"))).await;
    assert_fails(other, Code::PermissionDenied, reason::PERMISSION_DENIED);
    let mut admin = guarded.admin(&guarded.root).await;
    let other = soon(admin.check_access(check("nobody", "admin", "@cluster"))).await.unwrap();
    let other = other.into_inner();
    assert!(!other.allowed && other.rules.is_empty() && other.why == "no rule allows it");
    let wrong = soon(admin.check_access(check("app", "write", "t"))).await;
    assert_fails(wrong, Code::InvalidArgument, reason::INVALID_REQUEST);
}

/// A token as others make them.
fn jwt(key: &Ed25519KeyPair, alg: &str, exp: u64) -> String {
    let header = BASE64.encode(json!({"alg": alg, "kid": "1"}).to_string());
    let claims = json!({"sub": "app", "iss": "https://issuer", "aud": "dislog", "exp": exp});
    let message = format!("{header}.{}", BASE64.encode(claims.to_string()));
    let signature = if alg == "none" {
        String::new()
    } else {
        BASE64.encode(key.sign(message.as_bytes()).as_ref())
    };
    format!("{message}.{signature}")
}

#[tokio::test]
async fn a_jwt_of_a_known_issuer_names_who_asks() {
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap();
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "1",
        "x": BASE64.encode(key.public_key())});
    let guarded = Guarded::start_with(|dir| {
        let settings = fs::read_to_string(dir.join("auth.toml")).unwrap();
        let jwt = "[jwt]\nissuer = \"https://issuer\"\naudience = \"dislog\"\n";
        fs::write(dir.join("auth.toml"), settings + jwt).unwrap();
        fs::write(dir.join("jwks.json"), json!({"keys": [jwk]}).to_string()).unwrap();
    })
    .await;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let good = jwt(&key, "EdDSA", now.as_secs() + 600);
    let post = "POST /v1/topics/orders.eu/records";
    assert_eq!(guarded.http(post, Some(&good), "1").await.status, 201);
    let other = "POST /v1/topics/secret/records";
    guarded.http(other, Some(&good), "1").await.problem(403, reason::PERMISSION_DENIED);
    let altered = good.replacen("eyJ", "eyK", 1);
    let expired = jwt(&key, "EdDSA", now.as_secs() - 600);
    for bad in [&altered, &expired, &jwt(&key, "none", now.as_secs() + 600), &"x.y.z".into()] {
        let why = guarded.http(post, Some(bad), "2").await.problem(401, reason::UNAUTHENTICATED);
        assert!(!why.contains(bad.as_str()), "{why}");
    }
    let mut log = guarded.log(&good).await;
    let following = soon(log.consume_stream(consume_from("orders.eu", 0))).await.unwrap();
    let mut following = following.into_inner();
    assert_eq!(values(&soon(following.message()).await.unwrap().unwrap().records), ["1"]);
    // A key that is withdrawn takes its tokens with it.
    let other = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
    let other = Ed25519KeyPair::from_pkcs8(other.as_ref()).unwrap();
    let mut jwks = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "1"}]});
    jwks["keys"][0]["x"] = json!(BASE64.encode(other.public_key()));
    fs::write(guarded.auth_dir.join("jwks.json"), jwks.to_string()).unwrap();
    let ended = soon(following.message()).await;
    assert_fails(ended, Code::Unauthenticated, reason::UNAUTHENTICATED);
    guarded.http(post, Some(&good), "3").await.problem(401, reason::UNAUTHENTICATED);
}
