//! `limits.http2:`, what bounds one HTTP/2 connection of a client. Plain values; the data plane holds connections
//! to them.

use super::keys::http2::HTTP2;
use super::keys::names;
use super::limits::COUNT_MAX;
use super::size::size;
use crate::yaml::Reader;

/// The most streams that can be allowed: each costs memory of its own.
const STREAMS_MAX: u64 = 100_000;
/// The smallest window of a stream: less would mean a frame for every few bytes.
const STREAM_WINDOW_MIN: u64 = 1 << 10;
/// The smallest window of a connection: HTTP/2 begins with 65,535 bytes and cannot say less.
const CONNECTION_WINDOW_MIN: u64 = 64 << 10;
/// The largest window: beyond it would be the protocol's own limit of 2 GiB.
const WINDOW_MAX: u64 = 1 << 30;

/// The limits of one HTTP/2 connection. [`Http2::default`] is meant for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    /// Requests that run at a time; more are refused with `REFUSED_STREAM`, which allows to send them again.
    pub streams: u32,
    /// Bytes of one request's body that a client may send before a worker takes them.
    pub stream_window: u32,
    /// Likewise for all requests of the connection together.
    pub connection_window: u32,
    /// Largest frame, in bytes.
    pub frame_bytes: u32,
    /// Bytes of one response that may wait for the connection to take them.
    pub send_buffer: usize,
    /// Requests that the client has reset before we saw them; more end the connection.
    pub pending_resets: usize,
    /// Requests that we have reset for errors of the client; more end the connection.
    pub error_resets: usize,
    /// Requests that the client may reset at once; more end the connection.
    pub reset_burst: u32,
    /// Resets a second that it may go on with.
    pub resets_per_second: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams: 250,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            frame_bytes: 16 * 1024,
            send_buffer: 64 * 1024,
            pending_resets: 20,
            error_resets: 256,
            // A browser that leaves a page resets all of its requests at once, two pages in a row.
            reset_burst: 500,
            resets_per_second: 50,
        }
    }
}

/// Reads `limits.http2:`.
pub(super) fn http2(reader: Reader<'_>) -> Option<Http2> {
    let fields = reader.fields(&names(&[&HTTP2]))?;
    let default = Http2::default();
    let count = |key: &str, low: u64, high: u64, default: u32| {
        fields.get(key).and_then(|r| r.number(low..=high)).map_or(default, |n| n as u32)
    };
    let window = |key: &str, low: u64, default: u32| {
        let read = fields.get(key).and_then(|r| r.value(|text| size(text, low..=WINDOW_MAX)));
        read.map_or(default, |n| n as u32)
    };
    Some(Http2 {
        streams: count("streams", 1, STREAMS_MAX, default.streams),
        stream_window: window("stream_window", STREAM_WINDOW_MIN, default.stream_window),
        connection_window: window("connection_window", CONNECTION_WINDOW_MIN, default.connection_window),
        pending_resets: count("pending_resets", 0, COUNT_MAX, default.pending_resets as u32) as usize,
        error_resets: count("error_resets", 0, COUNT_MAX, default.error_resets as u32) as usize,
        reset_burst: count("reset_burst", 0, COUNT_MAX, default.reset_burst),
        resets_per_second: count("resets_per_second", 0, COUNT_MAX, default.resets_per_second),
        ..default
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::load::read_text;
    use crate::config::tests::around;

    fn read(http2: &str) -> (Option<Http2>, Vec<String>) {
        let text =
            format!("limits: {{head: 32KiB, http2: {http2}}}\nservices:\n  app:\n    root: /srv/app\n");
        let (config, problems) = read_text(&text, "switchman.yaml", &around());
        let shown = problems.0.iter().map(|p| {
            let line = p.line.unwrap_or_default();
            format!("{line} {}: {} | {}", p.key, p.message, p.hint.as_deref().unwrap_or("none"))
        });
        (config.map(|config| config.limits.http2), shown.collect())
    }

    #[test]
    fn what_is_not_written_keeps_its_default() {
        let (http2, problems) = read("{streams: 100, connection_window: 2MiB, reset_burst: 0}");
        assert!(problems.is_empty(), "{problems:?}");
        let expected = Http2 { streams: 100, connection_window: 2 << 20, reset_burst: 0, ..Http2::default() };
        assert_eq!(http2, Some(expected));
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (http2, expected) in [
            ("{streams: 0}", "1 limits.http2.streams: 0 is not from 1 to 100000 | "),
            ("{streams: many}", "1 limits.http2.streams: `many` is not a whole number | "),
            ("{stream: 5}", "1 limits.http2.stream: the key `stream` is not known | did you mean `streams`?"),
            ("{stream_window: 65536}", "1 limits.http2.stream_window: `65536` has no unit | write `65536B`"),
            (
                "{connection_window: 1KiB}",
                "1 limits.http2.connection_window: `1KiB` is out of range | write a size from `64KiB` to `1GiB`",
            ),
            (
                "{stream_window: 3GiB}",
                "1 limits.http2.stream_window: `3GiB` is out of range | write a size from `1KiB` to `1GiB`",
            ),
            ("{resets_per_second: -1}", "1 limits.http2.resets_per_second: `-1` is not a whole number | "),
            ("{pending_resets: 1.5}", "1 limits.http2.pending_resets: `1.5` is not a whole number | "),
            ("128", "1 limits.http2: "),
        ] {
            let (_, problems) = read(http2);
            assert!(problems.first().is_some_and(|p| p.starts_with(expected)), "{http2}: {problems:?}");
        }
    }
}
