//! The state of the metadata: the order of the log decides.

use super::*;
use crate::metadata::command::{
    AssignPartition, Command, Nodes, RemoveNode, ReplaceReplica, ReportMembers,
};

const SETTINGS: TopicSettings =
    TopicSettings { retention_bytes: 0, retention_ms: 0, segment_bytes: 1 << 20, replicas: 3 };

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

fn change(command: Command) -> Change {
    command.change.unwrap()
}

fn create(state: &mut State, offset: u64, topic: &str) -> Outcome {
    let command = Command::create(&name(topic), vec![vec![1], vec![1]], SETTINGS);
    state.apply(offset, 77, change(command))
}

/// A state with node 1, registered at offset 0.
fn one_node() -> State {
    let mut state = State::default();
    register(&mut state, 0, 1);
    state
}

fn register(state: &mut State, offset: u64, node_id: u64) {
    let node = RegisterNode { node_id, metadata_replica: 100 + node_id, ..RegisterNode::default() };
    state.apply(offset, 0, Change::Register(node)).unwrap();
}

#[test]
fn the_first_to_create_a_topic_wins() {
    let mut state = one_node();
    let topic = create(&mut state, 1, "a").unwrap().unwrap();
    assert_eq!((topic.partitions, topic.created_ms, topic.settings), (2, 77, SETTINGS));
    assert_eq!(create(&mut state, 2, "a"), Err(TopicError::Exists(name("a"))));
    assert_eq!(state.topic(&name("a")).unwrap().topic_id, 1);
    assert_eq!(state.applied_offset(), 3);
}

#[test]
fn a_change_is_of_the_topic_that_was_meant() {
    let mut state = one_node();
    create(&mut state, 1, "a").unwrap();
    let delete = change(Command::delete(1, &name("a")));
    state.apply(2, 0, delete.clone()).unwrap();
    assert!(state.was_deleted(1));
    create(&mut state, 3, "a").unwrap();
    // Whoever meant the first topic must not hit the second.
    assert_eq!(state.apply(4, 0, delete), Err(TopicError::NotFound(name("a"))));
    let keep = TopicChange { retention_ms: Some(9), ..TopicChange::default() };
    let alter = |topic_id| change(Command::alter(topic_id, &name("a"), keep));
    assert_eq!(state.apply(5, 0, alter(1)), Err(TopicError::NotFound(name("a"))));
    let altered = state.apply(6, 0, alter(3)).unwrap().unwrap();
    assert_eq!(altered.settings, TopicSettings { retention_ms: 9, ..SETTINGS });
    assert!(!state.was_deleted(3));
}

#[test]
fn a_command_that_cannot_be_changes_nothing() {
    let mut state = one_node();
    let before = state.clone();
    let nodes = |nodes: &[u64]| Nodes { nodes: nodes.to_vec() };
    let create = |name: &str, partitions: Vec<Nodes>, replicas| {
        let name = name.to_owned();
        let segment_bytes = 1 << 20;
        Change::Create(CreateTopic {
            name,
            partitions,
            replicas,
            segment_bytes,
            ..CreateTopic::default()
        })
    };
    for bad in [
        create("a/b", vec![nodes(&[1])], 1),
        create("a", vec![], 1),
        create("a", vec![nodes(&[])], 1),
        create("a", vec![nodes(&[1, 1])], 1),
        create("a", vec![nodes(&[2])], 1),
        create("a", vec![nodes(&[1])], 0),
        Change::Assign(AssignPartition { group: 77, nodes: vec![1] }),
        Change::Mark(MarkNode { node_id: 2, standing: 0 }),
        Change::Mark(MarkNode { node_id: 1, standing: 9 }),
        Change::Remove(RemoveNode { node_id: 2 }),
        Change::Register(RegisterNode::default()),
    ] {
        let outcome = state.apply(1, 0, bad.clone());
        assert!(matches!(outcome, Err(TopicError::Invalid(_))), "{bad:?}");
        assert_eq!(State { applied_offset: 1, ..state }, before);
        state = before.clone();
    }
}

#[test]
fn replicas_get_ids_that_are_never_given_again() {
    let mut state = one_node();
    register(&mut state, 1, 2);
    create(&mut state, 2, "a").unwrap();
    let group = state.topic(&name("a")).unwrap().group(1);
    let ids = |state: &State| -> Vec<(u64, u64)> {
        let life = state.topic(&name("a")).unwrap();
        life.partitions[1].target.iter().map(|r| (r.id, r.node)).collect()
    };
    assert_eq!(ids(&state), [(2, 1)]);
    let assign = |nodes: &[u64]| Change::Assign(AssignPartition { group, nodes: nodes.to_vec() });
    state.apply(3, 0, assign(&[1, 2])).unwrap();
    assert_eq!(ids(&state), [(2, 1), (3, 2)]);
    state.apply(4, 0, Change::Replace(ReplaceReplica { group, replica: 2 })).unwrap();
    assert_eq!(ids(&state), [(4, 1), (3, 2)]);
    // Said twice, it is done once.
    state.apply(5, 0, Change::Replace(ReplaceReplica { group, replica: 2 })).unwrap();
    assert_eq!(ids(&state), [(4, 1), (3, 2)]);
    // The lost one still belongs to the group, so it is not over.
    let topic_id = 2;
    assert!(!state.is_over(topic_id, 2));
    let report = ReportMembers { group, since: 9, replicas: vec![3, 4], knows: None };
    state.apply(6, 0, Change::Report(report)).unwrap();
    assert!(state.is_over(topic_id, 2));
    // One of which nothing is known yet is not over either.
    assert!(!state.is_over(topic_id, 5));
    let stale = ReportMembers { group, since: 8, replicas: vec![2], knows: None };
    state.apply(7, 0, Change::Report(stale)).unwrap();
    assert!(state.is_over(topic_id, 2));
}

/// Two nodes with a partition on the first, and what tells where it is and should be.
fn moving() -> (State, u64) {
    let mut state = one_node();
    register(&mut state, 1, 2);
    create(&mut state, 2, "a").unwrap();
    let group = state.topic(&name("a")).unwrap().group(1);
    (state, group)
}

fn on(state: &State, node: u64) -> Option<u64> {
    state.topic(&name("a")).unwrap().partitions[1].on(node).map(|replica| replica.id)
}

fn assign(group: u64, nodes: &[u64]) -> Change {
    Change::Assign(AssignPartition { group, nodes: nodes.to_vec() })
}

#[test]
fn a_replica_that_was_to_go_and_has_not_gone_stays() {
    let (mut state, group) = moving();
    state.apply(3, 0, assign(group, &[2])).unwrap();
    assert_eq!((on(&state, 1), on(&state, 2)), (Some(2), Some(3)));
    // Back before the group has left: it is the same, with what it has.
    state.apply(4, 0, assign(group, &[1])).unwrap();
    assert_eq!(on(&state, 1), Some(2));
    // And the other may belong to the group by now, until a leader that knows better says no.
    assert_eq!(on(&state, 2), Some(3));
    assert!(!state.is_over(2, 3));
    let report = |knows| {
        Change::Report(ReportMembers { group, since: 9, replicas: vec![2], knows: Some(knows) })
    };
    state.apply(5, 0, report(4)).unwrap();
    assert!(!state.is_over(2, 3));
    state.apply(6, 0, report(5)).unwrap();
    assert!(state.is_over(2, 3));
    assert_eq!(on(&state, 2), None);
}

#[test]
fn a_replica_that_is_asked_back_when_it_is_gone_is_followed_by_another() {
    let (mut state, group) = moving();
    let report = |replicas: &[u64], since, knows| {
        let (replicas, knows) = (replicas.to_vec(), Some(knows));
        Change::Report(ReportMembers { group, since, replicas, knows })
    };
    state.apply(3, 0, assign(group, &[2])).unwrap();
    state.apply(4, 0, report(&[2, 3], 9, 4)).unwrap();
    // The group does without it by now, but nobody has said so.
    state.apply(5, 0, assign(group, &[1])).unwrap();
    assert_eq!(on(&state, 1), Some(2));
    state.apply(6, 0, report(&[3], 10, 6)).unwrap();
    assert_eq!(on(&state, 1), Some(4));
    assert!(state.is_over(2, 2));
    // Said twice, it is done once.
    state.apply(7, 0, report(&[3], 10, 7)).unwrap();
    assert_eq!(on(&state, 1), Some(4));
}

#[test]
fn a_replica_that_lost_what_it_had_never_comes_back() {
    let (mut state, group) = moving();
    state.apply(3, 0, Change::Replace(ReplaceReplica { group, replica: 2 })).unwrap();
    assert_eq!(on(&state, 1), Some(3));
    state.apply(4, 0, assign(group, &[2])).unwrap();
    assert_eq!(on(&state, 1), Some(3), "its successor, which the group may have taken in");
    state.apply(5, 0, assign(group, &[1])).unwrap();
    assert_eq!(on(&state, 1), Some(3));
}
