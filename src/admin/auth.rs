//! Who may do what: the unix socket everything, loopback TCP reading, everything else with the token.
//!
//! `check` is the whole policy, a pure function. Two attacks shape it. A web page in a browser on this
//! machine can send requests to loopback: it cannot know the token, and its `Origin` gives it away. A page
//! can also make its own name point to 127.0.0.1 and then read answers as its own (DNS rebinding): its name
//! then stands in `Host`, so loopback answers only names that no stranger can own.

use std::io::{self, Write};
use std::net::IpAddr;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, Method, header, uri::Authority};
use subtle::ConstantTimeEq;

use crate::admin::problem::{ApiError, Kind};
use crate::config::Secret;

/// The token's file under the state folder.
pub const TOKEN_FILE: &str = "admin.token";
/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// The fewest characters of a token that a person wrote into the file.
const TOKEN_LEN_MIN: usize = 16;
/// What POST asks and does not change; no other path ends like these.
const READING_POSTS: [&str; 2] = ["/rules/check", "/rules/explain"];
/// Paths that are always open: a load balancer asks them.
const OPEN_PATHS: [&str; 2] = ["/healthz", "/readyz"];

/// The token could not be read or made.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or written.
    #[error("the admin token {} cannot be read or written: {source}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// No randomness.
    #[error("the system has no random numbers for the admin token: {0}")]
    Random(getrandom::Error),
    /// It is there and cannot protect anything.
    #[error("the admin token in {} is shorter than {TOKEN_LEN_MIN} characters", .0.display())]
    TooShort(PathBuf),
}

impl TokenError {
    /// What to type next.
    pub fn hint(&self) -> String {
        match self {
            Self::Io { path, .. } => format!("look at it: ls -l {}", path.display()),
            Self::Random(_) => "look at /dev/urandom".to_owned(),
            Self::TooShort(path) => format!("remove it, a new one is made: rm {}", path.display()),
        }
    }
}

/// The token in `<state>/admin.token`; made at the first start, 0600.
pub fn token(state: &Path) -> Result<Secret, TokenError> {
    let path = state.join(TOKEN_FILE);
    let failed = |source| TokenError::Io { path: path.clone(), source };
    match std::fs::read_to_string(&path) {
        Ok(text) => {
            tighten(&path).map_err(failed)?;
            let token = text.trim().to_owned();
            if token.len() < TOKEN_LEN_MIN {
                return Err(TokenError::TooShort(path));
            }
            Ok(Secret(token))
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => make(state, &path),
        Err(error) => Err(failed(error)),
    }
}

fn make(state: &Path, path: &Path) -> Result<Secret, TokenError> {
    let failed = |source| TokenError::Io { path: path.to_owned(), source };
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(TokenError::Random)?;
    let token: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    std::fs::create_dir_all(state).map_err(failed)?;
    // A temporary file is 0600 from the start, and the rename never leaves half a token.
    let mut file = tempfile::NamedTempFile::new_in(state).map_err(failed)?;
    writeln!(file, "{token}").and_then(|()| file.as_file().sync_all()).map_err(failed)?;
    file.persist(path).map_err(|e| failed(e.error))?;
    tracing::info!(path = %path.display(), "made the admin token");
    Ok(Secret(token))
}

/// Takes the token's file away from everybody but its owner.
fn tighten(path: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(path)?;
    if metadata.mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the admin token was readable by others; it is 0600 now");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    }
    Ok(())
}

/// Where a request came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Access {
    /// The unix socket: its file mode is the guard.
    Socket,
    /// A TCP listener that only this machine reaches.
    Loopback,
    /// A TCP listener that others reach.
    Beyond,
}

impl Access {
    /// That of a TCP listener.
    pub(crate) fn of(address: IpAddr) -> Self {
        if address.to_canonical().is_loopback() { Self::Loopback } else { Self::Beyond }
    }
}

/// Whether a request changes nothing: GET and HEAD, and the questions that need a body.
pub(crate) fn is_reading(method: &Method, path: &str) -> bool {
    match *method {
        Method::GET | Method::HEAD => true,
        Method::POST => READING_POSTS.iter().any(|end| path.ends_with(end)),
        _ => false,
    }
}

/// Whether a request may go on.
pub(crate) fn check(
    access: Access,
    token: &Secret,
    method: &Method,
    path: &str,
    headers: &HeaderMap,
) -> Result<(), ApiError> {
    let reading = is_reading(method, path);
    if access == Access::Loopback {
        let host = headers.get(header::HOST).and_then(|v| v.to_str().ok()).unwrap_or_default();
        if !is_local_name(host) {
            let detail = format!("the admin listener does not answer to the name `{host}`");
            return Err(ApiError::new(Kind::Forbidden, detail)
                .hint("reach it by its address (127.0.0.1) or as localhost"));
        }
    }
    if access != Access::Socket && !method.is_safe() && is_cross_site(headers) {
        return Err(ApiError::new(Kind::Forbidden, "a page of another site asked for a change")
            .hint("changes come from the command line, or from a page of this listener"));
    }
    let open = match access {
        Access::Socket => true,
        Access::Loopback => reading,
        Access::Beyond => reading && OPEN_PATHS.contains(&path),
    };
    if open {
        return Ok(());
    }
    let hint = "use the unix socket, or send the token in the state folder's admin.token: \
                Authorization: Bearer TOKEN";
    match bearer(headers) {
        Some(given) if given.as_bytes().ct_eq(token.0.as_bytes()).into() => Ok(()),
        Some(_) => Err(ApiError::new(Kind::Unauthorized, "the token is not the right one").hint(hint)),
        None => Err(ApiError::new(Kind::Unauthorized, "the request carries no token").hint(hint)),
    }
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(header::AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Whether `Host` is a name that no stranger can point here: localhost, or an IP address.
fn is_local_name(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host();
    let ip = name.strip_prefix('[').and_then(|n| n.strip_suffix(']')).unwrap_or(name).parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || ip.is_ok()
}

/// Whether a browser says that the page that asks is not of this listener.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return false };
    let origin = origin.to_str().ok().and_then(|o| o.split_once("://")).map(|(_, host)| host);
    let host = headers.get(header::HOST).and_then(|v| v.to_str().ok());
    origin.is_none() || origin != host
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: Access = Access::Loopback;
    const HOST: (&str, &str) = ("host", "127.0.0.1:7001");

    fn status(access: Access, method: Method, path: &str, given: &[(&str, &str)]) -> u16 {
        let headers = given
            .iter()
            .map(|(k, v)| {
                (k.parse::<axum::http::HeaderName>().unwrap(), v.parse::<axum::http::HeaderValue>().unwrap())
            })
            .collect();
        match check(access, &Secret("0123456789abcdef".into()), &method, path, &headers) {
            Ok(()) => 200,
            Err(error) => axum::response::IntoResponse::into_response(error).status().as_u16(),
        }
    }

    #[test]
    fn the_policy() {
        let (get, post) = (Method::GET, Method::POST);
        let right = ("authorization", "Bearer 0123456789abcdef");
        let wrong = ("authorization", "Bearer 0123456789abcdee");
        let origin = |o| ("origin", o);
        type Headers<'a> = &'a [(&'a str, &'a str)];
        let cases: &[(Access, &Method, &str, Headers<'_>, u16)] = &[
            (Access::Socket, &get, "/versions", &[], 200),
            (Access::Socket, &post, "/x", &[("host", "anything")], 200),
            (LOOPBACK, &get, "/versions", &[HOST], 200),
            (LOOPBACK, &post, "/x", &[HOST], 401),
            (LOOPBACK, &post, "/x", &[HOST, wrong], 401),
            (LOOPBACK, &post, "/x", &[HOST, ("authorization", "Basic 0123456789abcdef")], 401),
            (LOOPBACK, &post, "/x", &[HOST, right], 200),
            (LOOPBACK, &post, "/x", &[HOST, ("authorization", "bearer 0123456789abcdef")], 200),
            (LOOPBACK, &post, "/services/app/rules/check", &[HOST], 200),
            (LOOPBACK, &post, "/services/app/rules/explain", &[HOST, origin("http://evil.example")], 403),
            (LOOPBACK, &Method::PUT, "/services/app/rules", &[HOST], 401),
            (LOOPBACK, &get, "/versions", &[("host", "LOCALHOST:7001")], 200),
            (LOOPBACK, &get, "/versions", &[("host", "[::1]:7001")], 200),
            (LOOPBACK, &get, "/versions", &[("host", "evil.example:7001")], 403),
            (LOOPBACK, &get, "/versions", &[("host", "127.0.0.1.evil.example")], 403),
            (LOOPBACK, &get, "/versions", &[], 403),
            (LOOPBACK, &post, "/x", &[HOST, right, origin("http://127.0.0.1:7001")], 200),
            (LOOPBACK, &post, "/x", &[HOST, right, origin("http://evil.example")], 403),
            (LOOPBACK, &post, "/x", &[HOST, right, origin("null")], 403),
            (Access::Beyond, &get, "/versions", &[("host", "admin.example")], 401),
            (Access::Beyond, &get, "/versions", &[("host", "admin.example"), right], 200),
            (Access::Beyond, &get, "/healthz", &[], 200),
            (Access::Beyond, &get, "/readyz", &[], 200),
            (Access::Beyond, &post, "/healthz", &[], 401),
            (Access::Beyond, &post, "/services/app/rules/check", &[], 401),
            (Access::Beyond, &post, "/x", &[right], 200),
        ];
        for (access, method, path, headers, expected) in cases {
            let got = status(*access, (*method).clone(), path, headers);
            assert_eq!(got, *expected, "{access:?} {method} {path} {headers:?}");
        }
    }

    #[test]
    fn a_mapped_loopback_address_is_loopback_and_any_address_is_not() {
        let access = |text: &str| Access::of(text.parse().unwrap());
        assert_eq!(access("::ffff:127.0.0.1"), Access::Loopback);
        assert_eq!(access("0.0.0.0"), Access::Beyond);
        assert_eq!(access("::"), Access::Beyond);
    }

    #[test]
    fn the_token_is_made_once_and_belongs_to_its_owner() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join(TOKEN_FILE);
        let first = token(state.path()).unwrap();
        assert_eq!(first.0.len(), 2 * TOKEN_BYTES);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        assert_eq!(token(state.path()).unwrap().0, first.0);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        std::fs::write(&path, "\n").unwrap();
        assert!(matches!(token(state.path()), Err(TokenError::TooShort(_))), "an empty token guards nothing");
    }
}
