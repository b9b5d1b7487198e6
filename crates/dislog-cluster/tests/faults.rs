//! One node on a disk that fails: nothing acknowledged is lost, nothing is doubled, and every error
//! tells the truth.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod node;

use dislog_cluster::{
    AppendError, Cluster, DISK_HEADROOM_BYTES, Partition, ReadError, TopicChange, TopicError,
};
use dislog_log::fs::{Fs, SimFaults, SimFs};
use node::{TestClock, append, create, data_dir, id, name, open_sim, read_all, stamped};

const NOW_MS: i64 = 1_700_000_000_000;

/// Seeds of the crash test; each is one life, one crash and one recovery.
const CRASHES: u64 = 300;

/// What a life of the node left: values in the order of their append.
#[derive(Debug, Default)]
struct Life {
    acknowledged: Vec<String>,
    /// One whose outcome is not known.
    unknown: Option<String>,
    start_offset: u64,
}

/// Appends, with a trim now and then, until something fails.
async fn live(cluster: &Cluster, seed: u64) -> Life {
    let mut life = Life::default();
    let change = TopicChange { segment_bytes: Some(4 << 10), ..TopicChange::default() };
    if cluster.create_topic(name("a"), 1, change).await.is_err() {
        return life;
    }
    let Ok(log) = cluster.partition(&id("a")) else { return life };
    for number in 0..60_i32 {
        let value = format!("{number}:{}", "x".repeat((seed % 7 * 60) as usize));
        match log.append(stamped(1, number, &[&value])).await {
            Ok(appended) => {
                assert_eq!(appended.base_offset, life.acknowledged.len() as u64);
                life.acknowledged.push(value);
            }
            Err(_) => {
                life.unknown = Some(value);
                return life;
            }
        }
        if number % 16 == 15 {
            match log.trim(u64::from(number.unsigned_abs()) / 2).await {
                Ok(start_offset) => life.start_offset = start_offset,
                Err(_) => return life,
            }
        }
    }
    life
}

/// Whether everything is as it was acknowledged; repeats the append of unknown outcome.
async fn check(cluster: &Cluster, life: &Life) -> Result<(), String> {
    let log = match cluster.partition(&id("a")) {
        Ok(log) => log,
        Err(TopicError::NotFound(_)) if life.acknowledged.is_empty() => return Ok(()),
        Err(error) => return Err(error.to_string()),
    };
    let progress = log.progress();
    let acknowledged = life.acknowledged.len() as u64;
    if let Some(fault) = log.status().fault {
        return Err(fault);
    }
    if progress.committed_offset < acknowledged || progress.start_offset < life.start_offset {
        return Err(format!("{progress:?} after {acknowledged} acknowledged, {life:?}"));
    }
    let mut expected = life.acknowledged.clone();
    if let Some(unknown) = &life.unknown {
        let sequence = i32::try_from(acknowledged).unwrap();
        let again = log.append(stamped(1, sequence, &[unknown])).await;
        match again {
            Ok(appended) if appended.base_offset == acknowledged => expected.push(unknown.clone()),
            again => return Err(format!("the retry was answered {again:?}")),
        }
    }
    let start_offset = log.progress().start_offset;
    let from = usize::try_from(start_offset).unwrap();
    match read_all(&log, start_offset).await == expected[from..] {
        true => Ok(()),
        false => Err("the records are others".to_owned()),
    }
}

async fn crash_and_check(seed: u64, faults: SimFaults) -> Result<(), String> {
    let (fs, clock) = (SimFs::new(seed), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).map_err(|error| error.to_string())?;
    fs.arm(faults);
    let life = live(&cluster, seed).await;
    cluster.close().await;
    fs.crash();
    let cluster = open_sim(&fs, &clock).map_err(|error| error.to_string())?;
    let outcome = check(&cluster, &life).await;
    cluster.close().await;
    outcome
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_by_a_crash() {
    for seed in 0..CRASHES {
        let faults = SimFaults { crash_after: Some(seed), ..SimFaults::default() };
        crash_and_check(seed, faults).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_acknowledged_is_lost_or_doubled_by_a_failed_sync() {
    for seed in 0..CRASHES {
        let faults = SimFaults { fail_sync_after: Some(seed / 2), ..SimFaults::default() };
        crash_and_check(seed, faults).await.unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
}

/// A producer that keeps on where it was, whatever happened to its last append.
#[derive(Debug)]
struct Persistent {
    id: i64,
    /// The next sequence, which is also how many of its records are known to be appended.
    next: i32,
    acknowledged: Vec<(u64, String)>,
}

impl Persistent {
    /// Appends until something fails; the record that failed is the first of the next life.
    async fn live(mut self, log: Partition) -> Persistent {
        for _ in 0..40 {
            let value = format!("{}:{}", self.id, self.next);
            match log.append(stamped(self.id, self.next, &[&value])).await {
                Ok(appended) => {
                    self.acknowledged.push((appended.base_offset, value));
                    self.next += 1;
                }
                Err(error) => {
                    let gap = matches!(error, AppendError::SequenceGap { .. });
                    assert!(!gap, "what was acknowledged is known: {error}");
                    break;
                }
            }
        }
        self
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn many_producers_through_many_crashes_append_everything_once() {
    for seed in 0..40 {
        let (fs, clock) = (SimFs::new(seed), TestClock::new(NOW_MS));
        let cluster = open_sim(&fs, &clock).unwrap();
        let change = TopicChange { segment_bytes: Some(4 << 10), ..TopicChange::default() };
        create(&cluster, "a", change).await;
        cluster.close().await;
        let persistent = |id| Persistent { id, next: 0, acknowledged: Vec::new() };
        let mut producers: Vec<Persistent> = (0..4).map(persistent).collect();
        for life in 0..6 {
            let crash_after = Some(seed % 13 * 5 + life * 7);
            let faults = SimFaults { crash_after, ..SimFaults::default() };
            let cluster = open_sim(&fs, &clock).unwrap();
            fs.arm(faults);
            let log = cluster.partition(&id("a")).unwrap();
            let lives: Vec<_> =
                producers.drain(..).map(|p| tokio::spawn(p.live(log.clone()))).collect();
            for life in lives {
                producers.push(life.await.unwrap());
            }
            cluster.close().await;
            fs.crash();
        }
        let cluster = open_sim(&fs, &clock).unwrap();
        let values = read_all(&cluster.partition(&id("a")).unwrap(), 0).await;
        for producer in &producers {
            for (offset, value) in &producer.acknowledged {
                assert_eq!(&values[usize::try_from(*offset).unwrap()], value, "seed {seed}");
            }
            let own = values.iter().filter(|v| v.starts_with(&format!("{}:", producer.id)));
            let numbers: Vec<i32> = own.map(|v| v[2..].parse().unwrap()).collect();
            let all = i32::try_from(numbers.len()).unwrap();
            assert_eq!(numbers, (0..all).collect::<Vec<i32>>(), "seed {seed}: once, in order");
            assert!(all == producer.next || all == producer.next + 1, "seed {seed}: {producer:?}");
        }
        cluster.close().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_notices_syncs_that_do_nothing() {
    let mut noticed = 0;
    for seed in 0..20 {
        let faults =
            SimFaults { lying_syncs: true, crash_after: Some(40 + seed), ..SimFaults::default() };
        noticed += u32::from(crash_and_check(seed, faults).await.is_err());
    }
    assert!(noticed > 10, "{noticed} of 20 losses noticed");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crash_while_topics_come_and_go_leaves_all_or_nothing() {
    for seed in 0..150 {
        let (fs, clock) = (SimFs::new(seed), TestClock::new(NOW_MS));
        let cluster = open_sim(&fs, &clock).unwrap();
        fs.arm(SimFaults { crash_after: Some(seed), ..SimFaults::default() });
        let mut last = None;
        for round in 0..4_u32 {
            let created = cluster.create_topic(name("a"), 1 + round, TopicChange::default()).await;
            if let Ok(topic) = &created {
                last = Some(topic.clone());
                if let Ok(log) = cluster.partition(&id("a")) {
                    let _ = append(&log, &[&format!("round {round}")]).await;
                }
            }
            if created.is_err() || cluster.delete_topic(&name("a")).await.is_err() {
                break;
            }
            last = None;
        }
        cluster.close().await;
        fs.crash();
        let cluster = open_sim(&fs, &clock).unwrap();
        assert_eq!(cluster.unready(), [], "seed {seed}");
        match cluster.topic(&name("a")) {
            Ok(topic) => {
                let log = cluster.partition(&id("a")).unwrap();
                let values = read_all(&log, 0).await;
                let round = format!("round {}", topic.partitions - 1);
                assert!(values.is_empty() || values == [round], "seed {seed}: {values:?}");
                append(&log, &["on"]).await.unwrap();
                cluster.delete_topic(&name("a")).await.unwrap();
            }
            // A topic whose creation was acknowledged may be gone by a deletion that was not.
            Err(_) => assert!(last.is_none_or(|topic| topic.partitions > 0)),
        }
        let left = fs.list(&data_dir().join("partitions")).unwrap();
        assert_eq!(left, [data_dir().join("partitions/__metadata-0")], "seed {seed}");
        cluster.close().await;
    }
}

/// A topic whose log's next sync fails.
async fn stopped(fs: &SimFs, cluster: &Cluster) -> Partition {
    let log = create(cluster, "a", TopicChange::default()).await;
    append(&log, &["acknowledged"]).await.unwrap();
    fs.arm(SimFaults { fail_sync_after: Some(0), ..SimFaults::default() });
    let failed = append(&log, &["lost or not"]).await;
    assert!(matches!(failed, Err(AppendError::Stopped(_))), "{failed:?}");
    fs.arm(SimFaults::default());
    log
}

#[tokio::test]
async fn a_failed_sync_stops_the_log_and_not_its_readers() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = stopped(&fs, &cluster).await;
    assert!(matches!(append(&log, &["more"]).await, Err(AppendError::Stopped(_))));
    assert!(matches!(log.trim(1).await, Err(AppendError::Stopped(_))));
    assert_eq!(log.linearize().await, Err(ReadError::NoLeader(id("a"))));
    assert_eq!(log.progress().committed_offset, 1);
    assert_eq!(read_all(&log, 0).await, ["acknowledged"]);
    assert_eq!(cluster.unready().len(), 1);
    let other = create(&cluster, "b", TopicChange::default()).await;
    append(&other, &["goes on"]).await.unwrap();
    cluster.close().await;
}

#[tokio::test]
async fn a_deleted_topic_is_gone_even_if_its_log_had_stopped() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    stopped(&fs, &cluster).await;
    cluster.delete_topic(&name("a")).await.unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    assert_eq!(append(&log, &["anew"]).await.unwrap().base_offset, 0);
    cluster.close().await;
}

#[tokio::test]
async fn a_disk_that_fills_refuses_appends_and_takes_trims() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    let space_bytes = Some(DISK_HEADROOM_BYTES + (100 << 10));
    fs.arm(SimFaults { space_bytes, ..SimFaults::default() });
    // The disk is asked again after a while.
    clock.advance(1_000);
    let value = "x".repeat(10_000);
    let mut appended: u64 = 0;
    let refused = loop {
        match append(&log, &[&value]).await {
            Ok(_) => appended += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused, AppendError::DiskFull);
    // Some of them went into room that was made when there was space.
    assert!((5..20).contains(&appended), "{appended}");
    assert_eq!(log.trim(2).await.unwrap(), 2);
    assert_eq!(read_all(&log, 2).await.len() as u64, appended - 2);
    fs.arm(SimFaults::default());
    assert_eq!(append(&log, &["room"]).await.unwrap().base_offset, appended);
    cluster.close().await;
}

/// Returns once a write found no room.
async fn found_full(log: &Partition) {
    while log.status().fault.is_none() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_disk_that_fills_unseen_delays_what_was_under_way() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    // The node last saw an empty disk, so it takes the append before it learns better.
    fs.arm(SimFaults { space_bytes: Some(10), ..SimFaults::default() });
    let under_way = log.submit(stamped(1, 0, &["patient"])).await.unwrap();
    found_full(&log).await;
    assert_eq!(append(&log, &["refused"]).await, Err(AppendError::DiskFull));
    fs.arm(SimFaults::default());
    // The next attempt finds room: it may be refused itself, but makes the disk be tried again.
    let _ = append(&log, &["kicks"]).await;
    assert_eq!(under_way.await.unwrap().base_offset, 0);
    assert!(log.append(stamped(1, 0, &["patient"])).await.unwrap().duplicate);
    cluster.close().await;
}

#[tokio::test]
async fn callers_do_not_wait_for_ever_for_a_full_disk() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    fs.arm(SimFaults { space_bytes: Some(10), ..SimFaults::default() });
    let under_way = log.submit(stamped(1, 0, &["perhaps"])).await.unwrap();
    found_full(&log).await;
    clock.advance(60_000);
    // Any input makes the driver look at its clock.
    assert_eq!(append(&log, &["refused"]).await, Err(AppendError::DiskFull));
    assert_eq!(under_way.await, Err(AppendError::UnknownOutcome));
    cluster.close().await;
    fs.arm(SimFaults::default());
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = cluster.partition(&id("a")).unwrap();
    let again = log.append(stamped(1, 0, &["perhaps"])).await.unwrap();
    assert_eq!(again.base_offset, 0);
    cluster.close().await;
}

#[tokio::test]
async fn a_full_disk_does_not_keep_a_node_from_starting() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    append(&log, &["kept"]).await.unwrap();
    cluster.close().await;
    let mut unready = 0;
    for space_bytes in (0..2_000).step_by(50) {
        fs.arm(SimFaults { space_bytes: Some(space_bytes), ..SimFaults::default() });
        // The log itself needs some room for the index of its active segment.
        let Ok(cluster) = open_sim(&fs, &clock) else { continue };
        let log = cluster.partition(&id("a")).unwrap();
        if log.progress().committed_offset > 0 {
            assert_eq!(read_all(&log, 0).await, ["kept"]);
            unready += u32::from(!cluster.unready().is_empty());
        }
        cluster.close().await;
    }
    assert!(unready > 2, "{unready} starts without room");
}

#[tokio::test]
async fn a_damaged_log_is_read_around_the_damage_and_not_written() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    for number in 0..10 {
        append(&log, &[&format!("number {number}")]).await.unwrap();
    }
    cluster.close().await;
    let dir = data_dir().join("partitions/a-0");
    let checkpoint = dir.join("checkpoint");
    fs.remove(&checkpoint).unwrap();
    let store = dir.join("00000000000000000000.store");
    // Behind the frames there are zeros: room for more.
    let end = fs.content(&store).iter().rposition(|&byte| byte != 0).unwrap();
    let middle = end / 2;
    fs.flip_bit(&store, middle, 3);
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = cluster.partition(&id("a")).unwrap();
    let refused = append(&log, &["no"]).await;
    assert!(matches!(refused, Err(AppendError::Damaged(_))), "{refused:?}");
    assert!(log.status().fault.is_some_and(|fault| fault.contains("00000000000000000000.store")));
    assert_eq!(cluster.unready().len(), 1);
    assert_eq!(log.read(0, 1).await.unwrap()[0].base_offset, 0);
    let mut damaged = None;
    for offset in 0..10 {
        if let Err(error) = log.read(offset, 1).await {
            damaged.get_or_insert(error);
        }
    }
    assert!(matches!(damaged, Some(ReadError::Damaged { .. })), "{damaged:?}");
    let other = create(&cluster, "b", TopicChange::default()).await;
    append(&other, &["goes on"]).await.unwrap();
    cluster.close().await;
}

#[tokio::test]
async fn deleting_a_topic_spares_a_log_that_is_not_its_own() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let foreign = data_dir().join("partitions/a-0/00000000000000000000.store");
    fs.put(&foreign, b"somebody's");
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    assert!(matches!(append(&log, &["x"]).await, Err(AppendError::Damaged(_))));
    assert!(matches!(log.read(0, 1).await, Err(ReadError::Failed(_))));
    cluster.delete_topic(&name("a")).await.unwrap();
    assert!(matches!(log.read(0, 1).await, Err(ReadError::Deleted(_))));
    cluster.close().await;
    assert_eq!(fs.content(&foreign), b"somebody's");
}

#[tokio::test]
async fn hints_that_rot_are_made_anew() {
    let (fs, clock) = (SimFs::new(1), TestClock::new(NOW_MS));
    let cluster = open_sim(&fs, &clock).unwrap();
    let log = create(&cluster, "a", TopicChange::default()).await;
    log.append(stamped(1, 0, &["x"])).await.unwrap();
    cluster.close().await;
    let dir = data_dir().join("partitions/a-0");
    for hint in ["checkpoint", "vote"] {
        for position in [0, 5, 20] {
            fs.flip_bit(&dir.join(hint), position, 1);
            let cluster = open_sim(&fs, &clock).unwrap();
            assert_eq!(cluster.unready(), [], "{hint} flipped at {position}");
            let log = cluster.partition(&id("a")).unwrap();
            assert!(log.append(stamped(1, 0, &["x"])).await.unwrap().duplicate);
            cluster.close().await;
        }
    }
}
