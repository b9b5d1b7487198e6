//! Which records: the RANGE of `consume -o`.
//!
//! ```text
//! RANGE   from a bound to the end     BOUND, BOUND:, @TIME, @TIME:
//!         from one up to another      BOUND:BOUND, :BOUND, @TIME:TIME, @:TIME
//! BOUND   start                       the first record there is
//!         end                         behind the last committed record, as of now
//!         N                           offset N
//!         +N                          N records after the start
//!         -N                          N records before the end
//! TIME    1700000000                  Unix seconds (up to 11 digits)
//!         1700000000123               Unix milliseconds (12 digits and more)
//!         2026-01-31T12:00:00Z        RFC 3339, with `Z` or an offset
//!         2026-01-31                  a day, from its first moment in UTC
//!         -1h, -1h30m, -7d            so long ago
//!         now, end                    now
//! ```
//!
//! The second bound is not part of the range. Times are those the leader gave the records; they
//! never decrease within a partition, so a range of times is a range of offsets. Dates are UTC, so
//! that the same command gives the same records wherever it is run.

use jiff::tz::TimeZone;
use jiff::{Timestamp, civil};

use crate::quantity::parse_duration;

/// Unix times of so many digits and more are milliseconds: 11 digits of seconds last until the year
/// 5138.
const MILLISECOND_DIGITS: usize = 12;

/// From one bound up to, not including, another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first record.
    pub(crate) from: Bound,
    /// One past the last record; without it, all there are.
    pub(crate) to: Option<Bound>,
}

/// A position that a log has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bound {
    /// The first record there is.
    Start,
    /// One past the last committed record.
    End,
    /// This offset.
    Offset(u64),
    /// So many records after the start.
    AfterStart(u64),
    /// So many records before the end, or the start if there are fewer.
    BeforeEnd(u64),
    /// The first record at or after this time, Unix milliseconds.
    Time(i64),
}

impl Bound {
    /// The offset, for a log with this start and end; `None` for a time, which only the log itself
    /// can answer.
    pub(crate) fn offset(self, start: u64, end: u64) -> Option<u64> {
        match self {
            Bound::Start => Some(start),
            Bound::End => Some(end),
            Bound::Offset(offset) => Some(offset),
            Bound::AfterStart(count) => Some(start.saturating_add(count)),
            Bound::BeforeEnd(count) => Some(end.saturating_sub(count).max(start)),
            Bound::Time(_) => None,
        }
    }
}

impl Range {
    /// The range that `text` describes, with times relative to `now`.
    ///
    /// # Errors
    /// If the text is no range; the message says what is.
    pub(crate) fn parse(text: &str, now: Timestamp) -> Result<Range, String> {
        match text.strip_prefix('@') {
            Some(times) => parse_times(times, now),
            None => parse_offsets(text),
        }
    }
}

fn parse_offsets(text: &str) -> Result<Range, String> {
    let (from, to) = match text.split_once(':') {
        None => (parse_bound(text)?, None),
        Some((from, to)) => {
            let from = if from.is_empty() { Bound::Start } else { parse_bound(from)? };
            (from, if to.is_empty() { None } else { Some(parse_bound(to)?) })
        }
    };
    if let (Bound::Offset(first), Some(Bound::Offset(last))) = (from, to)
        && last < first
    {
        return Err(format!("range {text:?} ends before it begins"));
    }
    Ok(Range { from, to })
}

fn parse_bound(text: &str) -> Result<Bound, String> {
    let number = |digits: &str| match digits.bytes().all(|b| b.is_ascii_digit()) {
        true => digits.parse::<u64>().ok(),
        false => None,
    };
    let bound = match text.as_bytes().first() {
        _ if text == "start" => Some(Bound::Start),
        _ if text == "end" => Some(Bound::End),
        Some(b'+') => number(&text[1..]).map(Bound::AfterStart),
        Some(b'-') => number(&text[1..]).map(Bound::BeforeEnd),
        _ => number(text).map(Bound::Offset),
    };
    bound.ok_or_else(|| {
        format!(
            "{text:?} is no offset: give start, end, a number, +N (after the start), \
             -N (before the end), or @TIME"
        )
    })
}

/// A time may hold colons itself, so the colon between two times is the one with a time on both
/// sides.
fn parse_times(text: &str, now: Timestamp) -> Result<Range, String> {
    let whole = parse_time(text, now);
    if let Ok(from) = whole {
        return Ok(Range { from: Bound::Time(from), to: None });
    }
    for (colon, _) in text.match_indices(':') {
        let (from, to) = (&text[..colon], &text[colon + 1..]);
        let from = match from {
            "" => Ok(Bound::Start),
            from => parse_time(from, now).map(Bound::Time),
        };
        let to = match to {
            "" => Ok(None),
            "end" => Ok(Some(Bound::End)),
            to => parse_time(to, now).map(|to| Some(Bound::Time(to))),
        };
        if let (Ok(from), Ok(to)) = (from, to) {
            return in_order(text, from, to);
        }
    }
    Err(whole.expect_err("returned above if it was a time"))
}

fn in_order(text: &str, from: Bound, to: Option<Bound>) -> Result<Range, String> {
    match (from, to) {
        (Bound::Time(first), Some(Bound::Time(last))) if last < first => {
            Err(format!("range \"@{text}\" ends before it begins"))
        }
        _ => Ok(Range { from, to }),
    }
}

/// A time as Unix milliseconds.
fn parse_time(text: &str, now: Timestamp) -> Result<i64, String> {
    let wrong = || {
        format!(
            "{text:?} is no time: give Unix seconds or milliseconds, RFC 3339 with its zone \
             (2026-01-31T12:00:00Z), a day (2026-01-31, UTC), or -1h"
        )
    };
    if text == "now" || text == "end" {
        return Ok(now.as_millisecond());
    }
    if let Some(ago) = text.strip_prefix('-') {
        let ago = parse_duration(ago).map_err(|_| wrong())?;
        return Ok(now.checked_sub(ago).map_err(|_| wrong())?.as_millisecond());
    }
    if text.bytes().all(|b| b.is_ascii_digit()) {
        let number: i64 = text.parse().map_err(|_| wrong())?;
        return match text.len() {
            0..MILLISECOND_DIGITS => Ok(number * 1_000),
            _ => Ok(number),
        };
    }
    if text.contains(['T', 't', ' ']) {
        return text.parse::<Timestamp>().map(Timestamp::as_millisecond).map_err(|_| wrong());
    }
    let day: civil::Date = text.parse().map_err(|_| wrong())?;
    let midnight = day.to_zoned(TimeZone::UTC).map_err(|_| wrong())?;
    Ok(midnight.timestamp().as_millisecond())
}

#[cfg(test)]
#[path = "range_tests.rs"]
mod tests;
