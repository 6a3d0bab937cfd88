//! Who the client is, and what of it workers and rules are told.
//!
//! Everybody can write `X-Forwarded-For` and its like (the [`Claim`]s); only the addresses under
//! `trusted_proxies` are believed. Claims of anybody else end here, and rules do not see them. What one of ours
//! says is made once a connection, so that a request costs a copy.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use ipnet::IpNet;

use crate::proxy::front::Entrance;
use crate::proxy::h1::field::{self, Claim, Field, Positions};
use crate::proxy::h1::request::RequestHead;
use crate::proxy::per_client::Counted;

/// The other end of a connection: a client, or a proxy that speaks for many.
pub(crate) struct Client {
    /// Its address, as the socket or the PROXY header says.
    pub(crate) ip: IpAddr,
    /// What it says of others is believed.
    trusted: bool,
    /// Its place among the connections of its address, given back with the last of this one.
    _counted: Option<Counted>,
    /// Where it came in.
    entrance: Rc<Entrance>,
    /// `X-Forwarded-For` and `X-Forwarded-Proto` with what this connection shows.
    lines: String,
    /// How much of `lines` is the first of the two.
    first: usize,
}

const FOR: &str = "X-Forwarded-For: ";

impl Client {
    pub(crate) fn new(ip: IpAddr, entrance: &Rc<Entrance>) -> Self {
        let ip = ip.to_canonical();
        let scheme = if entrance.tls.is_some() { "https" } else { "http" };
        let mut lines = String::new();
        // Writing to a `String` cannot fail.
        let _ = write!(lines, "{FOR}{ip}\r\n");
        let first = lines.len();
        let _ = write!(lines, "X-Forwarded-Proto: {scheme}\r\n");
        let trusted = is_trusted(ip, &entrance.trusted_proxies);
        Self { ip, trusted, _counted: None, entrance: entrance.clone(), lines, first }
    }

    /// Likewise, and counted so.
    pub(crate) fn counted(self, counted: Option<Counted>) -> Self {
        Self { _counted: counted, ..self }
    }

    /// Weighs what a request claims.
    pub(crate) fn weigh<'b>(&self, head: &RequestHead<'_, 'b>) -> Weighed<'b> {
        let mut weighed = Weighed { client: self.ip, ..Weighed::NOTHING };
        let mut said = None;
        for index in head.claims.iter() {
            let header = &head.headers[index];
            let Field::Claim(claim) = field::classify(header.name) else { continue };
            if claim == Claim::RequestId && !self.entrance.request_ids {
                weighed.kept.insert(index);
            } else if claim == Claim::Disguised || !self.trusted {
                weighed.hidden.insert(index);
            } else {
                match claim {
                    Claim::For => said = walk(said, header.value, &self.entrance.trusted_proxies),
                    Claim::Forwarded => weighed.forwarded = true,
                    Claim::RequestId => weighed.id = weighed.id.or(Some(header.value)),
                    Claim::Proto => {
                        weighed.proto = true;
                        weighed.https |= header.value.eq_ignore_ascii_case(b"https");
                    }
                    Claim::Host => weighed.host = true,
                    Claim::RequestStart => weighed.start = true,
                    Claim::Other | Claim::Disguised => {}
                }
                if !matches!(claim, Claim::For | Claim::Forwarded | Claim::RequestId) {
                    weighed.kept.insert(index);
                }
            }
        }
        weighed.client = said.unwrap_or(self.ip);
        weighed
    }

    /// Whether each request gets an id.
    pub(crate) fn wants_ids(&self) -> bool {
        self.entrance.request_ids
    }

    /// Where a request is sent instead, by https; none where it stays.
    pub(crate) fn redirect(&self, weighed: &Weighed<'_>) -> Option<u16> {
        self.entrance.redirect.filter(|_| !weighed.https)
    }

    /// Writes what the worker is told of the client.
    pub(crate) fn write(&self, head: &RequestHead<'_, '_>, weighed: &Weighed<'_>, out: &mut Vec<u8>) {
        if self.trusted {
            self.write_extended(head, weighed, out);
        } else {
            out.extend_from_slice(self.lines.as_bytes());
        }
        if !weighed.host && !head.authority.is_empty() {
            extend(out, &["X-Forwarded-Host: ", head.authority, "\r\n"]);
        }
    }

    /// What the trusted peer said, and the peer itself at its end.
    fn write_extended(&self, head: &RequestHead<'_, '_>, weighed: &Weighed<'_>, out: &mut Vec<u8>) {
        extend(out, &[FOR]);
        copy_values(head, Claim::For, out);
        extend(out, &[self.address(), "\r\n"]);
        if !weighed.proto {
            extend(out, &[&self.lines[self.first..]]);
        }
        if weighed.forwarded {
            extend(out, &["Forwarded: "]);
            copy_values(head, Claim::Forwarded, out);
            let [before, after] = if self.ip.is_ipv6() { ["for=\"[", "]\""] } else { ["for=", ""] };
            extend(out, &[before, self.address(), after, ";proto=", self.scheme(), "\r\n"]);
        }
    }

    fn address(&self) -> &str {
        &self.lines[FOR.len()..self.first - 2]
    }

    fn scheme(&self) -> &str {
        self.lines[self.first..].trim_start_matches("X-Forwarded-Proto: ").trim_end()
    }
}

/// What a request claims, weighed: what is believed, and what becomes of the headers.
#[derive(Debug)]
pub(crate) struct Weighed<'b> {
    /// Whom the request comes from.
    pub(crate) client: IpAddr,
    /// Headers that stay as they are.
    pub(crate) kept: Positions,
    /// Headers that rules must not see.
    pub(crate) hidden: Positions,
    /// The request's id, not yet looked at.
    pub(crate) id: Option<&'b [u8]>,
    /// When the request began was said.
    pub(crate) start: bool,
    /// `Forwarded`, `X-Forwarded-Proto` and `X-Forwarded-Host` were said.
    forwarded: bool,
    proto: bool,
    host: bool,
    /// The client speaks https to the peer.
    https: bool,
}

impl Weighed<'_> {
    const NOTHING: Self = Self {
        client: IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED),
        kept: Positions::NONE,
        hidden: Positions::NONE,
        id: None,
        start: false,
        forwarded: false,
        proto: false,
        host: false,
        https: false,
    };
}

/// Whether what `ip` says of others is believed.
pub(crate) fn is_trusted(ip: IpAddr, trusted: &[IpNet]) -> bool {
    trusted.iter().any(|net| net.contains(&ip))
}

/// The right-most address that is not trusted, and where all are, the left-most; `before` is that of the list to
/// the left. What cannot be read hides all that is left of it.
fn walk(before: Option<IpAddr>, list: &[u8], trusted: &[IpNet]) -> Option<IpAddr> {
    field::items(list).fold(before, |before, item| {
        let ip = address(item)?;
        Some(before.filter(|_| is_trusted(ip, trusted)).unwrap_or(ip))
    })
}

/// An address of `X-Forwarded-For`: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:80`.
fn address(item: &[u8]) -> Option<IpAddr> {
    let item = std::str::from_utf8(item).ok()?;
    let bare = item.strip_prefix('[').and_then(|item| item.strip_suffix(']')).unwrap_or(item);
    let ip = bare.parse().or_else(|_| item.parse::<SocketAddr>().map(|address| address.ip()));
    ip.ok().filter(|ip: &IpAddr| bare.len() == item.len() || ip.is_ipv6()).map(|ip| ip.to_canonical())
}

/// Copies the values of a claim, each with a comma after it.
fn copy_values(head: &RequestHead<'_, '_>, claim: Claim, out: &mut Vec<u8>) {
    for header in head.claims.iter().map(|index| &head.headers[index]) {
        if field::classify(header.name) == Field::Claim(claim) && !header.value.is_empty() {
            out.extend_from_slice(header.value);
            out.extend_from_slice(b", ");
        }
    }
}

fn extend(out: &mut Vec<u8>, parts: &[&str]) {
    parts.iter().for_each(|part| out.extend_from_slice(part.as_bytes()));
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::certificates::Store;
    use crate::proxy::front::Tls;
    use crate::proxy::h1::request;
    use crate::proxy::limits::Settings;

    fn trusted() -> Vec<IpNet> {
        ["10.0.0.0/8", "127.0.0.1/32", "fd00::/8"].map(|text| text.parse().unwrap()).into()
    }

    fn http() -> Entrance {
        Entrance { trusted_proxies: trusted(), ..Entrance::default() }
    }

    fn https() -> Entrance {
        let store = Arc::new(Store::new(&[]));
        Entrance { tls: Some(Tls::new(store).unwrap()), ..http() }
    }

    fn client(ip: &str, entrance: Entrance) -> Client {
        Client::new(ip.parse().unwrap(), &Rc::new(entrance))
    }

    /// Parses a head whose headers after `Host` are these.
    fn parse<R>(headers: &str, look: impl FnOnce(&RequestHead<'_, '_>) -> R) -> R {
        let text = format!("GET / HTTP/1.1\r\nHost: h\r\n{headers}\r\n");
        request::parse(text.as_bytes(), &Settings::default(), look).unwrap().unwrap().1
    }

    /// What a worker is told, the client's address, and which headers stay and which rules do not see.
    fn told(peer: &str, entrance: Entrance, headers: &str) -> (String, String, String) {
        let client = client(peer, entrance);
        let look = |head: &RequestHead<'_, '_>| {
            let weighed = client.weigh(head);
            let mut out = Vec::new();
            client.write(head, &weighed, &mut out);
            let names = |positions: Positions| {
                positions.iter().map(|i| head.headers[i].name).collect::<Vec<_>>().join(" ")
            };
            let headers = format!("+{} -{}", names(weighed.kept), names(weighed.hidden));
            (String::from_utf8(out).unwrap(), weighed.client.to_string(), headers)
        };
        parse(headers, look)
    }

    #[test]
    fn nobody_else_is_believed() {
        let ours = "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: h\r\n";
        for (headers, hidden) in [
            ("", "+ -"),
            ("X-Forwarded-For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n", "+ -X-Forwarded-For Forwarded"),
            (
                "x-forwarded-host: e\r\nX-FORWARDED-PROTO: https\r\nA: 1\r\nX-Forwarded-Port: 6\r\n",
                "+ -x-forwarded-host X-FORWARDED-PROTO X-Forwarded-Port",
            ),
            (
                "X-Real-IP: 6.6.6.6\r\nX_Forwarded_For: 6.6.6.6\r\nX-Request_Id: 6\r\nX-Request-Start: t=6\r\n",
                "+ -X-Real-IP X_Forwarded_For X-Request_Id X-Request-Start",
            ),
            ("X-Request-Id: 6\r\n", "+ -X-Request-Id"),
        ] {
            let (lines, client, headers) = told("192.0.2.1", http(), headers);
            assert_eq!((lines.as_str(), client.as_str(), headers.as_str()), (ours, "192.0.2.1", hidden));
        }
        let (lines, ..) = told("::ffff:192.0.2.1", https(), "");
        assert_eq!(lines, ours.replace("http\r", "https\r"));
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_extended() {
        for (peer, headers, lines, client, positions) in [
            (
                "10.0.0.1",
                "",
                "X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: h\r\n",
                "10.0.0.1",
                "+ -",
            ),
            (
                "::ffff:10.0.0.1",
                "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: o\r\nX-Forwarded-Port: 1\r\n",
                "X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n",
                "192.0.2.7",
                "+X-Forwarded-Proto X-Forwarded-Host X-Forwarded-Port -",
            ),
            (
                "fd00::1",
                "X-Forwarded-For: 6.6.6.6, 192.0.2.7\r\nForwarded: for=_a\r\nA: 1\r\nx-forwarded-for: 10.1.1.1\r\n\
                 Forwarded: for=b;by=c\r\nX-Real-IP: 192.0.2.7\r\nX-Request-Start: t=1\r\nX_Real_IP: 6.6.6.6\r\n",
                "X-Forwarded-For: 6.6.6.6, 192.0.2.7, 10.1.1.1, fd00::1\r\nX-Forwarded-Proto: https\r\n\
                 Forwarded: for=_a, for=b;by=c, for=\"[fd00::1]\";proto=https\r\nX-Forwarded-Host: h\r\n",
                "192.0.2.7",
                "+X-Real-IP X-Request-Start -X_Real_IP",
            ),
            (
                "127.0.0.1",
                "Forwarded:\r\nX-Forwarded-For:\r\n",
                "X-Forwarded-For: 127.0.0.1\r\nX-Forwarded-Proto: https\r\n\
                 Forwarded: for=127.0.0.1;proto=https\r\nX-Forwarded-Host: h\r\n",
                "127.0.0.1",
                "+ -",
            ),
        ] {
            let found = told(peer, https(), headers);
            assert_eq!(found, (lines.to_owned(), client.to_owned(), positions.to_owned()), "{headers}");
        }
    }

    #[test]
    fn headers_that_say_who_the_client_is_cannot_be_named_away() {
        let headers = "X-Forwarded-For: 192.0.2.7\r\nX-Forwarded-Proto: https\r\n\
                       Connection: x-forwarded-for, x-forwarded-proto\r\n";
        let (lines, client, positions) = told("10.0.0.1", http(), headers);
        assert!(lines.starts_with("X-Forwarded-For: 192.0.2.7, 10.0.0.1\r\n"), "{lines}");
        assert_eq!((client.as_str(), positions.as_str()), ("192.0.2.7", "+X-Forwarded-Proto -"));
    }

    #[test]
    fn https_is_believed_of_a_trusted_proxy_only() {
        for (peer, proto, redirect) in
            [("192.0.2.1", "https", Some(443)), ("10.0.0.1", "http", Some(443)), ("10.0.0.1", "HTTPS", None)]
        {
            let client = client(peer, Entrance { redirect: Some(443), ..http() });
            let headers = format!("X-Forwarded-Proto: {proto}\r\n");
            assert_eq!(parse(&headers, |head| client.redirect(&client.weigh(head))), redirect);
        }
    }

    #[test]
    fn ids_that_are_switched_off_are_ordinary_headers() {
        let client = client("192.0.2.1", Entrance { request_ids: false, ..http() });
        parse("X-Request-Id: 6\r\n", |head| {
            let weighed = client.weigh(head);
            assert!(weighed.kept.contains(1), "it is one like any other");
            assert_eq!((weighed.hidden, weighed.id), (Positions::NONE, None));
        });
    }

    #[test]
    fn addresses_are_read_in_every_form() {
        for (item, ip) in [
            ("192.0.2.1", Some("192.0.2.1")),
            ("192.0.2.1:8080", Some("192.0.2.1")),
            ("2001:db8::1", Some("2001:db8::1")),
            ("[2001:db8::1]", Some("2001:db8::1")),
            ("[2001:db8::1]:80", Some("2001:db8::1")),
            ("::ffff:192.0.2.1", Some("192.0.2.1")),
            ("[::ffff:192.0.2.1]:1", Some("192.0.2.1")),
            ("[192.0.2.1]", None),
            ("192.0.2.1:99999", None),
            ("192.0.2.1:", None),
            ("192.0.2.01", None),
            ("unknown", None),
            ("_hidden", None),
            ("\"192.0.2.1\"", None),
            ("for=192.0.2.1", None),
            ("192.0.2.1 192.0.2.2", None),
            ("caf\u{e9}", None),
        ] {
            assert_eq!(address(item.as_bytes()), ip.map(|ip| ip.parse().unwrap()), "{item}");
        }
    }

    #[test]
    fn the_walk_ends_at_the_first_stranger_from_the_right() {
        let trusted = trusted();
        for (list, client) in [
            ("", None),
            ("192.0.2.7", Some("192.0.2.7")),
            ("6.6.6.6, 192.0.2.7", Some("192.0.2.7")),
            ("6.6.6.6, 192.0.2.7, 10.0.0.9:80 , 127.0.0.1", Some("192.0.2.7")),
            ("10.0.0.8, 10.0.0.9", Some("10.0.0.8")),
            ("192.0.2.7, unknown", None),
            ("192.0.2.7, unknown, 10.0.0.9", Some("10.0.0.9")),
            ("unknown, 10.0.0.8, 10.0.0.9", Some("10.0.0.8")),
            ("192.0.2.7, ::ffff:10.0.0.9", Some("192.0.2.7")),
            ("192.0.2.7,,10.0.0.9,", Some("192.0.2.7")),
        ] {
            assert_eq!(walk(None, list.as_bytes(), &trusted), client.map(|ip| ip.parse().unwrap()), "{list}");
        }
    }

    proptest::proptest! {
        /// The same, said as people say it: from the right, as long as it can be read and is trusted.
        #[test]
        fn the_walk_is_the_one_from_the_right(
            items in proptest::collection::vec(
                proptest::sample::select(vec!["192.0.2.7", "6.6.6.6", "10.0.0.8", "10.0.0.9", "x", "[fd00::1]:1"]),
                0..8,
            ),
            cut in 0..8_usize,
        ) {
            let trusted = trusted();
            let mut expected = None;
            for item in items.iter().rev() {
                let Some(ip) = address(item.as_bytes()) else { break };
                expected = Some(ip);
                if !is_trusted(ip, &trusted) {
                    break;
                }
            }
            // However the list is spread over headers.
            let (left, right) = items.split_at(cut.min(items.len()));
            let found = walk(None, left.join(", ").as_bytes(), &trusted);
            let found = walk(found, right.join(",").as_bytes(), &trusted);
            proptest::prop_assert_eq!(found, expected);
        }
    }
}
