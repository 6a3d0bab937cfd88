//! Whether a response is compressed, with what, and what its head says then. Pure.
//!
//! A response that would be compressed for another client carries `Vary: Accept-Encoding` all the same: a cache
//! in between must not give one client's form to another.

use crate::config::{Coding, Compress};
use crate::proxy::body::weight;
use crate::proxy::h1::body::Body;
use crate::proxy::h1::field::{self, Positions};
use crate::proxy::h1::lines;
use crate::proxy::h1::response::ResponseHead;

/// What becomes of a response that may be compressed.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Recoded {
    /// None: this client gets it as it is.
    pub(crate) coding: Option<Coding>,
    /// Headers of the worker that do not hold any more.
    pub(crate) removed: Positions,
    /// Whole lines that are added.
    pub(crate) lines: Vec<u8>,
}

impl Recoded {
    /// The worker's head as it is written: the length of a compressed body is not known.
    pub(crate) fn head<'h, 'b>(&self, head: &ResponseHead<'h, 'b>) -> ResponseHead<'h, 'b> {
        let body = match self.coding {
            Some(_) if !head.body.is_done() => Body::UntilClose,
            _ => head.body,
        };
        ResponseHead { removed: head.removed.and(self.removed), body, ..*head }
    }
}

/// What the headers say that decides, gathered in one pass.
#[derive(Default)]
struct Said<'b> {
    content_type: Option<&'b [u8]>,
    length: Option<u64>,
    etag: Option<(usize, &'b [u8])>,
    vary: Vec<(usize, &'b [u8])>,
    /// Positions of headers that only hold for the bytes as the worker sent them.
    of_bytes: Positions,
    /// It must stay as it is.
    untouchable: bool,
}

/// Decides for one response to the request whose head is `request`. `None`: it is none that is compressed for
/// anybody. `busy`: nothing more is compressed at this moment.
pub(crate) fn recode(
    compress: &Compress,
    request: &[u8],
    head: &ResponseHead<'_, '_>,
    busy: bool,
) -> Option<Recoded> {
    if matches!(head.status, 100..=199 | 204..=206 | 304) || head.event_stream {
        return None;
    }
    let said = gather(head);
    let small = said.length.is_some_and(|length| length < compress.min.max(1));
    let stays = small || said.untouchable || says_no_transform(lines::values(request, "cache-control"));
    if stays || !said.content_type.is_some_and(|value| is_wanted(&compress.types, value)) {
        return None;
    }
    let coding = choose(&compress.codings, lines::values(request, "accept-encoding"));
    let mut recoded = Recoded { coding: coding.filter(|_| !busy), ..Recoded::default() };
    vary(&said, &mut recoded);
    if let Some(coding) = recoded.coding {
        said.of_bytes.iter().for_each(|index| recoded.removed.insert(index));
        recoded.lines.extend_from_slice(format!("content-encoding: {}\r\n", name(coding)).as_bytes());
        // Compressed anew it is not the same bytes: only a weak validator is true (RFC 9110 section 8.8.3).
        if let Some((index, etag)) = said.etag.filter(|(_, etag)| etag.starts_with(b"\"")) {
            recoded.removed.insert(index);
            recoded.lines.extend_from_slice(&[b"etag: W/", etag, b"\r\n"].concat());
        }
    }
    Some(recoded)
}

fn gather<'b>(head: &ResponseHead<'_, 'b>) -> Said<'b> {
    let mut said = Said::default();
    for (index, header) in head.headers.iter().enumerate() {
        match header.name.to_ascii_lowercase().as_str() {
            "content-type" => said.content_type = Some(header.value),
            "content-length" => {
                said.length = field::content_length(header.value);
                said.of_bytes.insert(index);
            }
            "etag" => said.etag = Some((index, header.value)),
            "vary" => said.vary.push((index, header.value)),
            "accept-ranges" | "content-md5" | "digest" | "content-digest" | "repr-digest" => {
                said.of_bytes.insert(index);
            }
            // Trailers would be lost with the chunks they came in.
            "content-encoding" | "content-range" | "trailer" => said.untouchable = true,
            "cache-control" => {
                said.untouchable |= says_no_transform(std::str::from_utf8(header.value).into_iter());
            }
            _ => {}
        }
    }
    said
}

fn says_no_transform<'a>(mut values: impl Iterator<Item = &'a str>) -> bool {
    values.any(|value| value.split(',').any(|item| item.trim().eq_ignore_ascii_case("no-transform")))
}

/// Whether `types` has the content type `value`, its parameters left out. Streams of events and of gRPC never.
fn is_wanted(types: &[String], value: &[u8]) -> bool {
    let kind = value.split(|b| *b == b';').next().unwrap_or_default().trim_ascii();
    let is_grpc = kind.get(..16).is_some_and(|begin| begin.eq_ignore_ascii_case(b"application/grpc"));
    !is_grpc
        && types.iter().any(|wanted| match wanted.strip_suffix('*') {
            Some(begin) => {
                kind.get(..begin.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(begin.as_bytes()))
            }
            None => kind.eq_ignore_ascii_case(wanted.as_bytes()),
        })
}

/// Adds `Accept-Encoding` to what the worker says in `Vary`, as one header.
fn vary(said: &Said<'_>, recoded: &mut Recoded) {
    let mut names = said.vary.iter().flat_map(|(_, value)| field::items(value));
    if names.any(|name| name == b"*" || name.eq_ignore_ascii_case(b"accept-encoding")) {
        return;
    }
    recoded.lines.extend_from_slice(b"vary: ");
    for (index, value) in said.vary.iter().filter(|(_, value)| !value.is_empty()) {
        recoded.removed.insert(*index);
        recoded.lines.extend_from_slice(&[value, &b", "[..]].concat());
    }
    recoded.lines.extend_from_slice(b"accept-encoding\r\n");
}

/// The coding that the client would rather have; of those it likes equally, the first of `offered`. `None`: the
/// response as it is, also where the client refuses that and everything else too (RFC 9110 section 12.5.3).
fn choose<'a>(offered: &[Coding], wishes: impl Iterator<Item = &'a str>) -> Option<Coding> {
    let wishes: Vec<_> = wishes.flat_map(weight::items).collect();
    let said = |wanted: &str| {
        let found = wishes.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
        found.map(|(_, weight)| *weight)
    };
    let any = said("*");
    let weight = |coding: Coding| {
        let alias = (coding == Coding::Gzip).then(|| said("x-gzip")).flatten();
        said(name(coding)).or(alias).or(any).unwrap_or(0)
    };
    let as_it_is = said("identity").unwrap_or(0);
    // Of equals, `max_by_key` gives the last.
    let best = offered.iter().copied().rev().max_by_key(|coding| weight(*coding))?;
    (weight(best) > 0 && weight(best) >= as_it_is).then_some(best)
}

/// As it stands in `Content-Encoding`.
fn name(coding: Coding) -> &'static str {
    match coding {
        Coding::Gzip => "gzip",
        Coding::Brotli => "br",
        Coding::Zstd => "zstd",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proxy::Settings;
    use crate::proxy::h1::response;
    use Coding::{Brotli, Gzip, Zstd};

    #[test]
    fn the_client_chooses_and_we_break_ties() {
        let all = &[Zstd, Brotli, Gzip][..];
        for (offered, wishes, expected) in [
            (all, "gzip, deflate, br, zstd", Some(Zstd)),
            (all, "gzip, deflate, br", Some(Brotli)),
            (all, "gzip;q=1.0, br;q=0.5", Some(Gzip)),
            (all, "x-gzip", Some(Gzip)),
            (all, "GZIP", Some(Gzip)),
            (all, "*", Some(Zstd)),
            (all, "*;q=0.1, zstd;q=0", Some(Brotli)),
            (all, "*;q=0", None),
            (all, "br;q=0", None),
            (all, "gzip;q=0.5, identity", None),
            (all, "gzip;q=0.5, identity;q=0.5", Some(Gzip)),
            (all, "identity;q=0", None),
            (all, "identity;q=0, *", Some(Zstd)),
            (all, "deflate, compress", None),
            (all, "gzip;q=nonsense", None),
            (all, "", None),
            (&[Gzip], "br, gzip;q=0.1", Some(Gzip)),
            (&[Gzip], "br", None),
            (&[], "br", None),
        ] {
            assert_eq!(choose(offered, [wishes].into_iter()), expected, "{offered:?} {wishes:?}");
        }
        assert_eq!(choose(all, std::iter::empty()), None, "a client that says nothing");
        assert_eq!(choose(all, ["gzip;q=0.5", "br"].into_iter()), Some(Brotli), "two lines are one list");
    }

    /// What is decided for a client that takes gzip: the coding, and how the head changes.
    fn decided(asked: &str, answered: &str) -> Option<(Option<Coding>, Vec<String>, String)> {
        let compress = Compress {
            codings: vec![Zstd, Gzip],
            types: vec!["text/*".to_owned(), "application/json".to_owned()],
            min: 1000,
        };
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{asked}\r\n");
        let response = format!("HTTP/1.1 {answered}\r\n\r\n");
        response::parse(response.as_bytes(), &Settings::default(), false, |head| {
            let recoded = recode(&compress, request.as_bytes(), head, false)?;
            let removed = recoded.removed.iter().map(|i| head.headers[i].name.to_owned()).collect();
            Some((recoded.coding, removed, String::from_utf8(recoded.lines).unwrap()))
        })
        .unwrap()
        .unwrap()
        .1
    }

    #[test]
    fn the_head_says_what_the_body_has_become() {
        let gzip = "Accept-Encoding: gzip\r\n";
        let yes = |removed: &[&str], lines: &str| {
            Some((Some(Gzip), removed.iter().map(|r| (*r).to_owned()).collect(), lines.to_owned()))
        };
        for (asked, answered, expected) in [
            (
                gzip,
                "200 OK\r\nContent-Type: text/html; charset=utf-8\r\nContent-Length: 1000",
                yes(&["Content-Length"], "vary: accept-encoding\r\ncontent-encoding: gzip\r\n"),
            ),
            (
                gzip,
                "404 No\r\nContent-Type: Application/JSON\r\nVary: Origin\r\nETag: \"a\"\r\nAccept-Ranges: bytes\r\n\
                 vary: Cookie\r\nContent-MD5: x",
                yes(
                    &["Vary", "ETag", "Accept-Ranges", "vary", "Content-MD5"],
                    "vary: Origin, Cookie, accept-encoding\r\ncontent-encoding: gzip\r\netag: W/\"a\"\r\n",
                ),
            ),
            (
                gzip,
                "200 OK\r\nContent-Type: text/css\r\nVary: Accept-encoding, Origin\r\nETag: W/\"a\"",
                yes(&[], "content-encoding: gzip\r\n"),
            ),
            (gzip, "200 OK\r\nContent-Type: text/css\r\nVary: *", yes(&[], "content-encoding: gzip\r\n")),
            (
                "",
                "200 OK\r\nContent-Type: text/css\r\nETag: \"a\"\r\nVary: Origin",
                Some((None, vec!["Vary".to_owned()], "vary: Origin, accept-encoding\r\n".to_owned())),
            ),
        ] {
            assert_eq!(decided(asked, answered), expected, "{asked:?} {answered:?}");
        }
    }

    #[test]
    fn what_must_stay_as_it_is_stays() {
        let gzip = "Accept-Encoding: gzip\r\n";
        for (asked, answered) in [
            (gzip, "200 OK\r\nContent-Type: image/png"),
            (gzip, "200 OK\r\nContent-Length: 5000"),
            (gzip, "200 OK\r\nContent-Type: text/html\r\nContent-Length: 999"),
            (gzip, "200 OK\r\nContent-Type: text/html\r\nContent-Encoding: br"),
            (gzip, "200 OK\r\nContent-Type: text/html\r\nContent-Encoding: identity"),
            (gzip, "206 Partial\r\nContent-Type: text/html\r\nContent-Range: bytes 0-1/2"),
            (gzip, "416 No\r\nContent-Type: text/html\r\nContent-Range: bytes */2"),
            (gzip, "200 OK\r\nContent-Type: text/html\r\nCache-Control: public, No-Transform"),
            (gzip, "200 OK\r\nContent-Type: text/html\r\nTrailer: x-sum"),
            (gzip, "200 OK\r\nContent-Type: text/event-stream; charset=utf-8"),
            (gzip, "200 OK\r\nContent-Type: application/grpc+proto"),
            (gzip, "204 None\r\nContent-Type: text/html"),
            (gzip, "304 Same\r\nContent-Type: text/html"),
            ("Accept-Encoding: gzip\r\nCache-Control: no-transform\r\n", "200 OK\r\nContent-Type: text/html"),
        ] {
            assert_eq!(decided(asked, answered), None, "{asked:?} {answered:?}");
        }
    }
}
