//! Sizes: files, functions, lines, and the crate of words.

use std::ops::Range;

use crate::finding::Finding;
use crate::source::Source;

/// A file is read in one sitting.
const FILE_LINES_MAX: usize = 800;
/// A function is seen on one screen.
const FUNCTION_LINES_MAX: usize = 70;
/// What `rustfmt.toml` says for code holds for comments too.
const LINE_COLUMNS_MAX: usize = 100;
/// `dislog-types` is what everyone depends on, so it stays small.
const TYPES_LINES_MAX: usize = 1_500;
const TYPES_DIRECTORY: &str = "crates/dislog-types/src";

/// Files written in these have their lines measured; prose and manifests wrap as they like.
const MEASURED: [&str; 4] = ["rs", "proto", "py", "sh"];

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let code = || sources.iter().filter(|source| is_measured(source));
    let mut findings: Vec<Finding> = code().filter_map(long_file).collect();
    findings.extend(code().flat_map(long_lines));
    findings.extend(sources.iter().filter(|source| source.is_rust()).flat_map(long_functions));
    findings.extend(large_types(sources));
    findings
}

fn is_measured(source: &Source) -> bool {
    MEASURED.iter().any(|ending| source.has_ending(ending)) || source.path.extension().is_none()
}

fn long_file(source: &Source) -> Option<Finding> {
    let lines = source.text.lines().count();
    (lines > FILE_LINES_MAX).then(|| {
        let message = format!("{lines} lines, at most {FILE_LINES_MAX}: split it by a noun");
        Finding::new(&source.path, lines, message)
    })
}

fn long_lines(source: &Source) -> impl Iterator<Item = Finding> {
    let tables = tables(&source.code);
    source.text.lines().enumerate().filter_map(move |(at, line)| {
        let columns = line.chars().count();
        let in_table = tables.iter().any(|lines| lines.contains(&at));
        (columns > LINE_COLUMNS_MAX && !in_table).then(|| {
            let message = format!("{columns} columns, at most {LINE_COLUMNS_MAX}: wrap it");
            Finding::new(&source.path, at + 1, message)
        })
    })
}

/// The lines, from 0, of items that rustfmt is told to leave alone: tables with a row to a line.
fn tables(code: &str) -> Vec<Range<usize>> {
    let mark = "#[rustfmt::skip]";
    code.match_indices(mark)
        .filter_map(|(at, _)| {
            let first = code[..at].matches('\n').count();
            let end = body_end(&code[at + mark.len()..])?;
            let lines = code[at..at + mark.len() + end].matches('\n').count();
            Some(first..first + lines + 1)
        })
        .collect()
}

fn large_types(sources: &[Source]) -> Option<Finding> {
    let files = sources.iter().filter(|s| s.is_rust() && s.path.starts_with(TYPES_DIRECTORY));
    let lines: usize = files.map(|source| source.text.lines().count()).sum();
    let path = std::path::Path::new(TYPES_DIRECTORY).join("lib.rs");
    (lines > TYPES_LINES_MAX).then(|| {
        let message = format!(
            "dislog-types has {lines} lines, at most {TYPES_LINES_MAX}: move some of it out"
        );
        Finding::new(&path, 1, message)
    })
}

fn long_functions(source: &Source) -> Vec<Finding> {
    functions(&source.code)
        .filter(|function| function.lines > FUNCTION_LINES_MAX)
        .map(|Function { name, line, lines }| {
            let message = format!(
                "fn {name} has {lines} lines, at most {FUNCTION_LINES_MAX}: give a part a name"
            );
            Finding::new(&source.path, line, message)
        })
        .collect()
}

struct Function<'a> {
    name: &'a str,
    line: usize,
    lines: usize,
}

/// The functions with a body, nested ones too.
fn functions(code: &str) -> impl Iterator<Item = Function<'_>> {
    code.match_indices("fn ").filter_map(move |(at, _)| {
        let before = code[..at].chars().next_back();
        let starts_word = before.is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let rest = &code[at + 3..];
        let name = rest.split(|c: char| !c.is_alphanumeric() && c != '_').next()?;
        if !starts_word || name.is_empty() {
            return None;
        }
        let end = body_end(rest)?;
        let line = code[..at].matches('\n').count() + 1;
        Some(Function { name, line, lines: rest[..end].matches('\n').count() + 1 })
    })
}

/// Where the body of the item that `rest` goes on with ends; `None` for a declaration.
fn body_end(rest: &str) -> Option<usize> {
    let (mut depth, mut brackets) = (0_usize, 0_usize);
    for (at, byte) in rest.bytes().enumerate() {
        match byte {
            // A `;` in `[u8; 4]` or in a default argument of a const generic ends nothing.
            b'(' | b'[' if depth == 0 => brackets += 1,
            b')' | b']' if depth == 0 => brackets = brackets.saturating_sub(1),
            b';' if depth == 0 && brackets == 0 => return None,
            b'{' => depth += 1,
            b'}' if depth <= 1 => return Some(at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(path: &str, text: String) -> Vec<String> {
        check(&[Source::new(path, text)]).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_long_file_is_found() {
        assert!(messages("src/a.rs", "\n".repeat(800)).is_empty());
        let found = messages("src/a.rs", "\n".repeat(801));
        assert_eq!(found, ["src/a.rs:801: 801 lines, at most 800: split it by a noun"]);
    }

    #[test]
    fn a_long_line_is_found_and_counted_in_characters() {
        assert!(messages("a.rs", format!("// {}", "ä".repeat(97))).is_empty());
        let found = messages("a.rs", format!("\n// {}", "x".repeat(98)));
        assert_eq!(found, ["a.rs:2: 101 columns, at most 100: wrap it"]);
        assert!(messages("a.md", "x".repeat(200)).is_empty());
    }

    #[test]
    fn a_table_may_have_long_lines() {
        let row = "x".repeat(101);
        let text = |mark: &str| format!("{mark}\nmod table {{\n{row}\n}}\n");
        assert!(messages("a.rs", text("#[rustfmt::skip]")).is_empty());
        assert_eq!(messages("a.rs", text("")).len(), 1);
        let after = format!("{}{row}\n", text("#[rustfmt::skip]"));
        assert_eq!(messages("a.rs", after), ["a.rs:5: 101 columns, at most 100: wrap it"]);
    }

    #[test]
    fn a_long_function_is_found() {
        let body = |lines: usize| format!("\n\nfn f(x: [u8; 4]) {{{}}}\n", "\n".repeat(lines));
        assert!(messages("a.rs", body(69)).is_empty());
        let found = messages("a.rs", body(70));
        assert_eq!(found, ["a.rs:3: fn f has 71 lines, at most 70: give a part a name"]);
    }

    #[test]
    fn braces_in_text_and_declarations_are_not_bodies() {
        let text = format!("trait T {{ fn a(); }}\nfn b() {{ x(\"{{\") }}\n{}", "\n".repeat(90));
        assert!(messages("a.rs", text).is_empty());
    }

    #[test]
    fn a_large_crate_of_words_is_found() {
        let half = |name: &str| Source::new(format!("{TYPES_DIRECTORY}/{name}"), "\n".repeat(751));
        let found = check(&[half("a.rs"), half("b.rs")]);
        assert_eq!(found.len(), 1);
        assert!(found[0].message.contains("1502 lines"), "{}", found[0]);
    }
}
