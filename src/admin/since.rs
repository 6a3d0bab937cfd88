//! `since=`: a time in the past as people write it.

use jiff::fmt::friendly::SpanParser;
use jiff::{SignedDuration, Timestamp, civil, tz};

use super::problem::{ApiError, Kind};

/// `10m` before `now`, or a time as log lines have it (UTC where it says no other).
pub(crate) fn read(text: &str, now: Timestamp) -> Result<Timestamp, ApiError> {
    let ago = || {
        let time = SpanParser::new().parse_unsigned_duration(text).ok()?;
        now.checked_sub(SignedDuration::try_from(time).ok()?).ok()
    };
    let civil = || text.parse::<civil::DateTime>().ok()?.to_zoned(tz::TimeZone::UTC).ok();
    text.parse().ok().or_else(ago).or_else(|| Some(civil()?.timestamp())).ok_or_else(|| {
        ApiError::new(Kind::BadRequest, format!("`{text}` is neither a duration nor a time"))
            .hint("write `10m` for the last ten minutes, or a time as in `2026-11-21T18:05:00Z`")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_or_a_time() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let now = at("2026-11-21T18:05:00Z");
        for (text, expected) in [
            ("10m", "2026-11-21T17:55:00Z"),
            ("1h30m", "2026-11-21T16:35:00Z"),
            ("2026-11-21T18:05:10.123456Z", "2026-11-21T18:05:10.123456Z"),
            ("2026-11-21T18:05:10+01:00", "2026-11-21T17:05:10Z"),
            ("2026-11-21T18:05", "2026-11-21T18:05:00Z"),
            ("2026-11-21 18:05:10", "2026-11-21T18:05:10Z"),
            ("2026-11-21", "2026-11-21T00:00:00Z"),
        ] {
            assert_eq!(read(text, now).ok(), Some(at(expected)), "{text}");
        }
        for text in ["", "soon", "10", "-10m", "18:05"] {
            assert!(read(text, now).is_err(), "{text}");
        }
    }
}
