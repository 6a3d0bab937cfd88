//! The keys for what is done to bodies, and for the answers that switchman makes itself.

use super::KeyDefault::{Value, Words};
use super::{Key, Section, key};

/// `errors:` at the top of the file.
pub(in crate::config) const ERRORS: Key = key(
    "errors",
    "path",
    Words("pages of switchman's own"),
    "pages",
    "The folder with pages for the answers that switchman makes itself, for all services and where no service is known.",
);

/// `services.NAME:`, what concerns bodies.
pub(in crate::config) const BODIES: Section = Section {
    title: "Bodies and error pages",
    path: "services.NAME",
    doc: "What is done to requests and responses on their way, and what the answers look like that switchman makes \
          itself.",
    keys: &[
        key(
            "buffer",
            "size",
            Value("256KiB"),
            "1MiB",
            "How much of a response is taken from the worker ahead of a slow client, so that the worker is free. The \
             bodies of one thread together hold at most 64MiB. `0`: nothing is.",
        ),
        key(
            "buffer_requests",
            "size",
            Value("0"),
            "1MiB",
            "How much of a request's body is gathered before a worker is asked, so that a slow upload holds none. What \
             is larger goes on as a stream.",
        ),
        key(
            "compress",
            "`on`, `off`, or map",
            Value("off"),
            "on",
            "Whether responses are compressed for clients that understand it.",
        ),
        key(
            "errors",
            "path",
            Words("`errors` at the top of the file"),
            "pages",
            "The folder with pages for the answers that switchman makes itself: `no-current.html` (any cause), `503.html`, \
             `5xx.html`, `4xx.html`, `error.html`; the most exact wins.",
        ),
    ],
};

/// `services.NAME.compress:`, where it is a map.
pub(in crate::config) const COMPRESS: Section = Section {
    title: "Compression",
    path: "services.NAME.compress",
    doc: "Which responses are compressed, and how. A response that the worker has compressed itself stays as it is.",
    keys: &[
        key(
            "codings",
            "`zstd`, `br`, `gzip`, or list of them",
            Value("[zstd, br, gzip]"),
            "[br, gzip]",
            "The codings that are offered, the most wanted first. What the client wants more goes before.",
        ),
        key(
            "types",
            "content type, or list of content types",
            Words("`text/*` and the usual ones of scripts, JSON, XML, SVG, WebAssembly and fonts"),
            "[text/html, application/json]",
            "The content types that are compressed. `text/*` is every text; server-sent events never are.",
        ),
        key("min", "size", Value("1KiB"), "4KiB", "Bodies known to be smaller stay as they are."),
    ],
};
