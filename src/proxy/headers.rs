//! Heads rewritten on their way: what ends at this hop is left out, what we say is added.
//!
//! The lines that stay are copied in runs, byte for byte, straight into the buffer that is written to the
//! socket: no header is copied alone, none is formatted.

use httparse::Header;

use crate::proxy::client::{Client, Weighed};
use crate::proxy::h1::body::{Body, Encode};
use crate::proxy::h1::field::Positions;
use crate::proxy::h1::request::RequestHead;
use crate::proxy::h1::response::ResponseHead;
use crate::proxy::stamp::Stamp;

/// Writes the head that a worker gets. `upgrade`: the protocol that the connection may become.
pub(crate) fn write_request(
    head: &RequestHead<'_, '_>,
    client: &Client,
    weighed: &Weighed<'_>,
    stamp: &Stamp,
    upgrade: Option<&str>,
    out: &mut Vec<u8>,
) {
    let after_line = line_length(head.raw);
    if head.line_as_is {
        out.extend_from_slice(&head.raw[..after_line]);
    } else {
        // `http://host?query` and `http://host` have no path of their own (RFC 9112 section 3.2.1).
        let path = match (head.target.as_bytes().first(), head.method) {
            (None, "OPTIONS") => "*",
            (Some(b'/' | b'*'), _) => "",
            _ => "/",
        };
        extend(out, &[head.method, " ", path, head.target, " HTTP/1.1\r\n"]);
    }
    extend(out, &["Host: ", head.authority, "\r\n"]);
    copy_kept(head.raw, after_line, head.headers, head.removed.without(weighed.kept), out);
    client.write(head, weighed, out);
    stamp.write_id(out);
    if !weighed.start {
        stamp.write_start(out);
    }
    if !matches!(head.body, Body::Length(_)) {
        extend(out, &["Transfer-Encoding: chunked\r\n"]);
    }
    if let Some(protocol) = upgrade {
        extend(out, &["Connection: upgrade\r\nUpgrade: ", protocol, "\r\n"]);
    } else if head.te_trailers {
        extend(out, &["Connection: TE\r\nTE: trailers\r\n"]);
    }
    extend(out, &["\r\n"]);
}

/// What is added to a response.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Added<'a> {
    /// The version that answered.
    pub(crate) version: &'a str,
    /// The value of a `Set-Cookie`, where an id was assigned.
    pub(crate) cookie: Option<&'a str>,
    /// How the body leaves.
    pub(crate) encode: Encode,
    /// The protocol that the connection may become.
    pub(crate) upgrade: Option<&'a str>,
    /// The connection to the client.
    pub(crate) connection: Connection,
    /// Whole lines more.
    pub(crate) lines: &'a [u8],
}

/// What the response says of the connection to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Connection {
    /// Nothing: HTTP/1.1 goes on by itself.
    Silent,
    /// It goes on, and an HTTP/1.0 client must be told.
    KeepAlive,
    /// It ends after this response.
    Close,
    /// It becomes one of [`Added::upgrade`].
    Upgrade,
}

/// Writes the head that the client gets.
pub(crate) fn write_response(head: &ResponseHead<'_, '_>, added: Added<'_>, out: &mut Vec<u8>) {
    let after_line = line_length(head.raw);
    extend(out, &["HTTP/1.1"]);
    out.extend_from_slice(&head.raw["HTTP/1.1".len()..after_line]);
    copy_kept(head.raw, after_line, head.headers, head.removed, out);
    extend(out, &["x-switchman-version: ", added.version, "\r\n"]);
    if let Some(cookie) = added.cookie {
        extend(out, &["Set-Cookie: ", cookie, "\r\n"]);
    }
    out.extend_from_slice(added.lines);
    let chunked = match head.body {
        Body::Chunked(_) => added.encode == Encode::AsIs,
        _ => added.encode == Encode::Chunk,
    };
    if chunked {
        extend(out, &["transfer-encoding: chunked\r\n"]);
    }
    match added.connection {
        Connection::Silent => extend(out, &["\r\n"]),
        Connection::KeepAlive => extend(out, &["connection: keep-alive\r\n\r\n"]),
        Connection::Close => extend(out, &["connection: close\r\n\r\n"]),
        Connection::Upgrade => {
            let protocol = added.upgrade.unwrap_or_default();
            extend(out, &["connection: upgrade\r\nupgrade: ", protocol, "\r\n\r\n"]);
        }
    }
}

/// Bytes of the first line with its CRLF.
fn line_length(raw: &[u8]) -> usize {
    raw.iter().position(|b| *b == b'\n').map_or(raw.len(), |at| at + 1)
}

fn extend(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

/// Copies the header lines of `raw` but those in `removed`, and not the empty line at the end.
fn copy_kept(raw: &[u8], first: usize, headers: &[Header<'_>], removed: Positions, out: &mut Vec<u8>) {
    let end = raw.len() - 2;
    let begin_of = |index: usize| {
        headers.get(index).map_or(end, |header| header.name.as_ptr() as usize - raw.as_ptr() as usize)
    };
    let mut run = first;
    for index in removed.iter() {
        out.extend_from_slice(&raw[run..begin_of(index)]);
        run = begin_of(index + 1);
    }
    out.extend_from_slice(&raw[run..end]);
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::proxy::h1::{request, response};
    use crate::proxy::limits::Settings;
    use crate::proxy::stamp::Ids;

    /// A request of `192.0.2.1` by http, with the id `7`, written down at 5 ms past 1970.
    fn rewrite(head: &RequestHead<'_, '_>, upgrade: Option<&str>, out: &mut Vec<u8>) {
        let client = Client::new("192.0.2.1".parse().unwrap(), &Rc::default());
        let mut stamp = Stamp::default();
        stamp.begin(client.ip, 5);
        stamp.identify(&Ids::new(), Some(b"7"));
        write_request(head, &client, &client.weigh(head), &stamp, upgrade, out);
    }

    fn request(text: &str) -> String {
        let mut out = Vec::new();
        request::parse(text.as_bytes(), &Settings::default(), |head| {
            rewrite(head, head.upgrade.map(|_| "websocket"), &mut out)
        })
        .unwrap()
        .unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_request_is_rewritten() {
        let stamp = "X-Request-Id: 7\r\nX-Request-Start: t=5\r\n";
        let client = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\n";
        let ours = format!("{client}X-Forwarded-Host: h:1\r\n{stamp}");
        for (text, expected) in [
            (
                "GET /a HTTP/1.1\r\nA: 1\r\nHost: h:1\r\nB:  2 \r\nConnection: x-c\r\nX-C: 3\r\n\r\n",
                format!("GET /a HTTP/1.1\r\nHost: h:1\r\nA: 1\r\nB:  2 \r\n{ours}\r\n"),
            ),
            (
                "GET http://h:1 HTTP/1.1\r\nHost: other\r\nX-Forwarded-For: 6.6.6.6\r\nX_Forwarded_Host: e\r\n\r\n",
                format!("GET / HTTP/1.1\r\nHost: h:1\r\n{ours}\r\n"),
            ),
            (
                "OPTIONS http://h:1 HTTP/1.1\r\nHost: h\r\n\r\n",
                format!("OPTIONS * HTTP/1.1\r\nHost: h:1\r\n{ours}\r\n"),
            ),
            (
                "POST http://h:1?q HTTP/1.1\r\nHost: h\r\ntransfer-encoding: CHUNKED\r\nTE: trailers, gzip\r\n\r\n",
                format!(
                    "POST /?q HTTP/1.1\r\nHost: h:1\r\n{ours}Transfer-Encoding: chunked\r\n\
                     Connection: TE\r\nTE: trailers\r\n\r\n"
                ),
            ),
            (
                "GET /ws HTTP/1.1\r\nHost: h:1\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\nX-Switchman-A: b\r\n\r\n",
                format!(
                    "GET /ws HTTP/1.1\r\nHost: h:1\r\n{ours}Connection: upgrade\r\nUpgrade: websocket\r\n\r\n"
                ),
            ),
        ] {
            assert_eq!(request(text), expected, "{text:?}");
        }
        assert_eq!(
            request("GET / HTTP/1.0\r\nExpect: x\r\n\r\n"),
            format!("GET / HTTP/1.1\r\nHost: \r\n{client}{stamp}\r\n")
        );
    }

    #[test]
    fn a_response_says_which_version_answered() {
        let text =
            "HTTP/1.0 200 Fine\r\nX-Switchman-Version: fake\r\nA: 1\r\nConnection: close\r\nB: 2\r\n\r\n";
        let added = Added {
            version: "4f2a91c",
            cookie: Some("uid=1"),
            encode: Encode::Chunk,
            upgrade: None,
            connection: Connection::Close,
            lines: b"vary: x\r\n",
        };
        let mut out = Vec::new();
        response::parse(text.as_bytes(), &Settings::default(), false, |head| {
            write_response(head, added, &mut out)
        })
        .unwrap()
        .unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "HTTP/1.1 200 Fine\r\nA: 1\r\nB: 2\r\nx-switchman-version: 4f2a91c\r\nSet-Cookie: uid=1\r\n\
             vary: x\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
        );
    }

    proptest::proptest! {
        /// Whatever is accepted is written in a form that is read the same way again, whoever reads it.
        #[test]
        fn what_is_passed_on_says_the_same(parts in proptest::collection::vec(part(), 1..14)) {
            let text = format!("{}\r\n\r\n", parts.concat());
            let read = |bytes: &[u8], out: &mut Vec<u8>| {
                request::parse(bytes, &Settings::default(), |head| {
                    rewrite(head, head.upgrade, out);
                    (head.method.to_owned(), head.authority.to_owned(), head.body)
                })
            };
            let mut first = Vec::new();
            if let Ok(Some((length, meant))) = read(text.as_bytes(), &mut first) {
                proptest::prop_assert!(text[..length].ends_with("\r\n\r\n"));
                let mut second = Vec::new();
                let again = read(&first, &mut second).unwrap().unwrap();
                proptest::prop_assert_eq!(again, (first.len(), meant));
                proptest::prop_assert_eq!(first.len(), second.len());
            }
        }
    }

    /// Pieces that requests, good and bad ones, are made of.
    fn part() -> impl proptest::strategy::Strategy<Value = &'static str> {
        proptest::sample::select(vec![
            "GET / HTTP/1.1\r\n",
            "POST /a?b HTTP/1.1\r\n",
            "GET http://h:1 HTTP/1.1\r\n",
            "GET / HTTP/1.0\r\n",
            "OPTIONS * HTTP/1.1\r\n",
            "Host: a\r\n",
            "Host: a:80\r\n",
            "Content-Length: 5\r\n",
            "Transfer-Encoding: chunked\r\n",
            "Connection: x-a, host\r\n",
            "Connection: upgrade\r\n",
            "Upgrade: websocket\r\n",
            "TE: trailers\r\n",
            "X-A: 1\r\n",
            "X-Forwarded-For: 1\r\n",
            "\r\n",
            "\n",
            "\r",
            " ",
            ":",
            "x",
            "\0",
            "\t",
        ])
    }
}
