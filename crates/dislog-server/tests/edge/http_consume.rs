//! `GET /v1/topics/{topic}/records`.

use serde_json::{Value, json};

use crate::http_client::{Answer, get, open, post, read_to_end, read_until, send};
use crate::node::{Node, produce_to, soon, start};

const RECORDS: &str = "/v1/topics/t/records";

async fn ten() -> Node {
    let node = start().await;
    for number in 0..10_u32 {
        soon(node.log().await.produce(produce_to("t", &[&number.to_string()]))).await.unwrap();
    }
    node
}

fn offsets(answer: &Answer) -> Vec<u64> {
    assert_eq!(answer.status, 200, "{answer:?}");
    let page = answer.json();
    page["records"]
        .as_array()
        .unwrap()
        .iter()
        .map(|record| record["offset"].as_u64().unwrap())
        .collect()
}

#[tokio::test]
async fn one_record_by_its_offset() {
    let node = ten().await;
    let record = get(&node, &format!("{RECORDS}/3")).await;
    assert_eq!((record.status, &record.json()["value"]), (200, &json!("3")));
    let answer = get(&node, &format!("{RECORDS}/10")).await;
    answer.problem(404, "OFFSET_OUT_OF_RANGE");
    assert_eq!((&answer.json()["earliest"], &answer.json()["latest"]), (&json!("0"), &json!("10")));
    get(&node, "/v1/topics/missing/records/0").await.problem(404, "TOPIC_NOT_FOUND");
    for absurd in ["-1", "18446744073709551616", "x", "1.5", "%00"] {
        let detail =
            get(&node, &format!("{RECORDS}/{absurd}")).await.problem(400, "INVALID_REQUEST");
        assert!(detail.contains("offset"), "{detail}");
    }
}

#[tokio::test]
async fn a_page_from_anywhere() {
    let node = ten().await;
    assert_eq!(offsets(&get(&node, RECORDS).await), (0..10).collect::<Vec<u64>>());
    let page = get(&node, &format!("{RECORDS}?offset=4&limit=3")).await;
    assert_eq!(offsets(&page), [4, 5, 6]);
    assert_eq!(
        (&page.json()["next_offset"], &page.json()["committed_offset"]),
        (&json!(7), &json!(10))
    );
    assert_eq!(offsets(&get(&node, &format!("{RECORDS}?last=2")).await), [8, 9]);
    assert_eq!(offsets(&get(&node, &format!("{RECORDS}?timestamp=-5&limit=1")).await), [0]);
    assert_eq!(
        offsets(&get(&node, &format!("{RECORDS}?offset=earliest&limit=1&linearizable=true")).await),
        [0]
    );
    for end in [
        "offset=latest",
        "offset=10",
        "timestamp=9223372036854775807",
        "last=0",
        "offset=10&wait=10ms",
    ] {
        let page = get(&node, &format!("{RECORDS}?{end}")).await;
        assert!(offsets(&page).is_empty());
        assert_eq!(page.json()["next_offset"], 10);
    }
    get(&node, &format!("{RECORDS}?offset=11")).await.problem(404, "OFFSET_OUT_OF_RANGE");
}

#[tokio::test]
async fn a_page_can_be_waited_for() {
    let node = ten().await;
    let mut stream = open(node.addr(), &format!("GET {RECORDS}?offset=10&wait=5m"), &[]).await;
    soon(node.log().await.produce(produce_to("t", &["10"]))).await.unwrap();
    assert!(read_until(&mut stream, "\"next_offset\":11").await.contains("\"value\":\"10\""));
}

#[tokio::test]
async fn absurd_parameters_are_refused() {
    let node = ten().await;
    for query in [
        "offset=-1",
        "offset=18446744073709551616",
        "offset=x",
        "offset=1&last=1",
        "timestamp=1s",
        "timestamp=9223372036854775808",
        "last=-1",
        "limit=0",
        "limit=-1",
        "limit=10001",
        "limit=1e3",
        "wait=soon",
        "wait=-1",
        "follow=maybe",
        "follow=true",
        "partition=-1",
        "linearizable=7",
        "from=1",
        "offset=1&offset=2",
    ] {
        let detail =
            get(&node, &format!("{RECORDS}?{query}")).await.problem(400, "INVALID_REQUEST");
        assert!(detail.contains(query.split('=').next().unwrap()), "{query}: {detail}");
    }
    send(&node, &format!("GET {RECORDS}"), &["accept: image/png"], b"")
        .await
        .problem(406, "INVALID_REQUEST");
}

#[tokio::test]
async fn lines_end_at_the_end_or_follow_it() {
    let node = ten().await;
    let accept = ["accept: application/x-ndjson"];
    let answer = send(&node, &format!("GET {RECORDS}?offset=7"), &accept, b"").await;
    assert_eq!(answer.headers["content-type"], "application/x-ndjson");
    let lines: Vec<Value> =
        answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(
        lines.iter().map(|line| line["value"].as_str().unwrap()).collect::<Vec<_>>(),
        ["7", "8", "9"]
    );
    let limited = send(&node, &format!("GET {RECORDS}?limit=4&follow=true"), &accept, b"").await;
    assert_eq!(limited.text().lines().count(), 4);
    let waited = send(&node, &format!("GET {RECORDS}?wait=50ms"), &accept, b"").await;
    assert_eq!(waited.text().lines().count(), 10);

    let mut stream =
        open(node.addr(), &format!("GET {RECORDS}?offset=9&follow=true"), &accept).await;
    read_until(&mut stream, "\"value\":\"9\"").await;
    soon(node.log().await.produce(produce_to("t", &["new"]))).await.unwrap();
    read_until(&mut stream, "\"value\":\"new\"").await;
    let delete = "DELETE /v1/topics/t";
    assert_eq!(send(&node, delete, &[], b"").await.status, 204);
    read_until(&mut stream, "{\"error\":{\"type\":\"urn:dislog:TOPIC_NOT_FOUND\"").await;
    read_to_end(&mut stream).await;
}

#[tokio::test]
async fn events_follow_and_go_on_where_they_were_cut_off() {
    let node = ten().await;
    let accept = "accept: text/event-stream";
    let mut stream = open(node.addr(), &format!("GET {RECORDS}?offset=8"), &[accept]).await;
    let read = read_until(&mut stream, "\"value\":\"9\"").await;
    assert!(
        read.contains("content-type: text/event-stream")
            && read.contains("id: 8\ndata: {\"offset\":8,")
    );
    soon(node.log().await.produce(produce_to("t", &["new"]))).await.unwrap();
    assert!(read_until(&mut stream, "\"value\":\"new\"").await.contains("id: 10\n"));
    drop(stream);

    let mut stream =
        open(node.addr(), &format!("GET {RECORDS}?offset=0"), &[accept, "last-event-id: 9"]).await;
    let read = read_until(&mut stream, "\"value\":\"new\"").await;
    assert!(!read.contains("id: 9\n") && read.contains("id: 10\n"));
    let wrong = [accept, "last-event-id: x"];
    send(&node, &format!("GET {RECORDS}"), &wrong, b"").await.problem(400, "INVALID_REQUEST");
}

#[tokio::test]
async fn trimmed_records_are_gone_and_said_to_be() {
    let node = ten().await;
    let trimmed = post(&node, "/v1/topics/t/trim", "application/json", r#"{"offset":4}"#).await;
    assert_eq!(trimmed.json(), json!({"start_offset": 4}));
    let answer = get(&node, &format!("{RECORDS}/3")).await;
    answer.problem(410, "OFFSET_TRIMMED");
    assert_eq!(answer.json()["earliest"], "4");
    for accept in ["application/json", "application/x-ndjson", "text/event-stream"] {
        let accept = format!("accept: {accept}");
        let answer = send(&node, &format!("GET {RECORDS}?offset=0"), &[&accept], b"").await;
        answer.problem(410, "OFFSET_TRIMMED");
    }
    assert_eq!(offsets(&get(&node, &format!("{RECORDS}?limit=1")).await), [4]);
}
