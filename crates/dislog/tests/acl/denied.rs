//! Nobody, and somebody without any right: every RPC and every route of a real process refuses
//! them, says so in its audit, and is as it was before.

use std::collections::BTreeSet;
use std::io;

use dislog_client::{ClientTls, Files};
use hyper_util::rt::TokioIo;
use prost::Message;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_stream as stream;
use tonic::transport::{Channel, Endpoint, Uri};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;
use tower::service_fn;

use crate::cluster::{Cluster, Who, ok, until};
use crate::node::HANG;
use crate::registered;

/// Those that anybody may call who has proved a name; what they show goes by rights.
const FOR_ALL_KNOWN: &[&str] = &[
    "/log.v1.Log/GetServers",
    "/log.v1.Admin/ListTopics",
    "/log.v1.Admin/DescribeCluster",
    "/log.v1.Admin/DescribeReplicas",
    "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "GET /v1/topics",
    "GET /v1/cluster",
    "GET /openapi.json",
];

const HEALTH: &str = "/grpc.health.v1.Health/";

/// Probes have no identity.
const FOR_ALL: &[&str] = &["GET /livez", "GET /readyz"];

/// What requests are about: something that is there, and could be changed.
const TOPIC: &str = "orders.eu";

/// A request that would do something, were it allowed.
#[derive(Clone, PartialEq, Message)]
struct Asked {
    /// A topic, a node or a token to administer.
    #[prost(string, tag = "1")]
    what: String,
    /// Whether to drain; a partition elsewhere.
    #[prost(uint64, tag = "2")]
    which: u64,
    #[prost(string, tag = "10")]
    topic_of_records: String,
}

impl Asked {
    fn by(path: &str, node_id: &str) -> Asked {
        let what = match path.rsplit('/').next().unwrap() {
            _ if path.starts_with("/log.v1.Log/") => "",
            "DrainNode" | "RemoveNode" => node_id,
            "CreateToken" | "RevokeToken" => "app",
            _ if path.starts_with("/log.v1.Admin/") => TOPIC,
            _ => "",
        };
        let which = u64::from(path.ends_with("/DrainNode"));
        let topic = if path.starts_with("/log.v1.Log/") { TOPIC } else { "" };
        Asked { what: what.to_owned(), which, topic_of_records: topic.to_owned() }
    }
}

/// Connections of gRPC, with certificates as `files` say.
pub(crate) fn channel(address: &str, files: Files) -> Channel {
    let tls = ClientTls::new(files).unwrap();
    let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
    let address = address.to_owned();
    endpoint.connect_with_connector_lazy(service_fn(move |_: Uri| {
        let (tls, address) = (tls.clone(), address.clone());
        async move {
            let stream = TcpStream::connect(&address).await?;
            Ok::<_, io::Error>(TokioIo::new(tls.connect(&address, stream).await?))
        }
    }))
}

/// Calls an RPC and reads its first answer: its code.
async fn call(channel: Channel, path: &str, asked: Asked) -> Code {
    let calling = async {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let request = Request::new(stream::once(asked));
        let codec = ProstCodec::<Asked, ()>::default();
        let answer = grpc.streaming(request, path.parse().unwrap(), codec).await?;
        answer.into_inner().message().await.map(drop)
    };
    let answered = timeout(HANG, calling).await.expect("every RPC answers");
    answered.err().map_or(Code::Ok, |status| status.code())
}

/// All that requests here could change, as root sees it.
fn state(cluster: &Cluster) -> Vec<String> {
    let get = |path: &str| {
        let (code, body) = cluster.curl(0, Who::Client("root"), "GET", path);
        assert_eq!(code, 200, "{path}: {body}");
        body
    };
    vec![
        get("/v1/topics"),
        get(&format!("/v1/topics/{TOPIC}")),
        get(&format!("/v1/topics/{TOPIC}/records?offset=0&limit=10")),
        get("/v1/cluster"),
        ok(&mut cluster.root(0, &["token", "list", "-o", "json"])),
    ]
}

/// The routes of the document, with something in the place of what they leave open.
fn routes(cluster: &Cluster) -> Vec<(String, String)> {
    let (_, document) = cluster.curl(0, Who::Client("root"), "GET", "/openapi.json");
    let document: Value = serde_json::from_str(&document).unwrap();
    let paths = document["paths"].as_object().unwrap();
    let routes = paths.iter().flat_map(|(path, methods)| {
        let methods = methods.as_object().unwrap().keys();
        methods.map(move |method| (method.to_uppercase(), path.clone()))
    });
    routes.collect()
}

/// Operations that were refused to `subject`, as the audit has them.
fn denied_in_audit(cluster: &Cluster, subject: &str) -> BTreeSet<String> {
    let audit = cluster.audit(0);
    let entries = audit.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let entries = entries.filter(|e| e["subject"] == subject && e["allowed"] == false);
    entries.map(|entry| entry["operation"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn nobody_and_who_has_no_right_are_refused_everywhere_and_change_nothing() {
    let cluster = Cluster::of(1, |_, _| {});
    cluster.make_client("eve");
    ok(&mut cluster.root(0, &["topic", "create", TOPIC]));
    ok(&mut cluster.root(0, &["token", "create", "app"]));
    let (code, _) = cluster.curl(0, Who::Client("root"), "POST", "/v1/topics/orders.eu/records");
    assert_eq!(code, 201);
    let before = state(&cluster);
    let nodes: Value = serde_json::from_str(&before[3]).unwrap();
    let node_id = nodes["nodes"][0]["id"].as_str().unwrap();

    let mut refused = BTreeSet::new();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let _entered = runtime.enter();
    let address = &cluster.nodes[0].address;
    let nobody = Files { authorities: cluster.path("certs/ca.crt"), own: None };
    let nobody = channel(address, nobody);
    let eve = channel(address, Files::in_dir(&cluster.path("certs/eve")));
    for path in registered::rpcs() {
        let asked = Asked::by(&path, node_id);
        let unknown = runtime.block_on(call(nobody.clone(), &path, asked.clone()));
        let known = runtime.block_on(call(eve.clone(), &path, asked));
        if path.starts_with(HEALTH) {
            assert_ne!(unknown, Code::Unauthenticated, "{path}");
            continue;
        }
        assert_eq!(unknown, Code::Unauthenticated, "{path}");
        match FOR_ALL_KNOWN.contains(&path.as_str()) {
            true => assert_ne!(known, Code::PermissionDenied, "{path}"),
            false => {
                assert_eq!(known, Code::PermissionDenied, "{path}");
                refused.insert(path);
            }
        }
    }
    for (method, path) in routes(&cluster) {
        let route = format!("{method} {path}");
        let body = match route.as_str() {
            "POST /v1/topics" => r#"{"name":"orders.eu"}"#,
            "POST /v1/topics/{topic}/trim" => r#"{"offset":1}"#,
            _ if method == "POST" => r#"{"record":{"value":"eA=="}}"#,
            _ => "",
        };
        let path = path.replace("{topic}", TOPIC).replace("{offset}", "0");
        let ask = |who: Who<'_>| cluster.curl_with(0, who, &method, &path, body).0;
        let (unknown, known) = (ask(Who::Nobody), ask(Who::Client("eve")));
        if FOR_ALL.contains(&route.as_str()) {
            assert_eq!((unknown, known), (200, 200), "{route}");
            continue;
        }
        let may = FOR_ALL_KNOWN.contains(&route.as_str());
        assert_eq!((unknown, known), (401, if may { 200 } else { 403 }), "{route}");
        if !may {
            refused.insert(route);
        }
    }
    assert!(refused.len() > 25, "{refused:?}");
    assert_eq!(state(&cluster), before, "nothing has changed");
    until("all refusals are recorded", || denied_in_audit(&cluster, "eve") == refused);
    until("those of nobody, too", || denied_in_audit(&cluster, "anonymous").is_superset(&refused));
}
