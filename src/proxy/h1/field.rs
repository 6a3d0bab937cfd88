//! The header names that a proxy must know, told apart in a few instructions.

use httparse::Header;

/// What a header means to a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    Host,
    ContentLength,
    ContentType,
    TransferEncoding,
    Connection,
    Upgrade,
    Te,
    Expect,
    /// Ends at this hop whatever it says.
    HopByHop,
    /// What only a trusted proxy is believed.
    Claim(Claim),
    /// `x-switchman-*`: said by us alone.
    Switchman,
    Other,
}

/// What a header says of the client, or of the request as a whole. Made or extended by us; from others it is
/// taken only where they are trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Claim {
    /// `X-Forwarded-For`.
    For,
    /// `X-Forwarded-Proto`.
    Proto,
    /// `X-Forwarded-Host`.
    Host,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// `X-Real-IP`, and every other `X-Forwarded-*`.
    Other,
    /// `X-Request-Id`.
    RequestId,
    /// `X-Request-Start`.
    RequestStart,
    /// Any of these with `_` for a `-`: CGI-like workers cannot tell them apart, so nobody may send it.
    Disguised,
}

/// What `name` means. `_` in a name of ours counts as `-`.
pub(crate) fn classify(name: &str) -> Field {
    let is = |other: &str| name.eq_ignore_ascii_case(other);
    match name.len() {
        2 if is("te") => Field::Te,
        4 if is("host") => Field::Host,
        6 if is("expect") => Field::Expect,
        7 if is("upgrade") => Field::Upgrade,
        9 if is("forwarded") => Field::Claim(Claim::Forwarded),
        10 if is("connection") => Field::Connection,
        10 if is("keep-alive") => Field::HopByHop,
        12 if is("content-type") => Field::ContentType,
        14 if is("content-length") => Field::ContentLength,
        14 if is("http2-settings") => Field::HopByHop,
        16 if is("proxy-connection") => Field::HopByHop,
        17 if is("transfer-encoding") => Field::TransferEncoding,
        9.. if matches!(name.as_bytes()[0], b'x' | b'X') => classify_x(name),
        _ => Field::Other,
    }
}

/// What a `name` that begins with `x` means.
fn classify_x(name: &str) -> Field {
    let begins = |prefix: &str| {
        name.len() >= prefix.len()
            && name.bytes().zip(prefix.bytes()).all(|(b, p)| {
                let b = if b == b'_' { b'-' } else { b.to_ascii_lowercase() };
                b == p
            })
    };
    let is = |other: &str| name.len() == other.len() && begins(other);
    let claim = if begins("x-forwarded-") {
        match name.len() {
            15 if is("x-forwarded-for") => Claim::For,
            16 if is("x-forwarded-host") => Claim::Host,
            17 if is("x-forwarded-proto") => Claim::Proto,
            _ => Claim::Other,
        }
    } else if begins("x-switchman-") {
        return Field::Switchman;
    } else if is("x-real-ip") {
        Claim::Other
    } else if is("x-request-id") {
        Claim::RequestId
    } else if is("x-request-start") {
        Claim::RequestStart
    } else {
        return Field::Other;
    };
    Field::Claim(if name.contains('_') { Claim::Disguised } else { claim })
}

/// Whether `byte` may stand in a header's name (RFC 9110 section 5.6.2).
pub(crate) fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

/// The items of a comma-separated list, trimmed, without empty ones.
pub(crate) fn items(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|b| *b == b',').map(<[u8]>::trim_ascii).filter(|item| !item.is_empty())
}

/// The one number that a Content-Length may be: digits and nothing else.
pub(crate) fn content_length(value: &[u8]) -> Option<u64> {
    if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(value).ok()?.parse().ok()
}

/// Whether a line feed stands without its carriage return. `httparse` lets it pass; two readers that differ
/// on it see two different messages. (A carriage return alone `httparse` refuses itself.)
pub(crate) fn has_bare_lf(head: &[u8]) -> bool {
    // One pass without early exit, so that it is vectorised.
    let pairs = head.iter().zip(head.get(1..).unwrap_or_default());
    head.first() == Some(&b'\n') || pairs.fold(false, |bad, (a, b)| bad | ((*b == b'\n') & (*a != b'\r')))
}

/// A set of header positions within one head.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Positions(u128);

impl Positions {
    pub(crate) const NONE: Self = Self(0);

    pub(crate) fn insert(&mut self, index: usize) {
        self.0 |= 1 << index;
    }

    pub(crate) fn contains(self, index: usize) -> bool {
        self.0 & (1 << index) != 0
    }

    /// Those that are not in `other`.
    pub(crate) fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The positions in order.
    pub(crate) fn iter(self) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(self.0), |bits| Some(bits & bits.wrapping_sub(1)))
            .take_while(|bits| *bits != 0)
            .map(|bits| bits.trailing_zeros() as usize)
    }
}

/// What the `Connection` headers of a message say.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct ConnectionOptions {
    pub(crate) close: bool,
    pub(crate) keep_alive: bool,
    pub(crate) upgrade: bool,
}

/// Reads the `Connection` headers at `positions`. The headers they name end at this hop too and are added to
/// `removed`, except those that a message cannot do without.
pub(crate) fn connection_options(
    headers: &[Header<'_>],
    positions: Positions,
    removed: &mut Positions,
) -> ConnectionOptions {
    let mut options = ConnectionOptions::default();
    for item in positions.iter().flat_map(|index| items(headers[index].value)) {
        if item.eq_ignore_ascii_case(b"close") {
            options.close = true;
        } else if item.eq_ignore_ascii_case(b"keep-alive") {
            options.keep_alive = true;
        } else if item.eq_ignore_ascii_case(b"upgrade") {
            options.upgrade = true;
        } else {
            for (index, header) in headers.iter().enumerate() {
                let named = header.name.as_bytes().eq_ignore_ascii_case(item);
                if named && !matches!(classify(header.name), Field::ContentLength | Field::Expect) {
                    removed.insert(index);
                }
            }
        }
    }
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        for (name, field) in [
            ("Host", Field::Host),
            ("TE", Field::Te),
            ("content-LENGTH", Field::ContentLength),
            ("Transfer-Encoding", Field::TransferEncoding),
            ("Forwarded", Field::Claim(Claim::Forwarded)),
            ("X-Forwarded-For", Field::Claim(Claim::For)),
            ("x-forwarded-PROTO", Field::Claim(Claim::Proto)),
            ("x-forwarded-host", Field::Claim(Claim::Host)),
            ("x-forwarded-hosts", Field::Claim(Claim::Other)),
            ("x-forwarded-port", Field::Claim(Claim::Other)),
            ("X-Real-IP", Field::Claim(Claim::Other)),
            ("x_forwarded_for", Field::Claim(Claim::Disguised)),
            ("x-forwarded-my_own", Field::Claim(Claim::Disguised)),
            ("X-Real_IP", Field::Claim(Claim::Disguised)),
            ("X-REQUEST-ID", Field::Claim(Claim::RequestId)),
            ("x_request_id", Field::Claim(Claim::Disguised)),
            ("x-request-start", Field::Claim(Claim::RequestStart)),
            ("x_switchman_version", Field::Switchman),
            ("X-Switchman-Version", Field::Switchman),
            ("x-switchman-", Field::Switchman),
            ("x-forwardedfor", Field::Other),
            ("x-request-identity", Field::Other),
            ("cookie", Field::Other),
        ] {
            assert_eq!(classify(name), field, "{name}");
        }
    }

    #[test]
    fn positions_come_in_order() {
        let mut positions = Positions::default();
        [127, 0, 64, 5].into_iter().for_each(|i| positions.insert(i));
        assert_eq!(positions.iter().collect::<Vec<_>>(), [0, 5, 64, 127]);
    }

    #[test]
    fn a_line_feed_needs_its_carriage_return() {
        for (head, bare) in [
            ("GET / HTTP/1.1\r\nHost: a\r\n\r\n", false),
            ("GET / HTTP/1.1\nHost: a\r\n\r\n", true),
            ("\nGET / HTTP/1.1\r\n\r\n", true),
            ("GET / HTTP/1.1\r\nHost: a\r\n\n", true),
            ("", false),
        ] {
            assert_eq!(has_bare_lf(head.as_bytes()), bare, "{head:?}");
        }
    }

    #[test]
    fn a_length_is_digits() {
        for (value, length) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("", None),
            ("+5", None),
            ("-5", None),
            ("5, 5", None),
            ("0x5", None),
            ("5 5", None),
        ] {
            assert_eq!(content_length(value.as_bytes()), length, "{value:?}");
        }
    }
}
