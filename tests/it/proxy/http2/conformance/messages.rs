//! RFC 9113 section 8: requests as such. What is malformed reaches no worker.

use super::*;

/// A request without `without`, with `with` behind the rest.
fn get(without: &str, with: &[(&str, &str)]) -> Vec<u8> {
    let kept: Vec<(&str, &str)> = GET.into_iter().filter(|(name, _)| *name != without).collect();
    frame(HEADERS, WHOLE, 1, &block(&[&kept, with].concat()))
}

/// A POST with a body of these parts, and trailers, if there are any.
fn sent(head: &[(&str, &str)], parts: &[&[u8]], trailers: Option<&[(&str, &str)]>) -> Vec<u8> {
    let mut bytes = frame(HEADERS, END_HEADERS, 1, &block(&post(head)));
    for (index, part) in parts.iter().enumerate() {
        let is_last = index + 1 == parts.len() && trailers.is_none();
        bytes.extend(frame(DATA, if is_last { END_STREAM } else { 0 }, 1, part));
    }
    bytes.extend(trailers.map(|fields| frame(HEADERS, WHOLE, 1, &block(fields))).unwrap_or_default());
    bytes
}

#[tokio::test]
async fn fields_of_a_request() {
    let refused = |what, without, with: &[(&str, &str)]| ("8.2", what, get(without, with), Must::Refuse(1));
    let pseudo = |what, without, with: &[(&str, &str)]| ("8.3", what, get(without, with), Must::Refuse(1));
    let cases = [
        refused("an upper-case name", "", &[("X-A", "1")]),
        refused("a name with a blank", "", &[("x a", "1")]),
        refused("an empty name", "", &[("", "1")]),
        refused("a name with a colon", "", &[("x:a", "1")]),
        refused("a NUL in a value", "", &[("x-a", "1\0")]),
        refused("a line feed in a value", "", &[("x-a", "1\n2")]),
        refused("a carriage return in a value", "", &[("x-a", "1\r2")]),
        refused("connection", "", &[("connection", "keep-alive")]),
        refused("keep-alive", "", &[("keep-alive", "timeout=5")]),
        refused("proxy-connection", "", &[("proxy-connection", "close")]),
        refused("transfer-encoding", "", &[("transfer-encoding", "chunked")]),
        refused("upgrade", "", &[("upgrade", "websocket")]),
        refused("te that is not trailers", "", &[("te", "trailers, deflate")]),
        pseudo("an unknown pseudo-header", "", &[(":test", "1")]),
        pseudo("one of responses", "", &[(":status", "200")]),
        pseudo("one behind a header", ":path", &[("x-a", "1"), (":path", "/")]),
        pseudo("no :method", ":method", &[]),
        pseudo("no :scheme", ":scheme", &[]),
        pseudo("no :path", ":path", &[]),
        pseudo("an empty :path", ":path", &[(":path", "")]),
        pseudo("a :path without slash", ":path", &[(":path", "a")]),
        pseudo("* for a GET", ":path", &[(":path", "*")]),
        pseudo("a second :method", "", &[(":method", "POST")]),
        pseudo("a second :scheme", "", &[(":scheme", "https")]),
        pseudo("a second :path", "", &[(":path", "/b")]),
        pseudo("a second :authority", "", &[(":authority", "b")]),
        pseudo("neither :authority nor host", ":authority", &[]),
        pseudo("a host that says something else", "", &[("host", "b")]),
        pseudo("user information in :authority", ":authority", &[(":authority", "a@app")]),
    ];
    let cases = cases.into_iter().map(|(section, what, send, must)| case(section, what, &[send], must));
    let fine = [
        case("8.2.1", "a value of bytes beyond ASCII", &[get("", &[("x-a", "é")])], Must::Answer(1)),
        // It should be refused. It is dropped, as HTTP/1 does: rules and worker see the same value.
        case("8.2.1", "a blank before a value", &[get("", &[("x-a", " 1")])], Must::Answer(1)),
        case("8.2.1", "an empty value", &[get("", &[("x-a", "")])], Must::Answer(1)),
        case("8.2.2", "te: trailers", &[get("", &[("te", "trailers")])], Must::Answer(1)),
        case(
            "8.2.3",
            "cookies in crumbs",
            &[get("", &[("cookie", "a=1"), ("cookie", "b=2")])],
            Must::Answer(1),
        ),
        case(
            "8.3.1",
            "host in the place of :authority",
            &[get(":authority", &[("host", "app")])],
            Must::Answer(1),
        ),
        case("8.3.1", "OPTIONS *", &[options()], Must::Answer(1)),
    ];
    hold(cases.chain(fine).collect()).await;
}

fn options() -> Vec<u8> {
    let head = [(":method", "OPTIONS"), (":scheme", "http"), (":authority", "app"), (":path", "*")];
    frame(HEADERS, WHOLE, 1, &block(&head))
}

#[tokio::test]
async fn bodies_trailers_and_connect() {
    let unended = frame(HEADERS, END_HEADERS, 1, &block(&[("x-sum", "1")]));
    let connect = |fields: &[(&str, &str)]| frame(HEADERS, END_HEADERS, 1, &block(fields));
    let malformed = || Must::EndStream(1, vec![PROTOCOL]);
    hold(vec![
        case("8.1", "a request in one frame", &[request(1)], Must::Answer(1)),
        case("8.1", "a body", &[sent(&[], &[b"a", b"", b"b"], None)], Must::Answer(1)),
        case("8.1", "trailers", &[sent(&[], &[b"a"], Some(&[("x-sum", "1")]))], Must::Answer(1)),
        case("8.1", "trailers behind no body", &[sent(&[], &[], Some(&[("x-sum", "1")]))], Must::Answer(1)),
        case("8.1", "a second head that does not end the request", &[upload(1), unended], malformed()),
        case(
            "8.1",
            // It should be refused: the h2 crate gives us the other trailers, and drops these without a word.
            "a pseudo-header among trailers reaches nobody",
            &[sent(&[], &[b"a"], Some(&[(":path", "/")]))],
            Must::Answer(1),
        ),
        case(
            "8.1",
            "an upper-case name among trailers",
            &[sent(&[], &[b"a"], Some(&[("X-A", "1")]))],
            malformed(),
        ),
        case(
            "8.1",
            "connection among trailers",
            &[sent(&[], &[b"a"], Some(&[("connection", "close")]))],
            malformed(),
        ),
        case(
            "8.1.1",
            "a body as long as it says",
            &[sent(&[("content-length", "2")], &[b"a", b"b"], None)],
            Must::Answer(1),
        ),
        case(
            "8.1.1",
            "a body longer than it says",
            &[sent(&[("content-length", "1")], &[b"ab"], None)],
            malformed(),
        ),
        case(
            "8.1.1",
            "likewise in two frames",
            &[sent(&[("content-length", "1")], &[b"a", b"b"], None)],
            malformed(),
        ),
        case(
            "8.1.1",
            "a body shorter than it says",
            &[sent(&[("content-length", "3")], &[b"a", b"b"], None)],
            malformed(),
        ),
        case(
            "8.1.1",
            "likewise with trailers",
            &[sent(&[("content-length", "3")], &[b"a"], Some(&[("x-sum", "1")]))],
            malformed(),
        ),
        case("8.1.1", "a length and no body", &[get("", &[("content-length", "1")])], Must::Refuse(1)),
        case(
            "8.1.1",
            "two lengths",
            &[get("", &[("content-length", "0"), ("content-length", "1")])],
            Must::Refuse(1),
        ),
        case(
            "8.1.1",
            "a length that is no number",
            &[get("", &[("content-length", "0x1")])],
            Must::Refuse(1),
        ),
        case("8.4", "PUSH_PROMISE", &[frame(PUSH_PROMISE, END_HEADERS, 1, &[0, 0, 0, 2])], end(PROTOCOL)),
        case(
            "8.5",
            "CONNECT is not for us",
            &[connect(&[(":method", "CONNECT"), (":authority", "app:80")])],
            Must::Refuse(1),
        ),
        case("8.5", "CONNECT without :authority", &[connect(&[(":method", "CONNECT")])], Must::Refuse(1)),
        case(
            "8.5",
            "CONNECT with :scheme and :path",
            &[connect(&[
                (":method", "CONNECT"),
                (":scheme", "http"),
                (":authority", "app:80"),
                (":path", "/"),
            ])],
            Must::Refuse(1),
        ),
        case(
            "8.7",
            "what was taken back is done with",
            &[upload(1), reset(1, CANCEL), request(3)],
            Must::Answer(3),
        ),
    ])
    .await;
}
