//! One node, from the outside: what was acknowledged is there, in order, once, after any orderly
//! end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod node;

use std::sync::Arc;
use std::time::Duration;

use dislog_cluster::{
    AppendError, Cluster, NoNetwork, OpenError, Partition, ReadError, TopicChange, TopicError,
};
use dislog_log::fs::SimFs;
use node::{
    TestClock, append, batch, config, create, data_dir, id, name, open_sim, read_all, stamped,
};

const NOW_MS: i64 = 1_700_000_000_000;

#[tokio::test]
async fn what_is_appended_is_read_and_outlives_a_restart() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let node_id = cluster.node_id();
    let log = create(&cluster, "a", TopicChange::default()).await;
    let first = append(&log, &["one", "two"]).await.unwrap();
    assert_eq!((first.base_offset, first.record_count, first.duplicate), (0, 2, false));
    assert_eq!(first.timestamp_ms, NOW_MS);
    assert_eq!(append(&log, &["three"]).await.unwrap().base_offset, 2);
    assert_eq!(log.progress().committed_offset, 3);
    assert_eq!(read_all(&log, 0).await, ["one", "two", "three"]);
    assert_eq!(read_all(&log, 1).await, ["two", "three"]);
    assert!(log.read(3, 100).await.unwrap().is_empty());
    assert!(matches!(log.read(4, 100).await, Err(ReadError::BeyondEnd { offset: 4, .. })));
    cluster.close().await;
    assert!(log.progress().ended);
    assert_eq!(append(&log, &["late"]).await, Err(AppendError::Closing));
    assert!(matches!(log.read(0, 100).await, Err(ReadError::Closing)));

    let cluster = open_sim(&fs, &clock).unwrap();
    assert_eq!(cluster.node_id(), node_id);
    assert_eq!(cluster.unready(), []);
    let log = cluster.partition(&id("a")).unwrap();
    assert_eq!(read_all(&log, 0).await, ["one", "two", "three"]);
    assert_eq!(append(&log, &["four"]).await.unwrap().base_offset, 3);
    let status = log.status();
    assert_eq!((status.term, status.end_offset), (2, 4));
    assert_eq!(cluster.leader_of(&id("a")), Some(node_id));
    cluster.close().await;
    cluster.close().await;
}

#[tokio::test]
async fn timestamps_never_decrease_and_find_offsets() {
    let (fs, clock) = (SimFs::new(2), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    append(&log, &["at 0"]).await.unwrap();
    clock.advance(1_000);
    append(&log, &["at 1000"]).await.unwrap();
    clock.advance(-5_000);
    let late = append(&log, &["clock was set back"]).await.unwrap();
    assert_eq!(late.timestamp_ms, NOW_MS + 1_000);
    for (timestamp_ms, offset) in [(0, 0), (NOW_MS, 0), (NOW_MS + 1, 1), (NOW_MS + 1_000, 1)] {
        assert_eq!(log.offset_at(timestamp_ms).await.unwrap(), offset, "{timestamp_ms}");
    }
    assert_eq!(log.offset_at(NOW_MS + 1_001).await.unwrap(), 3);
    cluster.close().await;
}

#[tokio::test]
async fn a_retry_gets_the_first_answer_also_after_a_restart() {
    let (fs, clock) = (SimFs::new(3), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    append(&log, &["somebody else's"]).await.unwrap();
    let first = log.append(stamped(7, 0, &["x", "y"])).await.unwrap();
    assert_eq!((first.base_offset, first.duplicate), (1, false));
    // Both are under way at once: the second waits for the first.
    let (a, b) = (log.submit(stamped(7, 2, &["z"])), log.submit(stamped(7, 2, &["z"])));
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    assert_eq!((a.base_offset, a.duplicate), (3, false));
    assert_eq!((b.base_offset, b.duplicate), (3, true));
    cluster.close().await;

    clock.advance(9);
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = cluster.partition(&id("a")).unwrap();
    let again = log.append(stamped(7, 0, &["x", "y"])).await.unwrap();
    assert_eq!((again.base_offset, again.timestamp_ms, again.duplicate), (1, NOW_MS, true));
    let gap = log.append(stamped(7, 9, &["lost some"])).await;
    assert_eq!(gap, Err(AppendError::SequenceGap { producer_id: 7, sequence: 9, expected: 3 }));
    let unknown = log.append(stamped(8, 5, &["who?"])).await;
    assert_eq!(unknown, Err(AppendError::ProducerUnknown { producer_id: 8 }));
    assert_eq!(log.append(stamped(7, 3, &["w"])).await.unwrap().base_offset, 4);
    assert_eq!(read_all(&log, 0).await, ["somebody else's", "x", "y", "z", "w"]);
    cluster.close().await;
}

#[tokio::test]
async fn a_conditional_append_meets_its_condition_or_is_not_made() {
    let (fs, clock) = (SimFs::new(4), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    let mut at_0 = batch(&["first"], None);
    at_0.expected_offset = Some(0);
    let mut too_late = batch(&["second"], None);
    too_late.expected_offset = Some(0);
    let (won, lost) = (log.submit(at_0).await.unwrap(), log.submit(too_late).await.unwrap());
    assert_eq!(won.await.unwrap().base_offset, 0);
    assert_eq!(lost.await, Err(AppendError::UnexpectedOffset { expected: 0, actual: 1 }));
    assert_eq!(read_all(&log, 0).await, ["first"]);
    cluster.close().await;
}

#[tokio::test]
async fn a_trim_is_seen_at_once_and_after_a_restart() {
    let (fs, clock) = (SimFs::new(5), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let change = TopicChange { segment_bytes: Some(4 << 10), ..TopicChange::default() };
    let log = create(&cluster, "a", change).await;
    log.append(stamped(1, 0, &["forgotten"])).await.unwrap();
    let value = "x".repeat(500);
    for _ in 0..50 {
        append(&log, &[&value]).await.unwrap();
    }
    log.append(stamped(2, 0, &["kept"])).await.unwrap();
    let segments = log.status().segments;
    assert!(segments > 5);
    assert_eq!(log.trim(40).await.unwrap(), 40);
    assert_eq!(log.trim(30).await.unwrap(), 40, "never back");
    assert_eq!(log.progress().start_offset, 40);
    assert!(matches!(log.read(39, 1).await, Err(ReadError::Trimmed { start_offset: 40, .. })));
    cluster.close().await;
    assert!(log.status().segments < segments, "what was trimmed is deleted");

    let cluster = open_sim(&fs, &clock).unwrap();
    let log = cluster.partition(&id("a")).unwrap();
    assert_eq!((log.progress().start_offset, log.progress().committed_offset), (40, 52));
    assert_eq!(read_all(&log, 40).await.len(), 12);
    let forgotten = log.append(stamped(1, 1, &["next"])).await;
    assert_eq!(forgotten, Err(AppendError::ProducerUnknown { producer_id: 1 }));
    assert!(log.append(stamped(2, 0, &["kept"])).await.unwrap().duplicate);
    assert_eq!(log.trim(u64::MAX).await.unwrap(), 52);
    assert_eq!(append(&log, &["on"]).await.unwrap().base_offset, 52);
    cluster.close().await;
}

/// A topic that keeps so much, in segments of 8 KiB.
async fn keeping_32_kib() -> (Cluster, Partition) {
    let (fs, clock) = (SimFs::new(6), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let change = TopicChange {
        segment_bytes: Some(8 << 10),
        retention_bytes: Some(32 << 10),
        ..TopicChange::default()
    };
    let log = create(&cluster, "a", change).await;
    (cluster, log)
}

#[tokio::test]
async fn retention_by_bytes_deletes_what_is_over() {
    let (cluster, log) = keeping_32_kib().await;
    let value = "x".repeat(1_000);
    for _ in 0..200 {
        append(&log, &[&value]).await.unwrap();
    }
    // A segment that is not sealed yet, and one without which too little would be left.
    kept_within(&log, (32 + 8 + 8) << 10).await;
    let progress = log.progress();
    assert_eq!(progress.committed_offset, 200);
    assert_eq!(
        read_all(&log, progress.start_offset).await.len() as u64,
        200 - progress.start_offset
    );
    assert!(log.status().size_bytes >= 32 << 10, "{:?}", log.status());
    cluster.close().await;
}

#[tokio::test]
async fn retention_by_bytes_misses_no_segment() {
    let (cluster, log) = keeping_32_kib().await;
    // Each seals one, and as many go as come.
    let value = "x".repeat(7_000);
    for offset in 0..100 {
        append(&log, &[&value]).await.unwrap();
        if offset > 10 {
            kept_within(&log, (32 + 8) << 10).await;
        }
    }
    cluster.close().await;
}

/// Waits until a log has no more bytes than that.
async fn kept_within(log: &Partition, bytes_max: u64) {
    let waited = tokio::time::timeout(Duration::from_secs(30), async {
        while log.status().size_bytes > bytes_max {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    assert!(waited.await.is_ok(), "{:?}", log.status());
}

#[tokio::test]
async fn retention_by_age_forgets_what_is_old() {
    let (fs, clock) = (SimFs::new(7), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let change = TopicChange { retention_ms: Some(60_000), ..TopicChange::default() };
    let log = create(&cluster, "a", change).await;
    append(&log, &["old"]).await.unwrap();
    clock.advance(30_000);
    append(&log, &["younger"]).await.unwrap();
    clock.advance(30_001);
    // Any input makes the driver look at its clock.
    append(&log, &["young"]).await.unwrap();
    let mut watch = log.watch();
    let progress = *watch.wait_for(|progress| progress.start_offset > 0).await.unwrap();
    assert_eq!(progress.start_offset, 1);
    assert_eq!(read_all(&log, 1).await, ["younger", "young"]);
    let change = TopicChange { retention_ms: Some(1), ..TopicChange::default() };
    cluster.alter_topic(&name("a"), change).await.unwrap();
    watch.wait_for(|progress| progress.start_offset == 2).await.unwrap();
    cluster.close().await;
}

#[tokio::test]
async fn what_expires_goes_without_any_request() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open_real(config(dir.path()), Arc::new(NoNetwork)).unwrap();
    let change = TopicChange { retention_ms: Some(50), ..TopicChange::default() };
    let log = create(&cluster, "a", change).await;
    append(&log, &["short-lived"]).await.unwrap();
    let mut watch = log.watch();
    watch.wait_for(|progress| progress.start_offset == 1).await.unwrap();
    cluster.close().await;
}

#[tokio::test]
async fn topics_come_and_go_and_come_again() {
    let (fs, clock) = (SimFs::new(8), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    assert_eq!(cluster.topic(&name("a")), Err(TopicError::NotFound(name("a"))));
    let log = create(&cluster, "a", TopicChange::default()).await;
    append(&log, &["of the first life"]).await.unwrap();
    let again = cluster.create_topic(name("a"), 1, TopicChange::default()).await;
    assert_eq!(again, Err(TopicError::Exists(name("a"))));
    let waiting = tokio::spawn({
        let log = log.clone();
        async move { log.wait_for(1).await }
    });
    cluster.delete_topic(&name("a")).await.unwrap();
    assert_eq!(waiting.await.unwrap(), Err(ReadError::Deleted(id("a"))));
    assert_eq!(append(&log, &["x"]).await, Err(AppendError::Deleted(id("a"))));
    assert!(matches!(log.read(0, 1).await, Err(ReadError::Deleted(_))));
    assert!(matches!(cluster.partition(&id("a")), Err(TopicError::NotFound(_))));

    clock.advance(5);
    let topic = cluster.create_topic(name("a"), 3, TopicChange::default()).await.unwrap();
    assert_eq!((topic.partitions, topic.created_ms), (3, NOW_MS + 5));
    let log = cluster.partition(&id("a")).unwrap();
    assert_eq!(append(&log, &["of the second"]).await.unwrap().base_offset, 0);
    cluster.create_topic(name("b"), 1, TopicChange::default()).await.unwrap();
    cluster.delete_topic(&name("b")).await.unwrap();
    assert!(matches!(
        cluster.create_topic(name("c"), 0, TopicChange::default()).await,
        Err(TopicError::Invalid(_))
    ));
    cluster.close().await;

    let cluster = open_sim(&fs, &clock).unwrap();
    assert_eq!(cluster.topics(), [topic]);
    let log = cluster.partition(&id("a")).unwrap();
    assert_eq!(read_all(&log, 0).await, ["of the second"]);
    let mut beyond = id("a");
    beyond.partition = 3;
    assert!(matches!(
        cluster.partition(&beyond),
        Err(TopicError::NoPartition { partitions: 3, .. })
    ));
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_creates_a_topic_first_wins() {
    let (fs, clock) = (SimFs::new(9), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let tasks: Vec<_> = (1..=20)
        .map(|partitions| {
            let cluster = cluster.clone();
            tokio::spawn(async move {
                let created =
                    cluster.create_topic(name("a"), partitions, TopicChange::default()).await;
                // Whatever came of it, the topic is there now and can be written.
                let log = cluster.partition(&id("a")).unwrap();
                append(&log, &["x"]).await.unwrap();
                created
            })
        })
        .collect();
    let mut created = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(topic) => created.push(topic),
            Err(error) => assert_eq!(error, TopicError::Exists(name("a"))),
        }
    }
    assert_eq!(created.len(), 1);
    assert_eq!(cluster.topics(), created);
    assert_eq!(cluster.partition(&id("a")).unwrap().progress().committed_offset, 20);
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_appends_at_once_are_dense_and_share_syncs() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open_real(config(dir.path()), Arc::new(NoNetwork)).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    let tasks: Vec<_> = (0..256)
        .map(|task| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut offsets = Vec::new();
                for number in 0..20 {
                    let value = format!("{task}:{number}");
                    offsets.push((append(&log, &[&value]).await.unwrap().base_offset, value));
                }
                offsets
            })
        })
        .collect();
    let mut appended = Vec::new();
    for task in tasks {
        appended.extend(task.await.unwrap());
    }
    appended.sort_unstable();
    let offsets: Vec<u64> = appended.iter().map(|(offset, _)| *offset).collect();
    assert_eq!(offsets, (0..256 * 20).collect::<Vec<u64>>());
    let values: Vec<String> = appended.into_iter().map(|(_, value)| value).collect();
    assert_eq!(read_all(&log, 0).await, values);
    let counters = log.status().counters;
    assert_eq!((counters.records, counters.batches), (256 * 20, 256 * 20));
    assert!(counters.records > 2 * counters.syncs, "{counters:?}");
    cluster.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_answers_every_append_under_way() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open_real(config(dir.path()), Arc::new(NoNetwork)).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    let tasks: Vec<_> = (0..64)
        .map(|_| {
            let log = log.clone();
            tokio::spawn(async move {
                let mut appended = 0;
                loop {
                    match append(&log, &["x"]).await {
                        Ok(_) => appended += 1,
                        Err(AppendError::Closing) => return appended,
                        Err(error) => panic!("{error}"),
                    }
                }
            })
        })
        .collect();
    log.wait_for(1_000).await.unwrap();
    cluster.close().await;
    let mut appended = 0;
    for task in tasks {
        appended += task.await.unwrap();
    }
    let cluster = Cluster::open_real(config(dir.path()), Arc::new(NoNetwork)).unwrap();
    let log = cluster.partition(&id("a")).unwrap();
    assert_eq!(log.progress().committed_offset, appended);
    cluster.close().await;
}

#[tokio::test]
async fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::open_real(config(dir.path()), Arc::new(NoNetwork)).unwrap();
    assert!(matches!(
        Cluster::open_real(config(dir.path()), Arc::new(NoNetwork)),
        Err(OpenError::InUse(_))
    ));
    cluster.close().await;
    let cluster = Cluster::open_real(config(dir.path()), Arc::new(NoNetwork)).unwrap();
    cluster.close().await;
}

#[tokio::test]
async fn an_append_larger_than_all_that_may_be_under_way_goes_alone() {
    let (fs, clock) = (SimFs::new(10), TestClock::new(NOW_MS));
    let mut config = config(&data_dir());
    config.appends_in_flight_bytes_max = 1_000;
    let clock: Arc<TestClock> = clock;
    let cluster = Cluster::open(config, Arc::new(fs), clock, Arc::new(NoNetwork)).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    let value = "x".repeat(100_000);
    let both = (log.submit(batch(&[&value], None)), log.append(batch(&["y"], None)));
    let first = both.0.await.unwrap();
    assert_eq!(both.1.await.unwrap().base_offset, 1);
    assert_eq!(first.await.unwrap().base_offset, 0);
    cluster.close().await;
}

#[tokio::test]
async fn a_linearizable_read_sees_what_was_acknowledged() {
    let (fs, clock) = (SimFs::new(11), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    for offset in 0..10 {
        append(&log, &["x"]).await.unwrap();
        log.linearize().await.unwrap();
        assert!(log.progress().committed_offset > offset);
    }
    cluster.close().await;
    assert_eq!(log.linearize().await, Err(ReadError::Closing));
}
