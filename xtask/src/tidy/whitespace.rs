//! White space: none at the end of a line, no tabs, one line end at the end of a file.

use crate::finding::Finding;
use crate::source::Source;

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(check_file).collect()
}

fn check_file(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in source.text.split('\n').enumerate() {
        if line.ends_with([' ', '\t', '\r']) {
            findings.push(Finding::new(&source.path, at + 1, "trailing white space: remove it"));
        }
        if line.contains('\t') {
            findings.push(Finding::new(&source.path, at + 1, "a tab: use spaces"));
        }
    }
    let lines = source.text.lines().count();
    if !source.text.is_empty() && !source.text.ends_with('\n') {
        findings.push(Finding::new(&source.path, lines, "no line end at the end: add one"));
    }
    if source.text.ends_with("\n\n") {
        findings.push(Finding::new(&source.path, lines, "empty lines at the end: remove them"));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_found() {
        for (text, line, what) in [
            ("a\nb \n", 2, "trailing"),
            ("a\r\n", 1, "trailing"),
            ("a\tb\n", 1, "tab"),
            ("a", 1, "line end"),
            ("a\n\n", 2, "empty lines"),
        ] {
            let found = check(&[Source::new("a.md", text)]);
            assert_eq!(found.len(), 1, "{text:?}: {found:?}");
            assert_eq!(found[0].line, line, "{text:?}");
            assert!(found[0].message.contains(what), "{text:?}: {}", found[0]);
        }
        assert!(check(&[Source::new("a.md", "a\n\nb\n")]).is_empty());
    }
}
