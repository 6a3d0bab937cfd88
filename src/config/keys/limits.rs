//! The keys of `limits:`, and those that bound the requests of one service.

use super::KeyDefault::{Value, Words};
use super::http2::HTTP2_KEY;
use super::{Section, key};

/// `limits:`.
pub(in crate::config) const LIMITS: Section = Section {
    title: "Limits",
    path: "limits",
    doc: "What bounds connections and requests. The number behind a meaning is the status of the answer that a request \
          beyond the limit gets.",
    keys: &[
        key(
            "connections",
            "1 to 10000000",
            Words("half of the files that the process may open"),
            "20000",
            "Connections from clients in all. More wait in the kernel's queue.",
        ),
        key(
            "connections_per_client",
            "0 to 10000000",
            Value("1024"),
            "100",
            "Connections that one client address may have; an IPv6 client is its /64. Each data-plane thread allows an \
             even share. Those beyond it are closed as they come, and the log says how many. 0: any number.",
        ),
        key(
            "exempt",
            "address or network, or list of them",
            Value("[127.0.0.0/8, '::1']"),
            "[127.0.0.0/8, 10.0.0.0/8]",
            "Clients that `connections_per_client` is not for.",
        ),
        key(
            "requests_per_connection",
            "0 to 10000000",
            Value("0"),
            "1000",
            "After so many requests a connection is closed with the answer; one of HTTP/2 begins no new ones (GOAWAY), and \
             those that run end. 0: any number.",
        ),
        key(
            "connection_age",
            "duration",
            Value("1h"),
            "10m",
            "A connection of this age is closed with its next answer; one of HTTP/2 begins no new requests (GOAWAY), and \
             those that run end. 0s: any age.",
        ),
        key(
            "head",
            "size, 1KiB to 16MiB",
            Value("64KiB"),
            "32KiB",
            "The largest head of a request (431) or an answer (502). Over HTTP/2 one of more than twice this size is \
             answered without a page and without `x-switchman-error`: it is not unpacked any more.",
        ),
        key(
            "headers",
            "1 to 128",
            Value("100"),
            "50",
            "The most headers of a request (431) or an answer (502).",
        ),
        key(
            "uri",
            "size, 64B to 16MiB",
            Value("16KiB"),
            "8KiB",
            "The longest target of a request (414). Never more than `head`.",
        ),
        key(
            "body",
            "size",
            Value("1GiB"),
            "10MiB",
            "The largest body of a request (413). One that says its length is refused before a worker sees it. 0: any size.",
        ),
        key(
            "head_timeout",
            "duration, from 250ms",
            Value("30s"),
            "10s",
            "From the first byte of a request's head to its last (408).",
        ),
        key(
            "idle_timeout",
            "duration, from 250ms",
            Value("75s"),
            "5s",
            "How long a connection may wait for its next request.",
        ),
        key(
            "connect_timeout",
            "duration, from 250ms",
            Value("5s"),
            "1s",
            "How long a worker may take to accept a connection (502, once every worker was tried).",
        ),
        key(
            "first_byte_timeout",
            "duration, from 250ms",
            Value("1m"),
            "10s",
            "From the end of a request to the first byte of its answer (504). A request that may be repeated goes to \
             one other worker first.",
        ),
        key(
            "body_timeout",
            "duration, from 250ms",
            Value("1m"),
            "10s",
            "How long a body may stand still, in either direction.",
        ),
        key(
            "tunnel_timeout",
            "duration, from 250ms",
            Value("1h"),
            "10m",
            "How long a WebSocket or a stream of events may be silent.",
        ),
        key(
            "wait_timeout",
            "duration, from 250ms",
            Value("30s"),
            "1m",
            "How long a request waits for its version where its rule says `unavailable: wait` (503).",
        ),
        key(
            "upstream_idle",
            "0 to 10000000",
            Value("512"),
            "64",
            "Idle connections that each data-plane thread keeps to one worker.",
        ),
        key(
            "upstream_idle_timeout",
            "duration, from 250ms",
            Value("1m"),
            "4s",
            "How long an idle connection to a worker is kept.",
        ),
        HTTP2_KEY,
    ],
};

/// What bounds the requests of a service, and how they are spread over its workers.
pub(in crate::config) const BALANCE: Section = Section {
    title: "Balance",
    path: "services.NAME",
    doc: "How the requests of a version are spread over its workers.",
    keys: &[
        key(
            "max_in_flight",
            "0 to 10000000",
            Value("0"),
            "10",
            "Requests that one worker is given at a time, over all data-plane threads. More wait in `queue`. 0: as \
             many as come.",
        ),
        key(
            "queue",
            "map",
            Words("as below"),
            "{size: 10}",
            "What waits while every worker is at `max_in_flight`.",
        ),
        key(
            "slow_start",
            "duration",
            Value("10s"),
            "1m",
            "For this long after it became ready a worker's share grows, from a tenth to all of it. 0s: all of it at \
             once.",
        ),
    ],
};

/// `services.NAME.queue:`.
pub(in crate::config) const QUEUE: Section = Section {
    title: "The queue",
    path: "services.NAME.queue",
    doc: "Requests that wait for a worker of their version, first come, first served. Only with `max_in_flight`.",
    keys: &[
        key(
            "size",
            "0 to 10000000",
            Value("100"),
            "1000",
            "The most that wait for one version; the next is refused (503).",
        ),
        key("timeout", "duration, from 250ms", Value("30s"), "5s", "The longest that one waits (503)."),
    ],
};
