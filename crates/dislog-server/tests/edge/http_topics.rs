//! Topics, the cluster, metrics and the document over HTTP.

use serde_json::json;

use crate::http_client::{get, post, send};
use crate::node::{start, start_with};

const JSON: &str = "application/json";

#[tokio::test]
async fn topics_live_from_creation_to_deletion() {
    let node = start().await;
    let new = r#"{"name":"t","partitions":2,"settings":{"retention_ms":1000}}"#;
    let created = post(&node, "/v1/topics", JSON, new).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.json()["settings"]["retention_ms"], 1000);
    post(&node, "/v1/topics", JSON, new).await.problem(409, "TOPIC_EXISTS");
    assert_eq!(post(&node, "/v1/topics/t/records?partition=1", JSON, "{}").await.status, 201);
    let described = get(&node, "/v1/topics/t").await.json();
    assert_eq!(described["partitions"][1]["committed_offset"], 1);
    let altered = send(&node, "PATCH /v1/topics/t", &[], br#"{"retention_bytes":5000000}"#).await;
    let expected = json!({
        "retention_bytes": 5_000_000,
        "retention_ms": 1000,
        "segment_bytes": 128 << 20,
        "replicas": 3,
    });
    assert_eq!((altered.status, &altered.json()["settings"]), (200, &expected));
    let listed = get(&node, "/v1/topics").await.json();
    assert_eq!(listed["topics"][0], get(&node, "/v1/topics/t").await.json());
    assert_eq!(send(&node, "DELETE /v1/topics/t", &[], b"").await.status, 204);
    get(&node, "/v1/topics/t").await.problem(404, "TOPIC_NOT_FOUND");
    send(&node, "DELETE /v1/topics/t", &[], b"").await.problem(404, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn what_cannot_be_is_refused() {
    let node = start().await;
    for body in [
        "",
        "{}",
        "[]",
        r#"{"name":""}"#,
        r#"{"name":"a/b"}"#,
        r#"{"name":"t","partitions":-1}"#,
        r#"{"name":"t","partitions":1025}"#,
        r#"{"name":"t","replicas":3}"#,
        r#"{"name":"t","settings":{"x":1}}"#,
    ] {
        post(&node, "/v1/topics", JSON, body).await.problem(400, "INVALID_REQUEST");
    }
    get(&node, "/v2/nothing").await.problem(404, "INVALID_REQUEST");
    send(&node, "PUT /v1/topics", &[], b"").await.problem(405, "INVALID_REQUEST");
    post(&node, "/v1/topics/t/trim", JSON, r#"{"offset":0}"#).await.problem(404, "TOPIC_NOT_FOUND");
}

#[tokio::test]
async fn the_node_tells_how_it_is() {
    let node = start_with(|config| config.name = "one".to_owned()).await;
    let cluster = get(&node, "/v1/cluster").await.json();
    let this = &cluster["nodes"][0];
    assert_eq!((&this["name"], &this["alive"]), (&json!("one"), &json!(true)));
    assert_eq!(this["address"], node.addr().to_string());
    post(&node, "/v1/topics/t/records", JSON, "[{},{}]").await;
    let metrics = get(&node, "/metrics").await;
    assert!(metrics.headers["content-type"].starts_with("text/plain; version=0.0.4"));
    let page = metrics.text();
    for line in [
        "dislog_ready 1",
        "dislog_partition_committed_offset{topic=\"t\",partition=\"0\"} 2",
        "dislog_partition_leads{topic=\"t\",partition=\"0\"} 1",
        "dislog_log_records_total{topic=\"t\",partition=\"0\"} 2",
        "# TYPE dislog_log_flushes_total counter",
    ] {
        assert!(page.lines().any(|given| given == line), "{line} is not in\n{page}");
    }
    let document = get(&node, "/openapi.json").await.json();
    assert!(document["paths"]["/v1/topics/{topic}/records"]["post"].is_object());
}
