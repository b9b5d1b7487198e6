//! Processes that are killed, stopped and restarted.

use std::time::{Duration, Instant};

use dislog_client::ReadFrom;
use tokio::time::sleep;

use crate::cluster::{Cluster, until};
use crate::load::{Gaps, Tail, Writer, times};
use crate::{NODES, TOPIC, within};

#[tokio::test(flavor = "multi_thread")]
async fn killing_leaders_under_load_loses_and_doubles_nothing() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::default());
    let mut gaps = Gaps::of("leader killed");
    for _ in 0..times("DISLOG_FAILOVERS", 6) {
        writer.goes_on_and_on().await;
        let leader = cluster.agreed_leader().await;
        writer.longest_gap();
        cluster.kill(leader);
        writer.goes_on_and_on().await;
        gaps.push(writer.longest_gap());
        cluster.start_node(leader);
        let acked = writer.acked();
        tail.sees(acked).await;
        until("the node is back", async || {
            cluster.is_whole(NODES).await && cluster.committed_offset(leader).await >= acked
        })
        .await;
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    gaps.check();
}

/// Long enough for the others to elect a leader.
const STOPPED: Duration = Duration::from_secs(2);

/// A reader finds out by probes of its connection, every few seconds.
const READER_GAP_MAX: Duration = Duration::from_secs(15);

#[tokio::test(flavor = "multi_thread")]
async fn stopped_nodes_hold_nobody_up_for_long() {
    let cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let (mut leaders, mut followers) = (Gaps::of("leader stopped"), Gaps::of("follower stopped"));
    let mut readers = Gaps::of("leader stopped, its reader");
    let mut tail = Tail::start(&cluster.client(0), ReadFrom::Any);
    for round in 0..times("DISLOG_STOPS", 1) {
        writer.goes_on_and_on().await;
        let leader = cluster.agreed_leader().await;
        // By a client that asks who leads now.
        let mut of_leader = Tail::start(&cluster.client(leader), ReadFrom::Leader);
        of_leader.sees(writer.acked()).await;
        writer.longest_gap();
        cluster.node(leader).pause();
        let start = Instant::now();
        writer.goes_on_and_on().await;
        leaders.push(writer.longest_gap());
        // It was read from, and does not say that it is gone.
        of_leader.sees(writer.acked()).await;
        readers.push(start.elapsed());
        let topics = within(client.list_topics()).await.unwrap();
        assert!(topics.iter().any(|topic| topic.name == TOPIC));
        sleep(STOPPED.saturating_sub(start.elapsed())).await;
        cluster.node(leader).resume();
        cluster.until_well(NODES, NODES).await;

        let follower = cluster.follower(round).await;
        writer.longest_gap();
        cluster.node(follower).pause();
        sleep(STOPPED).await;
        writer.goes_on_and_on().await;
        followers.push(writer.longest_gap());
        cluster.node(follower).resume();
        cluster.until_well(NODES, NODES).await;
        tail.sees(writer.acked()).await;
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    leaders.check();
    followers.check();
    readers.check_below(READER_GAP_MAX);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_nodes_killed_at_once_lose_nothing() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::default());
    let mut gaps = Gaps::of("all killed");
    for _ in 0..times("DISLOG_BLACKOUTS", 1) {
        writer.goes_on_and_on().await;
        writer.longest_gap();
        cluster.kill_all();
        for number in 0..NODES {
            cluster.start_node(number);
        }
        writer.goes_on_and_on().await;
        gaps.push(writer.longest_gap());
        tail.sees(writer.acked()).await;
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    gaps.check();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_hardly_interrupts_a_producer() {
    let mut cluster = Cluster::start().await;
    let client = cluster.client(0);
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let tail = Tail::start(&client, ReadFrom::default());
    let mut gaps = Gaps::of("node restarted");
    for _ in 0..times("DISLOG_ROLLS", 1) {
        for number in 0..NODES {
            let address = cluster.addresses[number].clone();
            cluster.runs(&["cluster", "check", &address]).await;
            writer.longest_gap();
            cluster.terminate(number);
            cluster.start_node(number);
            writer.goes_on_and_on().await;
            gaps.push(writer.longest_gap());
        }
    }
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    gaps.check();
}
