//! The keys of streams: how long they may go on, and what a connection may become.

use super::KeyDefault::Value;
use super::{Key, Section, key};

/// `services.NAME.drain:`.
pub(in crate::config) const DRAIN: Section = Section {
    title: "Draining streams",
    path: "services.NAME.drain",
    doc: "What becomes of WebSockets, server-sent events and gRPC calls when their worker is to stop. Nothing else \
          ends them: they stay on their worker through rule edits, promotes, and changes of other versions.",
    keys: &[key(
        "streams",
        "duration",
        Value("5m"),
        "30s",
        "The longest they may go on. Their ends are spread over this time, none in its first tenth, so that clients do \
         not come back all at once. A WebSocket is closed with 1012, events end after a whole one, a gRPC call with \
         UNAVAILABLE after a whole message. What is no stream has `stop.drain`.",
    )],
};

/// The service's own key.
pub(super) const UPGRADE: Key = key(
    "upgrade",
    "protocol, or list of protocols",
    Value("[websocket]"),
    "[websocket, my-protocol]",
    "The protocols that a connection may become with `Upgrade`. Requests for others are passed on without it.",
);

/// The service's key for [`DRAIN`].
pub(super) const DRAIN_KEY: Key =
    key("drain", "map", Value("{streams: 5m}"), "{streams: 30s}", "How long streams may go on.");
