//! Percentages: exact hundredths of a percent, and the bucket that an id falls into.

use std::fmt;

use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// How many buckets there are: one is 0.01 %.
pub(crate) const BUCKETS: u16 = 10_000;

/// The bucket (0..[`BUCKETS`]) of an id: xxh3_64 of salt, a zero byte and id, modulo the number of buckets.
pub(crate) fn bucket(salt: &str, id: &str) -> u16 {
    /// Salt and id are nearly always this short, and one call on the stack is then the fastest.
    const SHORT: usize = 128;
    let mut short = [0_u8; SHORT];
    let len = salt.len() + 1 + id.len();
    let hash = match short.get_mut(..len) {
        Some(joined) => {
            let (head, tail) = joined.split_at_mut(salt.len());
            head.copy_from_slice(salt.as_bytes());
            if let Some(tail) = tail.get_mut(1..) {
                tail.copy_from_slice(id.as_bytes());
            }
            xxh3_64(joined)
        }
        None => {
            let mut hasher = Xxh3::new();
            hasher.update(salt.as_bytes());
            hasher.update(&[0]);
            hasher.update(id.as_bytes());
            hasher.digest()
        }
    };
    (hash % u64::from(BUCKETS)) as u16
}

/// A percentage in hundredths of a percent, 0..=10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Percentage(pub(crate) u16);

impl fmt::Display for Percentage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / 100, self.0 % 100);
        match rest {
            0 => write!(f, "{whole}%"),
            rest if rest % 10 == 0 => write!(f, "{whole}.{}%", rest / 10),
            rest => write!(f, "{whole}.{rest:02}%"),
        }
    }
}

/// Why a text is no percentage: what is wrong, and what to write.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoPercentage {
    /// What is wrong, with the text in it.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) hint: String,
}

impl Percentage {
    /// Reads `5%`, `12.5%`, `0.01%`: exact decimal digits, no floating point on the way.
    pub(crate) fn parse(text: &str) -> Result<Self, NoPercentage> {
        let wrong =
            |message: &str, hint: String| NoPercentage { message: format!("`{text}` {message}"), hint };
        let usual = || "write a number and a percent sign, as in 5% or 12.5%".to_owned();
        let Some(number) = text.strip_suffix('%') else {
            let hint = match Self::parse(&format!("{}%", text.trim())) {
                Ok(percentage) => percentage.to_string(),
                Err(_) => usual(),
            };
            return Err(wrong("has no percent sign", hint));
        };
        if number.trim() != number {
            return Err(wrong("has a space in it", format!("{}%", number.trim())));
        }
        if number.starts_with('-') {
            return Err(wrong("is below 0 %", "0% sends nobody; 100% sends everybody".to_owned()));
        }
        let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(whole) || !digits(fraction) {
            return Err(wrong("is no percentage", usual()));
        }
        let fraction = fraction.trim_end_matches('0');
        if fraction.len() > 2 {
            return Err(wrong(
                "is finer than 0.01 %",
                "percentages are exact to two digits after the point, as in 0.01%".to_owned(),
            ));
        }
        let hundredths = format!("{fraction:0<2}").parse().unwrap_or(0_u16);
        let total = whole.parse::<u16>().ok().and_then(|w| w.checked_mul(100)?.checked_add(hundredths));
        match total {
            Some(total) if total <= BUCKETS => Ok(Self(total)),
            _ => Err(wrong("is over 100 %", "100% sends everybody".to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_read_exactly() {
        for (text, hundredths) in [
            ("0%", 0),
            ("5%", 500),
            ("12.5%", 1250),
            ("0.01%", 1),
            ("99.99%", 9999),
            ("100%", 10_000),
            ("100.00%", 10_000),
            ("33.30%", 3330),
            ("007%", 700),
            ("1.050%", 105),
        ] {
            assert_eq!(Percentage::parse(text).map(|p| p.0), Ok(hundredths), "{text}");
        }
        for (hundredths, text) in [(500, "5%"), (1250, "12.5%"), (1, "0.01%"), (105, "1.05%")] {
            assert_eq!(Percentage(hundredths).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_percentage_says_why() {
        for (text, message, hint) in [
            ("5", "`5` has no percent sign", "5%"),
            ("5 %", "`5 %` has a space in it", "5%"),
            (
                "0.005%",
                "`0.005%` is finer than 0.01 %",
                "percentages are exact to two digits after the point, as in 0.01%",
            ),
            ("-1%", "`-1%` is below 0 %", "0% sends nobody; 100% sends everybody"),
            ("100.01%", "`100.01%` is over 100 %", "100% sends everybody"),
            ("99999999%", "`99999999%` is over 100 %", "100% sends everybody"),
            ("%", "`%` is no percentage", "write a number and a percent sign, as in 5% or 12.5%"),
            ("1e1%", "`1e1%` is no percentage", "write a number and a percent sign, as in 5% or 12.5%"),
            ("five", "`five` has no percent sign", "write a number and a percent sign, as in 5% or 12.5%"),
        ] {
            let expected = NoPercentage { message: message.to_owned(), hint: hint.to_owned() };
            assert_eq!(Percentage::parse(text), Err(expected));
        }
    }

    #[test]
    fn the_bucket_is_the_documented_hash_for_short_and_long_ids() {
        for len in [0, 1, 20, 117, 118, 119, 300, 2000] {
            let id = "x".repeat(len);
            let joined = format!("salt-2026\0{id}");
            assert_eq!(u64::from(bucket("salt-2026", &id)), xxh3_64(joined.as_bytes()) % 10_000, "{len}");
        }
        // Pinned: people must stay in their buckets from one build of switchman to the next.
        assert_eq!([bucket("app", "77"), bucket("app", "alice"), bucket("", "")], [5644, 2073, 1883]);
    }
}
