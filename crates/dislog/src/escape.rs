//! Escapes in arguments, for bytes that are hard to type: `\n`, `\r`, `\t`, `\0`, `\\` and `\xHH`.

/// The bytes that `text` stands for.
///
/// # Errors
/// If an escape is unknown or incomplete; the message names it.
pub(crate) fn unescape(text: &str) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let (byte, len) = escape(&rest[at..])?;
        bytes.push(byte);
        rest = &rest[at + len..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    Ok(bytes)
}

/// The byte that the escape at the start of `text` stands for, and the escape's length.
fn escape(text: &str) -> Result<(u8, usize), String> {
    let byte = match text.as_bytes().get(1) {
        Some(b'n') => b'\n',
        Some(b'r') => b'\r',
        Some(b't') => b'\t',
        Some(b'0') => 0,
        Some(b'\\') => b'\\',
        Some(b'x') => {
            let digits = text.get(2..4).filter(|d| d.bytes().all(|b| b.is_ascii_hexdigit()));
            let byte = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok());
            return byte
                .map(|byte| (byte, 4))
                .ok_or_else(|| r"\x needs two hexadecimal digits, as in \x1f".to_owned());
        }
        _ => {
            let found: String = text.chars().take(2).collect();
            return Err(format!(r"unknown escape {found}; there are \n \r \t \0 \\ and \xHH"));
        }
    };
    Ok((byte, 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_stand_for_bytes() {
        assert_eq!(unescape(r"a\n\r\t\0\\\x1fé").unwrap(), b"a\n\r\t\0\\\x1f\xc3\xa9");
        assert_eq!(unescape("").unwrap(), b"");
        assert_eq!(unescape(r"\x00\xff").unwrap(), [0, 255]);
    }

    #[test]
    fn a_wrong_escape_is_named() {
        for wrong in ["\\", r"a\", r"\q", r"\x", r"\x1", r"\xg0", r"\x+1", r"\xé", r"\é"] {
            assert!(unescape(wrong).is_err(), "{wrong}");
        }
        assert!(unescape(r"ab\q").unwrap_err().contains(r"\q"));
    }
}
