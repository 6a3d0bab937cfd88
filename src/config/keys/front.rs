//! The keys of what stands before a request: TLS, the proxies in front, ids.

use super::KeyDefault::{Required, Value, Words};
use super::{Section, key};

/// The top of the file: who is believed what.
pub(in crate::config) const FRONT: Section = Section {
    title: "Clients and the proxies in front",
    path: "",
    doc: "Who may say who a client is. These keys too stand at the top of the file.",
    keys: &[
        key("tls", "map", Words("none: no TLS"), TLS_EXAMPLE, "HTTPS, beside the plain `listen`."),
        key(
            "trusted_proxies",
            "address or network, or list of them",
            Words("none"),
            r#"["10.0.0.0/8", "fd00::/8"]"#,
            "Proxies in front. From anybody else, `Forwarded`, `X-Forwarded-*`, `X-Real-IP`, `X-Request-Id` and \
             `X-Request-Start` are replaced or removed; of these, they are kept or extended, and `client.ip` is the \
             right-most address of `X-Forwarded-For` that is not one of these.",
        ),
        key(
            "proxy_protocol",
            "`true`, `false`, or list of addresses of `listen` and `tls.listen`",
            Value("false"),
            "true",
            "Each connection begins with a PROXY header, version 1 or 2, and comes from one of `trusted_proxies`; \
             others are closed.",
        ),
        key(
            "request_id",
            "`on` or `off`",
            Value("on"),
            "off",
            "Each request gets an id, which the worker gets as `X-Request-Id`, and the client with the answers that \
             switchman makes itself. That of a trusted proxy is passed on. `off`: the header is one like any other.",
        ),
    ],
};

const TLS_EXAMPLE: &str =
    r#"{listen: ["0.0.0.0:7443"], certificates: [{certificate: secrets/app.pem, key: secrets/app.key}]}"#;

/// `tls:`.
pub(in crate::config) const TLS: Section = Section {
    title: "TLS",
    path: "tls",
    doc: "HTTPS (TLS 1.2 and 1.3). The files are read again when they change; a broken pair keeps the old one in \
          force.",
    keys: &[
        key(
            "listen",
            "address, or list of addresses",
            Required,
            r#"["0.0.0.0:7443", "[::]:7443"]"#,
            "The public addresses with TLS.",
        ),
        key(
            "certificates",
            "map, or list of maps",
            Required,
            "[{certificate: secrets/app.pem, key: secrets/app.key}]",
            "The certificates. A client that names no host, or one that none is for, gets the first.",
        ),
        key(
            "redirect",
            "`true` or `false`",
            Value("false"),
            "true",
            "Requests on the plain `listen` are sent to https (308), unless a trusted proxy says \
             `X-Forwarded-Proto: https`.",
        ),
    ],
};

/// `tls.certificates:`.
pub(in crate::config) const CERTIFICATE: Section = Section {
    title: "A certificate",
    path: "tls.certificates",
    doc: "One certificate of the list.",
    keys: &[
        key(
            "hosts",
            "host name, or list of host names",
            Words("those that the certificate names"),
            r#"[app.example.com, "*.example.com"]"#,
            "The hosts that it is for; an exact name comes before a wildcard.",
        ),
        key(
            "certificate",
            "path",
            Required,
            "secrets/app.pem",
            "The certificate, and behind it those that lead to its root: PEM.",
        ),
        key("key", "path", Required, "secrets/app.key", "Its private key: PEM, not encrypted."),
    ],
};
