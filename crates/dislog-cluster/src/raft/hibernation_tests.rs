//! Three replicas that come to rest, and what ends it.

use std::collections::BTreeSet;

use dislog_log::fs::SimFs;

use super::driver::Input;
use super::membership::Target;
use super::test_world::{FAILOVER_MS, GROUPS, LONG_MS, NODES, World};

#[test]
fn groups_at_rest_send_nothing_and_nodes_little() {
    let mut world = World::at_rest();
    (world.messages, world.pulses, world.turns) = (0, 0, 0);
    world.run_for(60_000);
    assert_eq!(world.messages, 0);
    assert_eq!(world.pulses, 60 * 5 * 6, "five a second, each to each");
    assert!(world.turns <= 60 * 5 * 3, "{} turns", world.turns);
    let leaders: BTreeSet<u64> = GROUPS.map(|group| world.leader(group)).collect();
    assert_eq!(leaders, NODES.into());
}

#[test]
fn an_append_wakes_its_group_alone_and_it_comes_to_rest_again() {
    let mut world = World::at_rest();
    let leader = world.leader(9);
    let mut answer = world.append(leader, 9);
    world.settle();
    assert_eq!(answer.try_recv().unwrap().unwrap().base_offset, 0);
    assert_eq!(world.ticking(leader), 1);
    world.run_for(LONG_MS);
    for node in NODES {
        assert_eq!(world.ticking(node), 0, "node {node}");
    }
    world.appended_everywhere(9);
}

#[test]
fn linearizable_reads_ask_a_majority_also_at_rest() {
    let mut world = World::at_rest();
    for node in NODES {
        let mut answer = world.linearize(node, 9);
        world.settle();
        assert_eq!(answer.try_recv().unwrap(), Ok(()), "by node {node}");
        world.run_for(LONG_MS);
    }
    let leader = world.leader(9);
    world.isolate(leader);
    // At once, before anybody can know of it.
    let mut answer = world.linearize(leader, 9);
    world.settle();
    assert!(answer.try_recv().is_err(), "nobody confirmed it");
    world.run_for(LONG_MS);
    assert!(answer.try_recv().unwrap().is_err());
}

#[test]
fn a_node_that_dies_is_followed_in_all_its_groups() {
    let mut world = World::at_rest();
    let lost: Vec<u64> = GROUPS.filter(|group| world.leader(*group) == 1).collect();
    assert!(lost.len() >= 6);
    world.kill(1);
    world.run_for(FAILOVER_MS);
    for group in GROUPS {
        assert_ne!(world.leader(group), 1);
    }
    // The others rest again, without it.
    world.run_for(LONG_MS);
    assert_eq!((world.ticking(2), world.ticking(3)), (0, 0));
    (world.messages, world.pulses) = (0, 0);
    world.run_for(LONG_MS);
    assert_eq!(world.messages, 0);
    lost.into_iter().for_each(|group| world.appended_everywhere(group));
}

#[test]
fn a_node_that_comes_back_gets_what_was_appended_without_it() {
    let mut world = World::at_rest();
    let fs = world.kill(1);
    world.run_for(LONG_MS);
    GROUPS.for_each(|group| {
        let mut answer = world.append(world.leader(group), group);
        world.run_for(200);
        assert!(answer.try_recv().unwrap().is_ok());
    });
    world.run_for(LONG_MS);
    assert_eq!(world.ticking(2) + world.ticking(3), 0);
    world.start(1, fs);
    world.run_for(LONG_MS);
    for group in GROUPS {
        assert_eq!(world.nodes[&1].shared[&group].progress.borrow().committed_offset, 1);
    }
    for node in NODES {
        assert_eq!(world.ticking(node), 0, "node {node}");
    }
}

#[test]
fn a_new_replica_that_was_away_when_its_group_came_to_rest_gets_everything() {
    const NEW: u64 = 4;
    let mut world = World::at_rest();
    let leader = world.leader(9);
    assert_ne!(leader, NODES[1], "the one that the new replica knows");
    world.append(leader, 9);
    let target = Target { voters: NODES.to_vec(), learners: vec![NEW], newest: NEW };
    for node in world.nodes.values() {
        node.inputs.send(Input::SetTarget(9, target.clone())).unwrap();
    }
    world.run_for(2 * LONG_MS);
    assert_eq!(NODES.map(|node| world.ticking(node)), [0; 3]);
    let learners = world.nodes[&leader].shared[&9].health().membership.learners.clone();
    assert_eq!(learners, [NEW]);
    // It does not know that its leader belongs to its group, and so does not speak to it.
    world.start(NEW, SimFs::new(NEW));
    world.run_for(LONG_MS);
    assert_eq!(world.nodes[&NEW].shared[&9].progress.borrow().committed_offset, 1);
    assert_eq!(NODES.map(|node| world.ticking(node)), [0; 3]);
    world.appended_everywhere(9);
}

#[test]
fn a_group_moves_to_other_nodes_altogether() {
    let mut world = World::at_rest();
    let target = Target { voters: vec![4, 5, 6], learners: Vec::new(), newest: 6 };
    for node in &target.voters {
        world.start(*node, SimFs::new(*node));
    }
    for node in world.nodes.values() {
        node.inputs.send(Input::SetTarget(9, target.clone())).unwrap();
    }
    world.run_for(2 * LONG_MS);
    let leader = world.leader(9);
    assert!(target.voters.contains(&leader), "{leader}");
    let membership = world.nodes[&leader].shared[&9].health().membership.clone();
    assert_eq!(membership.replicas().collect::<BTreeSet<_>>(), [4, 5, 6].into());
}

#[test]
fn a_node_that_restarts_at_once_is_not_taken_for_the_one_before() {
    let mut world = World::at_rest();
    let fs = world.kill(2);
    world.start(2, fs);
    world.run_for(FAILOVER_MS);
    GROUPS.for_each(|group| world.is_led(group));
    world.run_for(LONG_MS);
    GROUPS.for_each(|group| world.appended_everywhere(group));
}

#[test]
fn a_leader_cut_off_at_rest_steps_down_and_is_followed() {
    for one_way in [false, true] {
        let mut world = World::at_rest();
        if one_way {
            // It hears, and is not heard.
            world.cut.extend([(1, 2), (1, 3)]);
        } else {
            world.isolate(1);
        }
        world.run_for(FAILOVER_MS);
        for group in GROUPS {
            assert_ne!(world.leader(group), 1, "one way: {one_way}");
        }
        world.cut.clear();
        world.run_for(LONG_MS);
        GROUPS.for_each(|group| world.appended_everywhere(group));
        assert_eq!(NODES.map(|node| world.ticking(node)), [0; 3]);
    }
}

#[test]
fn lost_pulses_leave_no_group_behind() {
    for lose_every in [2, 3, 5] {
        let mut world = World::new();
        world.lose_every = lose_every;
        for round in 0..3 {
            for group in GROUPS {
                world.append(world.leader(group), group);
                world.run_for(37);
            }
            world.run_for(LONG_MS);
            for group in GROUPS {
                let ends: BTreeSet<u64> = NODES
                    .map(|node| {
                        world.nodes[&node].shared[&group].progress.borrow().committed_offset
                    })
                    .into();
                assert_eq!(ends, [round + 1].into(), "group {group}, 1 of {lose_every} lost");
            }
        }
        world.kill(3);
        world.run_for(2 * FAILOVER_MS);
        GROUPS.for_each(|group| world.is_led(group));
    }
}

#[test]
fn a_replica_that_stops_keeps_its_group_awake_and_the_others_led() {
    let mut world = World::at_rest();
    let leader = world.leader(9);
    let fs = world.nodes[&leader].fs.clone();
    let faults = dislog_log::fs::SimFaults { fail_sync_after: Some(0), ..Default::default() };
    fs.arm(faults);
    let mut answer = world.append(leader, 9);
    world.run_for(FAILOVER_MS);
    assert!(answer.try_recv().unwrap().is_err());
    assert_ne!(world.leader(9), leader);
    for group in GROUPS.filter(|group| *group != 9) {
        world.leader(group);
    }
}
