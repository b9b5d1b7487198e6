//! What a request says in its path and query. Every refusal names the input.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path, Query};
use http::request::Parts;
use serde::Deserialize;

use crate::node::Node;
use crate::status::Failure;

/// The variables of a path.
#[derive(Deserialize)]
pub(super) struct Names {
    /// `{topic}`
    #[serde(default)]
    pub(super) topic: String,
    /// `{offset}`
    #[serde(default)]
    offset: String,
}

impl FromRequestParts<Node> for Names {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, node: &Node) -> Result<Names, Failure> {
        match Path::<Names>::from_request_parts(parts, node).await {
            Ok(Path(names)) => Ok(names),
            Err(rejection) => Err(Failure::invalid(format!("the path is not valid: {rejection}"))),
        }
    }
}

impl Names {
    pub(super) fn offset(&self) -> Result<u64, Failure> {
        whole("the offset in the path", &self.offset, 0, u64::MAX)
    }
}

/// The parameters of a query.
pub(super) struct Params(Vec<(String, String)>);

impl FromRequestParts<Node> for Params {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Node) -> Result<Params, Failure> {
        match Query::<Vec<(String, String)>>::try_from_uri(&parts.uri) {
            Ok(Query(pairs)) => Ok(Params(pairs)),
            Err(rejection) => Err(Failure::invalid(format!("the query is not valid: {rejection}"))),
        }
    }
}

impl Params {
    /// Refuses parameters that this path does not have, or that are given twice.
    pub(super) fn only(&self, known: &[&str]) -> Result<(), Failure> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = known.join(", ");
                let message =
                    format!("query parameter {name:?} is not known here: there are {known}");
                return Err(Failure::invalid(message));
            }
            if self.0[..index].iter().any(|(earlier, _)| earlier == name) {
                return Err(Failure::invalid(format!("query parameter {name} is given twice")));
            }
        }
        Ok(())
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn number<T>(&self, name: &str, least: T, most: T) -> Result<Option<T>, Failure>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        let Some(text) = self.text(name) else { return Ok(None) };
        whole(&format!("query parameter {name}"), text, least, most).map(Some)
    }

    pub(super) fn flag(&self, name: &str) -> Result<bool, Failure> {
        match self.text(name) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => {
                let message = format!("query parameter {name} is {other:?}: give true or false");
                Err(Failure::invalid(message))
            }
        }
    }

    /// Milliseconds, or a duration such as `30s`.
    pub(super) fn duration_ms(&self, name: &str) -> Result<Option<u64>, Failure> {
        let Some(text) = self.text(name) else { return Ok(None) };
        match crate::config::parse_ms(text) {
            Ok(ms) => Ok(Some(ms)),
            Err(expected) => {
                Err(Failure::invalid(format!("query parameter {name} is {text:?}: {expected}")))
            }
        }
    }

    pub(super) fn partition(&self) -> Result<u32, Failure> {
        Ok(self.number("partition", 0, u32::MAX)?.unwrap_or(0))
    }
}

fn whole<T>(input: &str, text: &str, least: T, most: T) -> Result<T, Failure>
where
    T: FromStr + PartialOrd + Display + Copy,
{
    let number = text.parse().ok().filter(|number| *number >= least && *number <= most);
    number.ok_or_else(|| {
        let shown: String = text.chars().take(80).collect();
        Failure::invalid(format!(
            "{input} is {shown:?}: give a whole number from {least} to {most}"
        ))
    })
}
