//! Lists of wishes with weights: `Accept` and `Accept-Encoding` (RFC 9110 section 12.4.2).

/// The weight of a wish without one, in thousandths.
pub(crate) const FULL: u16 = 1000;

/// The items of a list as in `gzip;q=0.5, br`, each with its weight in thousandths. An item whose weight cannot
/// be read is left out.
pub(crate) fn items(list: &str) -> impl Iterator<Item = (&str, u16)> {
    list.split(',').filter_map(|item| {
        let mut parts = item.split(';').map(str::trim);
        let name = parts.next().filter(|name| !name.is_empty())?;
        let weight = parts.find_map(|part| part.strip_prefix("q=").or_else(|| part.strip_prefix("Q=")));
        Some((name, weight.map_or(Some(FULL), thousandths)?))
    })
}

/// `0`, `0.5`, `0.123`, `1`, `1.000` and nothing else.
fn thousandths(weight: &str) -> Option<u16> {
    let (whole, part) = weight.split_once('.').unwrap_or((weight, ""));
    if part.len() > 3 || !part.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = format!("{part:0<3}").parse::<u16>().ok()?;
    match whole {
        "0" => Some(part),
        "1" if part == 0 => Some(FULL),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wishes_have_weights() {
        for (list, expected) in [
            ("gzip", vec![("gzip", 1000)]),
            (" gzip ; q=0.5 ,, br;Q=1.000, *;q=0", vec![("gzip", 500), ("br", 1000), ("*", 0)]),
            ("text/html;level=1;q=0.123, a;q=.5, b;q=2, c;q=0.1234, d;q=-1, e;q=", vec![("text/html", 123)]),
            ("", vec![]),
        ] {
            assert_eq!(items(list).collect::<Vec<_>>(), expected, "{list:?}");
        }
    }
}
