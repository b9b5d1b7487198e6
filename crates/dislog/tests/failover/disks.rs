//! Nodes that lose their disk, or find on it what they did not write.

use std::fs;
use std::path::{Path, PathBuf};

use dislog_client::{ReadFrom, TopicSettings};

use crate::cluster::{Cluster, log, page_at, until};
use crate::load::{Gaps, Tail, Writer, times};
use crate::{NODES, TOPIC};

/// Small, so that there are sealed ones too.
const SEGMENT_BYTES: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread")]
async fn nodes_whose_disk_is_gone_begin_anew() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::default());
    let (mut leaders, mut followers) = (Gaps::of("leader wiped"), Gaps::of("follower wiped"));
    cluster.until_well(NODES, NODES).await;
    for round in 0..times("DISLOG_WIPES", 1) {
        for (is_leader, gaps) in [(true, &mut leaders), (false, &mut followers)] {
            writer.goes_on_and_on().await;
            let number = if is_leader {
                cluster.agreed_leader().await
            } else {
                cluster.follower(round).await
            };
            writer.longest_gap();
            cluster.kill(number);
            fs::remove_dir_all(cluster.data_dir(number)).unwrap();
            cluster.start_node(number);
            writer.goes_on_and_on().await;
            gaps.push(writer.longest_gap());
            cluster.until_well(NODES, NODES).await;
            tail.sees(writer.acked()).await;
        }
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    leaders.check();
    followers.check();
}

/// What happens to the files of a replica while its node is down.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A bit of a sealed segment flips.
    SealedBit,
    /// A bit of the active segment flips.
    ActiveBit,
    /// The active segment ends early.
    Cut,
    /// What was there some time ago is put back.
    OldCopy,
    /// No segment has an index.
    NoIndex,
    /// A sealed segment is not there.
    NoSegment,
    /// The vote is not one.
    Vote,
}

/// The first ones are always tried.
const DAMAGE: [Damage; 7] = [
    Damage::SealedBit,
    Damage::OldCopy,
    Damage::Cut,
    Damage::ActiveBit,
    Damage::NoIndex,
    Damage::NoSegment,
    Damage::Vote,
];

impl Damage {
    fn is_done_to(self, dir: &Path, old: &Path) {
        let stores = files(dir, "store");
        match self {
            Damage::SealedBit => flip_a_bit(&stores[stores.len() / 2]),
            Damage::ActiveBit => flip_a_bit(stores.last().unwrap()),
            Damage::Cut => {
                let active = fs::OpenOptions::new().write(true).open(stores.last().unwrap());
                let active = active.unwrap();
                active.set_len(active.metadata().unwrap().len() / 2).unwrap();
            }
            Damage::OldCopy => {
                fs::remove_dir_all(dir).unwrap();
                copy(old, dir);
            }
            Damage::NoIndex => {
                let indexes = files(dir, "index");
                assert!(!indexes.is_empty());
                indexes.iter().for_each(|index| fs::remove_file(index).unwrap());
            }
            Damage::NoSegment => fs::remove_file(&stores[stores.len() / 2]).unwrap(),
            Damage::Vote => fs::write(dir.join("vote"), "not a vote").unwrap(),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_replicas_serve_nothing_wrong_and_are_repaired() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(0);
    let segment_bytes = Some(SEGMENT_BYTES);
    let settings = TopicSettings { segment_bytes, ..TopicSettings::default() };
    cluster.create_topic_with(&client, settings).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::default());
    let mut gaps = Gaps::of("follower damaged");
    let kinds = times("DISLOG_DAMAGES", 2);
    for (round, damage) in DAMAGE.into_iter().cycle().take(kinds).enumerate() {
        let number = cluster.follower(round).await;
        until("it has sealed segments", async || {
            files(&replica_dir(&cluster, number), "store").len() > 2
        })
        .await;
        let old = tempfile::tempdir().unwrap();
        cluster.kill(number);
        copy(&replica_dir(&cluster, number), old.path());
        cluster.start_node(number);
        cluster.until_well(NODES, NODES).await;
        writer.goes_on_and_on().await;
        writer.longest_gap();
        cluster.kill(number);
        damage.is_done_to(&replica_dir(&cluster, number), old.path());
        cluster.start_node(number);
        writer.goes_on_and_on().await;
        gaps.push(writer.longest_gap());
        until("it has everything again", async || {
            reads_nothing_wrong(&cluster, number, writer.acked()).await
        })
        .await;
        cluster.until_well(NODES, NODES).await;
        tail.sees(writer.acked()).await;
        eprintln!("{damage:?} of node {number}: repaired");
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    gaps.check();
}

/// Reads all that a node has; whether it was everything. It may refuse, and must not err.
async fn reads_nothing_wrong(cluster: &Cluster, number: usize, count: u64) -> bool {
    let Some(mut log) = log(&cluster.addresses[number]).await else { return false };
    let mut offset = 0;
    while offset < count {
        let Ok(answer) = log.consume(page_at(offset)).await else { return false };
        let records = answer.into_inner().records;
        if records.is_empty() {
            return false;
        }
        for record in records {
            assert_eq!(record.offset, offset, "on node {number}");
            assert_eq!(record.value, offset.to_string(), "on node {number} at {offset}");
            offset += 1;
        }
    }
    true
}

/// Where the replica of a node is: the newest of those that are there.
fn replica_dir(cluster: &Cluster, number: usize) -> PathBuf {
    let partitions = fs::read_dir(cluster.data_dir(number).join("partitions")).unwrap();
    let dirs = partitions.map(|entry| entry.unwrap().path());
    let of_topic = |dir: &PathBuf| dir.file_name().unwrap().to_string_lossy().starts_with(TOPIC);
    let modified = |dir: &PathBuf| dir.metadata().and_then(|metadata| metadata.modified()).ok();
    dirs.filter(of_topic).max_by_key(modified).unwrap()
}

/// The files of a kind, oldest first.
fn files(dir: &Path, extension: &str) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else { return Vec::new() };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut paths: Vec<PathBuf> =
        paths.filter(|path| path.extension().is_some_and(|found| found == extension)).collect();
    paths.sort_unstable();
    paths
}

fn flip_a_bit(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 4;
    fs::write(path, bytes).unwrap();
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
