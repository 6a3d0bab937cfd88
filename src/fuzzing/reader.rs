//! A second reader of HTTP/1.1 heads, which shares no code with `proxy::h1`: as strict as the standard allows, so
//! that what it accepts has one meaning. It judges what switchman writes.

use std::borrow::Cow;

/// How long a message's body is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// So many bytes; none where nothing is said.
    Length(u64),
    /// Chunks.
    Chunked,
}

/// A head that has one meaning.
#[derive(Debug)]
pub(super) struct Head<'b> {
    /// The first line.
    pub(super) first: Cow<'b, str>,
    fields: Vec<(&'b str, &'b [u8])>,
    pub(super) framing: Framing,
}

impl<'b> Head<'b> {
    /// Reads a head that `bytes` consist of, and nothing behind it.
    pub(super) fn read(bytes: &'b [u8]) -> Result<Self, &'static str> {
        let lines = bytes.strip_suffix(b"\r\n\r\n").ok_or("it does not end in an empty line")?;
        let mut lines = split_lines(lines);
        // A reason may have bytes beyond ASCII, in any encoding.
        let first = String::from_utf8_lossy(lines.next().unwrap_or_default());
        if first.is_empty() || first.bytes().any(|b| b.is_ascii_control() && b != b'\t') {
            return Err("the first line is empty or has a control byte");
        }
        let fields = lines.map(field).collect::<Result<Vec<_>, _>>()?;
        let framing = framing(&fields)?;
        Ok(Self { first, fields, framing })
    }

    /// All values of a field.
    pub(super) fn all(&self, name: &str) -> Vec<&'b str> {
        values(&self.fields, name).map(|value| std::str::from_utf8(value).unwrap_or("\u{fffd}")).collect()
    }

    /// The names of all fields.
    pub(super) fn names(&self) -> impl Iterator<Item = &'b str> {
        self.fields.iter().map(|(name, _)| *name)
    }
}

/// The parts between CRLFs.
fn split_lines(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        let end = bytes.windows(2).position(|window| window == b"\r\n");
        ended = end.is_none();
        let line = &bytes[..end.unwrap_or(bytes.len())];
        bytes = end.map_or(&[], |at| &bytes[at + 2..]);
        Some(line)
    })
}

/// `name: value`; no blank before the colon, no control byte but a tab.
fn field(line: &[u8]) -> Result<(&str, &[u8]), &'static str> {
    let colon = line.iter().position(|b| *b == b':').ok_or("a line without a colon")?;
    let is_token = |b: &u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(b);
    if colon == 0 || !line[..colon].iter().all(is_token) {
        return Err("a name that is no token");
    }
    let value = line[colon + 1..].trim_ascii();
    if value.iter().any(|b| b.is_ascii_control() && *b != b'\t') {
        return Err("a control byte in a value");
    }
    Ok((std::str::from_utf8(&line[..colon]).unwrap_or_default(), value))
}

fn values<'v, 'b>(fields: &'v [(&'b str, &'b [u8])], name: &'v str) -> impl Iterator<Item = &'b [u8]> + 'v {
    fields.iter().filter(move |(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| *value)
}

/// What the fields say of the body, if they say one thing.
fn framing(fields: &[(&str, &[u8])]) -> Result<Framing, &'static str> {
    let lengths: Vec<&[u8]> = values(fields, "content-length").collect();
    let codings: Vec<&[u8]> = values(fields, "transfer-encoding").collect();
    match (lengths.as_slice(), codings.as_slice()) {
        ([], []) => Ok(Framing::Length(0)),
        ([], [coding]) if *coding == b"chunked" => Ok(Framing::Chunked),
        ([length], []) if length.iter().all(u8::is_ascii_digit) => std::str::from_utf8(length)
            .ok()
            .and_then(|digits| digits.parse().ok())
            .map(Framing::Length)
            .ok_or("a length that is no number"),
        _ => Err("the body's length is said twice, or in no valid way"),
    }
}
