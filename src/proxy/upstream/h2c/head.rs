//! Heads between HTTP/1.1 text and HTTP/2. Pure.
//!
//! A request's text is our own and was checked when it was written ([`crate::proxy::headers`]); a response's text
//! is read by [`crate::proxy::h1::response`], which checks it.

use std::io;
use std::mem::MaybeUninit;

use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, TRAILER};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri};

use crate::proxy::grpc;
use crate::proxy::h1::body::Body;
use crate::proxy::h1::chunked::Chunked;
use crate::proxy::h1::field::{self, Field};
use crate::proxy::limits::HEADERS_MAX;

/// Headers that we add to those of the client.
const OURS: usize = 16;

/// A request as the worker gets it.
pub(super) struct RequestHead {
    pub(super) request: Request<()>,
    /// How the body follows in the text.
    pub(super) body: Body,
    /// Bytes of the head's text.
    pub(super) length: usize,
}

/// How a response's body follows in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// As it is: there is none, or its length is said.
    Plain,
    /// As chunks, and behind them the trailers.
    Chunks,
}

/// Reads the request head at the start of `text`, which must be whole.
pub(super) fn read_request(text: &[u8]) -> io::Result<RequestHead> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX + OURS];
    let mut parsed = httparse::Request::new(&mut []);
    let Ok(httparse::Status::Complete(length)) = parsed.parse_with_uninit_headers(text, &mut room) else {
        return Err(invalid("the request's head is not whole"));
    };
    let (mut authority, mut body) = (None, Body::Length(0));
    let mut headers = HeaderMap::with_capacity(parsed.headers.len());
    for header in parsed.headers.iter() {
        match field::classify(header.name) {
            Field::Host => {
                authority = Some(header.value).filter(|host| !host.is_empty());
                continue;
            }
            Field::TransferEncoding => {
                body = Body::Chunked(Chunked::new());
                continue;
            }
            // A request for another protocol becomes an ordinary one; the worker says what it thinks of it.
            Field::Connection | Field::Upgrade | Field::HopByHop => continue,
            Field::ContentLength => body = Body::Length(field::content_length(header.value).unwrap_or(0)),
            _ => {}
        }
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(header.value)) else {
            return Err(invalid("a header cannot be written in HTTP/2"));
        };
        headers.append(name, value);
    }
    let mut uri = http::uri::Parts::default();
    uri.scheme = Some(Scheme::HTTP);
    // An HTTP/1.0 client may leave the host out; HTTP/2 may not.
    uri.authority = Authority::try_from(authority.unwrap_or(b"localhost")).ok();
    uri.path_and_query = parsed.path.and_then(|path| PathAndQuery::try_from(path).ok());
    let uri =
        Uri::from_parts(uri).map_err(|_| invalid("the request's target cannot be written in HTTP/2"))?;
    let mut request = Request::new(());
    *request.method_mut() = parsed
        .method
        .and_then(|method| Method::from_bytes(method.as_bytes()).ok())
        .ok_or_else(|| invalid("the request's method cannot be written in HTTP/2"))?;
    *request.uri_mut() = uri;
    *request.headers_mut() = headers;
    Ok(RequestHead { request, body, length })
}

/// Writes a response head. `to_head`: it answers a HEAD request; `ended`: no body and no trailers follow.
pub(super) fn write_response(
    status: StatusCode,
    headers: &HeaderMap,
    to_head: bool,
    ended: bool,
    out: &mut Vec<u8>,
) -> Framing {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.extend_from_slice(b" ");
    out.extend_from_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    let bodiless = to_head || status.is_informational() || matches!(status.as_u16(), 204 | 304);
    // Trailers have a place behind chunks only, and so a length is left out where trailers are to be expected.
    let trailers = !ended
        && (headers.contains_key(TRAILER)
            || headers.get(CONTENT_TYPE).is_some_and(|value| grpc::is_content_type(value.as_bytes())));
    let plain = bodiless || !trailers && headers.contains_key(CONTENT_LENGTH);
    for (name, value) in headers {
        if plain || name != CONTENT_LENGTH {
            write_field(name, value, out);
        }
    }
    let framing = match (plain, ended) {
        (true, _) => Framing::Plain,
        (false, true) => {
            out.extend_from_slice(b"content-length: 0\r\n");
            Framing::Plain
        }
        (false, false) => {
            out.extend_from_slice(b"transfer-encoding: chunked\r\n");
            Framing::Chunks
        }
    };
    out.extend_from_slice(b"\r\n");
    framing
}

/// Writes trailers and the empty line behind them.
pub(super) fn write_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    // Those that only a header may have would end the response; they have no meaning here.
    for (name, value) in trailers.iter().filter(|(name, _)| field::classify(name.as_str()) == Field::Other) {
        write_field(name, value, out);
    }
    out.extend_from_slice(b"\r\n");
}

/// Adds one trailer line of a chunked body.
pub(super) fn read_trailer(line: &[u8], trailers: &mut HeaderMap) {
    let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
    let (name, value) = line.split_at(colon);
    let value = value.get(1..).unwrap_or_default().trim_ascii();
    // The line was checked when it was read; what HTTP/2 cannot say is left out, as any hop may.
    if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
        trailers.append(name, value);
    }
}

fn write_field(name: &HeaderName, value: &HeaderValue, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_str().as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(text: &str) -> String {
        let head = read_request(text.as_bytes()).unwrap();
        assert_eq!(head.length, text.len());
        let headers: Vec<String> = head
            .request
            .headers()
            .iter()
            .map(|(name, value)| format!("{name}={}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        let (method, uri) = (head.request.method(), head.request.uri());
        format!("{method} {uri} {:?} {}", head.body, headers.join(","))
    }

    #[test]
    fn a_request_is_said_in_http2() {
        for (text, expected) in [
            ("GET /a?b HTTP/1.1\r\nHost: h:1\r\n\r\n", "GET http://h:1/a?b Length(0) "),
            ("GET / HTTP/1.1\r\nHost: \r\nX-A: \u{e9}\r\n\r\n", "GET http://localhost/ Length(0) x-a=\u{e9}"),
            (
                "PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: TE\r\nTE: trailers\r\n\r\n",
                "PUT http://h/ Length(5) content-length=5,te=trailers",
            ),
            (
                "GET /ws HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                "GET http://h/ws Length(0) ",
            ),
        ] {
            assert_eq!(request(text), expected, "{text:?}");
        }
        let star = read_request(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").unwrap();
        assert_eq!(star.request.uri().path(), "*");
        let chunked =
            read_request(b"PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
        assert!(matches!(chunked.body, Body::Chunked(_)) && chunked.request.headers().is_empty());
        assert!(read_request(b"GET / HTTP/1.1\r\nHost: h\r\n").is_err(), "not whole");
    }

    fn response(status: u16, headers: &[(&'static str, &'static str)], to_head: bool, ended: bool) -> String {
        let headers = headers
            .iter()
            .map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect();
        let mut out = Vec::new();
        let framing =
            write_response(StatusCode::from_u16(status).unwrap(), &headers, to_head, ended, &mut out);
        format!("{framing:?} {}", String::from_utf8(out).unwrap().replace("\r\n", "|"))
    }

    #[test]
    fn a_response_is_said_in_http1_with_its_framing() {
        const LENGTH: (&str, &str) = ("content-length", "5");
        const GRPC: (&str, &str) = ("content-type", "application/grpc");
        for (status, headers, to_head, ended, expected) in [
            (200, &[LENGTH][..], false, false, "Plain HTTP/1.1 200 OK|content-length: 5||"),
            (200, &[], false, false, "Chunks HTTP/1.1 200 OK|transfer-encoding: chunked||"),
            (200, &[], false, true, "Plain HTTP/1.1 200 OK|content-length: 0||"),
            (200, &[LENGTH], true, true, "Plain HTTP/1.1 200 OK|content-length: 5||"),
            (204, &[], false, true, "Plain HTTP/1.1 204 No Content||"),
            (103, &[("link", "</a>")], false, true, "Plain HTTP/1.1 103 Early Hints|link: </a>||"),
            (299, &[], false, true, "Plain HTTP/1.1 299 |content-length: 0||"),
            (
                200,
                &[LENGTH, GRPC],
                false,
                false,
                "Chunks HTTP/1.1 200 OK|content-type: application/grpc|transfer-encoding: chunked||",
            ),
            (
                200,
                &[LENGTH, ("trailer", "x-sum")],
                false,
                false,
                "Chunks HTTP/1.1 200 OK|trailer: x-sum|transfer-encoding: chunked||",
            ),
        ] {
            assert_eq!(response(status, headers, to_head, ended), expected);
        }
    }

    #[test]
    fn trailers_are_the_same_both_ways() {
        let mut trailers = HeaderMap::new();
        read_trailer(b"Grpc-Status: 0", &mut trailers);
        read_trailer(b"x-two:1", &mut trailers);
        read_trailer(b"x-two: 2 ", &mut trailers);
        read_trailer(b"no name", &mut trailers);
        trailers.insert("content-length", HeaderValue::from_static("5"));
        let mut out = Vec::new();
        write_trailers(&trailers, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "grpc-status: 0\r\nx-two: 1\r\nx-two: 2\r\n\r\n");
    }
}
