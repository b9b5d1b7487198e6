//! Networks that fall apart, in one direction or both. Needs root, and `ip` of iproute2:
//! `cargo test -p dislog --test failover -- --ignored`.

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, Instant};

use dislog_client::{Client, ClientOptions, ReadFrom, TopicSettings};
use dislog_proto::v1;
use dislog_proto::v1::log_client::LogClient;
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;

use crate::cluster::{Cluster, until};
use crate::load::{Gaps, Tail, Writer, times};
use crate::namespaces::Namespaces;
use crate::{NODES, within};

/// A topic of its own, so that what has no answer does not shift the writer's offsets.
const PROBE: &str = "probe";

/// How long an answer is waited for that must not come.
const IN_VAIN: Duration = Duration::from_secs(2);

/// How long every network stays apart, at least: longer than any election takes.
const APART: Duration = Duration::from_secs(5);

/// What does not get through.
#[derive(Clone, Copy, Debug)]
enum Cut {
    /// Between the leader and both followers.
    Leader,
    /// From the leader to both followers.
    FromLeader,
    /// From both followers to the leader.
    ToLeader,
    /// Between the leader and a follower.
    OneFollower,
    /// Between a follower and both others.
    Follower,
}

const CUTS: [Cut; 5] =
    [Cut::Leader, Cut::FromLeader, Cut::ToLeader, Cut::OneFollower, Cut::Follower];

impl Cut {
    fn name(self) -> &'static str {
        match self {
            Cut::Leader => "leader cut off",
            Cut::FromLeader => "leader not heard",
            Cut::ToLeader => "leader that does not hear",
            Cut::OneFollower => "leader and a follower apart",
            Cut::Follower => "follower cut off",
        }
    }

    /// The pairs of nodes, from and to.
    fn wires(self, leader: usize) -> Vec<(usize, usize)> {
        let [first, second] = [1, 2].map(|step| (leader + step) % NODES);
        let out = [(leader, first), (leader, second)];
        let both = |wires: [(usize, usize); 2]| {
            wires.into_iter().flat_map(|(from, to)| [(from, to), (to, from)]).collect()
        };
        match self {
            Cut::Leader => both(out),
            Cut::FromLeader => out.to_vec(),
            Cut::ToLeader => out.map(|(from, to)| (to, from)).to_vec(),
            Cut::OneFollower => vec![(leader, first), (first, leader)],
            Cut::Follower => both([(first, leader), (first, second)]),
        }
    }

    /// Who cannot have a majority, if the leader hears or is heard by nobody.
    fn minority(self, leader: usize) -> Option<usize> {
        match self {
            Cut::Leader | Cut::FromLeader | Cut::ToLeader => Some(leader),
            Cut::Follower => Some((leader + 1) % NODES),
            Cut::OneFollower => None,
        }
    }
}

/// Records that are sent to one node each, and what became of them.
#[derive(Default)]
struct Probes {
    sent: u64,
    acked: HashMap<String, u64>,
}

impl Probes {
    /// Sends a record to a node; whether it was acknowledged in time.
    async fn send(&mut self, address: &str) -> bool {
        let value = format!("probe {}", self.sent);
        self.sent += 1;
        let records = vec![v1::Record { value: value.clone().into(), ..Default::default() }];
        let asked = v1::ProduceRequest { topic: PROBE.to_owned(), records, ..Default::default() };
        let answer = in_time(async { Ok(dial(address).await?.produce(asked).await?) }).await;
        let Some(answer) = answer else { return false };
        self.acked.insert(value, answer.into_inner().offset);
        true
    }

    /// Whether a node answers what only a majority can know.
    async fn reads(&self, address: &str) -> bool {
        let asked = v1::ConsumeRequest {
            topic: PROBE.to_owned(),
            linearizable: true,
            ..Default::default()
        };
        in_time(async { Ok(dial(address).await?.consume(asked).await?) }).await.is_some()
    }

    /// Every acknowledged one is where it was said to be, and none is there twice.
    async fn check(&self, address: &str) {
        let mut log = dial(address).await.unwrap();
        let asked = v1::ConsumeRequest {
            topic: PROBE.to_owned(),
            linearizable: true,
            max_bytes: 4 << 20,
            ..Default::default()
        };
        let records = log.consume(asked).await.unwrap().into_inner().records;
        let mut found = HashMap::new();
        for record in records {
            let value = String::from_utf8(record.value.to_vec()).unwrap();
            assert_eq!(found.insert(value.clone(), record.offset), None, "{value} is there twice");
        }
        for (value, offset) in &self.acked {
            assert_eq!(found.get(value), Some(offset), "{value} on {address}");
        }
    }
}

type Failed = Box<dyn std::error::Error>;

async fn dial(address: &str) -> Result<LogClient<Channel>, Failed> {
    Ok(LogClient::connect(format!("http://{address}")).await?)
}

/// An answer that is neither late nor an error.
async fn in_time<T>(answer: impl Future<Output = Result<T, Failed>>) -> Option<T> {
    timeout(IN_VAIN, answer).await.ok()?.ok()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and iproute2, for network namespaces"]
async fn nodes_that_cannot_hear_each_other_agree_on_nothing_wrong() {
    let namespaces = Namespaces::make(NODES);
    let addresses = namespaces.addresses();
    let cluster = Cluster::start_some(addresses, Some(namespaces), NODES).await;
    let network = cluster.namespaces.as_ref().unwrap();
    let client = Client::connect(&cluster.addresses, ClientOptions::default()).unwrap();
    client.create_topic(PROBE, 1, TopicSettings::default()).await.unwrap();
    cluster.create_topic(&client).await;
    let mut writer = Writer::start(&client);
    let mut tail = Tail::start(&client, ReadFrom::default());
    let mut probes = Probes::default();
    let rounds = times("DISLOG_CUTS", 1);
    let mut all = CUTS.map(|cut| (cut, Gaps::of(cut.name())));
    for _ in 0..rounds {
        for (cut, gaps) in &mut all {
            cluster.until_well(NODES, NODES).await;
            let leader = cluster.agreed_leader().await;
            let address = &cluster.addresses[leader];
            cluster.hand_over(PROBE, leader).await;
            until("it is acknowledged", async || probes.send(address).await).await;
            writer.goes_on_and_on().await;
            writer.longest_gap();
            cut.wires(leader).into_iter().for_each(|(from, to)| network.cut(from, to));
            let start = Instant::now();
            if let Some(minority) = cut.minority(leader) {
                let address = &cluster.addresses[minority];
                assert!(!probes.send(address).await, "acknowledged by a minority: {cut:?}");
                assert!(!probes.reads(address).await, "read from a minority: {cut:?}");
            }
            writer.goes_on_and_on().await;
            tail.sees(writer.acked()).await;
            sleep(APART.saturating_sub(start.elapsed())).await;
            gaps.push(writer.longest_gap());
            network.heal();
        }
    }
    cluster.until_well(NODES, NODES).await;
    let count = writer.end().await;
    tail.end(count).await;
    cluster.check(count).await;
    for address in &cluster.addresses {
        within(probes.check(address)).await;
    }
    let Probes { sent, acked } = probes;
    eprintln!("{} of {sent} probes were acknowledged", acked.len());
    all.into_iter().for_each(|(_, gaps)| gaps.check());
}
