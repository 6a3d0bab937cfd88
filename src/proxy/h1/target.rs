//! Request targets and hosts (RFC 9112 section 3.2): what a request is for.

/// A request target in its two parts.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Target<'b> {
    /// Host and port, where the target names them.
    pub(super) authority: Option<&'b str>,
    /// Path and query; the path may be empty after an authority.
    pub(super) origin: &'b str,
}

/// Splits a request target (RFC 9112 section 3.2) into authority and origin form.
pub(super) fn split<'b>(method: &str, target: &'b str) -> Option<Target<'b>> {
    if target.contains('#') {
        return None;
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Some(Target { authority: None, origin: target });
    }
    let scheme_end = target.find("://")?;
    let scheme = &target[..scheme_end];
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return None;
    }
    let rest = &target[scheme_end + 3..];
    let (authority, origin) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    (!authority.is_empty() && is_authority(authority))
        .then_some(Target { authority: Some(authority), origin })
}

/// A host, perhaps with a port; never user information, never a list. Empty is valid in a Host header.
pub(super) fn is_authority(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']') {
            Some((host, "")) => (host, ""),
            Some((host, rest)) => match rest.strip_prefix(':') {
                Some(port) => (host, port),
                None => return false,
            },
            None => return false,
        },
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let literal = text.starts_with('[');
    let valid =
        |b: u8| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+;=".contains(&b) || (literal && b == b':');
    (!host.is_empty() || text.is_empty())
        && host.bytes().all(valid)
        && port.bytes().all(|b| b.is_ascii_digit())
}

/// The host of an authority: without its port, and without the dot at the end that stands for the root of all
/// names (`app.example.com.` is the same host).
pub(crate) fn host(authority: &str) -> &str {
    let host = match authority.rfind([':', ']']) {
        Some(at) if authority.as_bytes()[at] == b':' => &authority[..at],
        _ => authority,
    };
    host.strip_suffix('.').unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_path_or_an_http_url() {
        for (target, expected) in [
            ("/", Some((None, "/"))),
            ("/a?b=//c", Some((None, "/a?b=//c"))),
            ("//a/b", Some((None, "//a/b"))),
            ("http://h", Some((Some("h"), ""))),
            ("HTTPS://h:443/p", Some((Some("h:443"), "/p"))),
            ("http://[::1]?q", Some((Some("[::1]"), "?q"))),
            ("http:///p", None),
            ("http://u@h/", None),
            ("http://[::1/", None),
            ("http://[::1]x/", None),
            ("ftp://h/", None),
            ("h:80", None),
            ("*", None),
            ("/a#b", None),
        ] {
            let found = split("GET", target).map(|t| (t.authority, t.origin));
            assert_eq!(found, expected, "{target}");
        }
        assert!(split("OPTIONS", "*").is_some());
    }

    #[test]
    fn a_host_is_what_is_left_without_port_and_root() {
        for (authority, expected) in [
            ("", ""),
            ("a.example", "a.example"),
            ("a.example:80", "a.example"),
            ("a.example.", "a.example"),
            ("a.example.:", "a.example"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
        ] {
            assert_eq!(host(authority), expected, "{authority:?}");
        }
    }

    #[test]
    fn a_host_is_one_host_and_perhaps_a_port() {
        for (host, valid) in [
            ("", true),
            ("a.example:80", true),
            ("a_b", true),
            ("127.0.0.1", true),
            ("[::1]:80", true),
            (":80", false),
            ("a:b", false),
            ("a b", false),
            ("a,b", false),
            ("a/b", false),
            ("a:80:81", false),
            ("::1", false),
        ] {
            assert_eq!(is_authority(host), valid, "{host:?}");
        }
    }
}
