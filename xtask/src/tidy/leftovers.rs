//! Leftovers of work in progress, and `unsafe` outside of the one place that may have it.

use std::path::Path;

use crate::finding::Finding;
use crate::source::Source;

/// Macros that must not be left in code.
const MACROS: [&str; 3] = ["todo!", "dbg!", "unimplemented!"];
/// Notes to oneself that must not be left in comments, as whole words.
const NOTES: [&str; 3] = ["TODO", "FIXME", "XXX"];
/// Mapping a file into memory is the one thing that cannot be done safely.
const UNSAFE_DIRECTORY: &str = "crates/dislog-log/src/fs";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    sources.iter().flat_map(check_file).chain(unsafe_files(sources)).collect()
}

fn check_file(source: &Source) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (at, line) in source.code.lines().enumerate() {
        for name in MACROS.iter().filter(|name| line.contains(*name)) {
            let message = format!("{name} is left: write what belongs there");
            findings.push(Finding::new(&source.path, at + 1, message));
        }
    }
    let notes = if source.is_rust() { &source.comments } else { &source.text };
    for (at, line) in notes.lines().enumerate() {
        for word in NOTES.iter().filter(|word| has_word(line, word)) {
            let message = format!("{word} is left: do it, or file an issue and remove the note");
            findings.push(Finding::new(&source.path, at + 1, message));
        }
    }
    findings
}

/// `unsafe` outside its directory, and in more than one file of it.
fn unsafe_files(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut allowed: Option<&Path> = None;
    for source in sources {
        let Some(at) = source.code.lines().position(|line| has_word(line, "unsafe")) else {
            continue;
        };
        let message = match allowed {
            _ if !source.path.starts_with(UNSAFE_DIRECTORY) => {
                format!("unsafe: only the file in {UNSAFE_DIRECTORY} that maps memory may have it")
            }
            Some(other) => format!("unsafe: {} has it already, keep it in one", other.display()),
            None => {
                allowed = Some(&source.path);
                continue;
            }
        };
        findings.push(Finding::new(&source.path, at + 1, message));
    }
    findings
}

fn has_word(line: &str, word: &str) -> bool {
    let part_of_word = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        !line[..at].ends_with(part_of_word) && !line[at + word.len()..].starts_with(part_of_word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(&[Source::new(path, text)]).iter().map(|finding| finding.line).collect()
    }

    #[test]
    fn macros_are_found_in_code_only() {
        assert_eq!(lines("a.rs", "f();\ntodo!();\ndbg!(x);\nunimplemented!()\n"), [2, 3, 4]);
        assert!(lines("a.rs", "// todo!\nf(\"dbg!\");\n").is_empty());
    }

    #[test]
    fn notes_are_found_in_comments_and_in_other_files() {
        assert_eq!(lines("a.rs", "f(); // TODO: this\n/* FIXME */\n"), [1, 2]);
        assert!(lines("a.rs", "let TODO = \"FIXME\"; // TODOS\n").is_empty());
        assert_eq!(lines("a.sh", "x\n# XXX\n"), [2]);
    }

    #[test]
    fn unsafe_is_found_outside_of_one_file() {
        let block = "fn f() { unsafe { g() } }\n";
        assert_eq!(lines("crates/dislog-log/src/log.rs", block), [1]);
        assert!(lines("crates/dislog-log/src/fs/mapping.rs", block).is_empty());
        assert!(lines("a.rs", "#![forbid(unsafe_code)]\n// unsafe\n").is_empty());
        let two =
            ["a.rs", "b.rs"].map(|name| Source::new(format!("{UNSAFE_DIRECTORY}/{name}"), block));
        assert_eq!(check(&two).len(), 1);
    }
}
