//! What fuzzing calls: one function for each place where bytes from outside are first read, with what must hold
//! for all of them. Compiled for `cargo test` and for `make fuzz` (`--cfg fuzzing`) only.
//!
//! `fuzz/fuzz_targets/` has one program a function; `fuzz/seeds/` has what each starts from. `cargo test` runs the
//! same functions over the seeds and over mutations of them, so that they cannot rot. A new one is: a function here,
//! a line in [`TARGETS`], a program, a folder of seeds.

mod reader;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::rc::Rc;

use crate::proxy::client::Client;
use crate::proxy::error::{self, Cause, Manner, Refusal};
use crate::proxy::front::proxy_protocol;
use crate::proxy::h1::body::{Body, Encode};
use crate::proxy::h1::chunked::{BadChunk, Chunked};
use crate::proxy::h1::{request, response};
use crate::proxy::headers::{self, Added, Connection};
use crate::proxy::limits::Settings;
use crate::proxy::route::View;
use crate::proxy::stamp::Stamp;
use crate::proxy::streams::frames::Frames;
use crate::rules::request::RequestView;
use crate::rules::table::{RuleTable, To};
use crate::rules::{Context, compile};
use reader::{Framing, Head};

/// One program: its name, which is that of its folder of seeds, and what it runs for some bytes.
pub type Target = (&'static str, fn(&[u8]));

/// What is fuzzed.
pub const TARGETS: [Target; 8] = [
    ("request", request),
    ("response", response),
    ("chunked", chunked),
    ("inputs", inputs),
    ("answer", answer),
    ("document", document),
    ("proxy_protocol", proxy_protocol),
    ("frames", frames),
];

/// The client of every request, whom nobody trusts.
fn client() -> Client {
    Client::new(CLIENT, &Rc::default())
}

/// Its address.
const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

/// A request head: what is passed on says to a second, independent reader what it said to us, and says it once.
pub fn request(bytes: &[u8]) {
    let limits = Settings::default();
    let mut out = Vec::new();
    let parsed = request::parse(bytes, &limits, |head| {
        let client = client();
        headers::write_request(head, &client, &client.weigh(head), &Stamp::default(), head.upgrade, &mut out);
        (head.method.to_owned(), head.target.to_owned(), head.authority.to_owned(), head.body)
    });
    let Ok(Some((length, (method, target, authority, body)))) = parsed else { return };
    // The empty line ends the head, and no earlier end was there.
    assert!(bytes[..length].ends_with(b"\r\n\r\n"), "the head ends elsewhere");
    assert!(
        !matches!(request::parse(&bytes[..length - 1], &limits, |_| ()), Ok(Some(_))),
        "it was whole before its end"
    );
    let head = Head::read(&out);
    assert!(head.is_ok(), "{head:?}: {}", out.escape_ascii());
    let Ok(head) = head else { return };
    let mut words = head.first.split(' ');
    assert_eq!(words.next(), Some(method.as_str()), "the method");
    let passed_on = words.next().unwrap_or_default();
    assert!(
        passed_on.ends_with(target.as_str()) && passed_on.starts_with(['/', '*']),
        "{passed_on} for {target}"
    );
    assert_eq!((words.next(), words.next()), (Some("HTTP/1.1"), None), "the version");
    assert_eq!(head.all("host"), [authority.as_str()], "the host");
    assert_eq!(head.framing, framing(body), "the body's length");
    let address = CLIENT.to_string();
    assert_eq!(head.all("x-forwarded-for"), [address.as_str()], "the client");
    assert!(!head.names().any(|name| name.to_ascii_lowercase().starts_with("x-switchman-")), "words of ours");
}

/// A worker's response head: likewise, for the client.
pub fn response(bytes: &[u8]) {
    // The first byte says what was asked.
    let Some((asked, bytes)) = bytes.split_first() else { return };
    let mut out = Vec::new();
    let parsed = response::parse(bytes, &Settings::default(), asked & 1 == 1, |head| {
        let encode = if head.body == Body::UntilClose { Encode::Chunk } else { Encode::AsIs };
        let (connection, upgrade) = (Connection::Silent, None);
        let added = Added { version: "4f2a91c", cookie: None, encode, upgrade, connection, lines: &[] };
        headers::write_response(head, added, &mut out);
        (head.status, head.body)
    });
    let Ok(Some((length, (status, body)))) = parsed else { return };
    assert!(bytes[..length].ends_with(b"\r\n\r\n"), "the head ends elsewhere");
    let head = Head::read(&out);
    assert!(head.is_ok(), "{head:?}: {}", out.escape_ascii());
    let Ok(head) = head else { return };
    assert!(head.first.starts_with(&format!("HTTP/1.1 {status:03}")), "{}", head.first);
    assert_eq!(head.all("x-switchman-version"), ["4f2a91c"], "who answered");
    // An answer without a body may say the length that another would have had.
    let bodiless = asked & 1 == 1 || matches!(status, 100..=199 | 204 | 304);
    assert!(bodiless || head.framing == framing(body), "{:?} for {body:?}", head.framing);
}

/// What the second reader must find.
fn framing(body: Body) -> Framing {
    match body {
        Body::Length(length) => Framing::Length(length),
        Body::Chunked(_) | Body::UntilClose => Framing::Chunked,
    }
}

/// A chunked body: read in pieces it is what it is as a whole. The first two bytes say how it is cut.
pub fn chunked(bytes: &[u8]) {
    let [step, first, bytes @ ..] = bytes else { return };
    let mut whole = Read::default();
    let whole_result = whole.feed(bytes);
    let mut pieces = Read::default();
    let (head, tail) = bytes.split_at(usize::from(*first).min(bytes.len()));
    let mut result = pieces.feed(head);
    for piece in tail.chunks(usize::from(*step).max(1)) {
        result = result.and_then(|()| pieces.feed(piece));
    }
    assert_eq!(result, whole_result, "cut in pieces it is judged otherwise");
    if result.is_ok() {
        assert_eq!(pieces, whole, "cut in pieces it is read otherwise");
    }
}

/// A chunked body as far as it was read.
#[derive(Debug, PartialEq)]
struct Read {
    chunked: Chunked,
    data: Vec<u8>,
    pending: Vec<u8>,
}

impl Default for Read {
    fn default() -> Self {
        Self { chunked: Chunked::new(), data: Vec::new(), pending: Vec::new() }
    }
}

impl Read {
    fn feed(&mut self, bytes: &[u8]) -> Result<(), BadChunk> {
        self.pending.extend_from_slice(bytes);
        let used = self.chunked.advance(&self.pending, |data| self.data.extend_from_slice(data), |_| {})?;
        self.pending.drain(..used);
        Ok(())
    }
}

/// Asks for every kind of input that rules know.
const EVERY_INPUT: &str = r#"
key: cookie.uid
routes:
  - {when: {header.x-qa: "yes"}, to: aaaaaaa}
  - {when: {cookie.user_id: [1234, "a b"]}, to: bbbbbbb}
  - {when: {query.q: {contains: "é"}, path: {prefix: /x}}, to: ccccccc}
  - {when: {host: {suffix: .example.com}, method: GET}, to: ddddddd}
  - {when: {client.ip: {cidr: 10.0.0.0/8}}, to: eeeeeee}
  - {when: {header.user-agent: {regex: "bot|crawler"}}, to: "{header.x-version}"}
  - {split: {fffffff: 50%}}
"#;

thread_local! {
    /// [`EVERY_INPUT`], compiled once.
    static TABLE: RuleTable = table(EVERY_INPUT).unwrap_or_else(RuleTable::empty);
}

fn table(text: &str) -> Option<RuleTable> {
    let context = Context { file: "rules.yaml", service: "app", extra_routes: &[] };
    compile(text, &context).ok().map(|compiled| compiled.table)
}

/// Cookies, queries and headers as rules see them: each is a part of the request's own bytes, and the same bytes
/// always lead to the same version.
pub fn inputs(bytes: &[u8]) {
    let _ = request::parse(bytes, &Settings::default(), |head| {
        let view = View::new(head, &client().weigh(head));
        for name in ["uid", "user_id", "a"] {
            let cookie = view.cookie(name);
            assert!(cookie.is_none_or(|value| !value.contains(';')), "two cookies in one");
        }
        assert!(head.authority.contains(view.host()), "a host from elsewhere");
        assert!(!view.path().contains('?'), "a path with a query");
        TABLE.with(|table| {
            assert!(!table.targets().is_empty(), "the table of every input does not compile");
            assert_eq!(place(table, &view), place(table, &view), "decided twice, in two ways");
        });
    });
}

/// Where a table sends a request.
fn place(table: &RuleTable, request: &impl RequestView) -> String {
    match table.decide(request).to {
        To::Target(id) => format!("{id:?}"),
        To::Named(name) => name.to_owned(),
    }
}

/// The answers that switchman makes itself, whatever the detail says: one head, one body of the length that was
/// said, valid JSON with the detail in it. The first byte chooses the cause, the second the manner.
pub fn answer(bytes: &[u8]) {
    let [cause, manner, detail @ ..] = bytes else { return };
    let detail = String::from_utf8_lossy(detail).into_owned();
    let cause = Cause::ALL[usize::from(*cause) % Cause::ALL.len()];
    let manner = Manner { head_only: manner & 1 > 0, close: manner & 2 > 0, http11: manner & 4 > 0 };
    let mut out = Vec::new();
    error::answer(&Refusal::new(cause, detail.clone()), Some("4f2a91c")).write(manner, &mut out);
    let head_length = out.windows(4).position(|w| w == b"\r\n\r\n").map_or(0, |at| at + 4);
    let (head, body) = out.split_at(head_length);
    let head = Head::read(head);
    assert!(head.is_ok(), "{head:?}: {}", out.escape_ascii());
    let Ok(head) = head else { return };
    assert!(head.first.starts_with(&format!("HTTP/1.1 {} ", cause.status())), "{}", head.first);
    assert_eq!(head.all("x-switchman-error"), [cause.as_str()], "the cause");
    assert_eq!(head.all("connection").contains(&"close"), manner.close, "whether the connection ends");
    if manner.head_only {
        assert!(body.is_empty(), "a body follows the answer to HEAD");
        return;
    }
    assert_eq!(head.framing, Framing::Length(body.len() as u64), "the body's length");
    let json: Option<serde_json::Value> = serde_json::from_slice(body).ok();
    assert_eq!(json.map(|json| json["detail"] == detail), Some(true), "{}", body.escape_ascii());
}

/// A rule document: it compiles or is refused with problems that can be shown; what compiles can decide.
pub fn document(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let context = Context { file: "rules.yaml", service: "app", extra_routes: &[] };
    match compile(text, &context) {
        Ok(compiled) => {
            let head = b"GET /x?q=1 HTTP/1.1\r\nHost: a.example.com\r\nCookie: uid=7\r\n\r\n";
            let decided = request::parse(head, &Settings::default(), |head| {
                place(&compiled.table, &View::new(head, &client().weigh(head)))
            });
            assert!(matches!(decided, Ok(Some(_))), "the request itself is valid");
        }
        Err(problems) => assert!(!problems.to_string().is_empty(), "refused without a word"),
    }
}

/// The header of a PROXY connection: where it ends does not depend on what follows or on how it arrives, and its
/// address is of the family that it says.
pub fn proxy_protocol(bytes: &[u8]) {
    let Ok(Some(length)) = proxy_protocol::length(bytes) else { return };
    for known in 0..bytes.len() {
        let found = proxy_protocol::length(&bytes[..known]);
        let agrees = matches!(found, Ok(None)) || matches!(found, Ok(Some(found)) if found == length);
        assert!(agrees, "with {known} bytes its end is {found:?}, with all {length}");
    }
    let Some(header) = bytes.get(..length) else { return };
    let Ok(Some(ip)) = proxy_protocol::parse(header) else { return };
    let line = header.strip_prefix(b"PROXY TCP").map(|rest| rest.first() == Some(&b'4'));
    assert_eq!(line.unwrap_or_else(|| header[13] == 0x11), ip.is_ipv4(), "the address is of another family");
}

/// The frames of a WebSocket as they pass: cut in pieces they are what they are as a whole, and no boundary is
/// passed over. The first byte says how they are cut.
pub fn frames(bytes: &[u8]) {
    let Some((step, bytes)) = bytes.split_first() else { return };
    let mut whole = Frames::new();
    whole.pass(bytes);
    let mut pieces = Frames::new();
    bytes.chunks(usize::from(*step).max(1)).for_each(|piece| pieces.pass(piece));
    assert_eq!(pieces, whole, "cut in pieces they are read otherwise");
    let (mut walked, mut at) = (Frames::new(), 0);
    while at < bytes.len() {
        // One byte to leave the boundary, then all up to the next one.
        walked.pass(&bytes[at..=at]);
        at += 1;
        let before = walked.before_boundary(&bytes[at..]);
        walked.pass(&bytes[at..at + before]);
        at += before;
        assert!(walked.at_boundary() || at == bytes.len(), "a boundary was announced that is none");
    }
    assert_eq!(walked, whole, "walked from boundary to boundary they are read otherwise");
}
