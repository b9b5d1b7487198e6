//! The controller, run against the state until it wants nothing more.

use super::*;
use crate::metadata::command::{Command, ReportMembers};
use crate::settings::TopicSettings;

struct World {
    state: State,
    seen: Seen,
    offset: u64,
}

impl World {
    fn new() -> World {
        World { state: State::default(), seen: Seen::default(), offset: 0 }
    }

    fn apply(&mut self, change: Change) {
        self.state.apply(self.offset, 0, change).unwrap();
        self.offset += 1;
    }

    fn come(&mut self, node_id: u64, rack: &str) {
        let told = RegisterNode {
            node_id,
            address: format!("n{node_id}:1"),
            name: String::new(),
            rack: rack.to_owned(),
            metadata_replica: 100 + node_id,
        };
        self.seen.absent.remove(&node_id);
        self.seen.alive.insert(node_id, told);
    }

    fn go(&mut self, node_id: u64) {
        self.seen.alive.remove(&node_id);
        self.seen.absent.insert(node_id);
    }

    fn create(&mut self, topic: &str, partitions: usize, replicas: u32) {
        let settings =
            TopicSettings { retention_bytes: 0, retention_ms: 0, segment_bytes: 1 << 20, replicas };
        let mut candidates = self.state.candidates();
        let count = usize::try_from(replicas).unwrap();
        let nodes = (0..partitions).map(|_| candidates.place(&[], count)).collect();
        let command = Command::create(&topic.parse().unwrap(), nodes, settings);
        self.apply(command.change.unwrap());
    }

    /// Until the controller is content, with groups that do at once what they should.
    fn settle(&mut self) {
        for _ in 0..1_000 {
            let changes = decide(&self.state, &self.seen);
            if changes.is_empty() {
                return;
            }
            for change in changes {
                self.apply(change);
            }
            self.report();
        }
        panic!("it never comes to rest");
    }

    fn report(&mut self) {
        let mut reports = Vec::new();
        for (life, partition) in self.state.topics().flat_map(partitions) {
            let replicas = life.partitions[partition].target.iter().map(|r| r.id).collect();
            let group = life.group(u32::try_from(partition).unwrap());
            reports.push(Change::Report(ReportMembers {
                group,
                since: self.offset,
                replicas,
                knows: None,
            }));
        }
        reports.into_iter().for_each(|report| self.apply(report));
    }

    fn nodes(&self, topic: &str) -> Vec<Vec<u64>> {
        let life = self.state.topic(&topic.parse().unwrap()).unwrap();
        let sorted = |assignment: &super::super::assignment::Assignment| {
            let mut nodes = assignment.nodes();
            nodes.sort_unstable();
            nodes
        };
        life.partitions.iter().map(sorted).collect()
    }
}

#[test]
fn one_node_grows_to_three_and_shrinks_to_two() {
    let mut world = World::new();
    world.come(1, "");
    world.settle();
    world.create("a", 1, 3);
    assert_eq!(world.nodes("a"), [[1]]);
    world.come(2, "");
    world.come(3, "");
    world.settle();
    assert_eq!(world.nodes("a"), [[1, 2, 3]]);
    assert_eq!(world.state.metadata_target().voters, [101, 102, 103]);

    let leave = MarkNode { node_id: 1, standing: Standing::Draining.into() };
    world.apply(Change::Mark(leave));
    world.settle();
    assert_eq!(world.nodes("a"), [[2, 3]]);
    let target = world.state.metadata_target();
    assert_eq!((target.voters, target.learners), (vec![102, 103], vec![101]));
    // It is removed once it went.
    assert!(world.state.node(1).is_some());
    world.seen.alive.remove(&1);
    world.settle();
    assert!(world.state.node(1).is_none());
}

#[test]
fn what_an_absent_node_had_goes_elsewhere_and_comes_back_even() {
    let mut world = World::new();
    (1..=4).for_each(|node| world.come(node, ""));
    world.settle();
    world.create("a", 40, 3);
    world.go(2);
    world.settle();
    assert!(world.nodes("a").iter().all(|nodes| *nodes == [1, 3, 4]));
    world.come(2, "");
    world.settle();
    let mut counts = BTreeMap::new();
    world.nodes("a").iter().flatten().for_each(|node| *counts.entry(*node).or_insert(0) += 1);
    assert!(counts.values().all(|count| (29..=31).contains(count)), "{counts:?}");
}

#[test]
fn a_node_that_comes_back_as_another_takes_its_place() {
    let mut world = World::new();
    (1..=3).for_each(|node| world.come(node, ""));
    world.settle();
    world.create("a", 1, 3);
    world.seen.alive.remove(&2);
    world.settle();
    assert_eq!(world.nodes("a"), [[1, 2, 3]]);
    world.come(9, "");
    world.seen.alive.get_mut(&9).unwrap().address = "n2:1".to_owned();
    world.settle();
    assert_eq!(world.nodes("a"), [[1, 3, 9]]);
    assert!(world.state.node(2).is_none());
}

#[test]
fn no_more_than_some_partitions_move_at_a_time() {
    let mut world = World::new();
    world.come(1, "");
    world.settle();
    world.create("a", 100, 3);
    (2..=3).for_each(|node| world.come(node, ""));
    for change in decide(&world.state, &world.seen) {
        world.apply(change);
    }
    let first = decide(&world.state, &world.seen);
    assert_eq!(first.len(), MOVES_MAX);
    first.into_iter().for_each(|change| world.apply(change));
    assert_eq!(decide(&world.state, &world.seen), []);
    world.settle();
    world.report();
    world.settle();
    assert!(world.nodes("a").iter().all(|nodes| *nodes == [1, 2, 3]));
}

#[test]
fn racks_are_spread_over() {
    let mut world = World::new();
    for (node, rack) in [(1, "a"), (2, "a"), (3, "b"), (4, "b"), (5, "c"), (6, "c")] {
        world.come(node, rack);
    }
    world.settle();
    world.create("t", 30, 3);
    world.settle();
    for nodes in world.nodes("t") {
        let racks: BTreeSet<u64> = nodes.iter().map(|node| (node - 1) / 2).collect();
        assert_eq!(racks.len(), 3, "{nodes:?}");
    }
}
