//! Single values: the text that a person wrote to what it means, or what is wrong with it and what to write.
//!
//! Pure functions. Their problems have no key and no place: the [`Reader`](crate::yaml::Reader) that calls
//! them fills those in. They are boxed, because a problem is large and the usual way has none.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;

use crate::hint::{Problem, nearest};

/// The longest duration that is taken: longer ones are slips, and would overflow clocks.
pub(super) const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);
/// Room for a path in a unix socket address, less the final zero.
pub(super) const SOCKET_PATH_MAX: usize = 107;
/// The longest name of a service or node: it becomes part of paths, keys and metric labels.
const NAME_MAX: usize = 128;
/// The longest host name of the DNS.
const HOST_MAX: usize = 253;

fn wrong(message: String, hint: impl Into<String>) -> Box<Problem> {
    Problem::error("", message).hint(hint).into()
}

/// A duration within `range`, as in `500ms`, `2s`, `1m30s`, `1h`.
pub(super) fn duration(text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Box<Problem>> {
    if text.parse::<f64>().is_ok_and(|number| number >= 0.0) {
        let message = format!("`{text}` has no unit");
        return Err(wrong(message, format!("write `{text}s` for seconds, `{text}ms` for milliseconds")));
    }
    let parsed = jiff::fmt::friendly::SpanParser::new().parse_unsigned_duration(text);
    let duration = parsed.ok().or_else(|| days(text)).ok_or_else(|| {
        wrong(format!("`{text}` is not a duration"), "write it as in `500ms`, `2s`, `1m30s`, `1h`")
    })?;
    if !range.contains(&duration) {
        let (low, high) = (show(*range.start()), show(*range.end()));
        return Err(wrong(
            format!("`{text}` is out of range"),
            format!("write a duration from `{low}` to `{high}`"),
        ));
    }
    Ok(duration)
}

/// `30d`. The parser takes no days, since one can have 23 hours; here each has 24.
fn days(text: &str) -> Option<Duration> {
    let days = text.strip_suffix('d')?.trim_end().parse::<u32>().ok()?;
    Some(Duration::from_secs(24 * 3600) * days)
}

/// A duration as people write it: `2m`.
pub(super) fn show(duration: Duration) -> String {
    format!("{:#}", jiff::SignedDuration::try_from(duration).unwrap_or_default())
}

/// An address to listen on: IP and port; `:7000` is every IPv4 address, `localhost` is 127.0.0.1.
pub(super) fn address(text: &str) -> Result<SocketAddr, Box<Problem>> {
    const EXAMPLE: &str = "write an IP address and a port, as in \"127.0.0.1:7000\"";
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    if text.parse::<IpAddr>().is_ok() {
        let whole = if text.contains(':') { format!("[{text}]:7000") } else { format!("{text}:7000") };
        return Err(wrong(format!("`{text}` has no port"), format!("write \"{whole}\"")));
    }
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let hint =
            format!("write \"127.0.0.1:{text}\" for this machine only, \"0.0.0.0:{text}\" for every address");
        return Err(wrong(format!("`{text}` is a port without an address"), hint));
    }
    if text.contains("://") {
        return Err(wrong(format!("`{text}` is a URL, not an address"), EXAMPLE));
    }
    let Some((host, port)) = text.rsplit_once(':') else {
        return Err(wrong(format!("`{text}` is not an address"), EXAMPLE));
    };
    let Ok(port) = port.parse::<u16>() else {
        return Err(wrong(format!("`{port}` in `{text}` is not a port"), "write a port from 0 to 65535"));
    };
    match host {
        "" => Ok(SocketAddr::from(([0, 0, 0, 0], port))),
        "localhost" => Ok(SocketAddr::from(([127, 0, 0, 1], port))),
        "*" => Err(wrong(format!("`{text}` is not an address"), format!("write \"0.0.0.0:{port}\""))),
        _ => {
            Err(wrong(format!("`{host}` in `{text}` is not an IP address; names are not looked up"), EXAMPLE))
        }
    }
}

/// A name of a service or node: part of paths, etcd keys and URLs, so nothing that means something there.
pub(super) fn name(text: &str) -> Result<String, Box<Problem>> {
    let fits = text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        && text.len() <= NAME_MAX;
    if fits {
        return Ok(text.to_owned());
    }
    let hint =
        format!("begin with a letter or digit, then letters, digits, `.`, `_`, `-`; at most {NAME_MAX}");
    Err(wrong(format!("`{text}` cannot be a name"), hint))
}

/// A host name, made lower-case and without the root's dot.
pub(super) fn host(text: &str) -> Result<String, Box<Problem>> {
    let host = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if text.contains("://") || text.contains('/') {
        return Err(wrong(
            format!("`{text}` is a URL, not a host name"),
            "write only the name: `app.example.com`",
        ));
    }
    if text.contains('*') {
        let hint = "list the names; a service without `hosts` answers every host that no other one names";
        return Err(wrong(format!("`{text}` has a wildcard, which is not supported"), hint));
    }
    let bare = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(&host);
    if let Ok(ip) = bare.parse::<IpAddr>() {
        return Ok(ip.to_string());
    }
    if let Some((name, _)) = host.split_once("]:").or_else(|| host.split_once(':')) {
        let hint = format!("write it without the port: `{}`", name.trim_start_matches('['));
        return Err(wrong(format!("`{text}` is not a host name"), hint));
    }
    let label = |label: &str| {
        !label.is_empty() && label.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b))
    };
    if host.len() <= HOST_MAX && host.split('.').all(label) {
        return Ok(host);
    }
    let hint = match host.is_ascii() {
        true => "write a name as in `app.example.com`",
        false => "write its ASCII form, as in `xn--bcher-kva.example`",
    };
    Err(wrong(format!("`{text}` is not a host name"), hint))
}

/// An `http://` or `https://` URL of a server, without a path.
pub(super) fn endpoint(text: &str) -> Result<String, Box<Problem>> {
    let hint = "write it as in \"http://127.0.0.1:2379\"";
    let uri: http::Uri = text.parse().map_err(|_| wrong(format!("`{text}` is not a URL"), hint))?;
    if !matches!(uri.scheme_str(), Some("http" | "https")) {
        return Err(wrong(format!("`{text}` begins with neither http:// nor https://"), hint));
    }
    if uri.path() != "/" || uri.query().is_some() {
        return Err(wrong(format!("`{text}` has a path"), hint));
    }
    Ok(text.trim_end_matches('/').to_owned())
}

/// What all etcd keys begin with, without a slash at the end.
pub(super) fn etcd_prefix(text: &str) -> Result<String, Box<Problem>> {
    match text.trim_end_matches('/') {
        "" => {
            Err(wrong(format!("`{text}` leaves nothing to begin a key with"), "write it as in `/switchman`"))
        }
        prefix => Ok(prefix.to_owned()),
    }
}

/// A path; a relative one begins at `folder`.
pub(super) fn path(text: &str, folder: &Path) -> Result<PathBuf, Box<Problem>> {
    if text.is_empty() {
        return Err(wrong("the path is empty".to_owned(), "write a path as in `/srv/app`"));
    }
    if text.contains('\0') {
        return Err(wrong("the path has a NUL character in it".to_owned(), "remove it"));
    }
    if text.starts_with('~') || text.starts_with('$') {
        let message = format!("`{text}`: neither `~` nor variables are expanded in a path");
        return Err(wrong(message, "write the whole path, as in `/srv/app`"));
    }
    // Collecting the parts drops `.` and slashes at the end.
    Ok(folder.join(text).components().collect())
}

/// The path of a readiness check: what stands in a request line.
pub(super) fn request_path(text: &str) -> Result<String, Box<Problem>> {
    let hint = "write the path alone, as in `/healthz`";
    if !text.starts_with('/') {
        return Err(wrong(format!("`{text}` does not begin with `/`"), hint));
    }
    match text.parse::<http::uri::PathAndQuery>() {
        Ok(path) if path.as_str() == text => Ok(text.to_owned()),
        _ => Err(wrong(format!("`{text}` is not a path"), hint)),
    }
}

/// One of a few words.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&str, T)]) -> Result<T, Box<Problem>> {
    if let Some((_, meaning)) = words.iter().find(|(word, _)| *word == text) {
        return Ok(*meaning);
    }
    let known: Vec<_> = words.iter().map(|(word, _)| *word).collect();
    let hint = match nearest(text, known.iter().copied()) {
        Some(word) => format!("did you mean `{word}`?"),
        None => format!("write one of {}", known.join(", ")),
    };
    Err(wrong(format!("`{text}` is none of {}", known.join(", ")), hint))
}

/// A regular expression.
pub(super) fn regex(text: &str) -> Result<Regex, Box<Problem>> {
    Regex::new(text).map_err(|error| {
        // The crate draws the expression with a marker over several lines; the last line says what is wrong.
        let error = error.to_string();
        let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ").to_owned();
        wrong(
            format!("`{text}` is not a regular expression: {why}"),
            "write it in single quotes, as in '^[0-9a-f]{7,64}$'",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message<T>(result: Result<T, Box<Problem>>) -> String {
        result.err().map_or(String::new(), |p| format!("{} | {}", p.message, p.hint.unwrap_or_default()))
    }

    #[test]
    fn durations() {
        let read = |text| duration(text, Duration::from_millis(10)..=DURATION_MAX);
        for (text, ms) in [
            ("500ms", 500),
            ("2s", 2_000),
            ("1m", 60_000),
            ("1m30s", 90_000),
            ("1h", 3_600_000),
            ("2d", 172_800_000),
        ] {
            assert_eq!(read(text).unwrap(), Duration::from_millis(ms), "{text}");
        }
        for (text, part) in [
            ("5", "`5` has no unit | write `5s` for seconds"),
            ("0", "has no unit"),
            ("1.5", "`1.5s` for seconds"),
            ("five", "is not a duration | write it as in"),
            ("-2s", "is not a duration"),
            ("2s ago", "is not a duration"),
            ("2 lightyears", "is not a duration"),
            ("", "is not a duration"),
            ("1ms", "`1ms` is out of range | write a duration from `10ms` to"),
            ("99999999h", "to `168h`"),
            ("99999999999999999999999h", "is not a duration"),
        ] {
            assert!(message(read(text)).contains(part), "{text}: {}", message(read(text)));
        }
        assert_eq!(duration("0s", Duration::ZERO..=DURATION_MAX).unwrap(), Duration::ZERO);
    }

    #[test]
    fn addresses() {
        for (text, parsed) in [
            ("127.0.0.1:7000", "127.0.0.1:7000"),
            (":7000", "0.0.0.0:7000"),
            ("localhost:0", "127.0.0.1:0"),
            ("[::1]:80", "[::1]:80"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), parsed);
        }
        for (text, part) in [
            ("7000", "is a port without an address | write \"127.0.0.1:7000\" for this machine only"),
            ("0.0.0.0", "has no port | write \"0.0.0.0:7000\""),
            ("::1", "has no port | write \"[::1]:7000\""),
            ("*:80", "write \"0.0.0.0:80\""),
            ("host:80", "`host` in `host:80` is not an IP address"),
            ("1.2.3.4:70000", "`70000` in `1.2.3.4:70000` is not a port"),
            ("http://x:80", "is a URL"),
            ("x", "is not an address"),
            ("", "is not an address"),
        ] {
            assert!(message(address(text)).contains(part), "{text}: {}", message(address(text)));
        }
    }

    #[test]
    fn names_and_hosts() {
        assert_eq!(name("app-2.x_y").unwrap(), "app-2.x_y");
        for text in ["", "..", "-x", "a/b", "a b", "ä", &"x".repeat(129)] {
            assert!(name(text).is_err(), "{text}");
        }
        for (text, parsed) in [
            ("App.Example.COM.", "app.example.com"),
            ("::1", "::1"),
            ("[0::1]", "::1"),
            ("127.0.0.1", "127.0.0.1"),
            ("a_b", "a_b"),
        ] {
            assert_eq!(host(text).unwrap(), parsed);
        }
        for (text, part) in [
            ("app.example.com:80", "without the port: `app.example.com`"),
            ("[::1]:80", "without the port: `::1`"),
            ("https://x/", "is a URL"),
            ("*.example.com", "wildcard"),
            ("bücher.example", "ASCII form"),
            ("a..b", "is not a host name"),
            ("", "is not a host name"),
        ] {
            assert!(message(host(text)).contains(part), "{text}: {}", message(host(text)));
        }
    }

    #[test]
    fn urls_paths_and_expressions() {
        assert_eq!(endpoint("http://10.0.0.1:2379/").unwrap(), "http://10.0.0.1:2379");
        assert!(message(endpoint("10.0.0.1:2379")).contains("neither http"));
        assert!(message(endpoint("http://x/y")).contains("has a path"));
        assert!(message(endpoint("a b")).contains("not a URL"));
        assert_eq!(request_path("/healthz?full=1").unwrap(), "/healthz?full=1");
        assert!(message(request_path("healthz")).contains("does not begin with `/`"));
        assert!(message(request_path("/a b")).contains("is not a path"));
        assert_eq!(
            message(regex("^[0-9a-f{7,64}$")),
            "`^[0-9a-f{7,64}$` is not a regular expression: unclosed character class | write it in single quotes, as in \
             '^[0-9a-f]{7,64}$'"
        );
    }
}
