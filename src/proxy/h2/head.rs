//! Heads between HTTP/2 and the inner form, HTTP/1.1 text. Nothing is decided here: what a request may not say
//! is written as it came, and the one strict parser refuses it.

use http::header::{self, HeaderMap, HeaderName, HeaderValue};
use http::{Method, Response, StatusCode, request};

use crate::proxy::error::{Answer, Cause, Refusal};
use crate::proxy::h1::response::ResponseHead;
use crate::proxy::h2::websocket;
use crate::proxy::headers::Added;

/// Writes a request's head as HTTP/1.1 text. A WebSocket of RFC 8441 becomes one of HTTP/1.1; returned is then
/// the `Sec-WebSocket-Accept` that its worker must answer with.
pub(super) fn write_request(head: &request::Parts, out: &mut Vec<u8>) -> Option<String> {
    let is_websocket = head.method == Method::CONNECT
        && head
            .extensions
            .get::<h2::ext::Protocol>()
            .is_some_and(|protocol| protocol.as_str() == "websocket");
    let method = if is_websocket { "GET" } else { head.method.as_str() };
    let authority = head.uri.authority().map(|authority| authority.as_str());
    let target = head.uri.path_and_query().map(|target| target.as_str()).or(authority);
    extend(out, &[method.as_bytes(), b" ", target.unwrap_or_default().as_bytes(), b" HTTP/1.1\r\n"]);
    if let Some(authority) = authority {
        line(out, b"Host", authority.as_bytes());
    }
    let mut cookies = Vec::new();
    for (name, value) in &head.headers {
        let value = value.as_bytes();
        let is_said = match *name {
            // A Host beside :authority must say the same; another one the parser meets as a second Host.
            header::HOST => authority.is_some_and(|a| a.as_bytes().eq_ignore_ascii_case(value)),
            header::COOKIE => {
                let separator: &[u8] = if cookies.is_empty() { b"" } else { b"; " };
                extend(&mut cookies, &[separator, value]);
                true
            }
            header::SEC_WEBSOCKET_KEY => is_websocket,
            _ => false,
        };
        if !is_said {
            line(out, name.as_str().as_bytes(), value);
        }
    }
    // Rules and workers see one Cookie (RFC 9113 section 8.2.3).
    if !cookies.is_empty() {
        line(out, b"cookie", &cookies);
    }
    let accept = is_websocket.then(|| {
        let key = websocket::new_key();
        extend(out, &[b"Connection: upgrade\r\nUpgrade: websocket\r\n"]);
        line(out, b"Sec-WebSocket-Key", key.as_bytes());
        websocket::accept(&key)
    });
    extend(out, &[b"\r\n"]);
    accept
}

/// A worker's response head with what is added. 101 becomes 200, which is how HTTP/2 says it.
pub(super) fn response(head: &ResponseHead<'_, '_>, added: Added<'_>) -> Result<Response<()>, Refusal> {
    // What frames the answer says HTTP/2 itself. Named one by one, so that nothing new is forgotten here.
    let Added { version, cookie, encode: _, upgrade: _, connection: _, lines } = added;
    // Headers of gRPC that stand where trailers would: its clients take every one of them for a trailer.
    let stands_for_trailers = head.body.is_done()
        && head.headers.iter().any(|field| field.name.eq_ignore_ascii_case("grpc-status"));
    let mut headers = HeaderMap::with_capacity(head.headers.len() + 2);
    for (index, field) in head.headers.iter().enumerate() {
        let is_left_out = head.removed.contains(index)
            || head.status == 101 && field.name.eq_ignore_ascii_case("sec-websocket-accept")
            || stands_for_trailers && field.name.eq_ignore_ascii_case("content-length");
        if !is_left_out {
            append(&mut headers, field.name.as_bytes(), field.value)?;
        }
    }
    append(&mut headers, b"x-switchman-version", version.as_bytes())?;
    if let Some(cookie) = cookie {
        append(&mut headers, header::SET_COOKIE.as_str().as_bytes(), cookie.as_bytes())?;
    }
    append_lines(&mut headers, lines);
    let status = if head.status == 101 { 200 } else { head.status };
    made(status, headers)
}

/// Whether the answer to a WebSocket's handshake is one: for the client every 2xx would be.
pub(super) fn check_websocket(head: &ResponseHead<'_, '_>, accept: &str) -> Result<(), Refusal> {
    let says = |field: &&httparse::Header<'_>| field.name.eq_ignore_ascii_case("sec-websocket-accept");
    match head.status {
        101 if head.headers.iter().find(says).is_some_and(|field| field.value == accept.as_bytes()) => Ok(()),
        101 => Err(bad("the worker's Sec-WebSocket-Accept does not answer the key")),
        200..=299 => Err(bad("the worker answered a WebSocket handshake without switching protocols")),
        _ => Ok(()),
    }
}

/// An answer of ours.
pub(super) fn answer(answer: &Answer) -> Result<Response<()>, Refusal> {
    let mut headers = HeaderMap::with_capacity(answer.headers.len() + 1);
    for (name, value) in &answer.headers {
        append(&mut headers, name.as_bytes(), value.as_bytes())?;
    }
    if !answer.body.is_empty() {
        headers.insert(header::CONTENT_LENGTH, answer.body.len().into());
    }
    made(answer.status, headers)
}

/// Trailers that came as lines of text; what is no trailer is left out.
pub(super) fn trailers(lines: &[u8]) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    append_lines(&mut trailers, lines);
    trailers
}

fn append_lines(headers: &mut HeaderMap, lines: &[u8]) {
    for line in lines.split(|b| *b == b'\n') {
        if let Some(colon) = line.iter().position(|b| *b == b':') {
            // The lines were checked when they were read.
            let _ = append(headers, &line[..colon], line[colon + 1..].trim_ascii());
        }
    }
}

/// Trailers that came in HTTP/2, as lines of text.
pub(super) fn write_trailers(trailers: &HeaderMap, out: &mut Vec<u8>) {
    trailers.iter().for_each(|(name, value)| line(out, name.as_str().as_bytes(), value.as_bytes()));
}

fn made(status: u16, headers: HeaderMap) -> Result<Response<()>, Refusal> {
    let mut response = Response::new(());
    *response.status_mut() =
        StatusCode::from_u16(status).map_err(|_| bad("the worker's status is not one of HTTP/2"))?;
    *response.headers_mut() = headers;
    Ok(response)
}

fn append(headers: &mut HeaderMap, name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    let made = HeaderName::from_bytes(name).ok().zip(HeaderValue::from_bytes(value).ok());
    let (name, value) =
        made.ok_or_else(|| bad("the worker's response has a header that HTTP/2 cannot say"))?;
    headers.try_append(name, value).map(|_| ()).map_err(|_| bad("the worker's response has too many headers"))
}

fn bad(what: &'static str) -> Refusal {
    Refusal::new(Cause::BadResponse, what)
}

fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    extend(out, &[name, b": ", value, b"\r\n"]);
}

fn extend(out: &mut Vec<u8>, parts: &[&[u8]]) {
    parts.iter().for_each(|part| out.extend_from_slice(part));
}
