//! Sizes and durations as people write them.

use std::time::Duration;

use jiff::{Span, SpanRelativeTo};

/// Units of size, in lower case; those that end like another stand before it.
const SIZE_UNITS: [(&str, u64); 9] = [
    ("kib", 1 << 10),
    ("mib", 1 << 20),
    ("gib", 1 << 30),
    ("tib", 1 << 40),
    ("kb", 1_000),
    ("mb", 1_000_000),
    ("gb", 1_000_000_000),
    ("tb", 1_000_000_000_000),
    ("b", 1),
];

/// A number of bytes: `1048576`, `64KiB`, `500MB`.
///
/// # Errors
/// If it is no whole number with a known unit, or does not fit 64 bits.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let unit =
        SIZE_UNITS.iter().find_map(|(suffix, unit)| Some((lower.strip_suffix(suffix)?, *unit)));
    let (number, unit) = unit.unwrap_or((&lower, 1));
    let number: u64 = number.trim_end().parse().map_err(|_| {
        format!("{text:?} is no size: give a whole number of bytes, or 64KiB, 1GiB")
    })?;
    number.checked_mul(unit).ok_or_else(|| format!("{text:?} is too large"))
}

/// A length of time: `90s`, `1h30m`, `7d`, `2w`. Days have 24 hours.
///
/// # Errors
/// If it cannot be understood or is negative.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no length of time: write 90s, 1h30m, 7d or 2w");
    let span: Span = text.parse().map_err(|_| wrong())?;
    let signed = span.to_duration(SpanRelativeTo::days_are_24_hours()).map_err(|_| wrong())?;
    Duration::try_from(signed).map_err(|_| wrong())
}

/// A setting's duration in the largest unit that keeps it whole: `7d`, `36h`, `1500ms`.
pub(crate) fn show_whole_ms(ms: u64) -> String {
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)];
    match units.into_iter().find(|(_, unit_ms)| ms > 0 && ms.is_multiple_of(*unit_ms)) {
        Some((unit, unit_ms)) => format!("{}{unit}", ms / unit_ms),
        None => format!("{ms}ms"),
    }
}

/// A duration as short text, exact to a hundredth of its largest unit: `850 ms`, `12.3 s`, `4 m 2
/// s`.
pub(crate) fn show_duration(duration: Duration) -> String {
    match duration.as_secs() {
        0 => format!("{} ms", duration.as_millis()),
        1..60 => format!("{:.1} s", duration.as_secs_f64()),
        seconds => format!("{} m {} s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("17", 17),
            ("17b", 17),
            ("64KiB", 64 << 10),
            ("64 KiB", 64 << 10),
            ("2gib", 2 << 30),
            ("500MB", 500_000_000),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "x", "-1", "1g", "1.5GB", "1pib", "KiB", "16777216TiB"] {
            assert!(parse_bytes(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations() {
        for (text, seconds) in [("90s", 90), ("1h30m", 5400), ("7d", 604_800), ("2w", 1_209_600)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for wrong in ["", "7", "-1h", "1 fortnight", "1y"] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_are_shown_short() {
        for (ms, text) in [(604_800_000, "7d"), (129_600_000, "36h"), (1_500, "1500ms"), (0, "0ms")]
        {
            assert_eq!(show_whole_ms(ms), text);
        }
        assert_eq!(show_duration(Duration::from_millis(850)), "850 ms");
        assert_eq!(show_duration(Duration::from_millis(12_340)), "12.3 s");
        assert_eq!(show_duration(Duration::from_secs(242)), "4 m 2 s");
    }
}
