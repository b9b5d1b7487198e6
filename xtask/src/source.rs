//! The text files of the repository, and telling code from comments and strings in the Rust ones.
//!
//! Left out: parsing. The checks need lines and braces, so a lexer that knows comments, strings and
//! characters is enough, and it takes no dependency.

use std::fs;
use std::path::{Path, PathBuf};

/// Directories that hold nothing written by hand.
const SKIPPED: [&str; 9] = [
    ".git",
    "target",
    "corpus",
    "artifacts",
    "coverage",
    "__pycache__",
    "node_modules",
    "generated",
    "vendor",
];

/// The endings of the files that are checked.
const TEXT: [&str; 10] = ["rs", "toml", "md", "proto", "py", "sh", "yml", "yaml", "json", "txt"];

/// One text file.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    /// Relative to the repository.
    pub(crate) path: PathBuf,
    /// As it is.
    pub(crate) text: String,
    /// Rust only: the text with comments and the contents of literals blanked out.
    pub(crate) code: String,
    /// Rust only: the text with everything but comments blanked out.
    pub(crate) comments: String,
}

impl Source {
    pub(crate) fn new(path: impl Into<PathBuf>, text: impl Into<String>) -> Source {
        let (path, text) = (path.into(), text.into());
        let (code, comments) = match path.extension() {
            Some(ending) if ending == "rs" => split(&text),
            _ => (String::new(), String::new()),
        };
        Source { path, text, code, comments }
    }

    pub(crate) fn is_rust(&self) -> bool {
        self.has_ending("rs")
    }

    pub(crate) fn has_ending(&self, ending: &str) -> bool {
        self.path.extension().is_some_and(|found| found == ending)
    }
}

/// Every text file under `root`, sorted by path.
pub(crate) fn read_all(root: &Path) -> Result<Vec<Source>, String> {
    let mut paths = Vec::new();
    collect(root, &mut paths).map_err(|error| format!("{}: {error}", root.display()))?;
    paths.sort();
    paths.iter().map(|path| read(root, path)).collect()
}

fn read(root: &Path, path: &Path) -> Result<Source, String> {
    let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(Source::new(path.strip_prefix(root).unwrap_or(path), text))
}

fn collect(directory: &Path, paths: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            if !SKIPPED.contains(&name.as_ref()) {
                collect(&path, paths)?;
            }
        } else if is_text(&path) || is_script(&path) {
            paths.push(path);
        }
    }
    Ok(())
}

fn is_text(path: &Path) -> bool {
    path.extension().is_some_and(|ending| TEXT.iter().any(|text| ending == *text))
}

/// A program without an ending that says which shell runs it.
fn is_script(path: &Path) -> bool {
    path.extension().is_none() && fs::read(path).is_ok_and(|bytes| bytes.starts_with(b"#!"))
}

/// What a piece of Rust text is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Code,
    Comment,
    Literal,
}

/// Rust text twice: with only the code left, and with only the comments left. Line ends stay in
/// both.
fn split(text: &str) -> (String, String) {
    let bytes = text.as_bytes();
    let mut pieces = vec![Piece::Code; bytes.len()];
    let mut at = 0;
    while at < bytes.len() {
        let (len, piece) = piece_at(&bytes[at..], at.checked_sub(1).map(|before| bytes[before]));
        pieces[at..at + len].fill(piece);
        at += len;
    }
    let keep = |kept: Piece| {
        let chosen = |(at, byte): (usize, &u8)| {
            if *byte == b'\n' || (pieces[at] == kept && byte.is_ascii()) { *byte } else { b' ' }
        };
        let masked: Vec<u8> = bytes.iter().enumerate().map(chosen).collect();
        String::from_utf8(masked).expect("only ASCII is left")
    };
    (keep(Piece::Code), keep(Piece::Comment))
}

/// The length of what begins here, and what it is.
fn piece_at(rest: &[u8], before: Option<u8>) -> (usize, Piece) {
    if rest.starts_with(b"//") {
        return (line_bytes(rest), Piece::Comment);
    }
    if rest.starts_with(b"/*") {
        return (block_comment_bytes(rest), Piece::Comment);
    }
    if rest[0] == b'"' {
        return (string_bytes(rest), Piece::Literal);
    }
    let in_word = before.is_some_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if let Some(len) = raw_string_bytes(rest).filter(|_| !in_word) {
        return (len, Piece::Literal);
    }
    if rest[0] == b'\'' {
        return character_bytes(rest).map_or((1, Piece::Code), |len| (len, Piece::Literal));
    }
    (1, Piece::Code)
}

fn line_bytes(rest: &[u8]) -> usize {
    rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len())
}

fn block_comment_bytes(rest: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 0_usize);
    while at < rest.len() {
        if rest[at..].starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with(b"*/") {
            depth -= 1;
            at += 2;
        } else {
            at += 1;
        }
        if depth == 0 {
            break;
        }
    }
    at.min(rest.len())
}

fn string_bytes(rest: &[u8]) -> usize {
    let mut at = 1;
    while at < rest.len() {
        match rest[at] {
            b'\\' => at += 2,
            b'"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

/// `r"…"`, `r#"…"#` and the like with `b` or `c` before it.
fn raw_string_bytes(rest: &[u8]) -> Option<usize> {
    let start = usize::from(matches!(rest[0], b'b' | b'c'));
    let after_r = rest.get(start).filter(|&&byte| byte == b'r').map(|_| start + 1)?;
    let hashes = rest[after_r..].iter().take_while(|&&byte| byte == b'#').count();
    let open = after_r + hashes;
    rest.get(open).filter(|&&byte| byte == b'"')?;
    let mut close = vec![b'"'];
    close.resize(1 + hashes, b'#');
    let body = &rest[open + 1..];
    let len = body.windows(close.len()).position(|window| window == close);
    Some(len.map_or(rest.len(), |len| open + 1 + len + close.len()))
}

/// A character literal; `None` for a lifetime.
fn character_bytes(rest: &[u8]) -> Option<usize> {
    if rest.get(1) == Some(&b'\\') {
        let close = rest.iter().skip(3).position(|&byte| byte == b'\'')?;
        return Some(close + 4);
    }
    let text = std::str::from_utf8(&rest[1..rest.len().min(6)]);
    let character = match text {
        Ok(text) => text.chars().next()?,
        Err(error) => {
            let valid = std::str::from_utf8(&rest[1..1 + error.valid_up_to()]).ok()?;
            valid.chars().next()?
        }
    };
    let close = 1 + character.len_utf8();
    (rest.get(close) == Some(&b'\'')).then_some(close + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_told_from_code() {
        let text =
            "let a = \"x // {\"; // note {\nlet b = '{'; /* in /* nested */ } */ f::<'a>(b'\\'');";
        let source = Source::new("a.rs", text);
        assert!(!source.code.contains(['{', '}']), "{}", source.code);
        assert!(source.comments.contains("note {"));
        assert!(source.comments.contains("nested"));
        assert!(source.code.contains("f::<'a>("));
        assert_eq!(source.code.lines().count(), 2);
    }

    #[test]
    fn raw_strings_end_where_they_end() {
        let source = Source::new("a.rs", "x(r#\"a \" { \"#, br\"{\", 'ä', '\\u{7b}'); y()");
        assert!(!source.code.contains('{'), "{}", source.code);
        assert!(source.code.ends_with("y()"));
    }

    #[test]
    fn unfinished_text_does_not_panic() {
        for text in ["\"", "'", "'\\", "/*", "r#\"", "br", "b'", "'ä", "\"\\"] {
            Source::new("a.rs", text);
        }
    }
}
