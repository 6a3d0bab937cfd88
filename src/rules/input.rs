//! What a condition or a percentage may look at in a request, and the reading of it.
//!
//! Inputs are interned by the builder; a [`Reading`] lives as long as one decision and reads each of the first
//! [`CACHED`] distinct inputs at most once, however many routes ask for it.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::fmt;
use std::io::Write as _;
use std::net::IpAddr;

use http::HeaderName;
use percent_encoding::percent_decode_str;

use crate::hint;
use crate::rules::request::RequestView;

/// One thing that a rule document may ask of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Input {
    /// The first value of a header; the name is lower-case.
    Header(String),
    /// The first cookie of that name, compared with case.
    Cookie(String),
    /// The first query parameter of that name, decoded.
    Query(String),
    /// The path, as sent.
    Path,
    /// The host, lower-case, without port.
    Host,
    /// The method, as sent.
    Method,
    /// The client's address; an IPv4-mapped IPv6 address is taken as IPv4.
    ClientIp,
}

/// All inputs, for hints.
pub(crate) const ALL_INPUTS: &str =
    "one of header.NAME, cookie.NAME, query.NAME, path, host, method, client.ip";

/// Why a text is no input.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct NoInput {
    /// What is wrong, with the text in it.
    pub(crate) message: String,
    /// What to write instead.
    pub(crate) hint: String,
}

impl Input {
    /// Reads an input as a document names it.
    pub(crate) fn parse(text: &str) -> Result<Self, NoInput> {
        match text {
            "path" => return Ok(Self::Path),
            "host" => return Ok(Self::Host),
            "method" => return Ok(Self::Method),
            "client.ip" => return Ok(Self::ClientIp),
            _ => {}
        }
        let bad_name = |kind: &str, name: &str| NoInput {
            message: format!("`{name}` cannot be the name of a {kind}"),
            hint: format!("write the {kind}'s name after the dot, as in {kind}.uid"),
        };
        match text.split_once('.') {
            Some(("header", name)) => HeaderName::from_bytes(name.as_bytes())
                .map(|name| Self::Header(name.as_str().to_owned()))
                .map_err(|_| bad_name("header", name)),
            Some(("cookie", name)) => {
                // The grammar of a cookie's name is that of a header's name, with case.
                let valid = HeaderName::from_bytes(name.as_bytes()).is_ok();
                valid.then(|| Self::Cookie(name.to_owned())).ok_or_else(|| bad_name("cookie", name))
            }
            Some(("query", name)) if !name.is_empty() => Ok(Self::Query(name.to_owned())),
            Some(("query", name)) => Err(bad_name("query", name)),
            other => Err(NoInput {
                message: format!("`{text}` is nothing that a request has"),
                hint: match nearest_input(text, other) {
                    Some(input) => format!("did you mean {input}?"),
                    None => format!("write {ALL_INPUTS}"),
                },
            }),
        }
    }

    /// What the request holds, undecoded: enough for a name of a version, which needs no encoding.
    pub(crate) fn raw<'t: 'r, 'r, R: RequestView>(&'t self, request: &'r R) -> Option<&'r str> {
        match self {
            Self::Header(name) => request.header(name),
            Self::Cookie(name) => request.cookie(name),
            Self::Query(name) => query_value(request.query()?, name),
            Self::Path => Some(request.path()),
            Self::Host => Some(request.host()),
            Self::Method => Some(request.method()),
            Self::ClientIp => None,
        }
    }
}

impl fmt::Display for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header(name) => write!(f, "header.{name}"),
            Self::Cookie(name) => write!(f, "cookie.{name}"),
            Self::Query(name) => write!(f, "query.{name}"),
            Self::Path => f.write_str("path"),
            Self::Host => f.write_str("host"),
            Self::Method => f.write_str("method"),
            Self::ClientIp => f.write_str("client.ip"),
        }
    }
}

fn nearest_input(text: &str, split: Option<(&str, &str)>) -> Option<String> {
    if let Some((kind, name)) = split
        && let Some(kind) = hint::nearest(kind, ["header", "cookie", "query"])
    {
        return Some(format!("{kind}.{name}"));
    }
    if let Some(kind) = hint::nearest(text, ["header", "cookie", "query"]) {
        return Some(format!("{kind}.NAME"));
    }
    hint::nearest(text, ["path", "host", "method", "client.ip"]).map(str::to_owned)
}

/// The value of the first parameter of that name, still encoded; a parameter without `=` is empty.
fn query_value<'r>(query: &'r str, name: &str) -> Option<&'r str> {
    query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name || (is_encoded(key) && decode(key) == name)).then_some(value)
    })
}

fn is_encoded(text: &str) -> bool {
    text.bytes().any(|b| b == b'%' || b == b'+')
}

/// Decodes a form-encoded text; allocates only where something is encoded.
fn decode(text: &str) -> Cow<'_, str> {
    if !is_encoded(text) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode_str(&spaced).decode_utf8_lossy().into_owned())
}

/// Index of an interned input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct InputId(pub(crate) u16);

/// How many distinct inputs a [`Reading`] remembers; the rest are read anew each time.
const CACHED: usize = 16;

/// One request as one decision reads it.
pub(crate) struct Reading<'t, 'r, R> {
    inputs: &'t [Input],
    request: &'r R,
    texts: [OnceCell<Option<Cow<'r, str>>>; CACHED],
    ip_text: OnceCell<Option<IpText>>,
}

impl<'t: 'r, 'r, R: RequestView> Reading<'t, 'r, R> {
    /// Starts with nothing read.
    pub(crate) fn new(inputs: &'t [Input], request: &'r R) -> Self {
        Self { inputs, request, texts: [const { OnceCell::new() }; CACHED], ip_text: OnceCell::new() }
    }

    /// The request itself.
    pub(crate) fn request(&self) -> &'r R {
        self.request
    }

    /// All inputs of the table.
    pub(crate) fn inputs(&self) -> &'t [Input] {
        self.inputs
    }

    /// The input of that index.
    pub(crate) fn input(&self, id: InputId) -> &'t Input {
        // Ids come from the builder that made `inputs`, and from nowhere else.
        self.inputs.get(usize::from(id.0)).unwrap_or(&Input::Path)
    }

    /// The text of an input; none where the request has no such thing.
    pub(crate) fn text(&self, id: InputId) -> Option<Cow<'_, str>> {
        let input = self.input(id);
        if *input == Input::ClientIp {
            let text = self.ip_text.get_or_init(|| self.client_ip().map(IpText::new)).as_ref()?;
            return Some(Cow::Borrowed(text.as_str()));
        }
        match self.texts.get(usize::from(id.0)) {
            Some(slot) => slot.get_or_init(|| self.read(input)).as_deref().map(Cow::Borrowed),
            None => self.read(input),
        }
    }

    /// The client's address, IPv4 where it is one.
    pub(crate) fn client_ip(&self) -> Option<IpAddr> {
        self.request.client_ip().map(|ip| ip.to_canonical())
    }

    fn read(&self, input: &'t Input) -> Option<Cow<'r, str>> {
        let raw = input.raw(self.request)?;
        Some(match input {
            Input::Query(_) => decode(raw),
            Input::Host if raw.bytes().any(|b| b.is_ascii_uppercase()) => {
                Cow::Owned(raw.to_ascii_lowercase())
            }
            _ => Cow::Borrowed(raw),
        })
    }
}

/// An address as text, on the stack.
struct IpText {
    bytes: [u8; Self::LEN_MAX],
    len: usize,
}

impl IpText {
    /// The longest IPv6 address, with room for an IPv4 tail.
    const LEN_MAX: usize = 46;

    fn new(ip: IpAddr) -> Self {
        let mut bytes = [0; Self::LEN_MAX];
        let mut rest = bytes.as_mut_slice();
        let len = match write!(rest, "{ip}") {
            Ok(()) => Self::LEN_MAX - rest.len(),
            Err(_) => 0,
        };
        Self { bytes, len }
    }

    fn as_str(&self) -> &str {
        self.bytes.get(..self.len).and_then(|b| std::str::from_utf8(b).ok()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::request::PlainRequest;

    fn read(input: &str, request: &PlainRequest) -> Option<String> {
        let inputs = [Input::parse(input).unwrap()];
        Reading::new(&inputs, request).text(InputId(0)).map(Cow::into_owned)
    }

    #[test]
    fn every_input_is_read_as_documented() {
        let request = PlainRequest {
            method: "GET".into(),
            path: "/caf%C3%A9".into(),
            query: Some("a=1&a=2&q=x%20y+z&flag&n%61me=v&bad=%zz".into()),
            host: "App.Example.com".into(),
            client_ip: "::ffff:10.1.2.3".parse().ok(),
            headers: vec![
                ("X-QA".into(), "Yes".into()),
                ("Cookie".into(), "a=1; uid=\"77\"".into()),
                ("cookie".into(), "b=2; uid=78".into()),
            ],
        };
        let table: [(&str, Option<&str>); 15] = [
            ("method", Some("GET")),
            ("path", Some("/caf%C3%A9")),
            ("host", Some("app.example.com")),
            ("client.ip", Some("10.1.2.3")),
            ("header.x-qa", Some("Yes")),
            ("header.X-Qa", Some("Yes")),
            ("header.x-other", None),
            ("cookie.uid", Some("77")),
            ("cookie.b", Some("2")),
            ("cookie.UID", None),
            ("query.a", Some("1")),
            ("query.q", Some("x y z")),
            ("query.flag", Some("")),
            ("query.name", Some("v")),
            ("query.bad", Some("%zz")),
        ];
        for (input, expected) in table {
            assert_eq!(read(input, &request).as_deref(), expected, "{input}");
        }
    }

    #[test]
    fn what_is_no_input_gets_a_hint() {
        let hint = |text: &str| Input::parse(text).unwrap_err().hint;
        assert_eq!(hint("headers.x-qa"), "did you mean header.x-qa?");
        assert_eq!(hint("cookies.uid"), "did you mean cookie.uid?");
        assert_eq!(hint("header"), "did you mean header.NAME?");
        assert_eq!(hint("client_ip"), "did you mean client.ip?");
        assert_eq!(hint("zzz"), format!("write {ALL_INPUTS}"));
        assert_eq!(hint("header.a b"), "write the header's name after the dot, as in header.uid");
        assert_eq!(hint("query."), "write the query's name after the dot, as in query.uid");
    }
}
