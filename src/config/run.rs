//! How a version runs: the keys that may stand in a service and in a version folder's own `switchman.yaml`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keep;
use super::keys::{READY, STOP, names};
use super::read::duration;
use super::value;
use super::{Protocol, Ready, ReadyCheck, RunCommand, RunSpec, Stop, UpstreamAt};
use crate::hint::Problem;
use crate::yaml::{Entry, Fields, Reader};

/// Checks are not made more often than this, and may take this long at least: a busy loop helps nobody.
pub(super) const CHECK_MIN: Duration = Duration::from_millis(10);

/// What the supervisor sets for each worker, whatever `env` says.
const GIVEN: [&str; 12] = [
    "PORT",
    "HOST",
    "SOCKET",
    "COMMIT",
    "PIDFILE",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
    "LISTEN_PID",
    "NOTIFY_SOCKET",
    "SWITCHMAN_SERVICE",
    "SWITCHMAN_VERSION",
    "SWITCHMAN_WORKER",
];

const UPSTREAM: [(&str, UpstreamAt); 3] =
    [("port", UpstreamAt::Port), ("unix", UpstreamAt::Unix), ("inherit", UpstreamAt::Inherit)];
const PROTOCOL: [(&str, Protocol); 2] = [("http1", Protocol::Http1), ("h2c", Protocol::H2c)];

/// How a version runs: what `fields` say, key by key, over `base`.
pub(super) fn run_spec(fields: &Fields<'_>, base: RunSpec) -> RunSpec {
    let mut env = base.env;
    if let Some(reader) = fields.get("env") {
        env.extend(variables(&reader));
    }
    let workers = fields.get("workers").and_then(|r| keep::workers(&r));
    let (workers, scale) = workers.unwrap_or((base.workers, base.scale));
    let protocol = fields.get("protocol").and_then(|r| r.value(|text| value::one_of(text, &PROTOCOL)));
    let upstream = fields.get("upstream").and_then(|r| r.value(|text| value::one_of(text, &UPSTREAM)));
    let spec = RunSpec {
        run: fields.get("run").and_then(|r| command(&r)).or(base.run),
        env,
        workers,
        scale,
        upstream: upstream.unwrap_or(base.upstream),
        protocol: protocol.unwrap_or(base.protocol),
        ready: match fields.get("ready") {
            Some(reader) => ready(reader, base.ready),
            None => base.ready,
        },
        stop: match fields.get("stop") {
            Some(reader) => stop(reader, base.stop),
            None => base.stop,
        },
        life: base.life,
        isolation: base.isolation,
    };
    warn_of_absent(fields, &spec);
    spec
}

/// A command under a shell that wants the variable which its workers do not get.
fn warn_of_absent(fields: &Fields<'_>, spec: &RunSpec) {
    let (absent, given) = match spec.upstream {
        UpstreamAt::Port | UpstreamAt::Inherit => ("SOCKET", "PORT"),
        UpstreamAt::Unix => ("PORT", "SOCKET"),
    };
    if let Some(RunCommand::Shell(text)) = &spec.run
        && wants(text, absent)
        && let Some(at) = fields.get("run").or_else(|| fields.get("upstream"))
    {
        let upstream = UPSTREAM.iter().find(|(_, at)| *at == spec.upstream).map_or("", |(name, _)| name);
        let message = format!("`{text}` wants ${absent}, which is not set with `upstream: {upstream}`");
        at.warning(message, format!("write ${given}"));
    }
}

/// Whether a command has `$NAME` or `${NAME}` in it.
fn wants(text: &str, name: &str) -> bool {
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
    text.split('$').skip(1).any(|after| match after.strip_prefix('{') {
        Some(braced) => braced.strip_prefix(name).is_some_and(|rest| rest.starts_with('}')),
        None => after.strip_prefix(name).is_some_and(ends),
    })
}

pub(super) fn command(reader: &Reader<'_>) -> Option<RunCommand> {
    let empty =
        || reader.error("the command is empty", "write it as in `run: \"node server.js --port $PORT\"`");
    let Some(items) = reader.node().list() else {
        let text = reader.text()?;
        if text.trim().is_empty() {
            empty();
        }
        return Some(RunCommand::Shell(text.to_owned()));
    };
    if items.first().is_none_or(|first| first.scalar().is_some_and(|s| s.text.is_empty())) {
        empty();
    }
    let words: Vec<_> = reader
        .one_or_more()
        .iter()
        .filter_map(|word| {
            let text = word.text()?;
            if let Some(name) = ["PORT", "SOCKET"].into_iter().find(|name| wants(text, name)) {
                let message = format!("`{text}` stays as it is: a list is executed without a shell");
                let hint =
                    format!("write the command as one text, or let it read {name} from its environment");
                word.warning(message, hint);
            }
            Some(text.to_owned())
        })
        .collect();
    Some(RunCommand::Exec(words))
}

fn variables(reader: &Reader<'_>) -> BTreeMap<String, String> {
    let variable = |(entry, reader): (&Entry, Reader<'_>)| {
        let name = &entry.key;
        if name.is_empty() || name.contains(['=', '\0']) {
            let problem = Problem::error("", format!("`{name}` cannot be the name of a variable"));
            reader
                .report(problem.hint("use letters, digits and `_`").at(entry.place.line, entry.place.column));
        }
        if GIVEN.contains(&name.as_str()) {
            let message = format!("switchman gives each worker its own `{name}`; this value is not used");
            reader.warning(message, "remove it");
        }
        let Some(text) = reader.node().text() else {
            let message = format!("{} is not text", reader.node().describe());
            reader.error(message, format!("write one text, as in `{name}: \"\"`"));
            return None;
        };
        if text.contains('\0') {
            reader.error(
                "the value has a NUL character in it",
                "remove it: no program could read what follows",
            );
        }
        Some((name.clone(), text.to_owned()))
    };
    reader.entries().into_iter().flatten().filter_map(variable).collect()
}

fn ready(reader: Reader<'_>, base: Ready) -> Ready {
    const LATER: [&str; 1] = ["log"];
    let mut known = names(&[&READY]);
    known.extend(LATER);
    if reader.node().scalar().is_some() {
        let message = format!("{} is not a map", reader.node().describe());
        reader.error(message, "write it as in `ready: {http: /healthz}`");
        return base;
    }
    let Some(fields) = reader.fields(&known) else { return base };
    for later in LATER.iter().filter_map(|key| fields.get(key)) {
        let message = "this way to show readiness is not supported yet";
        later.error(message, "use one of `http: /healthz`, `tcp: true`, `after: 5s`");
    }
    let check = check(&fields).unwrap_or(base.check);
    let time = |key, low| fields.get(key).and_then(|r| duration(&r, low));
    let ready = Ready {
        check,
        interval: time("interval", CHECK_MIN).unwrap_or(base.interval),
        timeout: time("timeout", CHECK_MIN).unwrap_or(base.timeout),
        deadline: time("deadline", CHECK_MIN).unwrap_or(base.deadline),
    };
    if let ReadyCheck::After(after) = &ready.check
        && *after >= ready.deadline
    {
        let at =
            fields.get("after").or_else(|| fields.get("deadline")).unwrap_or_else(|| fields.map().clone());
        let (after, deadline) = (value::show(*after), value::show(ready.deadline));
        let message = format!("ready after {after}, but given up at the deadline of {deadline}");
        at.error(message, "make `deadline` longer than `after`");
    }
    ready
}

fn check(fields: &Fields<'_>) -> Option<ReadyCheck> {
    let written: Vec<_> = ["http", "tcp", "notify", "command", "after"]
        .iter()
        .filter_map(|key| Some((*key, fields.get(key)?)))
        .collect();
    if let [(first, _), (second, at), ..] = &written[..] {
        at.error(format!("`{first}` and `{second}` cannot both be the check"), "keep one of the two");
    }
    let (key, reader) = written.into_iter().next()?;
    match key {
        "http" => reader.value(value::request_path).map(ReadyCheck::Http),
        "after" => duration(&reader, Duration::ZERO).map(ReadyCheck::After),
        "command" => command(&reader).map(ReadyCheck::Command),
        key => {
            if reader.boolean()? {
                return Some(if key == "tcp" { ReadyCheck::Tcp } else { ReadyCheck::Notify });
            }
            let hint = "write `http: /healthz` or `after: 5s`, or remove it";
            reader.error(format!("`{key}: false` says nothing about how to check"), hint);
            None
        }
    }
}

fn stop(reader: Reader<'_>, base: Stop) -> Stop {
    let Some(fields) = reader.fields(&names(&[&STOP])) else { return base };
    let time = |key| fields.get(key).and_then(|r| duration(&r, Duration::ZERO));
    Stop { grace: time("grace").unwrap_or(base.grace), drain: time("drain").unwrap_or(base.drain) }
}
