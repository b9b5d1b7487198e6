//! What happened, as lines or as one number.

/// See the module.
#[derive(Debug)]
pub(crate) struct Trace {
    prints: bool,
    /// FNV-1a (Fowler, Noll, Vo) of all lines.
    pub(crate) digest: u64,
    pub(crate) lines: u64,
}

impl Trace {
    pub(crate) fn new(prints: bool) -> Trace {
        Trace { prints, digest: 0xcbf2_9ce4_8422_2325, lines: 0 }
    }

    #[expect(clippy::print_stdout, reason = "it is what was asked for")]
    pub(crate) fn line(&mut self, now_ms: u64, line: &str) {
        for byte in now_ms.to_le_bytes().iter().chain(line.as_bytes()) {
            self.digest = (self.digest ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
        self.lines += 1;
        if self.prints {
            println!("{now_ms:>7} {line}");
        }
    }
}
