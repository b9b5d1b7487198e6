use super::*;

const TERM: u64 = 3;

fn replica(leader: &str, end_offset: u64) -> Replica {
    Replica {
        topic: "demo".to_owned(),
        partition: 0,
        start_offset: 0,
        committed_offset: end_offset,
        end_offset,
        term: TERM,
        leader: Some(leader.to_owned()),
        voters: ["1", "2", "3"].map(str::to_owned).to_vec(),
        learners: Vec::new(),
        changing: false,
        last_timestamp_ms: i64::try_from(end_offset).unwrap() * 1_000,
        fault: None,
    }
}

fn partition(replicas: &[(&str, Replica)], committed_first: u64) -> Partition {
    let replicas = replicas.iter().map(|(node, r)| ReplicaState::new((*node).into(), r.clone()));
    let mut partition = Partition {
        topic: "demo".to_owned(),
        wanted: 3,
        replicas: replicas.collect(),
        ..Partition::default()
    };
    partition.compare(committed_first, &|_| true);
    partition
}

#[test]
fn three_in_step_can_do_without_one() {
    let all = ["1", "2", "3"].map(|node| (node, replica("1", 10)));
    let partition = partition(&all, 10);
    assert_eq!(partition.leader.as_deref(), Some("1"));
    assert!(!partition.is_under_replicated());
    assert_eq!(partition.blocker("1"), None);
    assert_eq!(partition.blocker("4"), None);
}

#[test]
fn with_one_behind_only_that_one_can_go() {
    let all = [("1", replica("1", 10)), ("2", replica("1", 10)), ("3", replica("1", 4))];
    let partition = partition(&all, 10);
    assert!(partition.is_under_replicated());
    let lag = partition.replicas.iter().find(|r| r.node == "3").unwrap();
    assert_eq!((lag.lag_records, lag.lag_ms, lag.in_step), (6, Some(6_000), false));
    let why = partition.blocker("2").unwrap();
    assert_eq!(why, "1 of 3 voters would be left in step, 2 are needed");
    assert_eq!(partition.blocker("3"), None);
}

#[test]
fn what_was_appended_since_the_first_answer_counts_for_nothing() {
    let all = [("1", replica("1", 12)), ("2", replica("1", 12)), ("3", replica("1", 10))];
    assert!(!partition(&all, 10).is_under_replicated());
}

#[test]
fn who_answers_for_an_older_term_does_not_lead() {
    let old = Replica { term: TERM - 1, ..replica("1", 10) };
    let all = [("1", old), ("2", replica("2", 10)), ("3", replica("2", 10))];
    let partition = partition(&all, 10);
    assert_eq!(partition.leader.as_deref(), Some("2"));
    assert!(partition.blocker("3").is_some(), "1 is not in step");
}

#[test]
fn a_leader_that_is_down_does_not_lead() {
    let all = [("2", replica("1", 10)), ("3", replica("1", 10))];
    let replicas = all.map(|(node, replica)| ReplicaState::new(node.into(), replica));
    let mut partition = Partition { replicas: replicas.into(), ..Partition::default() };
    partition.compare(10, &|node| node != "1");
    assert_eq!(partition.leader, None);
}

#[test]
fn a_sole_voter_and_one_that_nobody_knows_cannot_go() {
    let sole = Replica { voters: vec!["1".to_owned()], ..replica("1", 10) };
    assert!(partition(&[("1", sole)], 10).blocker("1").unwrap().contains("no other replica votes"));
    let unknown = Partition { target: vec!["1".to_owned()], ..partition(&[], 0) };
    assert!(unknown.blocker("1").unwrap().contains("none of its replicas answers"));
    assert_eq!(unknown.blocker("2"), None);
}

#[test]
fn nobody_can_go_while_voters_change() {
    let all = ["1", "2", "3"].map(|node| (node, Replica { changing: true, ..replica("1", 10) }));
    assert!(partition(&all, 10).blocker("2").unwrap().contains("changing"));
    assert_eq!(partition(&all, 10).blocker("4"), None);
}

#[test]
fn nodes_are_found_by_what_people_know_of_them() {
    let node = |id: &str, name: &str, address: &str| NodeInfo {
        id: id.to_owned(),
        name: name.to_owned(),
        address: address.to_owned(),
        rack: String::new(),
        alive: true,
        draining: false,
        votes: true,
        leads: false,
    };
    let nodes = [node("1234", "one", "a:1"), node("1299", "", "b:1"), node("12", "", "c:1")];
    let id = |text| find(&nodes, text).map(|node| node.id.as_str());
    assert_eq!(id("one").unwrap(), "1234");
    assert_eq!(id("b:1").unwrap(), "1299");
    assert_eq!(id("123").unwrap(), "1234");
    assert_eq!(id("12").unwrap(), "12");
    assert_eq!(id("1").unwrap_err().exit, Exit::Usage);
    assert_eq!(id("two").unwrap_err().exit, Exit::NotFound);
    assert_eq!(id("").unwrap_err().exit, Exit::NotFound);
}
