//! Names of topics and partitions.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::limits::TOPIC_NAME_LEN_MAX;

/// A valid topic name: 1 to 200 of `A-Z a-z 0-9 . _ -`, not `.` or `..`, and not starting with
/// `__`, which is kept for the system. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

/// Why a string is not a topic name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing was given.
    #[error("a topic name must have at least one character")]
    Empty,
    /// More characters than fit.
    #[error("a topic name has at most {TOPIC_NAME_LEN_MAX} characters, this one has {0}")]
    TooLong(usize),
    /// A character that is not allowed.
    #[error("topic name {name:?} has {found:?}; letters, digits, '.', '_' and '-' are allowed")]
    Character {
        /// The name as given.
        name: String,
        /// The first character that is not allowed.
        found: char,
    },
    /// A name with a meaning of its own.
    #[error("topic name {0:?} is reserved: choose one other than '.', '..' and '__…'")]
    Reserved(String),
}

impl TopicName {
    /// The topic of a request that names none.
    #[must_use]
    pub fn default_topic() -> TopicName {
        TopicName(Arc::from("default"))
    }

    /// A topic of the system itself, such as the metadata log: `__` and `suffix`, which no user can
    /// name.
    ///
    /// # Panics
    /// If the suffix makes no valid name; it is a constant of the program.
    #[must_use]
    pub fn system(suffix: &'static str) -> TopicName {
        check_characters(suffix).expect("a system name is a valid constant");
        TopicName(format!("__{suffix}").into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn check_characters(name: &str) -> Result<(), NameError> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    match name.chars().find(|&c| !allowed(c)) {
        Some(found) => Err(NameError::Character { name: name.chars().take(80).collect(), found }),
        None => Ok(()),
    }
}

impl FromStr for TopicName {
    type Err = NameError;

    fn from_str(name: &str) -> Result<TopicName, NameError> {
        if name.is_empty() {
            return Err(NameError::Empty);
        }
        if name.len() > TOPIC_NAME_LEN_MAX {
            return Err(NameError::TooLong(name.chars().count()));
        }
        check_characters(name)?;
        if name == "." || name == ".." || name.starts_with("__") {
            return Err(NameError::Reserved(name.to_owned()));
        }
        Ok(TopicName(name.into()))
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One partition of a topic: one log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PartitionId {
    /// The topic.
    pub topic: TopicName,
    /// Which of its partitions, from 0.
    pub partition: u32,
}

impl fmt::Display for PartitionId {
    /// `topic-partition`, also the name of the partition's directory.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked() {
        for good in ["a", "orders.eu_west-1", "...", "_x", &"n".repeat(200)] {
            assert_eq!(good.parse::<TopicName>().unwrap().as_str(), good);
        }
        for bad in ["", ".", "..", "__meta", "a/b", "a b", "ä", "a\0", &"n".repeat(201)] {
            assert!(bad.parse::<TopicName>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn system_names_are_out_of_reach() {
        let name = TopicName::system("metadata");
        assert_eq!(name.as_str(), "__metadata");
        assert!(name.as_str().parse::<TopicName>().is_err());
    }
}
