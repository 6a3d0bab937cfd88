//! How the workers of a version are looked after: in which order they are replaced, how it is seen that one hangs,
//! and what a new one is asked before it counts as ready. Reads `restart`, `live` and `warm` of a service.

use std::time::Duration;

use http::{HeaderName, HeaderValue, header};

use super::keys::life::{LIVE, WARM};
use super::keys::names;
use super::read::duration;
use super::run::{CHECK_MIN, command};
use super::value;
use super::{ReadyCheck, RunCommand, RunSpec};
use crate::hint::Problem;
use crate::yaml::{Entry, Fields, Reader};

/// The most checks in a row that may have to fail.
const FAILURES_MAX: u64 = 100;
/// The most times that one warming request is sent.
const TIMES_MAX: u64 = 1_000;

const RESTART: [(&str, RestartOrder); 2] =
    [("start-first", RestartOrder::StartFirst), ("stop-first", RestartOrder::StopFirst)];

/// What a service says of the life of its workers.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Life {
    /// How one worker takes another's place.
    pub restart: RestartOrder,
    /// How it is seen that a worker hangs.
    pub live: Live,
    /// What a new worker is asked before it counts as ready, in this order.
    pub warm: Vec<Warm>,
}

/// How one worker takes another's place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum RestartOrder {
    /// The new one is ready before the old one leaves.
    #[default]
    StartFirst,
    /// The old one has ended before the new one is started: for workers that cannot exist twice.
    StopFirst,
}

/// How it is seen that a worker hangs.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// What is asked.
    pub check: LiveCheck,
    /// Time between two checks.
    pub interval: Duration,
    /// The longest one check may take.
    pub timeout: Duration,
    /// So many checks in a row must fail before a worker counts as hung.
    pub failures: u32,
}

/// What a liveness check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LiveCheck {
    /// What `ready: {http: PATH}` asks; nothing with any other readiness.
    AsReady,
    /// Nothing.
    Off,
    /// GET of this path must answer 2xx or 3xx.
    Http(String),
    /// A connection must be accepted.
    Tcp,
    /// A command, run as the worker is, must end with 0.
    Command(RunCommand),
}

/// One request that warms a new worker.
#[derive(Debug, Clone, PartialEq)]
pub struct Warm {
    /// What a GET asks for.
    pub path: String,
    /// Headers beside the usual ones. Their values are in no log.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    /// How often it is sent, one after the other.
    pub times: u32,
}

impl Default for Live {
    fn default() -> Self {
        let (interval, timeout) = (Duration::from_secs(5), Duration::from_secs(5));
        Self { check: LiveCheck::AsReady, interval, timeout, failures: 3 }
    }
}

impl RunSpec {
    /// What its workers are asked while they are ready; none where nothing is.
    pub fn live_check(&self) -> Option<LiveCheck> {
        match (&self.life.live.check, &self.ready.check) {
            (LiveCheck::Off, _) => None,
            (LiveCheck::AsReady, ReadyCheck::Http(path)) => Some(LiveCheck::Http(path.clone())),
            (LiveCheck::AsReady, _) => None,
            (check, _) => Some(check.clone()),
        }
    }
}

/// What the service's `fields` say.
pub(super) fn read(service: &Fields<'_>) -> Life {
    let usual = Life::default();
    Life {
        restart: service
            .get("restart")
            .and_then(|r| r.value(|text| value::one_of(text, &RESTART)))
            .unwrap_or(usual.restart),
        live: service.get("live").and_then(live).unwrap_or(usual.live),
        warm: service.get("warm").map(|r| warm(&r)).unwrap_or_default(),
    }
}

fn live(reader: Reader<'_>) -> Option<Live> {
    let usual = Live::default();
    if let Some(scalar) = reader.node().scalar() {
        if scalar.as_bool() != Some(false) {
            let message = format!("{} is neither `false` nor a map", reader.node().describe());
            reader.error(message, "write it as in `live: {http: /healthz}`, or `live: false`");
        }
        return Some(Live { check: LiveCheck::Off, ..usual });
    }
    let fields = reader.fields(&names(&[&LIVE]))?;
    let time = |key| fields.get(key).and_then(|r| duration(&r, CHECK_MIN));
    Some(Live {
        check: check(&fields).unwrap_or(usual.check),
        interval: time("interval").unwrap_or(usual.interval),
        timeout: time("timeout").unwrap_or(usual.timeout),
        failures: fields
            .get("failures")
            .and_then(|r| r.number(1..=FAILURES_MAX))
            .map_or(usual.failures, |n| n as u32),
    })
}

fn check(fields: &Fields<'_>) -> Option<LiveCheck> {
    let written: Vec<_> =
        ["http", "tcp", "command"].iter().filter_map(|key| Some((*key, fields.get(key)?))).collect();
    if let [(first, _), (second, at), ..] = &written[..] {
        at.error(format!("`{first}` and `{second}` cannot both be the check"), "keep one of the two");
    }
    let (key, reader) = written.into_iter().next()?;
    match key {
        "http" => reader.value(value::request_path).map(LiveCheck::Http),
        "command" => command(&reader).map(LiveCheck::Command),
        _ => {
            if !reader.boolean()? {
                let hint = "write `live: false` to ask nothing, or `http: /healthz`";
                reader.error("`tcp: false` says nothing about how to check", hint);
            }
            Some(LiveCheck::Tcp)
        }
    }
}

fn warm(reader: &Reader<'_>) -> Vec<Warm> {
    reader.one_or_more().into_iter().filter_map(one_warm).collect()
}

fn one_warm(reader: Reader<'_>) -> Option<Warm> {
    if reader.node().scalar().is_some() {
        return Some(Warm { path: reader.value(value::request_path)?, headers: Vec::new(), times: 1 });
    }
    let fields = reader.fields(&names(&[&WARM]))?;
    let path = fields.require("path", "/cart").and_then(|r| r.value(value::request_path));
    let headers = fields.get("header").and_then(|r| r.entries()).unwrap_or_default();
    let headers = headers.into_iter().filter_map(|(entry, reader)| one_header(entry, &reader)).collect();
    let times = fields.get("times").and_then(|r| r.number(1..=TIMES_MAX)).map_or(1, |n| n as u32);
    Some(Warm { path: path?, headers, times })
}

fn one_header(entry: &Entry, reader: &Reader<'_>) -> Option<(HeaderName, HeaderValue)> {
    let place = entry.place;
    let wrong = |message: String, hint: &str| {
        reader.report(Problem::error("", message).hint(hint).at(place.line, place.column));
    };
    let Ok(name) = HeaderName::try_from(entry.key.as_str()) else {
        wrong(format!("`{}` cannot be the name of a header", entry.key), "write it as in `x-warm`");
        return None;
    };
    // What frames the request is not for a person to say: it is a GET without a body.
    if [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::UPGRADE]
        .contains(&name)
    {
        wrong(format!("`{name}` cannot be set: the request is a GET without a body"), "remove it");
        return None;
    }
    let mut value = reader.value(|text| {
        HeaderValue::try_from(text).map_err(|_| {
            let message = "the value has characters that no header may have".to_owned();
            Box::new(Problem::error("", message).hint("write visible characters and blanks"))
        })
    })?;
    value.set_sensitive(true);
    Some((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Collector, parse};

    /// What these lines of a service say, and the problems, one a line.
    fn check(text: &str) -> (Life, String) {
        let node = parse(text).unwrap();
        let problems = Collector::default();
        let fields = Reader::new(&node, &problems).fields(&["restart", "live", "warm"]).unwrap();
        let life = read(&fields);
        (life, problems.into_inner().to_string())
    }

    #[test]
    fn a_service_that_says_nothing_asks_what_readiness_asked() {
        let (life, problems) = check("{}");
        assert_eq!((&life, problems.as_str()), (&Life::default(), ""));
        let mut spec = RunSpec { life, ..RunSpec::default() };
        assert_eq!(spec.live_check(), None, "a connection is accepted by workers that hang, too");
        spec.ready.check = ReadyCheck::Http("/healthz".into());
        assert_eq!(spec.live_check(), Some(LiveCheck::Http("/healthz".into())));
        spec.life.live = check("live: false").0.live;
        assert_eq!(spec.live_check(), None);
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "{restart: stop-first, live: {tcp: true, interval: 1s, timeout: 500ms, failures: 7},
                     warm: [/a, {path: /b?x=1, header: {x-warm: 'yes', host: app.example.com}, times: 10}]}";
        let (life, problems) = check(text);
        assert_eq!(problems, "");
        assert_eq!(life.restart, RestartOrder::StopFirst);
        let [second, half] = [1_000, 500].map(Duration::from_millis);
        assert_eq!(life.live, Live { check: LiveCheck::Tcp, interval: second, timeout: half, failures: 7 });
        let [a, b] = &life.warm[..] else { panic!() };
        assert_eq!((a.path.as_str(), a.headers.len(), a.times), ("/a", 0, 1));
        assert_eq!((b.path.as_str(), b.headers.len(), b.times), ("/b?x=1", 2, 10));
        assert!(!format!("{b:?}").contains("yes"), "a token may stand there");
        let command = check("live: {command: ./alive}").0.live.check;
        assert_eq!(command, LiveCheck::Command(RunCommand::Shell("./alive".into())));
    }

    #[test]
    fn what_is_wrong_is_said() {
        for (text, part) in [
            ("restart: stopfirst", "`stopfirst` is none of start-first, stop-first"),
            ("live: true", "is neither `false` nor a map"),
            ("live: {http: healthz}", "does not begin with `/`"),
            ("live: {http: /a, tcp: true}", "`http` and `tcp` cannot both be the check"),
            ("live: {tcp: false}", "says nothing about how to check"),
            ("live: {interval: 5}", "has no unit"),
            ("live: {failures: 0}", "0 is not from 1 to 100"),
            ("live: {command: ''}", "the command is empty"),
            ("live: {path: /x}", "the key `path` is not known"),
            ("warm: a", "does not begin with `/`"),
            ("warm: [{times: 3}]", "the key `path` is missing"),
            ("warm: [{path: /, times: 0}]", "0 is not from 1 to 1000"),
            ("warm: [{path: /, header: {'a b': c}}]", "cannot be the name of a header"),
            ("warm: [{path: /, header: {content-length: 4}}]", "cannot be set"),
            ("warm: [{path: /, header: {x: \"a\\nb\"}}]", "no header may have"),
        ] {
            let (_, problems) = check(text);
            assert!(problems.contains(part), "{text}: {problems}");
        }
    }
}
