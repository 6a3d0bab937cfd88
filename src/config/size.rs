//! Sizes in bytes as people write them: `64KiB`, `1GiB`.

use std::ops::RangeInclusive;

use crate::hint::Problem;

/// Units by how they are written, the largest first.
const UNITS: [(&str, u64); 5] =
    [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn wrong(message: String, hint: impl Into<String>) -> Box<Problem> {
    Problem::error("", message).hint(hint).into()
}

/// A size in bytes within `range`: a whole number and a unit. 0 needs no unit.
pub(super) fn size(text: &str, range: RangeInclusive<u64>) -> Result<u64, Box<Problem>> {
    const EXAMPLE: &str = "write it as in `64KiB`, `1MiB`, `1GiB`";
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let bytes = match (number.parse::<u64>(), unit.trim_start()) {
        (Ok(0), "") => 0,
        (Ok(number), "") => {
            let hint = format!("write `{number}B` for bytes, `{number}KiB` for 1024 times as many");
            return Err(wrong(format!("`{text}` has no unit"), hint));
        }
        (Ok(number), unit) => {
            let factor = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor);
            let Some(factor) = factor else {
                let binary =
                    ["k", "m", "g", "t"].iter().position(|c| unit.to_ascii_lowercase().starts_with(c));
                let hint = binary.map_or_else(
                    || EXAMPLE.to_owned(),
                    |at| format!("write `{number}{}`: sizes count in steps of 1024", UNITS[3 - at].0),
                );
                return Err(wrong(format!("`{text}` is not a size: the unit `{unit}` is not known"), hint));
            };
            // Too many bytes for 64 bits are out of every range.
            number.saturating_mul(factor)
        }
        (Err(_), _) => return Err(wrong(format!("`{text}` is not a size"), EXAMPLE)),
    };
    if !range.contains(&bytes) {
        let hint = format!("write a size from `{}` to `{}`", show(*range.start()), show(*range.end()));
        return Err(wrong(format!("`{text}` is out of range"), hint));
    }
    Ok(bytes)
}

/// A size as people write it, in the largest unit that leaves a whole number.
pub(super) fn show(bytes: u64) -> String {
    match UNITS.iter().find(|(_, factor)| bytes >= *factor && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", bytes / factor),
        None => "0".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown() {
        for (text, bytes) in
            [("0", 0), ("1B", 1), ("64KiB", 65_536), ("64 KiB", 65_536), ("1MiB", 1 << 20), ("3GiB", 3 << 30)]
        {
            assert_eq!(size(text, 0..=u64::MAX).unwrap(), bytes, "{text}");
            assert_eq!(show(bytes), text.replace(' ', ""));
        }
        for (text, part) in [
            ("65536", "`65536` has no unit | write `65536B` for bytes, `65536KiB`"),
            ("1MB", "the unit `MB` is not known | write `1MiB`"),
            ("1k", "write `1KiB`"),
            ("7T", "write `7TiB`"),
            ("1 apple", "is not known | write it as in `64KiB`"),
            ("much", "`much` is not a size"),
            ("-1B", "is not a size"),
            ("1.5GiB", "is not a size"),
            ("", "is not a size"),
            ("99999999999TiB", "is out of range"),
            ("1B", "is out of range | write a size from `1KiB` to `1MiB`"),
        ] {
            let problem = size(text, 1024..=1 << 20).unwrap_err();
            let said = format!("{} | {}", problem.message, problem.hint.unwrap_or_default());
            assert!(said.contains(part), "{text}: {said}");
        }
    }
}
