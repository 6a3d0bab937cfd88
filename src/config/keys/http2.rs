//! The keys of `limits.http2:`.

use super::KeyDefault::Value;
use super::{Key, Section, key};

/// `limits.http2:`.
pub(in crate::config) const HTTP2: Section = Section {
    title: "Limits of HTTP/2",
    path: "limits.http2",
    doc: "What one HTTP/2 connection of a client may do. A connection that goes beyond `resets_per_second`, \
          `pending_resets` or `error_resets` is ended with `ENHANCE_YOUR_CALM`; others are not touched. The headers of \
          a request (HEADERS and all its CONTINUATION frames, unpacked) are held to `limits.head` and `limits.headers` as \
          in HTTP/1. PING and SETTINGS frames need no limit: each is answered before more is read.",
    keys: &[
        key(
            "streams",
            "1 to 100000",
            Value("250"),
            "100",
            "Requests that run at a time. More are refused with `REFUSED_STREAM`, and the client may send them again.",
        ),
        key(
            "stream_window",
            "size, 1KiB to 1GiB",
            Value("256KiB"),
            "1MiB",
            "Bytes of one request's body that a client may send before a worker takes them.",
        ),
        key(
            "connection_window",
            "size, 64KiB to 1GiB",
            Value("1MiB"),
            "4MiB",
            "Likewise, for all requests of the connection together.",
        ),
        key(
            "resets_per_second",
            "0 to 10000000",
            Value("50"),
            "10",
            "Requests that a client may take back (RST_STREAM), each second, once `reset_burst` is used up.",
        ),
        key(
            "reset_burst",
            "0 to 10000000",
            Value("500"),
            "100",
            "Requests that it may take back at once. A browser that leaves a page takes all of its requests back.",
        ),
        key(
            "pending_resets",
            "0 to 10000000",
            Value("20"),
            "100",
            "Requests that it has taken back before they were looked at.",
        ),
        key(
            "error_resets",
            "0 to 10000000",
            Value("256"),
            "16",
            "Requests of the connection that were reset because they break the protocol, or were beyond `streams`.",
        ),
    ],
};

/// The key of [`HTTP2`] in `limits:`.
pub(super) const HTTP2_KEY: Key =
    key("http2", "map", Value("{streams: 250}"), "{streams: 100}", "What one HTTP/2 connection may do.");
