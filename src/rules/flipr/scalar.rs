//! Scalars as js-yaml 3's `safeLoad` resolves them, which is neither YAML 1.1 nor 1.2: `010` is 8, `0o10` a text,
//! `1:30` is 90, `1_000` is 1000, `yes` a text, `2015-03-12` a date.

use std::sync::LazyLock;

use regex::Regex;

use super::Value;
use crate::yaml::Scalar;

/// The value of a scalar.
pub(super) fn resolve(scalar: &Scalar) -> Value {
    if scalar.is_null() {
        return Value::Null;
    }
    if let Some(value) = scalar.as_bool() {
        return Value::Bool(value);
    }
    if !scalar.plain {
        return Value::String(scalar.text.clone());
    }
    match integer(&scalar.text).or_else(|| float(&scalar.text)) {
        Some(number) => Value::Number(number),
        None if is_date(&scalar.text) => Value::Map(Vec::new()),
        None => Value::String(scalar.text.clone()),
    }
}

fn integer(text: &str) -> Option<f64> {
    let (sign, body) = signed(text);
    if body.ends_with('_') {
        return None;
    }
    let digits = body.replace('_', "");
    let (radix, digits) = match digits.as_bytes() {
        _ if body.starts_with('_') => return None,
        [b'0'] => return Some(sign * 0.0),
        [b'0', b'b', ..] => (2, &digits[2..]),
        [b'0', b'x', ..] => (16, &digits[2..]),
        [b'0', ..] => (8, &digits[1..]),
        _ if digits.contains(':') => return sexagesimal_integer(&digits).map(|n| sign * n),
        _ => (10, digits.as_str()),
    };
    if digits.is_empty() || !digits.chars().all(|c| c.is_digit(radix)) {
        return None;
    }
    let value = match radix {
        10 => digits.parse().ok()?,
        _ => digits
            .chars()
            .filter_map(|c| c.to_digit(radix))
            .fold(0.0, |acc, digit| acc * f64::from(radix) + f64::from(digit)),
    };
    Some(sign * value)
}

/// `1:30` is 90. The first part may be any number, each other is 0..=59.
fn sexagesimal_integer(digits: &str) -> Option<f64> {
    let mut parts = digits.split(':');
    let first = parts.next().filter(|p| !p.is_empty() && p.bytes().all(|b| b.is_ascii_digit()))?;
    parts.try_fold(first.parse::<f64>().ok()?, |value, part| {
        let valid = matches!(part.as_bytes(), [b'0'..=b'9'] | [b'0'..=b'5', b'0'..=b'9']);
        if valid { Some(value * 60.0 + part.parse::<f64>().ok()?) } else { None }
    })
}

fn float(text: &str) -> Option<f64> {
    /// js-yaml's own pattern, in its order.
    #[expect(clippy::expect_used, reason = "a constant pattern; a test compiles it")]
    static FLOAT: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"^(?:[-+]?(?:0|[1-9][0-9_]*)(?:\.[0-9_]*)?(?:[eE][-+]?[0-9]+)?",
            r"|\.[0-9_]+(?:[eE][-+]?[0-9]+)?",
            r"|[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*",
            r"|[-+]?\.(?:inf|Inf|INF)",
            r"|\.(?:nan|NaN|NAN))$",
        ))
        .expect("a valid pattern")
    });
    if !FLOAT.is_match(text) || text.ends_with('_') {
        return None;
    }
    let text = text.replace('_', "").to_lowercase();
    let (sign, body) = signed(&text);
    let value = match body {
        ".inf" => f64::INFINITY,
        ".nan" => f64::NAN,
        _ => body.split(':').try_fold(0.0, |value, part| Some(value * 60.0 + part.parse::<f64>().ok()?))?,
    };
    Some(sign * value)
}

fn signed(text: &str) -> (f64, &str) {
    match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    }
}

fn is_date(text: &str) -> bool {
    /// js-yaml's two timestamp patterns in one.
    #[expect(clippy::expect_used, reason = "a constant pattern; a test compiles it")]
    static DATE: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(concat!(
            r"^[0-9]{4}-(?:[0-9]{2}-[0-9]{2}",
            r"|[0-9][0-9]?-[0-9][0-9]?(?:[Tt]|[ \t]+)[0-9][0-9]?:[0-9]{2}:[0-9]{2}(?:\.[0-9]*)?",
            r"(?:[ \t]*(?:Z|[-+][0-9][0-9]?(?::[0-9]{2})?))?)$",
        ))
        .expect("a valid pattern")
    });
    DATE.is_match(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_are_what_js_yaml_3_makes_of_them() {
        let number = Value::Number;
        let text = |text: &str| Value::String(text.to_owned());
        let date = || Value::Map(Vec::new());
        for (written, expected) in [
            ("010", number(8.0)),
            ("0o10", text("0o10")),
            ("09", text("09")),
            ("0", number(0.0)),
            ("-0x1F", number(-31.0)),
            ("0b11", number(3.0)),
            ("0b", text("0b")),
            ("1_000", number(1000.0)),
            ("1_", text("1_")),
            ("_1", text("_1")),
            ("1:30", number(90.0)),
            ("1:2:3", number(3723.0)),
            ("1:60", text("1:60")),
            ("1:30.5", number(90.5)),
            ("12e3", number(12000.0)),
            ("12345e7", number(123450000000.0)),
            (".5", number(0.5)),
            ("5.", number(5.0)),
            (".", text(".")),
            ("1.5_0", number(1.5)),
            (".inf", number(f64::INFINITY)),
            ("-.INF", number(f64::NEG_INFINITY)),
            ("12345678901234567890", number(12345678901234567000.0)),
            ("2015-03-12", date()),
            ("2001-12-14t21:59:43.10-05:00", date()),
            ("2001-1-1", text("2001-1-1")),
            ("yes", text("yes")),
            ("15%", text("15%")),
            ("TRUE", Value::Bool(true)),
            ("~", Value::Null),
            ("1e", text("1e")),
            ("-", text("-")),
            ("+1", number(1.0)),
        ] {
            assert_eq!(resolve(&Scalar { text: written.into(), plain: true }), expected, "{written}");
        }
        assert!(
            matches!(resolve(&Scalar { text: ".NaN".into(), plain: true }), Value::Number(n) if n.is_nan())
        );
        assert_eq!(resolve(&Scalar { text: "010".into(), plain: false }), text("010"));
    }
}
