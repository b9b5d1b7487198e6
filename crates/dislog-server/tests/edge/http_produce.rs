//! `POST /v1/topics/{topic}/records`.

use serde_json::json;
use tokio::io::AsyncWriteExt;

use crate::http_client::{get, open, post, read_answer, send};
use crate::node::{consume_from, soon, start};

const JSON: &str = "application/json";
const LINES: &str = "application/x-ndjson";
const RECORDS: &str = "/v1/topics/t/records";

#[tokio::test]
async fn json_is_one_record_or_many() {
    let node = start().await;
    let added = post(&node, RECORDS, JSON, r#"{"value":"a"}"#).await;
    assert_eq!(added.status, 201);
    let answer = added.json();
    assert_eq!(
        (&answer["offset"], &answer["last_offset"], &answer["count"]),
        (&json!(0), &json!(0), &json!(1))
    );
    assert!(answer["timestamp_ms"].as_i64().unwrap() > 1_600_000_000_000);
    let added = post(&node, RECORDS, JSON, r#"[{"value":"b"},{"json":{"x":1}}]"#).await.json();
    assert_eq!(
        (&added["offset"], &added["last_offset"], &added["count"]),
        (&json!(1), &json!(2), &json!(2))
    );
    let added = post(
        &node,
        RECORDS,
        "application/json; charset=utf-8",
        r#"{"records":[{"base64":"/w=="}]}"#,
    )
    .await;
    assert_eq!(added.json()["offset"], 3);
    let page = get(&node, RECORDS).await.json();
    let records = page["records"].as_array().unwrap();
    let shown: Vec<_> = records.iter().map(|r| (&r["value"], &r["value_base64"])).collect();
    let null = json!(null);
    assert_eq!(
        shown,
        [
            (&json!("a"), &null),
            (&json!("b"), &null),
            (&json!("{\"x\":1}"), &null),
            (&null, &json!("/w=="))
        ]
    );
}

#[tokio::test]
async fn any_other_body_is_one_record_as_it_is() {
    let node = start().await;
    assert_eq!(send(&node, &format!("POST {RECORDS}"), &[], b"").await.json()["offset"], 0);
    let body = b"\xff\x00any bytes\n";
    let added =
        send(&node, &format!("POST {RECORDS}?key=k%20y"), &["content-type: image/png"], body).await;
    assert_eq!(added.json()["offset"], 1);
    let consumed = soon(node.log().await.consume(consume_from("t", 1))).await.unwrap().into_inner();
    let record = &consumed.records[0];
    assert_eq!((&record.value[..], record.key.as_deref()), (&body[..], Some(&b"k y"[..])));
    let accept = ["accept: application/octet-stream"];
    let bytes = send(&node, &format!("GET {RECORDS}/1"), &accept, b"").await;
    assert_eq!((bytes.status, &bytes.body[..]), (200, &body[..]));
}

#[tokio::test]
async fn lines_are_records_as_they_were_given_out() {
    let node = start().await;
    let full = r#"{"value":"a","key":"k","headers":[{"key":"h","value":"1"}],"type":3}"#;
    let body = format!("{full}\n\n\r\n{{\"base64\":\"/w==\"}}");
    let added = post(&node, RECORDS, LINES, &body).await;
    assert_eq!(added.status, 201);
    let added = added.json();
    assert_eq!(
        (&added["offset"], &added["last_offset"], &added["count"]),
        (&json!(0), &json!(1), &json!(2))
    );
    let accept = ["accept: application/x-ndjson"];
    let given = send(&node, &format!("GET {RECORDS}"), &accept, b"").await;
    let copied = post(&node, "/v1/topics/copy/records", LINES, given.text()).await;
    assert_eq!(copied.json()["count"], 2);
    let mut records = get(&node, "/v1/topics/copy/records").await.json()["records"].clone();
    let original = get(&node, RECORDS).await.json()["records"].clone();
    for (copied, original) in
        records.as_array_mut().unwrap().iter_mut().zip(original.as_array().unwrap())
    {
        copied["timestamp_ms"] = original["timestamp_ms"].clone();
        assert_eq!(copied, original);
    }
}

#[tokio::test]
async fn many_lines_are_appended_while_they_arrive() {
    const COUNT: usize = 20_000;
    let node = start().await;
    let mut body = String::new();
    for number in 0..COUNT {
        body.push_str(&format!("{{\"value\":\"record number {number}\"}}\n"));
    }
    let added = post(&node, RECORDS, LINES, &body).await.json();
    assert_eq!((added["offset"].as_u64(), added["count"].as_u64()), (Some(0), Some(COUNT as u64)));
    let last = get(&node, &format!("{RECORDS}?last=1")).await.json();
    assert_eq!(last["records"][0]["value"], format!("record number {}", COUNT - 1));
}

#[tokio::test]
async fn what_a_pausing_client_has_sent_is_appended() {
    let node = start().await;
    let headers = ["content-type: application/x-ndjson", "transfer-encoding: chunked"];
    let mut stream = open(node.addr(), &format!("POST {RECORDS}"), &headers).await;
    stream.write_all(b"c\r\n{\"value\":1}\n\r\n").await.unwrap();
    let answer = soon(read_answer(&mut stream)).await;
    assert!(answer.problem(400, "INVALID_REQUEST").contains("line 1"));

    let mut stream = open(node.addr(), &format!("POST {RECORDS}"), &headers).await;
    stream.write_all(b"e\r\n{\"value\":\"a\"}\n\r\n").await.unwrap();
    // The client says no more for now, and its record is there for others.
    let mut reader = open(node.addr(), &format!("GET {RECORDS}?offset=0&wait=20s"), &[]).await;
    let page = loop {
        let answer = soon(read_answer(&mut reader)).await;
        // The topic is created by the first record, which may still be on its way.
        if answer.status == 200 {
            break answer.json();
        }
        reader = open(node.addr(), &format!("GET {RECORDS}?offset=0&wait=20s"), &[]).await;
    };
    assert_eq!(page["records"][0]["value"], "a");
    stream.write_all(b"e\r\n{\"value\":\"b\"}\n\r\n0\r\n\r\n").await.unwrap();
    assert_eq!(soon(read_answer(&mut stream)).await.json()["count"], 2);
}

#[tokio::test]
async fn a_failure_midway_says_what_was_appended() {
    let node = start().await;
    let body = "{\"value\":\"a\"}\n{\"value\":\"b\"}\n{\"value\":7}\n{\"value\":\"never\"}\n";
    let answer = post(&node, RECORDS, LINES, body).await;
    assert!(answer.problem(400, "INVALID_REQUEST").contains("line 3"));
    let appended: u64 = answer.json()["appended"].as_str().unwrap().parse().unwrap();
    let page = get(&node, RECORDS).await;
    let stored = if page.status == 404 {
        0
    } else {
        page.json()["records"].as_array().unwrap().len() as u64
    };
    assert_eq!(appended, stored);
    post(&node, RECORDS, LINES, "\n\n").await.problem(400, "INVALID_REQUEST");
}

/// Whoever sent such a request again would add records twice.
#[tokio::test]
async fn what_was_done_in_part_is_not_to_be_retried() {
    let node = start().await;
    let headers = ["content-type: application/x-ndjson", "transfer-encoding: chunked"];
    let mut stream = open(node.addr(), &format!("POST {RECORDS}"), &headers).await;
    stream.write_all(b"e\r\n{\"value\":\"a\"}\n\r\n").await.unwrap();
    let waiting = format!("{RECORDS}?offset=0&wait=20s");
    while get(&node, &waiting).await.status != 200 {}
    let answer = tokio::join!(read_answer(&mut stream), node.server.shutdown()).0;
    answer.problem(503, "SHUTTING_DOWN");
    assert_eq!((&answer.json()["appended"], &answer.json()["retry"]), (&json!("1"), &json!(false)));
    assert!(!answer.headers.contains_key("retry-after"), "{answer:?}");
}

#[tokio::test]
async fn a_line_is_too_long_at_once() {
    let node = start().await;
    let line = format!("{{\"value\":\"{}\"}}", "x".repeat(17 << 20));
    let answer = soon(post(&node, RECORDS, LINES, &line)).await;
    assert!(answer.problem(413, "TOO_LARGE").contains("line 1"));
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let node = start().await;
    let request = format!("POST {RECORDS}");
    for refused in [
        &["sec-fetch-site: cross-site"][..],
        &["sec-fetch-site: same-site"],
        &["origin: https://evil.example"],
        &["origin: null"],
    ] {
        let answer = send(&node, &request, refused, b"x").await;
        assert!(answer.problem(403, "PERMISSION_DENIED").contains("another site"), "{refused:?}");
    }
    for allowed in [
        &["sec-fetch-site: same-origin"][..],
        &["sec-fetch-site: none"],
        &["origin: http://test"],
        &[],
    ] {
        assert_eq!(send(&node, &request, allowed, b"x").await.status, 201, "{allowed:?}");
    }
    let link = ["sec-fetch-site: cross-site", "sec-fetch-mode: navigate"];
    assert_eq!(send(&node, &format!("GET {RECORDS}"), &link, b"").await.status, 200);
}

#[tokio::test]
async fn lists_that_take_much_more_memory_than_they_have_bytes_are_refused() {
    let node = start().await;
    let many = |count: usize| format!("[{}]", vec!["{}"; count].join(","));
    assert_eq!(post(&node, RECORDS, JSON, &many(1_000)).await.json()["count"], 1_000);
    let records = post(&node, RECORDS, JSON, &many((1 << 17) + 1)).await;
    assert!(records.problem(400, "INVALID_REQUEST").contains("more than 131072 records"));
    let header = r#"{"key":"k","value":""}"#;
    let headers = format!(r#"{{"headers":[{}]}}"#, vec![header; 1_001].join(","));
    let headers = post(&node, RECORDS, JSON, &headers).await;
    assert!(headers.problem(400, "INVALID_REQUEST").contains("more than 1000 headers"));
    // A value of its own is not read.
    let value = format!(r#"{{"json":{}}}"#, many(1 << 18));
    assert_eq!(post(&node, RECORDS, JSON, &value).await.status, 201);
}

#[tokio::test]
async fn conditions_are_query_parameters() {
    let node = start().await;
    let at = |offset: u64| format!("{RECORDS}?expected_offset={offset}");
    assert_eq!(post(&node, &at(0), JSON, "{}").await.status, 201);
    let answer = post(&node, &at(0), JSON, "{}").await;
    answer.problem(412, "UNEXPECTED_OFFSET");
    assert_eq!(answer.json()["latest"], "1");
    let stamped = format!("{RECORDS}?producer_id=5&sequence=0");
    let first = post(&node, &stamped, JSON, "{}").await.json();
    let again = post(&node, &stamped, JSON, "{}").await.json();
    assert_eq!((&first["offset"], &first["duplicate"]), (&json!(1), &json!(null)));
    assert_eq!((&again["offset"], &again["duplicate"]), (&json!(1), &json!(true)));
    post(&node, &format!("{RECORDS}?producer_id=5&sequence=9"), JSON, "{}")
        .await
        .problem(409, "SEQUENCE_GAP");
}

#[tokio::test]
async fn refusals_name_the_input() {
    let node = start().await;
    for (query, body, named) in [
        ("?partition=-1", "{}", "partition"),
        ("?partition=4294967296", "{}", "partition"),
        ("?partition=x", "{}", "partition"),
        ("?expected_offset=18446744073709551616", "{}", "expected_offset"),
        ("?expected_offset=", "{}", "expected_offset"),
        ("?producer_id=1", "{}", "sequence"),
        ("?producer_id=0&sequence=0", "{}", "producer_id"),
        ("?producer_id=1&sequence=0&producer_epoch=32768", "{}", "producer_epoch"),
        ("?offset=1", "{}", "\"offset\" is not known"),
        ("?partition=0&partition=0", "{}", "twice"),
        ("?key=k", "{}", "key"),
        ("", "{\"value\":\"a\",\"base64\":\"\"}", "record 0"),
        ("", "[]", "no records"),
        ("", "{\"value\":\"a\"", "EOF"),
    ] {
        let answer = post(&node, &format!("{RECORDS}{query}"), JSON, body).await;
        let detail = answer.problem(400, "INVALID_REQUEST");
        assert!(detail.contains(named), "{query} {body}: {detail}");
    }
    let json = ["content-type: application/json"];
    let invalid = send(&node, &format!("POST {RECORDS}"), &json, b"{\"value\":\"\xff\"}").await;
    invalid.problem(400, "INVALID_REQUEST");
    post(&node, "/v1/topics/a%20b/records", JSON, "{}").await.problem(400, "INVALID_REQUEST");
    post(&node, "/v1/topics/a%ffb/records", JSON, "{}").await.problem(400, "INVALID_REQUEST");
    post(&node, &format!("{RECORDS}?partition=1"), JSON, "{}")
        .await
        .problem(404, "TOPIC_NOT_FOUND");
}
