//! A request head: parsed, and refused where two readers could understand it differently.

use std::mem::MaybeUninit;

use httparse::Header;

use crate::proxy::error::{Cause, Refusal};
use crate::proxy::grpc;
use crate::proxy::h1::body::Body;
use crate::proxy::h1::chunked::Chunked;
use crate::proxy::h1::field::{self, Field, Positions};
use crate::proxy::h1::target;
use crate::proxy::limits::{HEADERS_MAX, Settings};

/// Longest header name, in bytes.
const NAME_MAX: usize = 256;
/// Room for the request line's method and version beside the longest target.
const LINE_EXTRA: usize = 64;

/// A head that may be passed on.
#[derive(Debug)]
pub(crate) struct RequestHead<'h, 'b> {
    /// From the method to the empty line, both included.
    pub(crate) raw: &'b [u8],
    pub(crate) method: &'b str,
    /// Path and query as sent, without scheme and authority.
    pub(crate) target: &'b str,
    /// The request line may be passed on as it is.
    pub(crate) line_as_is: bool,
    pub(crate) http11: bool,
    pub(crate) headers: &'h [Header<'b>],
    /// Host and port that the request is for: those of an absolute target, else the Host header, else empty.
    pub(crate) authority: &'b str,
    /// Headers that end here, if nobody says otherwise.
    pub(crate) removed: Positions,
    /// Those of `removed` that a trusted proxy may have set: see [`crate::proxy::client`].
    pub(crate) claims: Positions,
    pub(crate) body: Body,
    /// The client allows another request on this connection.
    pub(crate) keep_alive: bool,
    /// The one protocol that the client asks for, as in `websocket`.
    pub(crate) upgrade: Option<&'b str>,
    /// The client understands trailers and said so.
    pub(crate) te_trailers: bool,
    /// Its body is gRPC's.
    pub(crate) grpc: bool,
}

impl RequestHead<'_, '_> {
    /// Doing it twice does what doing it once does (RFC 9110 section 9.2.2).
    pub(crate) fn is_idempotent(&self) -> bool {
        matches!(self.method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
    }
}

/// Parses the head at the start of `bytes` and hands it to `then`. `None`: it is not whole yet. Otherwise the
/// bytes that the head takes, and what `then` made of it.
#[cfg(any(test, fuzzing))]
pub(crate) fn parse<R>(
    bytes: &[u8],
    limits: &Settings,
    then: impl FnOnce(&RequestHead<'_, '_>) -> R,
) -> Result<Option<(usize, R)>, Refusal> {
    parse_with(bytes, limits, Body::Length(0), then)
}

/// Likewise; `without_length` is the body of a request that says no length, which HTTP/2 may well have.
pub(crate) fn parse_with<R>(
    bytes: &[u8],
    limits: &Settings,
    without_length: Body,
    then: impl FnOnce(&RequestHead<'_, '_>) -> R,
) -> Result<Option<(usize, R)>, Refusal> {
    let mut room = [const { MaybeUninit::uninit() }; HEADERS_MAX];
    let mut parsed = httparse::Request::new(&mut []);
    let room = &mut room[..limits.headers.min(HEADERS_MAX)];
    let length = match parsed.parse_with_uninit_headers(bytes, room).map_err(|error| refusal(error, bytes))? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return check_partial(bytes, limits).map(|()| None),
    };
    let (Some(method), Some(path), Some(version)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(Refusal::bad("the request line is not complete"));
    };
    if field::has_bare_lf(&bytes[..length]) {
        return Err(Refusal::bad("a line of the head ends in a line feed without carriage return"));
    }
    if length > limits.head_bytes {
        return Err(head_too_large());
    }
    if path.len() > limits.uri_bytes {
        return Err(uri_too_long());
    }
    let raw = &bytes[method.as_ptr() as usize - bytes.as_ptr() as usize..length];
    let head = check(raw, method, path, version == 1, parsed.headers, without_length)?;
    Ok(Some((length, then(&head))))
}

/// What `httparse` refuses, in our words; what is no HTTP at all by what it is.
fn refusal(error: httparse::Error, bytes: &[u8]) -> Refusal {
    use httparse::Error;
    match error {
        _ if bytes.starts_with(b"PROXY ") || bytes.starts_with(b"\r\n\r\n\0\r\nQUIT\n") => Refusal::bad(
            "a PROXY header stands before the request where none is wanted: see `proxy_protocol`",
        ),
        _ if bytes.starts_with(b"\x16\x03") => {
            Refusal::bad("this is TLS, and the port speaks http: see `tls`")
        }
        Error::TooManyHeaders => Refusal::new(Cause::HeadTooLarge, "the request has too many headers"),
        Error::Version => {
            Refusal::new(Cause::HttpVersion, "the request line does not end in HTTP/1.0 or HTTP/1.1")
        }
        Error::HeaderName => Refusal::bad("a header's name is empty or has a byte that no name may have"),
        Error::HeaderValue => Refusal::bad("a header's value has a control byte or is folded"),
        Error::NewLine => Refusal::bad("a line of the head does not end in CRLF"),
        Error::Token | Error::Status => Refusal::bad("the request line is not `METHOD target HTTP/1.1`"),
    }
}

/// Whether a head that is not whole may still become one.
fn check_partial(bytes: &[u8], limits: &Settings) -> Result<(), Refusal> {
    if bytes.len() > limits.uri_bytes + LINE_EXTRA && !bytes[..limits.uri_bytes + LINE_EXTRA].contains(&b'\n')
    {
        return Err(uri_too_long());
    }
    if bytes.len() >= limits.head_bytes {
        return Err(head_too_large());
    }
    Ok(())
}

fn uri_too_long() -> Refusal {
    Refusal::new(Cause::UriTooLong, "the request target is too long")
}

fn head_too_large() -> Refusal {
    Refusal::new(Cause::HeadTooLarge, "the request head is too large")
}

/// What the headers say, gathered in one pass.
#[derive(Default)]
struct Said<'b> {
    host: Option<&'b str>,
    length: Option<u64>,
    chunked: bool,
    /// Positions of `Connection` headers.
    connection: Positions,
    upgrade: Option<&'b str>,
    upgrades: usize,
    te_trailers: bool,
    grpc: bool,
    removed: Positions,
    claims: Positions,
}

fn check<'h, 'b>(
    raw: &'b [u8],
    method: &'b str,
    path: &'b str,
    http11: bool,
    headers: &'h [Header<'b>],
    without_length: Body,
) -> Result<RequestHead<'h, 'b>, Refusal> {
    if method == "CONNECT" {
        return Err(Refusal::new(Cause::MethodNotSupported, "CONNECT is for forward proxies"));
    }
    let mut said = gather(headers, http11)?;
    let Some(target) = target::split(method, path) else {
        return Err(Refusal::bad("the request target is neither a path nor an http URL with a valid host"));
    };
    if http11 && said.host.is_none() {
        return Err(Refusal::bad("the Host header is missing"));
    }
    let options = field::connection_options(headers, said.connection, &mut said.removed);
    let body = match (said.chunked, said.length) {
        (true, Some(_)) => return Err(Refusal::bad("Content-Length and Transfer-Encoding stand together")),
        (true, None) if !http11 => {
            return Err(Refusal::bad("Transfer-Encoding stands in an HTTP/1.0 request"));
        }
        (true, None) => Body::Chunked(Chunked::new()),
        (false, length) => length.map_or(without_length, Body::Length),
    };
    // A WebSocket begins with GET; of other protocols it is not known what theirs does.
    let upgrade = said.upgrade.filter(|protocol| {
        let method_fits = method == "GET" || !protocol.eq_ignore_ascii_case("websocket");
        options.upgrade && said.upgrades == 1 && http11 && method_fits && body.is_done()
    });
    Ok(RequestHead {
        raw,
        method,
        target: target.origin,
        line_as_is: http11 && target.authority.is_none(),
        http11,
        headers,
        authority: target.authority.or(said.host).unwrap_or_default(),
        removed: said.removed,
        claims: said.claims,
        body,
        keep_alive: !options.close && (http11 || options.keep_alive),
        upgrade,
        te_trailers: said.te_trailers,
        grpc: said.grpc,
    })
}

fn gather<'b>(headers: &[Header<'b>], http11: bool) -> Result<Said<'b>, Refusal> {
    let mut said = Said::default();
    for (index, header) in headers.iter().enumerate() {
        if header.name.len() > NAME_MAX {
            return Err(Refusal::new(Cause::HeadTooLarge, "a header's name is too long"));
        }
        match field::classify(header.name) {
            Field::Other => continue,
            Field::ContentType => {
                said.grpc = grpc::is_content_type(header.value);
                continue;
            }
            Field::Host => {
                let host = std::str::from_utf8(header.value).ok().filter(|host| target::is_authority(host));
                let Some(host) = host else {
                    return Err(Refusal::bad("the Host header is not a valid host"));
                };
                if said.host.replace(host).is_some() {
                    return Err(Refusal::bad("the Host header stands twice"));
                }
            }
            Field::ContentLength => {
                let Some(length) = field::content_length(header.value) else {
                    return Err(Refusal::bad("Content-Length is not a number"));
                };
                if said.length.replace(length).is_some() {
                    return Err(Refusal::bad("Content-Length stands twice"));
                }
                continue;
            }
            Field::TransferEncoding => {
                check_coding(header.value)?;
                if std::mem::replace(&mut said.chunked, true) {
                    return Err(Refusal::bad("Transfer-Encoding stands twice"));
                }
            }
            Field::Expect if !http11 => {}
            Field::Expect if header.value.eq_ignore_ascii_case(b"100-continue") => continue,
            Field::Expect => {
                return Err(Refusal::new(Cause::ExpectationFailed, "Expect is not `100-continue`"));
            }
            Field::Connection => said.connection.insert(index),
            Field::Upgrade => {
                said.upgrades += 1;
                said.upgrade = std::str::from_utf8(header.value).ok().filter(|name| !name.contains(','));
            }
            Field::Te => {
                said.te_trailers |= field::items(header.value).any(|i| i.eq_ignore_ascii_case(b"trailers"));
            }
            Field::Claim(_) => said.claims.insert(index),
            Field::HopByHop | Field::Switchman => {}
        }
        said.removed.insert(index);
    }
    Ok(said)
}

/// Only `chunked` is understood; what merely resembles it is an attempt to be understood in two ways.
fn check_coding(value: &[u8]) -> Result<(), Refusal> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let resembles = value.to_ascii_lowercase().windows(7).any(|w| w == b"chunked");
    if resembles || value.is_empty() || !value.iter().all(|b| field::is_token_byte(*b)) {
        return Err(Refusal::bad("Transfer-Encoding is not exactly `chunked`"));
    }
    Err(Refusal::new(Cause::CodingNotSupported, "no Transfer-Encoding but `chunked` is understood"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the tests look at: target, authority, body, keep-alive, upgrade.
    fn read(text: &str) -> Result<Option<String>, Cause> {
        parse(text.as_bytes(), &Settings::default(), |head| {
            let removed: Vec<&str> = head.removed.iter().map(|i| head.headers[i].name).collect();
            format!(
                "{} {} {:?} {} {:?} -{}",
                head.target,
                head.authority,
                head.body,
                head.keep_alive,
                head.upgrade,
                removed.join(",")
            )
        })
        .map(|found| found.map(|(_, text)| text))
        .map_err(|refusal| refusal.cause)
    }

    #[test]
    fn a_head_is_understood() {
        for (text, expected) in [
            ("GET /a?b HTTP/1.1\r\nHost: h:80\r\n\r\n", "/a?b h:80 Length(0) true None -Host"),
            ("\r\nGET / HTTP/1.1\r\nhost:\r\n\r\n", "/  Length(0) true None -host"),
            ("GET / HTTP/1.0\r\n\r\n", "/  Length(0) false None -"),
            ("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", "/  Length(0) true None -Connection"),
            ("GET http://o.x/p HTTP/1.1\r\nHost: h\r\n\r\n", "/p o.x Length(0) true None -Host"),
            ("GET http://[::1]:8?q HTTP/1.1\r\nHost: h\r\n\r\n", "?q [::1]:8 Length(0) true None -Host"),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", "* h Length(0) true None -Host"),
            ("PUT / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n", "/ h Length(5) true None -Host"),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nConnection: close, X-A, Host, content-length\r\nx-a: 1\r\n\r\n",
                "/ h Length(0) false None -Host,Connection,x-a",
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n\r\n",
                "/ h Length(0) true Some(\"websocket\") -Host,Upgrade,Connection",
            ),
            (
                "GET / HTTP/1.1\r\nHost: h\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n",
                "/ h Length(0) true Some(\"h2c\") -Host,Upgrade,Connection",
            ),
        ] {
            assert_eq!(read(text), Ok(Some(expected.to_owned())), "{text:?}");
        }
    }

    #[test]
    fn every_beginning_of_a_head_is_waited_for() {
        let text = "GET / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\n";
        for length in 0..text.len() {
            assert_eq!(read(&text[..length]), Ok(None), "{:?}", &text[..length]);
        }
    }

    #[test]
    fn what_is_no_http_at_all_is_called_by_its_name() {
        for (text, name) in [
            ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\nGET / HTTP/1.1\r\nHost: h\r\n\r\n", "PROXY header"),
            ("PROXY UNKNOWN\r\n", "PROXY header"),
            ("\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c", "PROXY header"),
            ("\x16\x03\x01\x02\0\x01", "this is TLS"),
            ("SSH-2.0-x\r\n", "request line"),
        ] {
            let refusal = parse(text.as_bytes(), &Settings::default(), |_| ()).unwrap_err();
            assert_eq!(refusal.cause, Cause::BadRequest, "{text:?}");
            assert!(refusal.detail.contains(name), "{text:?}: {}", refusal.detail);
        }
    }

    #[test]
    fn limits_are_kept() {
        let long = "a".repeat(17 * 1024);
        assert_eq!(read(&format!("GET /{long}")), Err(Cause::UriTooLong));
        assert_eq!(read(&format!("GET /{long} HTTP/1.1\r\nHost: h\r\n\r\n")), Err(Cause::UriTooLong));
        let big = format!("GET / HTTP/1.1\r\nHost: h\r\nA: {}", "a".repeat(64 * 1024));
        assert_eq!(read(&big), Err(Cause::HeadTooLarge));
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "A: b\r\n".repeat(100));
        assert_eq!(read(&many), Err(Cause::HeadTooLarge));
        let name = format!("GET / HTTP/1.1\r\nHost: h\r\n{}: b\r\n\r\n", "n".repeat(257));
        assert_eq!(read(&name), Err(Cause::HeadTooLarge));
    }
}
