//! Hibernation: the driver's part in letting groups rest.
//!
//! It sends pulses to the nodes that share a group with this one, and passes what theirs say on to
//! the groups: who is spoken for, who has agreed to rest, who is gone. What is said is in
//! [`pulse`](super::pulse), when a group may rest in [`rest`](super::rest).

use std::collections::BTreeSet;

use super::driver::Driver;
use super::group::Group;
use super::pulse::{Lost, Pulse};
use super::rest::Woke;

impl Driver {
    /// A node said how things are.
    pub(super) fn hear(&mut self, node: u64, pulse: &Pulse) {
        let now_ms = self.clock.elapsed_ms();
        let Some(news) = self.pulses.receive(node, pulse, now_ms) else { return };
        for number in news.orphaned {
            self.orphan(node, number);
        }
        for number in news.unlisted {
            if let Some((group, _)) = self.touch(number) {
                group.uncover(node);
            }
        }
        for (number, position) in news.listed {
            let covered = self.touch(number).is_some_and(|(group, rim)| {
                let leader = Some(group.leader());
                let leader = leader.filter(|it| rim.transport.node_of(*it) == Some(node));
                group.cover(node, position, leader)
            });
            if !covered {
                self.pulses.refuse(node, number);
            }
        }
        for number in news.refused {
            if let Some((group, _)) = self.touch(number) {
                group.be_refused();
            }
        }
        if news.came {
            self.come(node);
        }
        if news.agreed {
            self.agree();
        }
    }

    /// A node came, or came back: groups that rest without it have something to tell it, and those
    /// that rest with it may find that it is another than before.
    fn come(&mut self, node: u64) {
        let transport = &self.rim.transport;
        for (number, group) in &mut self.groups {
            if group.rests_beside(|replica| transport.node_of(replica) == Some(node)) {
                group.wake();
                self.touched.push(*number);
            }
        }
    }

    fn agree(&mut self) {
        let offered = std::mem::take(&mut self.offered);
        for number in offered {
            let Some(group) = self.groups.get_mut(&number).filter(|group| group.is_offered())
            else {
                continue;
            };
            if self.pulses.is_agreed(number) {
                group.agree_to_rest();
                self.touched.push(number);
            } else {
                self.offered.insert(number);
            }
        }
    }

    /// Offers a group to the nodes of its followers.
    pub(super) fn offer(&mut self, number: u64) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        let (pulses, transport) = (&mut self.pulses, &self.rim.transport);
        let nodes = group.others().into_iter().map(|replica| transport.node_of(replica));
        // Whoever is on a node that is not known could not wake the group when that comes.
        let Some(nodes) = nodes.collect::<Option<BTreeSet<u64>>>() else { return };
        let in_contact =
            |replica| transport.node_of(replica).is_some_and(|node| pulses.is_in_contact(node));
        let Some(position) = group.offer_rest(in_contact) else { return };
        self.offered.insert(number);
        for node in nodes {
            if self.pulses.is_in_contact(node) && !self.pulses.list(node, number, position) {
                group.be_refused();
                return;
            }
        }
        if self.pulses.is_agreed(number) {
            group.agree_to_rest();
        }
    }

    /// After a group was pumped: tells the others if its rest ended, and has it ticked if it wants
    /// that.
    pub(super) fn keep_time(&mut self, number: u64) {
        let Some(group) = self.groups.get_mut(&number) else { return };
        match group.take_woke() {
            Some(Woke::Leader) => self.pulses.unlist(number),
            Some(Woke::Follower(node)) => self.pulses.refuse(node, number),
            None => {}
        }
        if group.wants_ticks() {
            self.ticking.insert(number);
        } else {
            self.ticking.remove(&number);
        }
    }

    /// A group is gone, or is another than before.
    pub(super) fn forget_rest(&mut self, number: u64) {
        self.pulses.unlist(number);
        self.pulses.refuse_all(number);
        self.ticking.remove(&number);
        self.offered.remove(&number);
    }

    /// Looks who has gone silent.
    pub(super) fn look_for_silence(&mut self) {
        let lost = self.pulses.lost(self.clock.elapsed_ms());
        for lost in lost {
            self.lose(lost);
        }
    }

    fn lose(&mut self, lost: Lost) {
        for number in lost.covered {
            self.orphan(lost.node, number);
        }
        for number in lost.listed {
            let (pulses, transport) = (&self.pulses, &self.rim.transport);
            let in_contact =
                |replica| transport.node_of(replica).is_some_and(|node| pulses.is_in_contact(node));
            if let Some(group) = self.groups.get_mut(&number) {
                group.lose_contact(in_contact);
                self.touched.push(number);
            }
        }
    }

    fn orphan(&mut self, node: u64, number: u64) {
        if let Some((group, rim)) = self.touch(number) {
            group.orphan(node, &mut rim.random);
        }
    }

    /// Says how things are, if it is time.
    pub(super) fn send_pulses(&mut self) {
        let now_ms = self.clock.elapsed_ms();
        if self.rim.members_changed {
            self.pulses.look_again(now_ms);
        }
        // Not in each turn: many groups may change in as many turns.
        if self.pulses.is_due(now_ms) && std::mem::take(&mut self.rim.members_changed) {
            self.look_for_peers(now_ms);
        }
        for (node, pulse) in self.pulses.due(now_ms) {
            self.rim.transport.pulse(node, pulse);
        }
    }

    fn look_for_peers(&mut self, now_ms: u64) {
        let mut nodes = BTreeSet::new();
        let mut unknown = false;
        for replica in self.groups.values().flat_map(Group::others) {
            match self.rim.transport.node_of(replica) {
                Some(node) => drop(nodes.insert(node)),
                None => unknown = true,
            }
        }
        for lost in self.pulses.set_peers(&nodes, now_ms) {
            self.lose(lost);
        }
        if unknown {
            // Where a replica is may be learnt later.
            self.rim.members_changed = true;
            self.pulses.look_again(now_ms);
        }
    }
}
