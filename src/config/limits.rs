//! `limits:`: everything that bounds a request or a connection, with defaults that protect without being
//! noticed. Also what bounds the requests of one service: `max_in_flight`, `queue`, `slow_start`.
//!
//! Plain values that the data plane is started with. Where 0 is allowed it means no limit.

use std::time::Duration;

use ipnet::IpNet;
use rustix::process::Resource;

use super::delivery::{Delivery, Queue};
use super::http2::{Http2, http2};
use super::keys::limits::{LIMITS, QUEUE};
use super::keys::names;
use super::read::duration;
use super::size::size;
use crate::hint::Problem;
use crate::yaml::{Fields, Reader};

/// The most that [`Limits::headers`] can allow: the data plane keeps a set of them in 128 bits.
pub const HEADERS_MAX: usize = 128;
/// The largest head and target that can be allowed: each connection that sends one holds it in memory.
const HEAD_MAX: u64 = 16 << 20;
/// The smallest head: less would refuse browsers.
const HEAD_MIN: u64 = 1 << 10;
/// The most of anything that is counted here.
pub(super) const COUNT_MAX: u64 = 10_000_000;
/// Shorter timeouts would hit what is only a little slow; the data plane's clock ticks four times a second.
const TIMEOUT_MIN: Duration = Duration::from_millis(250);

/// The data plane's limits. [`Limits::default`] is meant for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Connections from clients in all; more wait in the kernel's queue. Default: half of the files that this
    /// process may open, as each may need a second one to a worker.
    pub max_connections: usize,
    /// Connections that one client may have, 0 for any number; those beyond it are closed at once. An IPv6
    /// client is its /64. Each thread allows its even share. Default 1024.
    pub connections_per_client: usize,
    /// Clients that `connections_per_client` is not for. Default: this machine.
    pub exempt: Vec<IpNet>,
    /// Requests after which a connection ends, 0 for any number. Default 0.
    pub requests_per_connection: u32,
    /// Age at which a connection ends with its next answer, 0 for any age. Default 1 h.
    pub connection_age: Duration,
    /// Largest request or response head, in bytes (431, 502). Default 64 KiB.
    pub head_bytes: usize,
    /// Most headers of a request or response (431, 502), at most [`HEADERS_MAX`]. Default 100.
    pub headers: usize,
    /// Longest request target, in bytes (414). Default 16 KiB.
    pub uri_bytes: usize,
    /// Largest body of a request, in bytes, 0 for any size (413). Default 1 GiB.
    pub body_bytes: u64,
    /// From the first byte of a request head to its last (408). Default 30 s.
    pub head_timeout: Duration,
    /// How long a connection may wait for its next request. Default 75 s.
    pub idle_timeout: Duration,
    /// How long a worker may take to accept a connection (502). Default 5 s.
    pub connect_timeout: Duration,
    /// From the end of a request to the first byte of its answer (504). Default 60 s.
    pub first_byte_timeout: Duration,
    /// How long a body may stand still, in either direction. Default 60 s.
    pub body_timeout: Duration,
    /// How long an upgraded connection, or a stream of server-sent events, may be silent. Default 1 h.
    pub tunnel_timeout: Duration,
    /// How long a request waits for its version under `unavailable: wait` (503). Default 30 s.
    pub wait_timeout: Duration,
    /// Idle connections kept to one worker by one thread; fewer than run at a time means connecting anew all the
    /// time. Default 512.
    pub idle_per_worker: usize,
    /// How long an idle connection to a worker is kept. Default 60 s.
    pub upstream_idle_timeout: Duration,
    /// What one HTTP/2 connection of a client may do.
    pub http2: Http2,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_connections: max_connections(),
            connections_per_client: 1024,
            exempt: this_machine(),
            requests_per_connection: 0,
            connection_age: Duration::from_secs(3600),
            head_bytes: 64 * 1024,
            headers: 100,
            uri_bytes: 16 * 1024,
            body_bytes: 1 << 30,
            head_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            connect_timeout: Duration::from_secs(5),
            first_byte_timeout: Duration::from_secs(60),
            body_timeout: Duration::from_secs(60),
            tunnel_timeout: Duration::from_secs(3600),
            wait_timeout: Duration::from_secs(30),
            idle_per_worker: 512,
            upstream_idle_timeout: Duration::from_secs(60),
            http2: Http2::default(),
        }
    }
}

/// Half of the files that this process may open once it has raised its limit as far as it may; where there is
/// no such limit, as many as there are ports.
fn max_connections() -> usize {
    let files = rustix::process::getrlimit(Resource::Nofile).maximum;
    files.map_or(65_536, |files| usize::try_from(files / 2).unwrap_or(65_536)).max(64)
}

/// The loopback addresses.
fn this_machine() -> Vec<IpNet> {
    let v4 = ipnet::Ipv4Net::new_assert(std::net::Ipv4Addr::new(127, 0, 0, 0), 8);
    let v6 = ipnet::Ipv6Net::new_assert(std::net::Ipv6Addr::LOCALHOST, 128);
    vec![v4.into(), v6.into()]
}

/// Reads `limits:`.
pub(super) fn limits(reader: Reader<'_>) -> Option<Limits> {
    let fields = reader.fields(&names(&[&LIMITS]))?;
    let default = Limits::default();
    let count = |key: &str, low: u64, high: u64, default: usize| {
        fields.get(key).and_then(|r| r.number(low..=high)).map_or(default, |n| n as usize)
    };
    let bytes = |key: &str, low: u64, high: u64, default: u64| {
        fields.get(key).and_then(|r| r.value(|text| size(text, low..=high))).unwrap_or(default)
    };
    let time = |key: &str, low: Duration, default: Duration| {
        fields.get(key).and_then(|r| duration(&r, low)).unwrap_or(default)
    };
    let timeout = |key: &str, default: Duration| time(key, TIMEOUT_MIN, default);
    let head = bytes("head", HEAD_MIN, HEAD_MAX, default.head_bytes as u64);
    let limits = Limits {
        max_connections: count("connections", 1, COUNT_MAX, default.max_connections),
        connections_per_client: count("connections_per_client", 0, COUNT_MAX, default.connections_per_client),
        exempt: fields.get("exempt").map_or(default.exempt, |r| networks(&r)),
        requests_per_connection: count("requests_per_connection", 0, COUNT_MAX, 0) as u32,
        connection_age: time("connection_age", Duration::ZERO, default.connection_age),
        head_bytes: head as usize,
        headers: count("headers", 1, HEADERS_MAX as u64, default.headers),
        uri_bytes: bytes("uri", 64, HEAD_MAX, head.min(default.uri_bytes as u64)) as usize,
        body_bytes: bytes("body", 0, u64::MAX, default.body_bytes),
        head_timeout: timeout("head_timeout", default.head_timeout),
        idle_timeout: timeout("idle_timeout", default.idle_timeout),
        connect_timeout: timeout("connect_timeout", default.connect_timeout),
        first_byte_timeout: timeout("first_byte_timeout", default.first_byte_timeout),
        body_timeout: timeout("body_timeout", default.body_timeout),
        tunnel_timeout: timeout("tunnel_timeout", default.tunnel_timeout),
        wait_timeout: timeout("wait_timeout", default.wait_timeout),
        idle_per_worker: count("upstream_idle", 0, COUNT_MAX, default.idle_per_worker),
        upstream_idle_timeout: timeout("upstream_idle_timeout", default.upstream_idle_timeout),
        http2: fields.get("http2").and_then(http2).unwrap_or(default.http2),
    };
    if let Some(uri) = fields.get("uri").filter(|_| limits.uri_bytes > limits.head_bytes) {
        uri.error("`uri` is larger than `head`, which it is part of", "make `head` larger, or `uri` smaller");
    }
    Some(limits)
}

/// Addresses and networks: `192.0.2.7`, `10.0.0.0/8`.
fn networks(reader: &Reader<'_>) -> Vec<IpNet> {
    let network = |text: &str| {
        text.parse::<IpNet>().or_else(|_| text.parse().map(|ip: std::net::IpAddr| ip.into())).map_err(|_| {
            let problem = Problem::error("", format!("`{text}` is neither an address nor a network"));
            Box::new(problem.hint("write it as in `192.0.2.7` or `10.0.0.0/8`"))
        })
    };
    // `exempt: []` exempts nobody.
    reader.one_or_more().iter().filter_map(|r| r.value(network)).collect()
}

/// Reads what bounds the requests of one service into its `delivery`.
pub(super) fn of_service(service: &Fields<'_>, delivery: &mut Delivery) {
    if let Some(reader) = service.get("max_in_flight") {
        delivery.max_in_flight = reader.number(0..=COUNT_MAX).filter(|n| *n > 0).map(|n| n as u32);
    }
    if let Some(time) = service.get("slow_start").and_then(|r| duration(&r, Duration::ZERO)) {
        delivery.slow_start = time;
    }
    let Some(reader) = service.get("queue") else { return };
    let Some(fields) = reader.clone().fields(&names(&[&QUEUE])) else { return };
    if service.get("max_in_flight").is_none() {
        let message = "nothing waits in the queue while `max_in_flight` is not set";
        reader.warning(message, "say how many requests a worker takes at a time, as in `max_in_flight: 10`");
    }
    let Queue { size, timeout } = delivery.queue;
    delivery.queue = Queue {
        size: fields.get("size").and_then(|r| r.number(0..=COUNT_MAX)).map_or(size, |n| n as u32),
        timeout: fields.get("timeout").and_then(|r| duration(&r, TIMEOUT_MIN)).unwrap_or(timeout),
    };
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::load::read_text;
    use crate::config::tests::around;

    fn read(limits: &str, service: &str) -> (Option<crate::config::Config>, Vec<String>) {
        let text = format!("limits: {limits}\nservices:\n  app:\n    root: /srv/app\n    {service}\n");
        let (config, problems) = read_text(&text, "switchman.yaml", &around());
        let show =
            |p: &Problem| format!("{}: {} | {}", p.key, p.message, p.hint.as_deref().unwrap_or("none"));
        (config, problems.0.iter().map(show).collect())
    }

    #[test]
    fn what_is_not_written_keeps_its_default() {
        let (config, problems) = read("{body: 10MiB, exempt: []}", "max_in_flight: 7\n    queue: {size: 3}");
        assert!(problems.is_empty(), "{problems:?}");
        let config = config.unwrap();
        let expected = Limits { body_bytes: 10 << 20, exempt: Vec::new(), ..Limits::default() };
        assert_eq!(config.limits, expected);
        let delivery = &config.services["app"].delivery;
        assert_eq!(delivery.max_in_flight, Some(7));
        assert_eq!(delivery.queue, Queue { size: 3, timeout: Duration::from_secs(30) });
        assert_eq!(config.file, None::<PathBuf>);
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (limits, service, expected) in [
            ("{body: 10}", "", "limits.body: `10` has no unit | write `10B`"),
            ("{head: 1B}", "", "limits.head: `1B` is out of range | write a size from `1KiB` to `16MiB`"),
            ("{headers: 129}", "", "limits.headers: 129 is not from 1 to 128 | "),
            ("{connections: 0}", "", "limits.connections: 0 is not from 1 to"),
            (
                "{idle_timeout: 0s}",
                "",
                "limits.idle_timeout: `0s` is out of range | write a duration from `250ms`",
            ),
            (
                "{uri: 128KiB}",
                "",
                "limits.uri: `uri` is larger than `head`, which it is part of | make `head` larger",
            ),
            (
                "{exempt: [nat]}",
                "",
                "limits.exempt[0]: `nat` is neither an address nor a network | write it as in",
            ),
            ("{bodyy: 1MiB}", "", "limits.bodyy: the key `bodyy` is not known | did you mean `body`?"),
            (
                "{}",
                "max_in_flight: 1\n    queue: {size: -1}",
                "services.app.queue.size: `-1` is not a whole number | write a number from 0",
            ),
            (
                "{}",
                "queue: {size: 1}",
                "services.app.queue: nothing waits in the queue while `max_in_flight` is not set",
            ),
            ("{}", "slow_start: 5", "services.app.slow_start: `5` has no unit | write `5s`"),
        ] {
            let (_, problems) = read(limits, service);
            assert!(
                problems.first().is_some_and(|p| p.starts_with(expected)),
                "{limits} {service}: {problems:?}"
            );
        }
    }
}
