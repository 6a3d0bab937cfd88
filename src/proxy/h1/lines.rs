//! Looks a header up in the text of a head that was checked before. For what few requests need: the ordinary way
//! of a request reads its headers once, in [`super::request`] and [`super::response`].

/// The values of the headers `name` (any case) in `head`, in order; those that are not UTF-8 are left out.
pub(crate) fn values<'a>(head: &'a [u8], name: &str) -> impl Iterator<Item = &'a str> {
    lines(head).filter_map(move |line| {
        let (key, value) = line.split_at_checked(name.len())?;
        let value = value.strip_prefix(b":")?;
        let named = key.eq_ignore_ascii_case(name.as_bytes());
        named.then(|| std::str::from_utf8(value.trim_ascii()).ok()).flatten()
    })
}

/// Removes the headers `name` from the head at the start of `bytes`; what stands behind the head stays.
pub(crate) fn remove(bytes: &mut Vec<u8>, name: &str) {
    let mut at = 0;
    let mut is_first = true;
    while let Some(length) = bytes[at..].iter().position(|b| *b == b'\n').map(|end| end + 1) {
        let line = &bytes[at..at + length];
        if line == b"\r\n" {
            return;
        }
        let named = line.get(..name.len()).is_some_and(|key| key.eq_ignore_ascii_case(name.as_bytes()));
        if named && line.get(name.len()) == Some(&b':') && !is_first {
            bytes.drain(at..at + length);
        } else {
            at += length;
        }
        is_first = false;
    }
}

/// The header lines, without the first line and what follows the empty one.
fn lines(head: &[u8]) -> impl Iterator<Item = &[u8]> {
    let lines = head.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    lines.skip(1).take_while(|line| !line.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &[u8] =
        b"POST / HTTP/1.1\r\nAccept: a\r\nExpect: 100-continue\r\naccept:b \r\nAccept-B: c\r\n\r\nAccept: body";

    #[test]
    fn values_are_those_of_the_head() {
        assert_eq!(values(HEAD, "accept").collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!(values(HEAD, "post / http/1.1").count() + values(b"", "a").count(), 0);
    }

    #[test]
    fn a_header_is_removed_and_nothing_else() {
        let mut bytes = HEAD.to_vec();
        remove(&mut bytes, "accept");
        let left = "POST / HTTP/1.1\r\nExpect: 100-continue\r\nAccept-B: c\r\n\r\nAccept: body";
        assert_eq!(String::from_utf8(bytes).unwrap(), left);
        remove(&mut Vec::new(), "a");
    }
}
