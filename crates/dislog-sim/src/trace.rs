//! What happened, as lines or as one number.

/// FNV-1a (Fowler, Noll, Vo), its beginning and its factor.
const BEGINNING: u64 = 0xcbf2_9ce4_8422_2325;
const FACTOR: u64 = 0x0100_0000_01b3;

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    prints: bool,
    /// After FNV-1a, of words in place of bytes: everything that happened, in its order.
    pub(crate) digest: u64,
}

impl Trace {
    pub(crate) fn new(prints: bool) -> Trace {
        Trace { prints, digest: BEGINNING }
    }

    /// Something rare happened.
    pub(crate) fn line(&mut self, now_ms: u64, line: &str) {
        self.words(now_ms, &[digest(line.as_bytes())], || line.to_owned());
    }

    /// Something happened that these numbers tell; how it reads matters only if it is printed.
    #[expect(clippy::print_stdout, reason = "it is what was asked for")]
    pub(crate) fn words(&mut self, now_ms: u64, words: &[u64], line: impl FnOnce() -> String) {
        for word in [now_ms].iter().chain(words) {
            self.digest = (self.digest ^ word).wrapping_mul(FACTOR).rotate_left(23);
        }
        if self.prints {
            println!("{now_ms:>7} {}", line());
        }
    }
}

/// A number that stands for some bytes.
pub(crate) fn digest(bytes: &[u8]) -> u64 {
    u64::from(dislog_types::checksum::crc32c(bytes))
}
