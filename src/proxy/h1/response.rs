//! A response head of a worker: parsed as strictly as a request's, for a client must not be confused either.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::proxy::error::{Cause, Refusal};
use crate::proxy::h1::body::Body;
use crate::proxy::h1::chunked::Chunked;
use crate::proxy::h1::field::{self, Field, Positions};
use crate::proxy::limits::{HEADERS_MAX, Settings};

/// A head that may be passed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ResponseHead<'h, 'b> {
    /// From the status line to the empty line, both included.
    pub(crate) raw: &'b [u8],
    pub(crate) status: u16,
    pub(crate) headers: &'h [Header<'b>],
    /// Headers that end here.
    pub(crate) removed: Positions,
    pub(crate) body: Body,
    /// The worker allows another request on this connection.
    pub(crate) keep_alive: bool,
    /// The protocol that the worker says it switches to.
    pub(crate) upgrade: Option<&'b [u8]>,
    /// Its body is a stream of events, which may be silent for as long as nothing happens.
    pub(crate) event_stream: bool,
    /// Its body carries the messages of a gRPC call.
    pub(crate) grpc: bool,
}

/// Parses the head at the start of `bytes` and hands it to `then`. `None`: it is not whole yet.
/// `to_head`: it answers a HEAD request.
pub(crate) fn parse<R>(
    bytes: &[u8],
    limits: &Settings,
    to_head: bool,
    then: impl FnOnce(&ResponseHead<'_, '_>) -> R,
) -> Result<Option<(usize, R)>, Refusal> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Response::new(&mut []);
    let room = &mut room[..limits.headers.min(HEADERS_MAX)];
    let status = httparse::ParserConfig::default()
        .parse_response_with_uninit_headers(&mut parsed, bytes, room)
        .map_err(|error| invalid(error, bytes))?;
    let httparse::Status::Complete(length) = status else {
        return if bytes.len() >= limits.head_bytes { Err(bad("is too large")) } else { Ok(None) };
    };
    let (Some(version), Some(code)) = (parsed.version, parsed.code) else {
        return Err(bad("is not complete"));
    };
    let raw = &bytes[..length];
    if field::has_bare_lf(raw) || !raw.starts_with(b"HTTP/") {
        return Err(bad("has a line that does not end in CRLF"));
    }
    let head = check(raw, version == 1, code, parsed.headers, to_head)?;
    Ok(Some((length, then(&head))))
}

/// Says why a head cannot be read.
fn invalid(error: httparse::Error, bytes: &[u8]) -> Refusal {
    // The first thing that HTTP/2 says: a SETTINGS frame of the connection (RFC 9113 sections 3.4 and 6.5).
    if let [_, _, _, 4, 0, 0, 0, 0, 0, ..] = bytes {
        return bad("is HTTP/2's: a worker that speaks it wants `protocol: h2c`");
    }
    Refusal::new(Cause::BadResponse, format!("the worker's response head is invalid: {error}"))
}

fn bad(what: &'static str) -> Refusal {
    Refusal::new(Cause::BadResponse, format!("the worker's response head {what}"))
}

fn check<'h, 'b>(
    raw: &'b [u8],
    http11: bool,
    status: u16,
    headers: &'h [Header<'b>],
    to_head: bool,
) -> Result<ResponseHead<'h, 'b>, Refusal> {
    if status < 100 {
        return Err(bad("has a status below 100"));
    }
    let bodiless = matches!(status, 100..=199 | 204 | 304);
    let (mut length, mut length_at, mut chunked) = (None, None, false);
    let (mut upgrade, mut event_stream, mut grpc) = (None, false, false);
    let (mut connection, mut removed) = (Positions::default(), Positions::default());
    for (index, header) in headers.iter().enumerate() {
        match field::classify(header.name) {
            Field::ContentLength => {
                let Some(value) = field::content_length(header.value) else {
                    return Err(bad("has a Content-Length that is not a number"));
                };
                if length.replace(value).is_some() {
                    return Err(bad("has Content-Length twice"));
                }
                length_at = Some(index);
            }
            Field::ContentType => {
                event_stream = is_event_stream(header.value);
                grpc = begins_with(header.value, b"application/grpc");
            }
            Field::TransferEncoding => {
                if chunked || !http11 || !header.value.eq_ignore_ascii_case(b"chunked") {
                    return Err(bad("has a Transfer-Encoding that is not exactly `chunked`"));
                }
                chunked = true;
                removed.insert(index);
            }
            Field::Connection => {
                connection.insert(index);
                removed.insert(index);
            }
            Field::Upgrade => {
                upgrade = Some(header.value);
                removed.insert(index);
            }
            Field::HopByHop | Field::Te | Field::Switchman => removed.insert(index),
            Field::Host | Field::Expect | Field::Claim(_) | Field::Other => {}
        }
    }
    if chunked && length.is_some() {
        return Err(bad("has Content-Length and Transfer-Encoding"));
    }
    let options = field::connection_options(headers, connection, &mut removed);
    let body = match (bodiless || to_head, chunked, length) {
        (true, ..) => Body::Length(0),
        (false, true, _) => Body::Chunked(Chunked::new()),
        (false, false, Some(length)) => Body::Length(length),
        (false, false, None) => Body::UntilClose,
    };
    if let (Some(index), 100..=199 | 204) = (length_at, status) {
        removed.insert(index);
    }
    let keep_alive = !options.close && (http11 || options.keep_alive) && body != Body::UntilClose;
    Ok(ResponseHead { raw, status, headers, removed, body, keep_alive, upgrade, event_stream, grpc })
}

/// Server-sent events, with or without parameters behind the type.
fn is_event_stream(value: &[u8]) -> bool {
    begins_with(value, b"text/event-stream")
}

fn begins_with(value: &[u8], kind: &[u8]) -> bool {
    value.get(..kind.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(kind))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, to_head: bool) -> Result<Option<String>, Cause> {
        parse(text.as_bytes(), &Settings::default(), to_head, |head| {
            let removed: Vec<&str> = head.removed.iter().map(|i| head.headers[i].name).collect();
            format!("{} {:?} {} -{}", head.status, head.body, head.keep_alive, removed.join(","))
        })
        .map(|found| found.map(|(_, text)| text))
        .map_err(|refusal| refusal.cause)
    }

    #[test]
    fn a_response_head_is_understood() {
        for (text, to_head, expected) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false, "200 Length(5) true -"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true, "200 Length(0) true -"),
            ("HTTP/1.1 200\r\n\r\n", false, "200 UntilClose false -"),
            ("HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\n", false, "200 Length(1) false -"),
            ("HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n", false, "204 Length(0) true -Content-Length"),
            ("HTTP/1.1 304 No\r\nContent-Length: 9\r\n\r\n", false, "304 Length(0) true -"),
            ("HTTP/1.1 100 Continue\r\n\r\n", false, "100 Length(0) true -"),
            (
                "HTTP/1.1 200 OK\r\nConnection: close, x-b\r\nX-B: 1\r\nx-switchman-error: no\r\nX-C: 1\r\n\r\n",
                false,
                "200 UntilClose false -Connection,X-B,x-switchman-error",
            ),
        ] {
            assert_eq!(read(text, to_head), Ok(Some(expected.to_owned())), "{text:?}");
        }
        assert_eq!(read("HTTP/1.1 200 OK\r\nContent-", false), Ok(None));
    }

    #[test]
    fn a_response_that_could_be_read_in_two_ways_is_refused() {
        for headers in [
            "Content-Length: 5\r\nContent-Length: 5",
            "Content-Length: 5, 5",
            "Content-Length: +5",
            "Content-Length: 5\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: gzip, chunked",
            "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
            "Transfer-Encoding: identity",
            "X: a\r\n folded",
            "X : a",
            "X: a\nY: b",
        ] {
            let text = format!("HTTP/1.1 200 OK\r\n{headers}\r\n\r\n");
            assert_eq!(read(&text, false), Err(Cause::BadResponse), "{headers:?}");
        }
        for text in [
            "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            "HTTP/1.1 099 Low\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 000 None\r\n\r\n",
        ] {
            assert_eq!(read(text, false), Err(Cause::BadResponse), "{text:?}");
        }
    }
}
