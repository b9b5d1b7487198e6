use proptest::prelude::*;

use super::*;

const NOW_MS: i64 = 1_800_000_000_000;

fn parse(text: &str) -> Result<Range, String> {
    Range::parse(text, Timestamp::from_millisecond(NOW_MS).unwrap())
}

fn from(from: Bound) -> Range {
    Range { from, to: None }
}

fn between(from: Bound, to: Bound) -> Range {
    Range { from, to: Some(to) }
}

#[test]
fn offsets() {
    use Bound::*;
    for (text, range) in [
        ("start", from(Start)),
        ("end", from(End)),
        ("0", from(Offset(0))),
        ("17", from(Offset(17))),
        ("17:", from(Offset(17))),
        ("+5", from(AfterStart(5))),
        ("-5", from(BeforeEnd(5))),
        ("3:7", between(Offset(3), Offset(7))),
        ("3:3", between(Offset(3), Offset(3))),
        (":7", between(Start, Offset(7))),
        (":end", between(Start, End)),
        ("start:end", between(Start, End)),
        ("-10:-5", between(BeforeEnd(10), BeforeEnd(5))),
        ("+10:end", between(AfterStart(10), End)),
        ("18446744073709551615", from(Offset(u64::MAX))),
    ] {
        assert_eq!(parse(text), Ok(range), "{text}");
    }
}

#[test]
fn times() {
    const JAN_31: i64 = 1_769_817_600_000;
    const HOUR: i64 = 3_600_000;
    let time = |ms| from(Bound::Time(ms));
    let times = |a, b| between(Bound::Time(a), Bound::Time(b));
    for (text, range) in [
        ("@1700000000", time(1_700_000_000_000)),
        ("@1700000000123", time(1_700_000_000_123)),
        ("@2026-01-31", time(JAN_31)),
        ("@2026-01-31T12:00:00Z", time(JAN_31 + 12 * HOUR)),
        ("@2026-01-31T12:00:00.250Z", time(JAN_31 + 12 * HOUR + 250)),
        ("@2026-01-31T12:00:00+02:00", time(JAN_31 + 10 * HOUR)),
        ("@2026-01-31 12:00:00Z", time(JAN_31 + 12 * HOUR)),
        ("@-1h", time(NOW_MS - HOUR)),
        ("@-1h30m", time(NOW_MS - HOUR - HOUR / 2)),
        ("@-7d", time(NOW_MS - 7 * 24 * HOUR)),
        ("@now", time(NOW_MS)),
        ("@-1h:", time(NOW_MS - HOUR)),
        ("@-2h:-1h", times(NOW_MS - 2 * HOUR, NOW_MS - HOUR)),
        ("@-2h:end", between(Bound::Time(NOW_MS - 2 * HOUR), Bound::End)),
        ("@:1700000000", between(Bound::Start, Bound::Time(1_700_000_000_000))),
        ("@2026-01-31:2026-02-01", times(JAN_31, JAN_31 + 24 * HOUR)),
        (
            "@2026-01-31T12:00:00Z:2026-01-31T13:00:00+00:00",
            times(JAN_31 + 12 * HOUR, JAN_31 + 13 * HOUR),
        ),
        ("@2026-01-31T12:00:00+02:00:now", times(JAN_31 + 10 * HOUR, NOW_MS)),
    ] {
        assert_eq!(parse(text), Ok(range), "{text}");
    }
}

#[test]
fn what_is_no_range_is_refused_with_advice() {
    for text in [
        "",
        "x",
        "5:x",
        "--5",
        "+-5",
        "++5",
        "5:4",
        "1.5",
        " 5",
        "0x10",
        "18446744073709551616",
        "@",
        "@x",
        "@1:x",
        "@-1",
        "@2026-13-01",
        "@2026-01-31T12:00:00",
        "@-1h:-2h",
        "@--1h",
        "1:2:3",
    ] {
        let refused = parse(text).expect_err(text);
        assert!(refused.contains("give ") || refused.contains("ends before"), "{text}: {refused}");
    }
}

#[test]
fn bounds_stay_within_the_log() {
    assert_eq!(Bound::Start.offset(3, 9), Some(3));
    assert_eq!(Bound::End.offset(3, 9), Some(9));
    assert_eq!(Bound::AfterStart(2).offset(3, 9), Some(5));
    assert_eq!(Bound::BeforeEnd(2).offset(3, 9), Some(7));
    assert_eq!(Bound::BeforeEnd(100).offset(3, 9), Some(3));
    assert_eq!(Bound::AfterStart(u64::MAX).offset(3, 9), Some(u64::MAX));
    assert_eq!(Bound::Time(0).offset(3, 9), None);
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in "\\PC{0,40}") {
        let _ = parse(&text);
        let _ = parse(&format!("@{text}"));
    }

    #[test]
    fn any_two_offsets_in_order_are_a_range(a: u64, b: u64) {
        let (low, high) = (a.min(b), a.max(b));
        prop_assert_eq!(
            parse(&format!("{low}:{high}")),
            Ok(between(Bound::Offset(low), Bound::Offset(high)))
        );
    }

    #[test]
    fn any_rfc_3339_times_in_order_are_a_range(a in 0i64..4_000_000_000, len in 0i64..1_000_000) {
        let show = |seconds| Timestamp::from_second(seconds).unwrap().to_string();
        prop_assert_eq!(
            parse(&format!("@{}:{}", show(a), show(a + len))),
            Ok(between(Bound::Time(a * 1_000), Bound::Time((a + len) * 1_000)))
        );
    }
}
