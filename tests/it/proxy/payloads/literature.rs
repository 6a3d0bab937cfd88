//! What is known of request smuggling, as bytes: each payload and what it means, if it means one thing.
//!
//! The techniques are those of the public literature (CL.TE, TE.CL, TE.TE, CL.0, 0.CL, desync by `Expect`, chunk
//! extensions and line ends read in two ways, hop-by-hop tricks, obscure line ends and names); the bytes are our own.

/// One request as a worker must read it: method, target, body.
pub(super) type Meant = (&'static str, &'static str, &'static str);

/// What a client sends.
pub(super) struct Payload {
    pub(super) what: &'static str,
    pub(super) bytes: &'static [u8],
    /// The requests that it means.
    pub(super) meant: &'static [Meant],
    /// What follows them, or all of it if there are none, means nothing and is refused.
    pub(super) is_refused: bool,
}

const fn bad(what: &'static str, bytes: &'static [u8]) -> Payload {
    Payload { what, bytes, meant: &[], is_refused: true }
}

const fn good(what: &'static str, bytes: &'static [u8], meant: &'static [Meant]) -> Payload {
    Payload { what, bytes, meant, is_refused: false }
}

const fn good_then_bad(what: &'static str, bytes: &'static [u8], meant: &'static [Meant]) -> Payload {
    Payload { what, bytes, meant, is_refused: true }
}

/// A POST with these header lines and this body.
macro_rules! post {
    ($headers:literal, $body:literal) => {
        concat!("POST /a HTTP/1.1\r\nHost: a\r\n", $headers, "\r\n\r\n", $body).as_bytes()
    };
}

/// A POST with this chunked body.
macro_rules! chunks {
    ($body:literal) => {
        post!("Transfer-Encoding: chunked", $body)
    };
}

/// A GET with these header lines.
macro_rules! get {
    ($headers:literal) => {
        concat!("GET /a HTTP/1.1\r\nHost: a\r\n", $headers, "\r\n\r\n").as_bytes()
    };
}

const HELLO: &[Meant] = &[("POST", "/a", "hello")];
const EMPTY: &[Meant] = &[("POST", "/a", "")];
const GET: &[Meant] = &[("GET", "/a", "")];

/// Transfer codings that one reader takes for `chunked` and another does not.
const CODINGS: &[Payload] = &[
    bad("CL.TE", post!("Content-Length: 6\r\nTransfer-Encoding: chunked", "0\r\n\r\nG")),
    bad("TE.CL", post!("Content-Length: 3\r\nTransfer-Encoding: chunked", "1\r\nZ\r\n0\r\n\r\n")),
    bad("TE.0", post!("Transfer-Encoding: chunked\r\nContent-Length: 0", "5\r\nhello\r\n0\r\n\r\n")),
    bad("chunked and a comma", post!("Transfer-Encoding: chunked,", "0\r\n\r\n")),
    bad("a comma and chunked", post!("Transfer-Encoding: ,chunked", "0\r\n\r\n")),
    bad("chunked and a semicolon", post!("Transfer-Encoding: chunked;", "0\r\n\r\n")),
    bad("chunked in single quotes", post!("Transfer-Encoding: 'chunked'", "0\r\n\r\n")),
    bad("chunked in two words", post!("Transfer-Encoding: chun ked", "0\r\n\r\n")),
    bad("chunked before a vertical tab", post!("Transfer-Encoding: chunked\x0b", "0\r\n\r\n")),
    bad("chunked behind a form feed", post!("Transfer-Encoding: \x0cchunked", "0\r\n\r\n")),
    bad("chunked behind a NUL", post!("Transfer-Encoding: \0chunked", "0\r\n\r\n")),
    bad(
        "chunked behind a hard blank",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xa0chunked\r\n\r\n0\r\n\r\n",
    ),
    bad(
        "chunked behind byte 255",
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \xffchunked\r\n\r\n0\r\n\r\n",
    ),
    bad(
        "another coding, then chunked",
        post!("Transfer-Encoding: cow\r\nTransfer-Encoding: chunked", "0\r\n\r\n"),
    ),
    bad(
        "chunked, then another coding",
        post!("Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", "0\r\n\r\n"),
    ),
    bad(
        "chunked, then identity",
        post!("Transfer-Encoding: chunked\r\ntransfer-encoding: identity", "0\r\n\r\n"),
    ),
    bad("identity, chunked", post!("Transfer-Encoding: identity, chunked", "0\r\n\r\n")),
    bad("gzip, chunked", post!("Transfer-Encoding: gzip, chunked", "0\r\n\r\n")),
    bad("chunked behind a line feed", post!("X: a\nTransfer-Encoding: chunked", "0\r\n\r\n")),
    bad("chunked behind a carriage return", post!("X: a\rTransfer-Encoding: chunked", "0\r\n\r\n")),
    bad("chunked in a folded line", post!("X: a\r\n\tTransfer-Encoding: chunked", "0\r\n\r\n")),
    bad("line end before the colon", post!("Transfer-Encoding\r\n: chunked", "0\r\n\r\n")),
    bad("line feed behind the colon", post!("Transfer-Encoding:\n chunked", "0\r\n\r\n")),
    bad("NUL before the name", post!("\0Transfer-Encoding: chunked", "0\r\n\r\n")),
    bad("blank in the name", post!("Transfer Encoding: chunked", "0\r\n\r\n")),
    bad("no colon at all", post!("Transfer-Encoding chunked", "0\r\n\r\n")),
    bad("a soft hyphen in the name", post!("Transfer\u{ad}-Encoding: chunked", "0\r\n\r\n")),
    bad(
        "both, and Connection names both",
        post!(
            "Connection: transfer-encoding, content-length\r\nContent-Length: 1\r\nTransfer-Encoding: chunked",
            "0\r\n\r\n"
        ),
    ),
    bad(
        "1.0 with both",
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    ),
    good("chunked in mixed case", post!("transfer-encoding: ChUnKeD", "5\r\nhello\r\n0\r\n\r\n"), HELLO),
    good("chunked without a blank", post!("Transfer-Encoding:chunked", "5\r\nhello\r\n0\r\n\r\n"), HELLO),
    good("chunked between tabs", post!("Transfer-Encoding:\tchunked\t", "5\r\nhello\r\n0\r\n\r\n"), HELLO),
    good(
        "Connection names the coding",
        post!("Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        HELLO,
    ),
    good(
        "an underscore for the hyphen",
        post!("Transfer_Encoding: chunked\r\nContent-Length: 5", "hello"),
        HELLO,
    ),
    good(
        "a content coding of that name",
        post!("Content-Encoding: chunked\r\nContent-Length: 5", "hello"),
        HELLO,
    ),
    good("TE is no coding", post!("TE: chunked\r\nContent-Length: 5", "hello"), HELLO),
    good(
        "a GET in chunks",
        b"GET /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        &[("GET", "/a", "hello")],
    ),
];

/// Lengths that are read as several numbers, or by one reader only.
const LENGTHS: &[Payload] = &[
    bad("two lengths, none first", post!("Content-Length: 0\r\nContent-Length: 5", "hello")),
    bad("two lengths in two cases", post!("Content-Length: 5\r\nCONTENT-LENGTH: 5", "hello")),
    bad("NUL behind the length", post!("Content-Length: 5\0", "hello")),
    bad("vertical tab behind the length", post!("Content-Length: 5\x0b", "hello")),
    bad("blank before the colon", post!("Content-Length : 5", "hello")),
    bad("a semicolon", post!("Content-Length: 5;", "hello")),
    bad("a letter", post!("Content-Length: 5a", "hello")),
    bad("in quotes", post!("Content-Length: \"5\"", "hello")),
    bad("an exponent", post!("Content-Length: 5e0", "hello")),
    bad("an underscore in the number", post!("Content-Length: 0_5", "hello")),
    bad("a wide digit", post!("Content-Length: \u{ff15}", "hello")),
    bad("an Arabic digit", post!("Content-Length: \u{665}", "hello")),
    bad("a list of different ones", post!("Content-Length: 5, 6", "hello")),
    bad("a list without a blank", post!("Content-Length: 5,5", "hello")),
    bad("an empty item", post!("Content-Length: 5,", "hello")),
    bad("minus nothing", post!("Content-Length: -0", "hello")),
    bad("folded", post!("Content-Length:\r\n 5", "hello")),
    bad("octal", post!("Content-Length: 0o5", "hello")),
    bad("twenty digits", post!("Content-Length: 99999999999999999999", "hello")),
    bad("a line feed behind it", post!("Content-Length: 5\n", "hello")),
    good("a blank behind it", post!("Content-Length: 5 ", "hello"), HELLO),
    good("blanks before it", post!("Content-Length:   5", "hello"), HELLO),
    good("no blank", post!("Content-Length:5", "hello"), HELLO),
    good(
        "Connection names the length",
        post!("Connection: Content-Length\r\nContent-Length: 5", "hello"),
        HELLO,
    ),
    good(
        "Connection names it twice, and more",
        post!(
            "Connection: close, content-length\r\nConnection: Content-Length, x\r\nX: 1\r\nContent-Length: 5",
            "hello"
        ),
        HELLO,
    ),
    good(
        "underscore: no length",
        post!("Content_Length: 28", "GET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[("POST", "/a", ""), ("GET", "/b", "")],
    ),
    good(
        "X-Content-Length: no length",
        post!("X-Content-Length: 28", "GET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[("POST", "/a", ""), ("GET", "/b", "")],
    ),
    good(
        "CL.0: a request as a body",
        post!("Content-Length: 28", "GET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[("POST", "/a", "GET /b HTTP/1.1\r\nHost: a\r\n\r\n")],
    ),
    good(
        "0.CL: a GET with a request as its body",
        b"GET /con HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET", "/con", "GET /b HTTP/1.1\r\nHost: a\r\n\r\n")],
    ),
    good(
        "a DELETE with a body",
        b"DELETE /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &[("DELETE", "/a", "hello")],
    ),
    good(
        "an OPTIONS with a body",
        b"OPTIONS /a HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
        &[("OPTIONS", "/a", "hello")],
    ),
    good(
        "a shorter length: the rest is a request",
        post!("Content-Length: 4", "helloGET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[("POST", "/a", "hell"), ("oGET", "/b", "")],
    ),
    good_then_bad(
        "a shorter length: the rest is none",
        post!("Content-Length: 4", "hello\r\n\r\n"),
        &[("POST", "/a", "hell")],
    ),
    good_then_bad("a length of nothing before a body", post!("Content-Length: 0", "hello\r\n\r\n"), EMPTY),
    good(
        "two in a row",
        post!("Content-Length: 5", "helloGET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[("POST", "/a", "hello"), ("GET", "/b", "")],
    ),
];

/// Chunks whose end is found in two places.
const CHUNKS: &[Payload] = &[
    bad("TERM.EXT", chunks!("2;\nxx\r\n45\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n0\r\n\r\n")),
    bad("EXT.TERM", chunks!("2;\rxx\r\n45\r\n0\r\n\r\n")),
    bad("TERM.SPILL", chunks!("5\r\nAAAAAXX2\r\n45\r\n0\r\n\r\n")),
    bad("SPILL.TERM", chunks!("5\r\nAAAAA\r2\r\n45\r\n0\r\n\r\n")),
    bad("line feeds only", chunks!("2\nxx\n0\n\n")),
    bad("carriage returns only", chunks!("2\rxx\r0\r\r")),
    bad("no line end behind a chunk", chunks!("5\r\nhello0\r\n\r\n")),
    bad("two line ends behind a chunk", chunks!("5\r\nhello\r\n\r\n0\r\n\r\n")),
    bad("blank behind the size", chunks!("5 \r\nhello\r\n0\r\n\r\n")),
    bad("tab behind the size", chunks!("5\t\r\nhello\r\n0\r\n\r\n")),
    bad("blank before an extension", chunks!("5 ;a\r\nhello\r\n0\r\n\r\n")),
    bad("minus", chunks!("-5\r\nhello\r\n0\r\n\r\n")),
    bad("a letter beyond f", chunks!("5g\r\nhello\r\n0\r\n\r\n")),
    bad("h for hexadecimal", chunks!("5h\r\nhello\r\n0\r\n\r\n")),
    bad("a fraction", chunks!("5.0\r\nhello\r\n0\r\n\r\n")),
    bad("NUL behind the size", chunks!("5\0\r\nhello\r\n0\r\n\r\n")),
    bad("an Arabic digit", chunks!("\u{665}\r\nhello\r\n0\r\n\r\n")),
    bad("size in quotes", chunks!("\"5\"\r\nhello\r\n0\r\n\r\n")),
    bad("64 bits that wrap to 5", chunks!("10000000000000005\r\nhello\r\n0\r\n\r\n")),
    bad("32 bits and 5", chunks!("fffffffffffffffb\r\nhello\r\n0\r\n\r\n")),
    bad("very many zeros", chunks!("00000000000000000000000000000005\r\nhello\r\n0\r\n\r\n")),
    bad("a last chunk with 0x", chunks!("0x0\r\n\r\n")),
    bad("a last chunk and a line feed", chunks!("0\r\n\n")),
    bad("a last chunk ended by line feeds", chunks!("0\n\n")),
    bad("a carriage return for the end", chunks!("0\r\n\rX")),
    bad("NUL in an extension", chunks!("5;a=\0\r\nhello\r\n0\r\n\r\n")),
    bad("line end in a quoted extension", chunks!("5;a=\"\n\"\r\nhello\r\n0\r\n\r\n")),
    bad("a request line for a trailer", chunks!("0\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n")),
    bad("Transfer-Encoding as trailer", chunks!("0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    bad("Host as trailer", chunks!("0\r\nHost: b\r\n\r\n")),
    bad("Connection as trailer", chunks!("0\r\nConnection: close\r\n\r\n")),
    bad("X-Forwarded-For as trailer", chunks!("0\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n")),
    bad("X_Forwarded_For as trailer", chunks!("0\r\nX_Forwarded_For: 6.6.6.6\r\n\r\n")),
    bad("x-switchman-error as trailer", chunks!("0\r\nx-switchman-error: no\r\n\r\n")),
    bad("a trailer with a blank before its colon", chunks!("0\r\nX : 1\r\n\r\n")),
    bad("a trailer with a NUL", chunks!("0\r\nX: \0\r\n\r\n")),
    bad("trailers parted by a line feed", chunks!("0\r\nX: 1\nContent-Length: 5\r\n\r\n")),
    good("leading zeros", chunks!("005\r\nhello\r\n000\r\n\r\n"), HELLO),
    good("extensions", chunks!("5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n"), HELLO),
    good("an allowed trailer", chunks!("5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"), HELLO),
    good(
        "an end within a chunk",
        chunks!("19\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\nx\r\n0\r\n\r\n"),
        &[("POST", "/a", "0\r\n\r\nGET /b HTTP/1.1\r\n\r\nx")],
    ),
    good(
        "nothing, and another request",
        chunks!("0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"),
        &[("POST", "/a", ""), ("GET", "/b", "")],
    ),
    good_then_bad("nothing, and a piece of one", chunks!("0\r\n\r\n0\r\n\r\n"), EMPTY),
];

/// Desync by `Expect`, by upgrades and by what ends at a hop.
const HOPS: &[Payload] = &[
    bad("Expect with another word", post!("Expect: y 100-continue\r\nContent-Length: 5", "hello")),
    bad("Expect as a list", post!("Expect: 100-continue, 100-continue\r\nContent-Length: 5", "hello")),
    bad("blank behind Expect", post!("Expect : 100-continue\r\nContent-Length: 5", "hello")),
    bad("folded Expect", post!("Expect:\r\n 100-continue\r\nContent-Length: 5", "hello")),
    bad("an empty Expect", post!("Expect:\r\nContent-Length: 5", "hello")),
    good("Expect and a body at once", post!("Expect: 100-continue\r\nContent-Length: 5", "hello"), HELLO),
    good("Expect and chunks", post!("Expect: 100-continue\r\nTransfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"), HELLO),
    good("Expect and no body", get!("Expect: 100-continue\r\nContent-Length: 0"), GET),
    good("Connection names Expect", post!("Connection: expect\r\nExpect: 100-continue\r\nContent-Length: 5", "hello"), HELLO),
    good("Expect in 1.0 says nothing", b"POST /a HTTP/1.0\r\nHost: a\r\nExpect: what\r\nContent-Length: 5\r\n\r\nhello", HELLO),
    good("h2c upgrade is not passed on", get!("Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__"), GET),
    good("WebSocket in a POST is not passed on", post!("Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5", "hello"), HELLO),
    good("WebSocket with a body is not passed on", b"GET /a HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 5\r\n\r\nhello", &[("GET", "/a", "hello")]),
    good("two upgrades are not passed on", get!("Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c"), GET),
    good("Keep-Alive ends here", get!("Keep-Alive: timeout=5\r\nProxy-Connection: keep-alive"), GET),
    good("Connection names the forwarding headers", get!("Connection: X-Forwarded-For, X-Forwarded-Host, Host"), GET),
    good("a method in a header", get!("X-HTTP-Method-Override: DELETE"), GET),
];

/// Heads that begin, end or name things in odd ways.
const HEADS: &[Payload] = &[
    bad("blank before the method", b" GET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("line feed before the method", b"\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("carriage returns before the method", b"\r\rGET /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("blank behind the version", b"GET /a HTTP/1.1 \r\nHost: a\r\n\r\n"),
    bad("two carriage returns behind the version", b"GET /a HTTP/1.1\r\r\nHost: a\r\n\r\n"),
    bad("version 01.1", b"GET /a HTTP/01.1\r\nHost: a\r\n\r\n"),
    bad("version 1.10", b"GET /a HTTP/1.10\r\nHost: a\r\n\r\n"),
    bad("version 11", b"GET /a HTTP/11\r\nHost: a\r\n\r\n"),
    bad("version 1,1", b"GET /a HTTP/1,1\r\nHost: a\r\n\r\n"),
    bad("version 0.9", b"GET /a HTTP/0.9\r\nHost: a\r\n\r\n"),
    bad("version 2.0", b"GET /a HTTP/2.0\r\nHost: a\r\n\r\n"),
    bad("version of another protocol", b"GET /a RTSP/1.1\r\nHost: a\r\n\r\n"),
    bad("no version and a line feed", b"GET /a\n"),
    bad("vertical tab for a blank", b"GET\x0b/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("NUL in the method", b"G\0T /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("a colon in the method", b"GET: /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("two methods", b"GET POST /a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("DEL in the target", b"GET /\x7f HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("byte 255 in the target", b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("carriage return in the target", b"GET /\r HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("a query without a path", b"GET ?a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("a scheme with one slash", b"GET http:/a HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("an authority with two ports", b"GET http://a:80:80/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("an authority with a backslash", b"GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n"),
    bad("an absolute target and a bad Host", b"GET http://a/ HTTP/1.1\r\nHost: b, c\r\n\r\n"),
    bad("an absolute target and two Hosts", b"GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    bad("blank behind Host", b"GET /a HTTP/1.1\r\nHost : a\r\n\r\n"),
    bad("folded Host", b"GET /a HTTP/1.1\r\nHost: a\r\n b\r\n\r\n"),
    bad("tab in Host", b"GET /a HTTP/1.1\r\nHost: a\tb\r\n\r\n"),
    bad("a URL for a Host", b"GET /a HTTP/1.1\r\nHost: http://a\r\n\r\n"),
    bad("a query in Host", b"GET /a HTTP/1.1\r\nHost: a?b\r\n\r\n"),
    bad("a fragment in Host", b"GET /a HTTP/1.1\r\nHost: a#b\r\n\r\n"),
    bad("a backslash in Host", b"GET /a HTTP/1.1\r\nHost: a\\b\r\n\r\n"),
    bad("quotes round Host", b"GET /a HTTP/1.1\r\nHost: \"a\"\r\n\r\n"),
    bad("half a bracket in Host", b"GET /a HTTP/1.1\r\nHost: [::1\r\n\r\n"),
    bad("bytes beyond ASCII in Host", b"GET /a HTTP/1.1\r\nHost: \xc3\xa9\r\n\r\n"),
    bad("two Hosts in 1.0", b"GET /a HTTP/1.0\r\nHost: a\r\nHost: b\r\n\r\n"),
    bad("NUL for an empty line", b"GET /a HTTP/1.1\r\nHost: a\r\n\0\r\n\r\n"),
    bad("a blank for an empty line", b"GET /a HTTP/1.1\r\nHost: a\r\n \r\n\r\n"),
    bad("a header behind a carriage return", b"GET /a HTTP/1.1\r\nHost: a\r\n\rX: b\r\n\r\n"),
    bad("a name with a slash", get!("X/Y: 1")),
    bad("a name in quotes", get!("\"X\": 1")),
    bad("escape in a value", get!("X: \x1b[2J")),
    good("empty lines before it", b"\r\n\r\nGET /a HTTP/1.1\r\nHost: a\r\n\r\n", GET),
    good("an empty value", get!("X:"), GET),
    good("blanks round Host", b"GET /a HTTP/1.1\r\nHost: \t a \r\n\r\n", GET),
    good("a Host with an empty port", b"GET /a HTTP/1.1\r\nHost: a:\r\n\r\n", GET),
    good(
        "an absolute target with a query",
        b"GET http://b?x HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET", "/?x", "")],
    ),
    good("an absolute target of another host", b"GET http://b/a HTTP/1.1\r\nHost: a\r\n\r\n", GET),
    good(
        "dots and encoded NUL in the target",
        b"GET /../%00%0d%0a HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET", "/../%00%0d%0a", "")],
    ),
    good(
        "1.0 that keeps its connection",
        b"GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        &[("GET", "/a", ""), ("GET", "/b", "")],
    ),
    good("1.0 that does not", b"GET /a HTTP/1.0\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n", GET),
    good(
        "close, and another request behind it",
        get!("Connection: close\r\n\r\nGET /b HTTP/1.1\r\nHost: a"),
        GET,
    ),
    good_then_bad(
        "a request and a line feed",
        b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n",
        GET,
    ),
    good_then_bad("a request and TLS", b"GET /a HTTP/1.1\r\nHost: a\r\n\r\n\x16\x03\x01\x02\0", GET),
];

/// All of them.
pub(super) fn payloads() -> impl Iterator<Item = &'static Payload> {
    [CODINGS, LENGTHS, CHUNKS, HOPS, HEADS].into_iter().flatten()
}
