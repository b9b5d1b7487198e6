//! Placement: few moves, many racks, even nodes.

use super::*;

fn candidates(nodes: &[(u64, &str, usize)]) -> Candidates {
    Candidates::new(nodes.iter().map(|&(node_id, rack, replicas)| Candidate {
        node_id,
        rack: rack.to_owned(),
        replicas,
        firsts: 0,
    }))
}

#[test]
fn a_partition_stays_where_it_is() {
    let mut nodes = candidates(&[(1, "", 9), (2, "", 0), (3, "", 5)]);
    assert_eq!(nodes.place(&[3, 1], 2), [3, 1]);
    assert_eq!(nodes.place(&[3, 1], 3), [3, 1, 2]);
    // A node that is no candidate any more is replaced, the others stay.
    assert_eq!(nodes.place(&[3, 9], 2), [3, 2]);
}

#[test]
fn what_is_missing_goes_to_other_racks_then_to_emptier_nodes() {
    let mut nodes = candidates(&[(1, "a", 0), (2, "a", 0), (3, "b", 9), (4, "b", 8)]);
    assert_eq!(nodes.place(&[1], 2), [1, 4]);
    assert_eq!(nodes.place(&[1], 3), [1, 3, 2]);
}

#[test]
fn too_many_replicas_go_where_they_are_doubled() {
    let mut nodes = candidates(&[(1, "a", 1), (2, "a", 2), (3, "b", 9)]);
    assert_eq!(nodes.place(&[1, 2, 3], 2), [1, 3]);
}

#[test]
fn there_are_no_more_replicas_than_nodes() {
    let mut nodes = candidates(&[(1, "", 0), (2, "", 0)]);
    let mut placed = nodes.place(&[], 3);
    placed.sort_unstable();
    assert_eq!(placed, [1, 2]);
    assert_eq!(Candidates::default().place(&[], 3), [0; 0]);
}

#[test]
fn many_partitions_are_spread_evenly() {
    let mut nodes = candidates(&[(1, "", 0), (2, "", 0), (3, "", 0), (4, "", 0), (5, "", 0)]);
    let mut counts = [0; 6];
    for _ in 0..1_000 {
        for node in nodes.place(&[], 3) {
            counts[usize::try_from(node).unwrap()] += 1;
        }
    }
    assert_eq!(counts[1..], [600; 5]);
}

#[test]
fn first_places_are_spread_evenly() {
    let mut nodes = candidates(&[(1, "", 0), (2, "", 0), (3, "", 0)]);
    let placed: Vec<Vec<u64>> = (0..999).map(|_| nodes.place(&[], 3)).collect();
    for node in 1..=3 {
        assert_eq!(placed.iter().filter(|nodes| nodes[0] == node).count(), 333);
    }
}

#[test]
fn another_comes_first_only_if_that_evens_things_out() {
    let firsts = |node_id, firsts| Candidate { node_id, rack: String::new(), replicas: 9, firsts };
    let mut nodes = Candidates::new([firsts(1, 4), firsts(2, 3), firsts(3, 1)]);
    let mut order = [1, 2, 3];
    assert!(nodes.even_first(&mut order));
    assert_eq!(order, [3, 1, 2]);
    // Now they are first 3, 3 and 2 times.
    for mut order in [[1, 2, 3], [3, 1, 2], [2, 3, 1]] {
        assert!(!nodes.even_first(&mut order));
    }
    let mut gone = [9, 1];
    assert!(!Candidates::default().even_first(&mut gone));
}

#[test]
fn a_move_evens_things_out_and_does_not_come_back() {
    let nodes = candidates(&[(1, "", 5), (2, "", 5), (3, "", 2), (4, "", 4)]);
    assert_eq!(nodes.better(&[1, 4]), Some((1, 3)));
    let even = candidates(&[(1, "", 3), (2, "", 3), (3, "", 2)]);
    assert_eq!(even.better(&[1, 2]), None);
    // Not at the price of a rack.
    let racks = candidates(&[(1, "a", 9), (2, "b", 0), (3, "b", 0)]);
    assert_eq!(racks.better(&[1, 2]), None);
}
