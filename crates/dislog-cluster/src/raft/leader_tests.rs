//! Replicas that cease to be what they were.

use std::collections::BTreeSet;
use std::path::Path;

use dislog_log::fs::{Fs, SimFs};

use super::driver::Input;
use super::membership::Target;
use super::test_world::{GROUPS, LONG_MS, NODES, World};
use super::transport::{PeerMessage, PeerMessageKind};

const GROUP: u64 = 9;

/// A world, who leads the group in it, and the two others.
fn led() -> (World, u64, [u64; 2]) {
    let world = World::new();
    let leader = world.leader(GROUP);
    let others: Vec<u64> = NODES.into_iter().filter(|node| *node != leader).collect();
    (world, leader, others.try_into().unwrap())
}

/// The group's leader hears who should belong to it.
fn aim(world: &World, leader: u64, target: Target) {
    world.nodes[&leader].inputs.send(Input::SetTarget(GROUP, target)).unwrap();
}

/// Who votes in the group, as a node says, in the order of their ids.
fn voters(world: &World, node: u64) -> Vec<u64> {
    sorted(world.nodes[&node].shared[&GROUP].health().membership.voters.clone())
}

fn sorted(replicas: impl Into<Vec<u64>>) -> Vec<u64> {
    let mut replicas = replicas.into();
    replicas.sort_unstable();
    replicas
}

#[test]
fn a_leader_that_was_removed_while_it_synced_leads_no_more() {
    let (mut world, first, [removed, other]) = led();

    // Its removal is in the log of everybody, but the leader does not hear so.
    world.cut.extend([(removed, first), (other, first)]);
    let target = Target { voters: vec![first, other], learners: Vec::new(), newest: 3 };
    aim(&world, first, target);
    world.settle();
    world.isolate(first);
    (world.no_candidate, world.slow_leader_of) = (Some(other), Some(GROUP));
    world.run_for(LONG_MS);
    assert_eq!(world.nodes[&removed].driver.groups[&GROUP].leader(), removed);

    // With the others it has a majority before its own sync is done.
    world.cut.clear();
    world.run_for(LONG_MS);
    let (_, membership) =
        world.nodes[&removed].driver.groups[&GROUP].node.store().history().newest();
    assert_eq!(membership.voters.len(), 2, "{membership:?}");

    (world.no_candidate, world.slow_leader_of) = (None, None);
    world.run_for(LONG_MS);
    let leader = world.leader(GROUP);
    assert_ne!(leader, removed);
    let mut answer = world.append(leader, GROUP);
    world.run_for(LONG_MS);
    assert_eq!(answer.try_recv().unwrap().unwrap().base_offset, 0);
}

#[test]
fn what_panics_in_one_group_stops_its_replica_here_and_nothing_else() {
    let mut world = World::new();
    let node = world.leader(GROUP);
    let fs = world.kill(node);
    world.panics_in = Some(GROUP);
    world.start(node, fs);
    world.run_for(LONG_MS);
    let leader = world.leader(GROUP);
    let mut answer = world.append(leader, GROUP);
    world.run_for(LONG_MS);
    let fault = world.nodes[&node].shared[&GROUP].health().fault.clone();
    assert!(fault.is_some_and(|fault| fault.message().contains("panicked")));
    // The two others are enough.
    assert_eq!(answer.try_recv().unwrap().unwrap().base_offset, 0);
    world.appended_everywhere(GROUP + 1);
}

#[test]
fn nobody_is_let_go_whom_the_others_could_not_do_without() {
    let (mut world, leader, [leaving, gone]) = led();
    let fs = world.kill(gone);
    world.run_for(LONG_MS);
    let target = Target { voters: vec![leader, gone], learners: vec![leaving], newest: 3 };
    aim(&world, leader, target);
    world.run_for(LONG_MS);
    assert_eq!(voters(&world, leader).len(), 3);
    world.appended_everywhere(GROUP);

    world.start(gone, fs);
    world.run_for(LONG_MS);
    assert_eq!(voters(&world, leader).len(), 2);
    world.appended_everywhere(GROUP);
}

#[test]
fn who_is_gone_makes_room_for_the_first_who_can_take_its_place() {
    let (mut world, leader, [staying, gone]) = led();
    let _lost = world.kill(gone);
    world.run_for(LONG_MS);
    // Of two that are to come, one does not.
    let target = Target { voters: vec![leader, 4, 5], learners: Vec::new(), newest: 5 };
    aim(&world, leader, target);
    world.start(4, SimFs::new(4));
    world.run_for(LONG_MS);
    assert_eq!(voters(&world, leader), sorted([leader, staying, 4]));

    // Those can do without any of them.
    let _lost = world.kill(4);
    world.run_for(LONG_MS);
    world.appended_everywhere(GROUP);
}

#[test]
fn what_the_log_proves_committed_is_known_at_the_start() {
    let (mut world, leader, [node, _]) = led();
    let since = |world: &World, node: u64| {
        let health = world.nodes[&node].shared[&GROUP].health();
        (health.membership_since, health.membership.learners.clone())
    };
    let mut changes = Vec::new();
    for learners in [vec![4], vec![], vec![5]] {
        let target = Target { voters: NODES.to_vec(), learners, newest: 5 };
        aim(&world, leader, target);
        world.run_for(LONG_MS);
        changes.push(since(&world, leader));
    }
    assert_eq!(since(&world, node), changes[2]);

    // It had the entries on disk before it knew that they were committed.
    let fs = world.kill(node);
    fs.remove_if_there(Path::new("/a-9/members")).unwrap();
    world.isolate(node);
    world.start(node, fs);
    world.run_for(LONG_MS);
    assert_eq!(since(&world, node), changes[1], "the last may yet not be committed");
    world.cut.clear();
    world.run_for(LONG_MS);
    assert_eq!(since(&world, node), changes[2]);
}

#[test]
fn who_was_given_up_may_go_once_the_others_have_proof() {
    let (mut world, leader, [staying, leaving]) = led();
    let target = Target { voters: vec![leader, staying], learners: Vec::new(), newest: 3 };
    aim(&world, leader, target);
    world.settle();
    let told = voters(&world, leader);
    assert_eq!(told, NODES, "the others may not know that it was committed");
    world.run_for(LONG_MS);
    assert_eq!(voters(&world, leader), sorted([leader, staying]));

    // They have the entries on disk, but not who was known to belong to the group.
    world.kill(leaving);
    for node in [leader, staying] {
        let fs = world.kill(node);
        fs.remove_if_there(Path::new("/a-9/members")).unwrap();
        world.start(node, fs);
    }
    world.run_for(LONG_MS);
    assert!([leader, staying].contains(&world.leader(GROUP)));
}

#[test]
fn who_is_alone_by_what_its_log_proves_leads() {
    let (mut world, leader, others) = led();
    for learners in [vec![], vec![4]] {
        aim(&world, leader, Target { voters: vec![leader], learners, newest: 4 });
        world.run_for(LONG_MS);
    }
    let fs = world.kill(leader);
    fs.remove_if_there(Path::new("/a-9/members")).unwrap();
    for other in others {
        world.kill(other);
    }
    world.start(leader, fs);
    world.run_for(LONG_MS);
    assert_eq!(world.nodes[&leader].driver.groups[&GROUP].leader(), leader);
}

#[test]
fn all_are_replaced_and_there_are_never_more_than_before() {
    let (mut world, leader, [first, second]) = led();
    for node in [4, 5, 6] {
        world.start(node, SimFs::new(node));
    }
    let target = Target { voters: vec![4, 5, 6], learners: Vec::new(), newest: 6 };
    for node in [leader, first, second, 4, 5, 6] {
        aim(&world, node, target.clone());
    }
    for _ in 0..100 {
        world.run_for(100);
        assert!(voters(&world, leader).len() <= 3);
    }
    assert_eq!(voters(&world, 4), [4, 5, 6]);
    assert_eq!(world.nodes[&4].shared[&GROUP].health().membership.learners, []);
}

#[test]
fn an_heir_who_is_away_keeps_nobody_from_being_replaced() {
    let (mut world, leader, [away, other]) = led();
    world.kill(away);
    for node in [4, 5] {
        world.start(node, SimFs::new(node));
    }
    let target = Target { voters: vec![away, 4, 5], learners: Vec::new(), newest: 5 };
    for node in [leader, other, 4, 5] {
        aim(&world, node, target.clone());
    }
    world.run_for(4 * LONG_MS);
    assert_eq!(voters(&world, 4), sorted([away, 4, 5]));
}

#[test]
fn one_alone_is_replaced_by_another() {
    let (mut world, leader, _) = led();
    world.start(4, SimFs::new(4));
    for voters in [vec![leader], vec![4]] {
        for node in [leader, 4] {
            let voters = voters.clone();
            aim(&world, node, Target { voters, learners: Vec::new(), newest: 4 });
        }
        world.run_for(2 * LONG_MS);
    }
    assert_eq!(voters(&world, 4), [4]);
    assert_eq!(world.nodes[&4].driver.groups[&GROUP].leader(), 4);
}

/// The leader of a group, and a follower that has acknowledged some entries and is cut off now.
fn cut_off(world: &mut World) -> (u64, u64) {
    let leader = world.leader(GROUP);
    let follower = NODES.into_iter().find(|node| *node != leader).unwrap();
    for _ in 0..5 {
        world.appended_everywhere(GROUP);
    }
    world.isolate(follower);
    world.run_for(LONG_MS);
    (leader, follower)
}

fn said(world: &mut World, (leader, follower): (u64, u64), message: PeerMessage) -> Vec<u64> {
    let term = world.nodes[&leader].shared[&GROUP].health().term;
    let message = PeerMessage { group: GROUP, from: follower, to: leader, term, ..message };
    world.nodes[&leader].inputs.send(Input::Message(message)).unwrap();
    // Keeps it from resting: time passes for it.
    let _answer = world.append(leader, GROUP);
    world.run_for(300);
    world.nodes[&leader].shared[&GROUP].health().lost.clone()
}

#[test]
fn refusals_that_come_late_accuse_nobody() {
    let mut world = World::new();
    let nodes = cut_off(&mut world);
    for raft_index in 2..6 {
        let refusal = PeerMessage {
            kind: PeerMessageKind::AppendResponse.into(),
            reject: true,
            raft_index,
            reject_hint: 1,
            ..PeerMessage::default()
        };
        assert_eq!(said(&mut world, nodes, refusal.clone()), [0; 0]);
        assert_eq!(said(&mut world, nodes, refusal), [0; 0]);
    }
}

#[test]
fn whose_log_ends_before_what_it_acknowledged_is_found_out() {
    let mut world = World::new();
    let nodes = cut_off(&mut world);
    let answer = |leader_ticks, last_raft_index| PeerMessage {
        kind: PeerMessageKind::HeartbeatResponse.into(),
        leader_ticks,
        last_raft_index,
        ..PeerMessage::default()
    };
    // Of an older heartbeat; one that a node of an older version answers.
    assert_eq!(said(&mut world, nodes, answer(1, 1)), [0; 0]);
    assert_eq!(said(&mut world, nodes, answer(0, 0)), [0; 0]);
    assert_eq!(said(&mut world, nodes, answer(1_000_000, 100)), [0; 0]);
    assert_eq!(said(&mut world, nodes, answer(1_000_001, 1)), [nodes.1]);
}

#[test]
fn those_that_lose_their_leaders_do_not_split_the_votes() {
    let term = |world: &World, node: u64, group| world.nodes[&node].shared[&group].health().term;
    for lost in NODES {
        let mut world = World::new();
        let led = GROUPS.filter(|group| world.leader(*group) == lost);
        let led: Vec<(u64, u64)> = led.map(|group| (group, term(&world, lost, group))).collect();
        assert!(led.len() >= 3, "{led:?}");
        let _answers: Vec<_> = led.iter().map(|(group, _)| world.append(lost, *group)).collect();
        world.run_for(300);
        assert!(NODES.into_iter().all(|node| world.ticking(node) > 0), "they do not rest");
        world.kill(lost);
        world.run_for(1_500);
        for (group, before) in led {
            let leader = world.leader(group);
            assert_eq!(term(&world, leader, group), before + 1, "group {group}");
        }
    }
}

#[test]
fn who_was_not_elected_in_its_turn_leaves_to_chance_who_is_next() {
    let (mut world, leader, [left, other]) = led();
    world.kill(leader);
    world.kill(other);
    let mut waits = BTreeSet::new();
    for _ in 0..300 {
        world.run_for(100);
        let raft = &world.nodes[&left].driver.groups[&GROUP].node.raft;
        waits.insert(raft.randomized_election_timeout());
    }
    assert!(waits.len() > 4, "{waits:?}");
}

#[test]
fn what_an_observer_was_shown_is_known_at_the_next_start_before_anybody_leads() {
    let mut world = World::new();
    world.observed = Some(GROUP);
    for node in NODES {
        let fs = world.kill(node);
        world.start(node, fs);
    }
    world.run_for(LONG_MS);
    let other = GROUP + 1;
    world.appended_everywhere(GROUP);
    world.appended_everywhere(other);
    let disks = NODES.map(|node| world.kill(node));
    disks.iter().for_each(SimFs::crash);
    for (node, fs) in NODES.into_iter().zip(disks) {
        world.start(node, fs);
        let known = |group| world.nodes[&node].shared[&group].progress.borrow().committed_offset;
        assert_eq!((known(GROUP), known(other)), (1, 0), "node {node}");
    }
}
