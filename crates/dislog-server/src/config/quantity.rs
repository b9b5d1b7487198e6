//! Sizes and durations as people write them: `64MiB`, `7d`, or a plain number of bytes or
//! milliseconds.

const SIZES: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

const DURATIONS: &[(&str, u64)] =
    &[("ms", 1), ("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];

/// The bytes that `text` says.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    parse(text, SIZES).ok_or_else(|| "give bytes, such as 67108864, 64MiB or 64MB".to_owned())
}

/// The milliseconds that `text` says.
pub(crate) fn parse_ms(text: &str) -> Result<u64, String> {
    parse(text, DURATIONS).ok_or_else(|| {
        "give milliseconds, such as 1500, or a duration: 500ms, 30s, 12h, 7d".to_owned()
    })
}

/// Bytes in the largest unit that keeps them whole.
pub(crate) fn show_bytes(bytes: u64) -> String {
    show(bytes, &SIZES[..3])
}

/// Milliseconds in the largest unit that keeps them whole.
pub(crate) fn show_ms(ms: u64) -> String {
    show(ms, &DURATIONS[1..])
}

fn parse(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits_end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, unit) = text.split_at(digits_end);
    let factor = match unit.trim() {
        "" => 1,
        unit => units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?.1,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn show(quantity: u64, units: &[(&str, u64)]) -> String {
    let whole = |(_, factor): &&(&str, u64)| quantity > 0 && quantity.is_multiple_of(*factor);
    match units.iter().find(whole) {
        Some((unit, factor)) => format!("{}{unit}", quantity / factor),
        None => quantity.to_string(),
    }
}
