//! The house rules that no compiler knows, one file per kind of rule.
//!
//! Each rule is a pure function from the repository's files to findings, so that its tests can
//! break it in memory.

mod layers;
mod leftovers;
mod names;
mod size;
mod whitespace;

use std::path::Path;

use crate::finding::Finding;
use crate::source::{self, Source};

type Rule = fn(&[Source]) -> Vec<Finding>;

const RULES: [Rule; 5] =
    [size::check, whitespace::check, names::check, leftovers::check, layers::check];

/// Everything to put right in the repository at `root`.
pub(crate) fn check(root: &Path) -> Result<Vec<Finding>, String> {
    let sources = source::read_all(root)?;
    let mut findings: Vec<Finding> = RULES.iter().flat_map(|rule| rule(&sources)).collect();
    findings.sort_by(|a, b| (&a.path, a.line).cmp(&(&b.path, b.line)));
    Ok(findings)
}
