//! Every answer that switchman makes itself: one table from cause to status, title and hint.
//!
//! Such an answer never looks like the application's: it is `application/problem+json` (RFC 9457), or what
//! [`crate::proxy::pages`] make of it for people, and carries `x-switchman-error: <cause>`. Causes are a contract: alerts and scripts match on them.

use std::borrow::Cow;

use percent_encoding::{CONTROLS, utf8_percent_encode};

use crate::routing::NoVersion;

macro_rules! causes {
    ($($(#[$doc:meta])* $name:ident => $text:literal, $status:literal, $title:literal, $hint:literal;)+) => {
        /// Why switchman answers in the application's place.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Cause { $($(#[$doc])* $name),+ }

        impl Cause {
            /// Every cause, for the reference and the tests.
            pub const ALL: &[Self] = &[$(Self::$name),+];

            /// The value of `x-switchman-error`.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text),+ }
            }

            /// The status of the answer.
            pub fn status(self) -> u16 {
                match self { $(Self::$name => $status),+ }
            }

            /// The same for every answer of this cause.
            pub fn title(self) -> &'static str {
                match self { $(Self::$name => $title),+ }
            }

            /// What to do next: for the client's author (4xx) or the operator (5xx).
            pub fn hint(self) -> &'static str {
                match self { $(Self::$name => $hint),+ }
            }
        }
    };
}

causes! {
    /// The request came by http, and is to come by https; the answer says where.
    HttpsRequired => "https-required", 308, "Permanent Redirect", "come to the address in `location`";
    /// The request's bytes are no HTTP that everybody understands the same way.
    BadRequest => "bad-request", 400, "Bad Request", "the request is not valid HTTP/1.1; see `detail`";
    /// The head did not arrive in time.
    RequestTimeout => "request-timeout", 408, "Request Timeout", "send the whole request head at once";
    /// The body is larger than allowed.
    BodyTooLarge => "body-too-large", 413, "Content Too Large", "send less at a time, or see `limits: {body: ..}` in switchman.yaml";
    /// The request target is longer than allowed.
    UriTooLong => "uri-too-long", 414, "URI Too Long", "shorten the URL, or send the data in the body";
    /// An `Expect` other than `100-continue`.
    ExpectationFailed => "expectation-failed", 417, "Expectation Failed", "leave the Expect header out";
    /// No service answers this host.
    UnknownHost => "unknown-host", 421, "Misdirected Request", "no service has this host: see `hosts:` in switchman.yaml";
    /// The head is larger than allowed, or has too many headers.
    HeadTooLarge => "head-too-large", 431, "Request Header Fields Too Large", "send fewer or shorter headers; old cookies are the usual reason";
    /// The client left before it had its answer: in the log and the counters, never sent.
    ClientGone => "client-gone", 499, "Client Closed Request", "the client did not wait; nothing is to be done";
    /// CONNECT: this is no forward proxy.
    MethodNotSupported => "method-not-supported", 501, "Not Implemented", "CONNECT is not offered here";
    /// A transfer coding other than chunked.
    CodingNotSupported => "coding-not-supported", 501, "Not Implemented", "send the body with Content-Length or chunked";
    /// Neither HTTP/1.0 nor HTTP/1.1.
    HttpVersion => "http-version", 505, "HTTP Version Not Supported", "speak HTTP/1.1";
    /// `current` is not set.
    NoCurrent => "no-current", 503, "Service Unavailable", "switchman promote VERSION";
    /// The rule or the request names a version that is not there.
    NoVersion => "no-version", 503, "Service Unavailable", "switchman versions; then switchman rules explain";
    /// The version has no ready worker.
    NotReady => "not-ready", 503, "Service Unavailable", "switchman versions shows its state and the reason";
    /// The version slept, and could not be started.
    WakeFailed => "wake-failed", 503, "Service Unavailable", "switchman versions shows the reason; then switchman start VERSION";
    /// The version slept, and was not ready in time.
    WakeTimeout => "wake-timeout", 503, "Service Unavailable", "see `wake` in switchman.yaml, or keep the version awake: `idle`";
    /// Every worker has all the requests that it takes, and so many wait already.
    QueueFull => "queue-full", 503, "Service Unavailable", "add workers, or see `max_in_flight` and `queue` in switchman.yaml";
    /// Every worker had all the requests that it takes, for too long.
    QueueTimeout => "queue-timeout", 503, "Service Unavailable", "add workers, or see `max_in_flight` and `queue` in switchman.yaml";
    /// None of the version's workers accepted a connection.
    ConnectFailed => "connect-failed", 502, "Bad Gateway", "switchman versions; then switchman logs VERSION";
    /// The worker closed the connection before it had answered.
    UpstreamClosed => "upstream-closed", 502, "Bad Gateway", "switchman logs VERSION: the worker may have crashed";
    /// The worker's answer is no valid HTTP.
    BadResponse => "bad-response", 502, "Bad Gateway", "switchman logs VERSION: the worker sent an invalid response";
    /// The worker did not begin to answer in time.
    UpstreamTimeout => "upstream-timeout", 504, "Gateway Timeout", "switchman logs VERSION: the worker is slow or stuck";
}

impl From<NoVersion> for Cause {
    fn from(reason: NoVersion) -> Self {
        match reason {
            NoVersion::NoCurrent => Self::NoCurrent,
            NoVersion::Unknown => Self::NoVersion,
            NoVersion::NotReady => Self::NotReady,
        }
    }
}

/// A request that switchman answers itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// Decides status and title.
    pub(crate) cause: Cause,
    /// What was wrong with this request: a lower-case sentence without a final dot.
    pub(crate) detail: Cow<'static, str>,
}

impl Refusal {
    pub(crate) fn new(cause: Cause, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { cause, detail: detail.into() }
    }

    /// The commonest one: the client's bytes are wrong.
    pub(crate) fn bad(detail: &'static str) -> Self {
        Self::new(Cause::BadRequest, detail)
    }
}

/// How an answer of ours is to be sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    /// The request was HEAD: no body follows.
    pub(crate) head_only: bool,
    /// The connection ends after it.
    pub(crate) close: bool,
    /// The client speaks HTTP/1.1, so keep-alive need not be said.
    pub(crate) http11: bool,
}

/// An answer of ours, before it is known how it goes out.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// What HTTP/1 says behind the status.
    pub(crate) title: &'static str,
    /// Names in lower case, without those that frame the answer.
    pub(crate) headers: Vec<(&'static str, Cow<'static, str>)>,
    pub(crate) body: String,
}

/// The answer for `refusal`. `version` is named where one was chosen.
pub(crate) fn answer(refusal: &Refusal, version: Option<&str>) -> Answer {
    let cause = refusal.cause;
    let body = serde_json::json!({
        "type": format!("urn:switchman:problem:{}", cause.as_str()),
        "title": cause.title(),
        "status": cause.status(),
        "detail": refusal.detail,
        "hint": cause.hint(),
    })
    .to_string();
    let mut headers: Vec<(&'static str, Cow<'static, str>)> = vec![
        ("content-type", "application/problem+json".into()),
        ("cache-control", "no-store".into()),
        ("x-switchman-error", cause.as_str().into()),
    ];
    if let Some(version) = version {
        headers.push(("x-switchman-version", version.to_owned().into()));
    }
    if cause.status() == 503 {
        headers.push(("retry-after", "1".into()));
    }
    if cause == Cause::HttpsRequired {
        let location = utf8_percent_encode(&refusal.detail, CONTROLS).to_string();
        headers.push(("location", location.into()));
    }
    Answer { status: cause.status(), title: cause.title(), headers, body }
}

impl Answer {
    /// Writes all of it as HTTP/1 to the end of `out`.
    pub(crate) fn write(&self, manner: Manner, out: &mut Vec<u8>) {
        let mut head = format!("HTTP/1.1 {} {}\r\n", self.status, self.title);
        for (name, value) in &self.headers {
            head.extend([name, ": ", value, "\r\n"]);
        }
        let connection = match (manner.close, manner.http11) {
            (true, _) => "connection: close\r\n",
            (false, true) => "",
            (false, false) => "connection: keep-alive\r\n",
        };
        head.push_str(&format!("content-length: {}\r\n{connection}\r\n", self.body.len()));
        out.extend_from_slice(head.as_bytes());
        if !manner.head_only {
            out.extend_from_slice(self.body.as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_cause_has_its_own_kebab_case_name_and_an_error_status() {
        let mut names: Vec<&str> = Cause::ALL.iter().map(|c| c.as_str()).collect();
        assert!(names.iter().all(|n| n.bytes().all(|b| b.is_ascii_lowercase() || b == b'-')));
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Cause::ALL.len());
        assert!(Cause::ALL.iter().all(|c| (300..600).contains(&c.status())));
    }

    #[test]
    fn every_cause_can_be_looked_up() {
        let page = include_str!("../../docs/operations.md");
        for cause in Cause::ALL {
            assert!(
                page.contains(&format!("`{}`", cause.as_str())),
                "{} in docs/operations.md",
                cause.as_str()
            );
        }
    }

    #[test]
    fn an_answer_of_ours_says_so_and_says_why() {
        let manner = Manner { head_only: false, close: true, http11: true };
        let mut out = Vec::new();
        answer(&Refusal::new(Cause::NoCurrent, "`current` is not set"), None).write(manner, &mut out);
        let text = String::from_utf8(out).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{head}");
        assert!(head.contains("x-switchman-error: no-current"), "{head}");
        assert!(!head.contains("location"), "{head}");
        assert!(head.contains("retry-after: 1") && head.contains("connection: close"), "{head}");
        let json: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(json["type"], "urn:switchman:problem:no-current");
        assert_eq!(json["hint"], "switchman promote VERSION");

        let mut out = Vec::new();
        answer(&Refusal::bad("x"), None).write(Manner { head_only: true, ..manner }, &mut out);
        assert!(out.ends_with(b"\r\n\r\n"), "an answer to HEAD has no body");
    }
}
