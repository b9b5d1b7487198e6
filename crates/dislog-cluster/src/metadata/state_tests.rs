//! The state of the metadata: the order of the log decides.

use super::*;
use crate::metadata::command::Command;

const SETTINGS: TopicSettings =
    TopicSettings { retention_bytes: 0, retention_ms: 0, segment_bytes: 1 << 20 };

fn name(topic: &str) -> TopicName {
    topic.parse().unwrap()
}

fn change(command: Command) -> Change {
    command.change.unwrap()
}

fn create(state: &mut State, offset: u64, topic: &str) -> Result<Topic, TopicError> {
    state.apply(offset, 77, change(Command::create(&name(topic), 2, SETTINGS)))
}

#[test]
fn the_first_to_create_a_topic_wins() {
    let mut state = State::default();
    let topic = create(&mut state, 0, "a").unwrap();
    assert_eq!((topic.partitions, topic.created_ms, topic.settings), (2, 77, SETTINGS));
    assert_eq!(create(&mut state, 1, "a"), Err(TopicError::Exists(name("a"))));
    assert_eq!(state.topic(&name("a")).unwrap().topic_id, 0);
    assert_eq!(state.applied_offset(), 2);
}

#[test]
fn a_change_is_of_the_topic_that_was_meant() {
    let mut state = State::default();
    create(&mut state, 0, "a").unwrap();
    let delete = change(Command::delete(0, &name("a")));
    state.apply(1, 0, delete.clone()).unwrap();
    assert!(state.was_deleted(0));
    create(&mut state, 2, "a").unwrap();
    // Whoever meant the first topic must not hit the second.
    assert_eq!(state.apply(3, 0, delete), Err(TopicError::NotFound(name("a"))));
    let keep = TopicChange { retention_ms: Some(9), ..TopicChange::default() };
    let alter = |topic_id| change(Command::alter(topic_id, &name("a"), keep));
    assert_eq!(state.apply(4, 0, alter(0)), Err(TopicError::NotFound(name("a"))));
    let altered = state.apply(5, 0, alter(2)).unwrap();
    assert_eq!(altered.settings, TopicSettings { retention_ms: 9, ..SETTINGS });
    assert!(!state.was_deleted(2));
}

#[test]
fn a_command_that_cannot_be_changes_nothing() {
    let mut state = State::default();
    let before = state.clone();
    for bad in [
        CreateTopic { name: "a/b".to_owned(), partitions: 1, ..CreateTopic::default() },
        CreateTopic { name: "a".to_owned(), partitions: 0, ..CreateTopic::default() },
        CreateTopic { name: "a".to_owned(), partitions: 1, ..CreateTopic::default() },
    ] {
        assert!(matches!(state.apply(0, 0, Change::Create(bad)), Err(TopicError::Invalid(_))));
        assert_eq!(State { applied_offset: 0, ..state }, before);
        state = before.clone();
    }
}
