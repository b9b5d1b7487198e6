//! Gossip among nodes in memory.

use std::sync::LazyLock;

use bytes::Bytes;
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use super::gossip::SUSPICION;
use super::world::{CALM, Weather, World, address, member, subject};
use super::{Action, Event, Gossip, Member};

const STORM: Weather = Weather { loss: 0.2, duplication: 0.1, delay_ms: (1, 150) };

fn is_failed(event: &Event) -> bool {
    matches!(event, Event::Failed(_))
}

fn is_joined(event: &Event) -> bool {
    matches!(event, Event::Joined(_))
}

#[test]
fn a_node_that_is_alone_does_nothing() {
    let mut alone = Gossip::new(member(1, 1), 7);
    assert_eq!(alone.deadline_ms(), None);
    alone.tick(1_000);
    alone.announce(&address(1), 1_000);
    alone.leave(2_000);
    assert_eq!(alone.actions(), []);
    assert_eq!(alone.deadline_ms(), None);
}

#[test]
fn three_nodes_find_each_other_through_one_seed() {
    let mut slowest_ms = 0;
    for seed in 0..50 {
        let mut world = World::new(seed);
        for node_id in 1..=3 {
            world.start(member(node_id, 1), &[1]);
        }
        let took_ms = world.run_until(5_000, World::all_see_all);
        assert!(took_ms <= 2_000, "{took_ms} ms");
        for (node_id, node) in &world.nodes {
            let joined: Vec<_> = node.events.iter().map(|(_, event)| event.clone()).collect();
            let others = (1..=3).filter(|other| other != node_id);
            for other in others {
                assert!(joined.contains(&Event::Joined(member(other, 1))), "{joined:?}");
            }
            assert_eq!(joined.len(), 2, "{joined:?}");
        }
        slowest_ms = slowest_ms.max(took_ms);
    }
    println!("three nodes see each other after at most {slowest_ms} ms");
}

#[test]
fn a_seed_may_be_known_by_another_name() {
    let mut one = Gossip::new(member(1, 1), 1);
    let mut two = Gossip::new(member(2, 1), 2);
    two.announce("localhost:8400", 0);
    let [Action::Send { peer, packet }] = &two.actions()[..] else { panic!("one packet") };
    assert_eq!((peer.node_id, &*peer.address), (0, "localhost:8400"));
    one.receive(packet.clone(), 0);
    for action in one.actions() {
        if let Action::Send { packet, .. } = action {
            two.receive(packet, 0);
        }
    }
    assert_eq!(one.members().collect::<Vec<_>>(), [&member(2, 1)]);
    assert_eq!(two.members().collect::<Vec<_>>(), [&member(1, 1)]);
}

#[test]
fn a_change_spreads() {
    let mut slowest_ms = 0;
    for seed in 0..50 {
        let mut world = World::converged(5, seed);
        let now_ms = world.now_ms;
        let me = Member { cluster_id: 99, founder: 2, metadata_replica: 4, ..member(3, 0) };
        world.gossip(3).update(me.clone(), now_ms);
        let me = Member { incarnation: 2, ..me };
        assert_eq!(world.gossip(3).me(), &me);
        world.collect();
        let knows = |world: &World| {
            let mut others = world.nodes.values().filter(|node| node.gossip.me().node_id != 3);
            others.all(|node| node.gossip.members().any(|member| *member == me))
        };
        let took_ms = world.run_until(3_000, knows);
        assert!(took_ms <= 600, "{took_ms} ms");
        slowest_ms = slowest_ms.max(took_ms);
        world.run_for(20_000);
        for other in [1, 2, 4, 5] {
            assert_eq!(world.events(other, 3), [&Event::Changed(me.clone())]);
        }
        world.gossip(3).update(me.clone(), now_ms + 30_000);
        assert_eq!(world.gossip(3).me(), &me, "nothing has changed");
    }
    println!("all of five know of a change after at most {slowest_ms} ms");
}

#[test]
fn all_change_at_once() {
    for seed in 0..30 {
        let mut world = World::converged(3, seed);
        let now_ms = world.now_ms;
        for node_id in 1..=3 {
            let me = Member { cluster_id: 99, ..member(node_id, 0) };
            world.gossip(node_id).update(me, now_ms);
        }
        world.run_until(3_000, |world| {
            let mut members = world.nodes.values().flat_map(|node| node.gossip.members());
            members.all(|member| member.cluster_id == 99)
        });
        world.run_for(20_000);
        assert!(world.all_see_all());
        assert!(!world.nodes.values().flat_map(|node| &node.events).any(|(_, e)| is_failed(e)));
    }
}

#[test]
fn a_change_that_nobody_hears_of_is_no_end() {
    for seed in 0..30 {
        let mut world = World::converged(2, seed);
        world.weather.loss = 1.0;
        let me = Member { cluster_id: 99, ..member(2, 0) };
        let now_ms = world.now_ms;
        world.gossip(2).update(me, now_ms);
        world.collect();
        world.weather.loss = 0.0;
        world.run_until(10_000, |world| {
            world.nodes[&1].gossip.members().any(|member| member.cluster_id == 99)
        });
    }
}

#[test]
fn a_killed_node_has_failed() {
    let mut all_ms = Vec::new();
    for seed in 0..100 {
        let mut world = World::converged(5, seed);
        world.run_for(10_000);
        let start_ms = world.now_ms;
        world.kill(3);
        world.run_for(20_000);
        for other in [1, 2, 4, 5] {
            let after_ms = world.told_after(other, start_ms, is_failed);
            let suspicion_ms = i64::try_from(SUSPICION.as_millis()).unwrap();
            assert!((suspicion_ms..=11_000).contains(&after_ms), "{after_ms} ms");
            all_ms.push(after_ms);
            assert_eq!(world.events(other, 3), [&Event::Failed(member(3, 1))]);
        }
    }
    all_ms.sort_unstable();
    let [half, most] = [2, 1].map(|part| all_ms[all_ms.len() / part - 1]);
    println!("of five, the death of one is known after {half} ms, at most {most} ms");
}

#[test]
fn the_last_other_node_fails_too() {
    let mut world = World::converged(2, 1);
    world.kill(2);
    world.run_for(20_000);
    assert_eq!(world.events(1, 2), [&Event::Failed(member(2, 1))]);
    assert_eq!(world.gossip(1).members().count(), 0);
}

#[test]
fn who_changes_and_hears_nothing_still_notices_a_death() {
    let mut world = World::converged(2, 1);
    world.kill(2);
    let now_ms = world.now_ms;
    world.gossip(1).update(Member { cluster_id: 99, ..member(1, 0) }, now_ms);
    world.run_for(20_000);
    assert_eq!(world.events(1, 2), [&Event::Failed(member(2, 1))]);
}

#[test]
fn who_leaves_has_left() {
    for (seed, weather) in (0..60).map(|seed| (seed, [CALM, STORM][seed as usize % 2])) {
        let mut world = World::converged(4, seed);
        world.weather = weather;
        let now_ms = world.now_ms;
        world.gossip(2).leave(now_ms);
        world.collect();
        world.run_for(1_000);
        world.gossip(2).tick(now_ms + 1_000);
        assert_eq!(world.gossip(2).deadline_ms(), None);
        assert!(world.gossip(2).actions().is_empty());
        world.kill(2);
        world.run_for(20_000);
        for other in [1, 3, 4] {
            let events = world.events(other, 2);
            assert_eq!(events, [&Event::Left(member(2, 2))], "seed {seed}");
        }
    }
}

#[test]
fn who_left_can_come_back() {
    let mut world = World::converged(3, 5);
    let now_ms = world.now_ms;
    world.gossip(2).leave(now_ms);
    world.run_for(5_000);
    world.clear();
    world.start(member(2, 1_000), &[1]);
    world.run_until(5_000, World::all_see_all);
    assert_eq!(world.events(3, 2), [&Event::Joined(member(2, 1_000))]);
}

#[test]
fn a_node_restarted_elsewhere_has_changed() {
    for seed in 0..30 {
        let mut world = World::converged(3, seed);
        world.kill(3);
        world.run_for(300);
        let me = Member { address: "elsewhere:1".to_owned(), ..member(3, 77) };
        world.start(me.clone(), &[1]);
        world.run_for(20_000);
        for other in [1, 2] {
            assert_eq!(world.events(other, 3), [&Event::Changed(me.clone())]);
        }
        assert!(world.all_see_all());
    }
}

#[test]
fn a_node_restarted_later_joins_again() {
    let mut world = World::converged(3, 3);
    world.kill(3);
    world.run_for(10_000);
    world.clear();
    world.start(member(3, 77), &[1]);
    let took_ms = world.run_until(3_000, World::all_see_all);
    assert!(took_ms <= 2_000, "{took_ms} ms");
    assert_eq!(world.events(2, 3), [&Event::Joined(member(3, 77))]);
}

#[test]
fn a_clock_that_was_set_back_does_not_keep_a_node_out() {
    let mut world = World::new(8);
    for node_id in 1..=3 {
        world.start(member(node_id, 1_800_000_000_000), &[1]);
    }
    world.run_until(5_000, World::all_see_all);
    world.kill(3);
    world.run_for(10_000);
    world.start(member(3, 5), &[1]);
    let took_ms = world.run_until(5_000, World::all_see_all);
    assert!(took_ms <= 2_000, "{took_ms} ms");
    assert!(world.gossip(3).me().incarnation > 1_800_000_000_000);
}

#[test]
fn a_node_that_wakes_joins_again() {
    for seed in 0..30 {
        let mut world = World::converged(3, seed);
        world.nodes.get_mut(&3).unwrap().paused = true;
        world.run_for(20_000);
        assert_eq!(world.events(1, 3), [&Event::Failed(member(3, 1))]);
        world.clear();
        world.nodes.get_mut(&3).unwrap().paused = false;
        let took_ms = world.run_until(6_000, World::all_see_all);
        assert!(took_ms <= 5_100, "{took_ms} ms");
        world.run_for(10_000);
        let me = world.gossip(3).me().clone();
        assert!(me.incarnation > 1);
        for other in [1, 2] {
            assert_eq!(world.events(other, 3)[0], &Event::Joined(me.clone()), "seed {seed}");
            assert!(!world.events(3, other).iter().any(|event| is_failed(event)));
        }
    }
}

#[test]
fn a_short_pause_is_not_a_death() {
    for seed in 0..30 {
        let mut world = World::converged(3, seed);
        world.nodes.get_mut(&3).unwrap().paused = true;
        world.run_for(2_500);
        world.nodes.get_mut(&3).unwrap().paused = false;
        world.run_for(20_000);
        for node in world.nodes.values() {
            assert_eq!(node.events, [], "seed {seed}, node {}", node.gossip.me().node_id);
        }
    }
}

#[test]
fn two_halves_find_each_other_again() {
    let mut slowest_ms = 0;
    for (count, island) in [(2, vec![1]), (3, vec![3]), (5, vec![1, 2])] {
        for seed in 0..20 {
            let mut world = World::converged(count, seed);
            world.nodes.values_mut().for_each(|node| node.seeds.clear());
            world.island = island.iter().copied().collect();
            world.run_for(60_000);
            assert!(world.nodes.values().all(|node| node.events.iter().any(|e| is_failed(&e.1))));
            world.island.clear();
            slowest_ms = slowest_ms.max(world.run_until(30_000, World::all_see_all));
            world.run_for(60_000);
            assert!(world.all_see_all(), "and stay");
        }
    }
    println!("two halves are one after at most {slowest_ms} ms");
}

#[test]
fn loss_does_not_keep_nodes_apart() {
    let mut slowest_ms = 0;
    for seed in 0..50 {
        let mut world = World::new(seed);
        world.weather = STORM;
        for node_id in 1..=5 {
            world.start(member(node_id, 1), &[1]);
        }
        slowest_ms = slowest_ms.max(world.run_until(40_000, World::all_see_all));
        world.run_for(60_000);
        world.weather = CALM;
        world.run_for(40_000);
        assert!(world.all_see_all(), "seed {seed}");
    }
    println!("with a fifth lost, five nodes see each other after at most {slowest_ms} ms");
}

#[test]
fn two_clusters_with_a_common_seed_stay_two() {
    for seed in 0..20 {
        let mut world = World::new(seed);
        world.start(member(1, 1), &[]);
        for node_id in 2..=7 {
            let cluster_id = 100 + node_id % 2;
            world.start(Member { cluster_id, ..member(node_id, 1) }, &[1]);
        }
        world.run_for(40_000);
        assert_eq!(world.gossip(1).members().count(), 6, "in no cluster, one hears of both");
        for node_id in 2..=7 {
            let others = world.gossip(node_id).members().map(|member| member.node_id);
            let expected = (1..=7).filter(|o| *o != node_id && (*o == 1 || o % 2 == node_id % 2));
            assert_eq!(others.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        }
        world.clear();
        let now_ms = world.now_ms;
        world.gossip(1).update(Member { cluster_id: 100, ..member(1, 0) }, now_ms);
        world.run_for(40_000);
        let ids = |world: &mut World, node_id| -> Vec<u64> {
            world.gossip(node_id).members().map(|member| member.node_id).collect()
        };
        assert_eq!(ids(&mut world, 1), [2, 4, 6]);
        assert_eq!(ids(&mut world, 2), [1, 4, 6]);
        assert_eq!(ids(&mut world, 3), [5, 7]);
        let gone = world.nodes[&1].events.iter().filter(|(_, event)| is_failed(event));
        assert_eq!(gone.count(), 3);
    }
}

#[test]
fn fifty_nodes_converge() {
    let mut world = World::new(50);
    for node_id in 1..=50 {
        world.start(member(node_id, 1), &[1]);
    }
    let took_ms = world.run_until(10_000, World::all_see_all);
    world.run_for(5_000);
    world.clear();
    world.run_for(60_000);
    let rate = world.bytes / 60;
    println!("50 nodes converge in {took_ms} ms and send {rate} B/s in all when idle");
    assert!(took_ms <= 3_000, "{took_ms} ms");
    assert!(world.nodes.values().all(|node| node.events.is_empty()));

    let start_ms = world.now_ms;
    world.kill(50);
    world.run_until(20_000, World::all_see_all);
    println!("the death of one is known after {} ms", world.now_ms - start_ms);
}

#[test]
fn idle_nodes_send_little() {
    let mut world = World::converged(3, 1);
    world.run_for(5_000);
    world.clear();
    world.run_for(60_000);
    println!("3 nodes send {} B/s in all when idle", world.bytes / 60);
    assert!(world.bytes / 60 < 1_500, "{}", world.bytes / 60);
}

#[test]
fn one_seed_makes_one_trace() {
    let run = |seed| {
        let mut world = World::new(seed);
        world.trace = Some(Vec::new());
        world.weather = STORM;
        for node_id in 1..=5 {
            world.start(member(node_id, 1), &[1]);
        }
        world.run_for(20_000);
        world.kill(4);
        world.run_for(20_000);
        world.trace.unwrap()
    };
    assert!(run(1).len() > 100);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

fn packets() -> &'static [Bytes] {
    static PACKETS: LazyLock<Vec<Bytes>> = LazyLock::new(talk);
    &PACKETS
}

/// Packets of all kinds, as three nodes send them.
fn talk() -> Vec<Bytes> {
    let mut packets = Vec::new();
    let mut nodes: Vec<Gossip> = (1..=3).map(|id| Gossip::new(member(id, 1), id)).collect();
    nodes[1].announce(&address(1), 0);
    nodes[2].announce(&address(1), 0);
    for now_ms in (0..20_000).step_by(100) {
        for sender in 0..3 {
            nodes[sender].tick(now_ms);
            for action in nodes[sender].actions() {
                let Action::Send { peer, packet } = action else { continue };
                packets.push(packet.clone());
                let receiver = nodes.iter_mut().find(|node| *node.me().address == *peer.address);
                // The third node falls silent, so that others are asked to ask it.
                if now_ms < 5_000 || (sender != 2 && peer.node_id != 3) {
                    receiver.unwrap().receive(packet, now_ms);
                }
            }
        }
    }
    packets
}

/// Gives bytes to a node that knows others, and sees that nothing comes of it.
fn assert_ignored(gossip: &mut Gossip, bytes: Bytes) {
    gossip.receive(bytes, 1_000);
    assert_eq!(gossip.actions(), []);
}

fn a_node_with_a_peer() -> Gossip {
    let mut gossip = Gossip::new(member(1, 1), 1);
    let mut other = Gossip::new(member(2, 1), 2);
    other.announce(&address(1), 0);
    for action in other.actions() {
        let Action::Send { packet, .. } = action else { panic!("knows nobody") };
        gossip.receive(packet, 0);
    }
    assert!(!gossip.actions().is_empty());
    gossip
}

#[test]
fn broken_packets_do_nothing() {
    let mut gossip = a_node_with_a_peer();
    let mut rng = StdRng::seed_from_u64(1);
    for packet in packets().iter().step_by(7) {
        for length in 0..packet.len() {
            assert_ignored(&mut gossip, packet.slice(..length));
        }
        for bit in 0..packet.len() * 8 {
            let mut broken = packet.to_vec();
            broken[bit / 8] ^= 1 << (bit % 8);
            assert_ignored(&mut gossip, broken.into());
        }
        let mut longer = packet.to_vec();
        longer.push(rng.random());
        assert_ignored(&mut gossip, longer.into());
    }
    assert_eq!(gossip.members().collect::<Vec<_>>(), [&member(2, 1)]);
}

#[test]
fn a_packet_that_is_too_large_does_nothing() {
    let mut gossip = a_node_with_a_peer();
    assert_ignored(&mut gossip, super::packet::seal(&[0; 20_000]));
}

#[test]
fn strings_that_are_too_long_are_cut() {
    let me = Member { name: "é".repeat(200), rack: "r".repeat(300), ..member(1, 1) };
    let mut one = Gossip::new(me, 1);
    assert_eq!((one.me().name.len(), one.me().rack.len()), (254, 255));
    one.announce(&address(2), 0);
    assert_eq!(one.actions().len(), 1);
}

proptest! {
    #[test]
    fn random_bytes_do_nothing(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        assert_ignored(&mut a_node_with_a_peer(), bytes.into());
    }

    /// With a good checksum, so that what is behind it is looked at; anything but a panic will do.
    #[test]
    fn hostile_bytes_do_no_harm(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut body = which.get(packets())[5..].to_vec();
        for (at, value) in changes {
            let at = at.index(body.len());
            body[at] = value;
        }
        if cut.index(4) == 0 {
            body.truncate(cut.index(body.len()));
        }
        let mut gossip = a_node_with_a_peer();
        gossip.receive(super::packet::seal(&body), 1_000);
        for now_ms in (1_000..20_000).step_by(500) {
            gossip.tick(now_ms);
        }
        for action in gossip.actions() {
            if let Action::Event(event) = action {
                prop_assert!(subject(&event).node_id != 0);
            }
        }
    }
}

/// As after the disk of one was copied. It cannot end well, but it must not become a storm.
#[test]
fn two_nodes_of_one_id_do_not_drown_the_others() {
    let mut world = World::converged(3, 4);
    let twin = Member { address: "twin:1".to_owned(), ..member(3, 5) };
    world.start_as(33, twin, &[1]);
    world.run_for(10_000);
    world.clear();
    world.run_for(10_000);
    println!("twins make {} B/s", world.bytes / 10);
    assert!(world.bytes / 10 < 100_000);
}

/// They warn each other; it must not be as often as they can.
#[test]
fn suspects_that_hear_of_each_other_again_do_not_talk_for_ever() {
    let mut most = 0;
    for seed in 0..60_u32 {
        let mut world = World::converged(3, u64::from(seed));
        world.weather.loss = 0.8;
        world.run_for(1_500 + 50 * i64::from(seed));
        world.weather = Weather { duplication: 0.2, ..CALM };
        world.clear();
        world.run_for(2_000);
        most = most.max(world.bytes / 2);
    }
    println!("nodes that suspected each other make at most {most} B/s");
    assert!(most < 50_000, "{most} B/s");
}

#[test]
fn every_event_is_joined_first() {
    let mut world = World::new(12);
    world.weather = STORM;
    for node_id in 1..=5 {
        world.start(member(node_id, 1), &[1]);
    }
    world.run_for(60_000);
    for node in world.nodes.values() {
        let mut seen = std::collections::BTreeSet::new();
        for (_, event) in &node.events {
            let new = is_joined(event) && seen.insert(subject(event).node_id);
            assert!(new || seen.contains(&subject(event).node_id));
        }
    }
}
