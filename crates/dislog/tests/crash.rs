//! Kill -9 under load, on the real binary.
//!
//! Writers of both kinds, idempotent producers and plain unary calls, add records with unique
//! contents and note every acknowledgement. The server is killed at random moments and started
//! again. After each start the end of the log is read, and all of it now and then: every
//! acknowledged record must be at its offset, and every record that was ever read; offsets must be
//! dense; no content may be there twice.
//!
//! `DISLOG_CRASHES` sets how many kills (5), `DISLOG_SEED` repeats the moments of a run.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]
#![allow(clippy::print_stderr, reason = "what was measured is for the reader of the run")]

mod node;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use dislog_client::{
    Client, ClientOptions, ConsumerOptions, End, Error, Outcome, Producer, ProducerOptions, Record,
    Start, TopicSettings,
};
use node::door::Door;
use node::{HANG, Node};
use tokio::sync::watch;
use tokio::task::JoinSet;

const TOPIC: &str = "crash";
const PRODUCERS: usize = 4;
const UNARY_WRITERS: usize = 2;
/// Small, so that kills hit the rolling of segments too.
const SEGMENT_BYTES: u64 = 1 << 20;
/// Deliveries that a producer waits for at most.
const PENDING_MAX: usize = 256;
/// How many of the records that were read before are read again after each start.
const TAIL: u64 = 2_000;
/// After so many starts, the whole log is.
const WHOLE_LOG_EVERY: u64 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_under_load_loses_and_doubles_nothing() {
    let crashes = number("DISLOG_CRASHES").unwrap_or(5);
    let mut random = Random(number("DISLOG_SEED").unwrap_or_else(clock_seed));
    eprintln!("DISLOG_CRASHES={crashes} DISLOG_SEED={}", random.0);
    let data_dir = tempfile::tempdir().unwrap();
    let door = Door::open().await;
    let mut node = start(data_dir.path(), &door);
    let client = Client::connect([&door.address], ClientOptions::default()).unwrap();
    let settings = TopicSettings { segment_bytes: Some(SEGMENT_BYTES), ..TopicSettings::default() };
    client.create_topic(TOPIC, 1, settings).await.unwrap();
    let load = Load::start(&client);
    let mut oracle = Oracle::default();
    for stop in 1..=crashes {
        load.ledger.wait_for_more(1 + random.below(400)).await;
        door.lead_to(None);
        // One stop in five is a clean one, so that both kinds of start follow both.
        if random.below(5) == 0 {
            let (status, _) = node.terminate();
            assert!(status.success(), "a clean stop ends with {status}");
        } else {
            node.kill();
        }
        node = start(data_dir.path(), &door);
        let whole = stop % WHOLE_LOG_EVERY == 0;
        // Meanwhile the log would grow by more than was read.
        load.pause(whole);
        let from = if whole { 0 } else { oracle.end().saturating_sub(TAIL) };
        let promised = load.ledger.promised(from);
        let found = read_from(&client, from).await;
        load.pause(false);
        if let Err(problem) = oracle.check(from, &found, &promised) {
            panic!("after stop {stop} of {crashes}: {problem}");
        }
    }
    let ledger = load.finish().await;
    let (promised, found) = (ledger.promised(0), read_from(&client, 0).await);
    oracle.check(0, &found, &promised).unwrap();
    check_order(&found).unwrap();
    eprintln!("{crashes} stops, {} records, {} promised", found.len(), promised.len());
    assert!(node.terminate().0.success());
    verify(data_dir.path());
}

fn start(data_dir: &Path, door: &Door) -> Node {
    let node = Node::start(data_dir);
    door.lead_to(Some(node.address.clone()));
    node
}

/// The log as it is on disk, with the program's own check.
fn verify(data_dir: &Path) {
    let output = Command::new(env!("CARGO_BIN_EXE_dislog"))
        .arg("verify")
        .arg(data_dir)
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "dislog verify: {}\n{text}", output.status);
}

async fn read_from(client: &Client, from: u64) -> Vec<(u64, Vec<u8>)> {
    let start = Start::Offset(from);
    let options = ConsumerOptions { start, end: End::Committed, ..ConsumerOptions::default() };
    let mut consumer = client.consumer(TOPIC, 0, options).unwrap();
    let mut found = Vec::new();
    while let Some(batch) = consumer.next_batch().await.unwrap() {
        found.extend(batch.records.into_iter().map(|r| (r.offset, r.value.to_vec())));
    }
    found
}

/// What was ever read, against which the next reading is checked.
#[derive(Default)]
struct Oracle {
    contents: Vec<Vec<u8>>,
    places: HashMap<Vec<u8>, u64>,
}

impl Oracle {
    fn end(&self) -> u64 {
        self.contents.len() as u64
    }

    /// What must hold of the log from an offset on, given the records that were promised there.
    fn check(
        &mut self,
        from: u64,
        found: &[(u64, Vec<u8>)],
        promised: &BTreeMap<u64, Vec<u8>>,
    ) -> Result<(), String> {
        for (expected, (offset, content)) in (from..).zip(found) {
            if *offset != expected {
                return Err(format!("offset {offset} where {expected} belongs"));
            }
            self.note(*offset, content)?;
        }
        let end = from + found.len() as u64;
        if end < self.end() {
            return Err(format!("offset {end} was read before and is lost"));
        }
        for (offset, content) in promised {
            match self.contents.get(usize::try_from(*offset).unwrap()) {
                None => return Err(format!("offset {offset} was promised and is lost")),
                Some(found) if found != content => {
                    return Err(format!("offset {offset} was promised with another content"));
                }
                Some(_) => {}
            }
        }
        Ok(())
    }

    fn note(&mut self, offset: u64, content: &[u8]) -> Result<(), String> {
        if let Some(before) = self.contents.get(usize::try_from(offset).unwrap()) {
            let same = before == content;
            return if same { Ok(()) } else { Err(format!("offset {offset} has changed")) };
        }
        if let Some(other) = self.places.insert(content.to_vec(), offset) {
            return Err(format!("offset {offset} has the content of offset {other}"));
        }
        self.contents.push(content.to_vec());
        Ok(())
    }
}

/// What must hold once the load has ended: the records of each producer are all there, in order.
fn check_order(found: &[(u64, Vec<u8>)]) -> Result<(), String> {
    let mut next = [0_u64; PRODUCERS];
    for (offset, content) in found {
        let content = String::from_utf8_lossy(content);
        let mut parts = content.split('-');
        let (Some("producer"), Some(writer), Some(serial)) =
            (parts.next(), parts.next(), parts.next())
        else {
            continue;
        };
        let next = &mut next[writer.parse::<usize>().unwrap()];
        if serial.parse::<u64>().unwrap() != *next {
            return Err(format!("offset {offset} holds {content:.40} where {next} comes next"));
        }
        *next += 1;
    }
    Ok(())
}

/// Every acknowledgement there was.
struct Ledger {
    promised: Mutex<BTreeMap<u64, Vec<u8>>>,
    count: watch::Sender<u64>,
}

impl Ledger {
    fn note(&self, offset: u64, content: Vec<u8>) {
        let before = self.promised.lock().unwrap().insert(offset, content);
        assert!(before.is_none(), "offset {offset} was given to two records");
        self.count.send_modify(|count| *count += 1);
    }

    fn promised(&self, from: u64) -> BTreeMap<u64, Vec<u8>> {
        let promised = self.promised.lock().unwrap();
        promised.range(from..).map(|(offset, content)| (*offset, content.clone())).collect()
    }

    async fn wait_for_more(&self, more: u64) {
        let mut count = self.count.subscribe();
        let goal = *count.borrow() + more;
        let waited = tokio::time::timeout(HANG, count.wait_for(|count| *count >= goal)).await;
        waited.expect("the load goes on").unwrap();
    }
}

/// The writers.
struct Load {
    ledger: Arc<Ledger>,
    orders: watch::Sender<Order>,
    writers: JoinSet<()>,
}

/// What the writers are to do.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Order {
    Write,
    Pause,
    Stop,
}

impl Load {
    fn start(client: &Client) -> Load {
        let ledger = Ledger { promised: Mutex::default(), count: watch::channel(0).0 };
        let ledger = Arc::new(ledger);
        let (orders, order) = watch::channel(Order::Write);
        let mut writers = JoinSet::new();
        for number in 0..PRODUCERS {
            let options = ProducerOptions { partition: Some(0), ..ProducerOptions::default() };
            let producer = client.producer(TOPIC, options).unwrap();
            writers.spawn(produce(number, producer, Arc::clone(&ledger), order.clone()));
        }
        for number in 0..UNARY_WRITERS {
            let (client, ledger) = (client.clone(), Arc::clone(&ledger));
            writers.spawn(call(number, client, ledger, order.clone()));
        }
        Load { ledger, orders, writers }
    }

    fn pause(&self, pause: bool) {
        self.orders.send_replace(if pause { Order::Pause } else { Order::Write });
    }

    /// Ends the load once everything sent was answered.
    async fn finish(mut self) -> Arc<Ledger> {
        self.orders.send_replace(Order::Stop);
        while let Some(writer) = self.writers.join_next().await {
            writer.unwrap();
        }
        self.ledger
    }
}

/// An idempotent producer: everything it sends must be delivered, whatever happens to the server.
async fn produce(
    number: usize,
    producer: Producer,
    ledger: Arc<Ledger>,
    mut order: watch::Receiver<Order>,
) {
    let mut pending = std::collections::VecDeque::new();
    for serial in 0.. {
        if is_told_to_stop(&mut order).await {
            break;
        }
        let content = content("producer", number, serial);
        let delivery = producer.send(Record::new(content.clone())).await.unwrap();
        pending.push_back((content, delivery));
        if pending.len() == PENDING_MAX {
            let (content, delivery) = pending.pop_front().expect("it is not empty");
            ledger.note(delivery.await.unwrap().offset, content);
        }
    }
    for (content, delivery) in pending {
        ledger.note(delivery.await.unwrap().offset, content);
    }
    producer.close().await.unwrap();
}

/// Calls without idempotence: a record whose outcome is unknown is never sent again.
async fn call(
    number: usize,
    client: Client,
    ledger: Arc<Ledger>,
    mut order: watch::Receiver<Order>,
) {
    for serial in 0.. {
        if is_told_to_stop(&mut order).await {
            return;
        }
        let content = content("unary", number, serial);
        let record = Record::new(content.clone());
        match client.produce(TOPIC, 0, vec![record], None).await {
            Ok(produced) => ledger.note(produced.offset, content),
            Err(Error::Timeout { .. }) => {}
            Err(error) => assert_eq!(error.outcome(), Outcome::Unknown, "{error}"),
        }
    }
}

/// Returns once a writer is to go on or to stop.
async fn is_told_to_stop(order: &mut watch::Receiver<Order>) -> bool {
    let order = order.wait_for(|order| *order != Order::Pause).await;
    order.map_or(true, |order| *order == Order::Stop)
}

/// Unique, and of many lengths.
fn content(kind: &str, writer: usize, serial: u64) -> Vec<u8> {
    let padding = usize::try_from((serial * 37 + 11) % 997).unwrap();
    format!("{kind}-{writer}-{serial}-{}", "x".repeat(padding)).into_bytes()
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

fn clock_seed() -> u64 {
    let since_epoch = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since_epoch.unwrap_or(Duration::ZERO).as_secs()
}

/// SplitMix64, Steele, Lea and Flood 2014: a run is repeated from its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The check is itself checked: it finds each kind of defect.
mod the_check {
    use super::*;

    type Found = Vec<(u64, Vec<u8>)>;

    fn log(contents: &[&str]) -> Found {
        (0..).zip(contents.iter().map(|content| content.as_bytes().to_vec())).collect()
    }

    fn check(found: &Found, promise: Option<(u64, &str)>) -> Result<(), String> {
        let promised = promise.map(|(offset, content)| (offset, content.as_bytes().to_vec()));
        Oracle::default().check(0, found, &promised.into_iter().collect())
    }

    #[test]
    fn passes_what_is_right() {
        check(&log(&["a", "b", "c"]), Some((1, "b"))).unwrap();
    }

    #[test]
    fn finds_what_is_lost() {
        let problem = check(&log(&["a"]), Some((1, "b"))).unwrap_err();
        assert_eq!(problem, "offset 1 was promised and is lost");
    }

    #[test]
    fn finds_what_is_not_as_promised() {
        let problem = check(&log(&["a", "B"]), Some((1, "b"))).unwrap_err();
        assert_eq!(problem, "offset 1 was promised with another content");
    }

    #[test]
    fn finds_what_is_doubled() {
        let problem = check(&log(&["a", "b", "a"]), None).unwrap_err();
        assert_eq!(problem, "offset 2 has the content of offset 0");
    }

    #[test]
    fn finds_a_hole() {
        let mut log = log(&["a", "b", "c"]);
        log.remove(1);
        assert_eq!(check(&log, None).unwrap_err(), "offset 2 where 1 belongs");
    }

    #[test]
    fn finds_what_differs_from_what_was_read_before() {
        let mut oracle = Oracle::default();
        let nothing = BTreeMap::new();
        oracle.check(0, &log(&["a", "b"]), &nothing).unwrap();
        let lost = oracle.check(0, &log(&["a"]), &nothing).unwrap_err();
        assert_eq!(lost, "offset 1 was read before and is lost");
        let changed = oracle.check(0, &log(&["a", "c"]), &nothing).unwrap_err();
        assert_eq!(changed, "offset 1 has changed");
        oracle.check(1, &[(1, b"b".to_vec()), (2, b"c".to_vec())], &nothing).unwrap();
        let doubled = oracle.check(3, &[(3, b"a".to_vec())], &nothing).unwrap_err();
        assert_eq!(doubled, "offset 3 has the content of offset 0");
    }

    #[test]
    fn finds_a_record_of_a_producer_that_is_missing() {
        check_order(&log(&["producer-0-0-x", "producer-1-0-", "producer-0-1-x"])).unwrap();
        check_order(&log(&["producer-0-0-x", "producer-0-2-x"])).unwrap_err();
        check_order(&log(&["producer-0-1-x"])).unwrap_err();
    }
}
