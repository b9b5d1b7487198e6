use super::*;

const A: u64 = 1;
const B: u64 = 2;
const AT: Position = Position { term: 3, raft_index: 12 };

/// Two nodes that have heard each other.
fn two() -> (Pulses, Pulses) {
    let (mut a, mut b) = (Pulses::new(10), Pulses::new(20));
    a.set_peers(&BTreeSet::from([B]), 0);
    b.set_peers(&BTreeSet::from([A]), 0);
    for now_ms in [0, PULSE_MS] {
        exchange(&mut a, &mut b, now_ms);
    }
    assert!(a.is_in_contact(B) && b.is_in_contact(A));
    (a, b)
}

fn pulse(from: &mut Pulses, now_ms: u64) -> Pulse {
    let mut due = from.due(now_ms);
    assert_eq!(due.len(), 1);
    due.pop().unwrap().1
}

/// Both say how things are; what each learns.
fn exchange(a: &mut Pulses, b: &mut Pulses, now_ms: u64) -> (News, News) {
    let (of_a, of_b) = (pulse(a, now_ms), pulse(b, now_ms));
    (a.receive(B, &of_b, now_ms).unwrap(), b.receive(A, &of_a, now_ms).unwrap())
}

#[test]
fn a_list_is_agreed_to_once_and_not_repeated() {
    let (mut a, mut b) = two();
    assert!(a.list(B, 7, AT));
    assert!(!a.is_agreed(7));
    let (_, news) = exchange(&mut a, &mut b, 400);
    assert_eq!(news.listed, [(7, AT)]);
    let (news, _) = exchange(&mut a, &mut b, 600);
    assert!(news.agreed && news.refused.is_empty() && a.is_agreed(7));
    let of_a = pulse(&mut a, 800);
    assert_eq!(of_a.list, None);
    assert_eq!(b.receive(A, &of_a, 800), Some(News::default()));
}

#[test]
fn any_pulse_may_be_lost() {
    let (mut a, mut b) = two();
    a.list(B, 7, AT);
    let _lost = (pulse(&mut a, 400), pulse(&mut b, 400));
    let (_, news) = exchange(&mut a, &mut b, 600);
    assert_eq!(news.listed, [(7, AT)]);
    a.unlist(7);
    // It agrees to a list that is not the last.
    let (news, _) = {
        let (_lost, of_b) = (pulse(&mut a, 800), pulse(&mut b, 800));
        (a.receive(B, &of_b, 800).unwrap(), ())
    };
    assert!(news.agreed);
    let (_, news) = exchange(&mut a, &mut b, 1_000);
    assert_eq!(news.unlisted, [7]);
}

#[test]
fn what_is_refused_is_told_until_it_is_unlisted() {
    let (mut a, mut b) = two();
    a.list(B, 7, AT);
    exchange(&mut a, &mut b, 400);
    b.refuse(A, 7);
    b.refuse(A, 8);
    let (news, _) = exchange(&mut a, &mut b, 600);
    assert_eq!(news.refused, [7]);
    a.unlist(7);
    a.list(B, 7, Position { raft_index: 13, ..AT });
    // What it refuses is where the group was before.
    let of_b = pulse(&mut b, 800);
    assert_eq!(a.receive(B, &of_b, 800).unwrap().refused, [0; 0]);
    exchange(&mut a, &mut b, 1_000);
    let (news, _) = exchange(&mut a, &mut b, 1_200);
    assert!(news.refused.is_empty() && a.is_agreed(7));
}

#[test]
fn a_silent_node_is_missed_once_by_who_followed_and_who_led_it() {
    let (mut a, mut b) = two();
    a.list(B, 7, AT);
    exchange(&mut a, &mut b, 400);
    exchange(&mut a, &mut b, 600);
    assert!(b.lost(600 + SILENCE_MS - 1).is_empty());
    assert_eq!(b.lost(600 + SILENCE_MS), [Lost { node: A, covered: vec![7], listed: Vec::new() }]);
    // That it was heard shows in a pulse that was sent at 400.
    assert!(a.lost(400 + CONTACT_MS - 1).iter().all(|lost| lost.listed.is_empty()));
    assert_eq!(a.lost(400 + CONTACT_MS), [Lost { node: B, covered: vec![], listed: vec![7] }]);
    assert!(!a.is_in_contact(B));
    assert!(a.lost(5_000).is_empty() && b.lost(5_000).iter().all(|lost| lost.covered.is_empty()));
    // It is offered anew to who has forgotten it.
    let (news, _) = exchange(&mut a, &mut b, 5_000);
    assert!(!news.came, "what it heard was too long ago");
    let (news, _) = exchange(&mut a, &mut b, 5_200);
    assert!(news.came);
}

/// A group that refused to rest may have come to rest since, before the node has heard so.
#[test]
fn a_silent_node_is_missed_by_those_that_refused_it_too() {
    let (mut a, mut b) = two();
    a.list(B, 7, AT);
    exchange(&mut a, &mut b, 400);
    exchange(&mut a, &mut b, 600);
    b.refuse(A, 7);
    assert_eq!(b.lost(600 + SILENCE_MS), [Lost { node: A, covered: vec![7], listed: Vec::new() }]);
}

#[test]
fn whoever_is_heard_and_does_not_hear_is_out_of_contact() {
    let (mut a, mut b) = two();
    a.list(B, 7, AT);
    let mut missed = Vec::new();
    for now_ms in (400..3_000).step_by(200) {
        let _lost = pulse(&mut a, now_ms);
        let of_b = pulse(&mut b, now_ms);
        a.receive(B, &of_b, now_ms);
        missed.extend(a.lost(now_ms));
    }
    assert_eq!(missed, [Lost { node: B, covered: Vec::new(), listed: vec![7] }]);
}

#[test]
fn a_node_that_was_started_anew_is_another() {
    let (mut a, mut b) = two();
    b.list(A, 9, AT);
    a.list(B, 7, AT);
    exchange(&mut a, &mut b, 400);
    exchange(&mut a, &mut b, 600);
    let mut b = Pulses::new(21);
    b.set_peers(&BTreeSet::from([A]), 800);
    let (news, _) = exchange(&mut a, &mut b, 800);
    assert!(news.came);
    assert_eq!(news.orphaned, [9]);
    assert!(!a.is_in_contact(B));
    let (news, heard) = exchange(&mut a, &mut b, 1_000);
    assert!(news.came && a.is_in_contact(B));
    assert_eq!(heard.listed, [(7, AT)]);
}

#[test]
fn late_pulses_and_nonsense_change_nothing() {
    let (mut a, mut b) = two();
    a.list(B, 7, AT);
    let early = pulse(&mut a, 400);
    a.unlist(7);
    exchange(&mut a, &mut b, 600);
    assert_eq!(b.receive(A, &early, 700), None);
    assert_eq!(b.lost(600 + SILENCE_MS).len(), 0);
    assert_eq!(b.receive(A, &early, 5_000), None, "nor when nothing was heard for long");
    let long = vec![0; (LISTED_MAX + 1) * LISTED_BYTES];
    for list in [vec![0; LISTED_BYTES + 1], long] {
        let nonsense = Pulse { list: Some(list.into()), version: 99, ..pulse(&mut a, 6_000) };
        assert_eq!(b.receive(A, &nonsense, 6_000), None);
        a.look_again(0);
        a.next_ms = Some(6_000);
    }
    let refused = Bytes::from_static(b"nonsense that is not numbers");
    let odd = Pulse { refused, heard_ms: u64::MAX, held_version: u64::MAX, ..pulse(&mut b, 6_000) };
    a.receive(B, &odd, 6_000);
    assert!(a.peers[&B].agreed <= a.peers[&B].version);
}

#[test]
fn a_node_is_answered_as_long_as_it_speaks_also_by_one_that_does_not_know_it() {
    let (mut a, mut b) = (Pulses::new(10), Pulses::new(20));
    a.set_peers(&BTreeSet::from([B]), 0);
    let of_a = pulse(&mut a, 0);
    assert!(b.receive(A, &of_a, 0).is_some());
    let of_b = pulse(&mut b, 0);
    assert!(a.receive(B, &of_b, 0).unwrap().came && a.is_in_contact(B));
    for now_ms in (200..5_000).step_by(200) {
        exchange(&mut a, &mut b, now_ms);
        b.set_peers(&BTreeSet::new(), now_ms);
        assert!(a.lost(now_ms).is_empty() && b.lost(now_ms).is_empty());
        assert!(a.is_in_contact(B) && !b.is_alone());
    }
    // It is no peer of the other any more: an answer is not answered, and both fall silent.
    a.set_peers(&BTreeSet::new(), 5_000);
    let of_b = pulse(&mut b, 5_000);
    assert_eq!(a.receive(B, &of_b, 5_000), None);
    assert!(a.is_alone() && a.deadline_ms().is_none());
    b.lost(4_800 + SILENCE_MS);
    assert!(b.is_alone() && b.deadline_ms().is_none());
}

#[test]
fn two_nodes_that_only_answer_fall_silent() {
    let (mut a, mut b) = two();
    // Each takes a last pulse of the other for a guest's.
    let (of_a, of_b) = (pulse(&mut a, 400), pulse(&mut b, 400));
    for (it, other, heard) in [(&mut a, B, of_b), (&mut b, A, of_a)] {
        it.set_peers(&BTreeSet::new(), 400);
        assert!(it.receive(other, &heard, 400).is_some());
    }
    for now_ms in (400..400 + SILENCE_MS).step_by(200) {
        exchange(&mut a, &mut b, now_ms);
    }
    for it in [&mut a, &mut b] {
        it.lost(400 + SILENCE_MS);
        assert!(it.is_alone() && it.deadline_ms().is_none());
    }
}

#[test]
fn guests_are_limited() {
    let (mut a, _) = two();
    let said = |session| pulse(&mut stranger(session), 400);
    for node in 0..GUESTS_MAX as u64 {
        assert!(a.receive(100 + node, &said(node), 400).is_some());
    }
    assert_eq!(a.receive(99, &said(1), 400), None);
    a.lost(400 + SILENCE_MS);
    assert!(a.receive(99, &said(1), 400 + SILENCE_MS).is_some());
}

fn stranger(session: u64) -> Pulses {
    let mut stranger = Pulses::new(session);
    stranger.set_peers(&BTreeSet::from([A]), 400);
    stranger
}
