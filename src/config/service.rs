//! One service, and how its versions run: [`run_spec`] also reads a version folder's own `switchman.yaml`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use regex::Regex;

use super::keys::{READY, RULES, RUN, SERVICE, STOP, names};
use super::read::{duration, path};
use super::value;
use super::{Promote, Ready, ReadyCheck, RulesAt, RunCommand, RunSpec, Service, Stop};
use crate::hint::{Problem, nearest};
use crate::version::ServiceName;
use crate::yaml::{Entry, Fields, Reader};

/// What the rest of the file says that a service needs.
pub(super) struct Context<'a> {
    /// What relative paths begin at.
    pub folder: &'a Path,
    /// The state folder.
    pub state: &'a Path,
    /// The prefix of all etcd keys; none without a (good) `etcd:`.
    pub etcd: Option<&'a str>,
    /// Whether there is an `etcd:`, good or not.
    pub etcd_written: bool,
}

/// A service as read, with the map it was read from: what is wrong between two services is reported there.
pub(super) struct Draft<'a> {
    pub name: ServiceName,
    pub service: Service,
    pub fields: Fields<'a>,
}

/// Checks are not made more often than this, and take no less: a busy loop helps nobody.
const CHECK_MIN: Duration = Duration::from_millis(10);
const WORKERS_MAX: u64 = 1000;
const SETTLE: Duration = Duration::from_secs(1);
const VERSIONS: &str = "^[0-9a-f]{7,64}$";

/// What the supervisor sets for each worker, whatever `env` says.
const GIVEN: [&str; 8] = [
    "PORT",
    "HOST",
    "SOCKET",
    "COMMIT",
    "PIDFILE",
    "SWITCHMAN_SERVICE",
    "SWITCHMAN_VERSION",
    "SWITCHMAN_WORKER",
];

/// Reads the service that stands under `services:` as `entry`.
pub(super) fn read<'a>(entry: &Entry, reader: Reader<'a>, context: &Context<'_>) -> Option<Draft<'a>> {
    let name = value::name(&entry.key)
        .map_err(|problem| reader.report(problem.at(entry.place.line, entry.place.column)))
        .ok();
    let fields = reader.fields(&names(&[&SERVICE, &RUN]))?;
    let root = fields.require("root", "/srv/app").and_then(|r| path(&r, context.folder));
    let hosts = fields.get("hosts").map(|r| hosts(&r)).unwrap_or_default();
    let versions = match fields.get("versions") {
        Some(reader) => versions(&reader),
        None => Regex::new(VERSIONS).ok(),
    };
    let settle = fields.get("settle").and_then(|r| duration(&r, Duration::ZERO)).unwrap_or(SETTLE);
    let promote = fields.get("promote").and_then(|r| r.value(promote)).unwrap_or(Promote::Manual);
    let rules = name.as_deref().and_then(|name| rules(&fields, name, context));
    let run = run_spec(&fields, RunSpec::default());
    let service = Service { root: root?, hosts, versions: versions?, settle, promote, rules: rules?, run };
    Some(Draft { name: ServiceName::from(name?), service, fields })
}

fn hosts(reader: &Reader<'_>) -> Vec<String> {
    let hosts = reader.one_or_more();
    if hosts.is_empty() {
        let problem = Problem::error("", "the list is empty, so the service would answer nobody");
        reader.report(problem.hint("name a host, or remove `hosts` to answer every host"));
    }
    hosts.iter().filter_map(|r| r.value(value::host)).collect()
}

fn versions(reader: &Reader<'_>) -> Option<Regex> {
    let versions = reader.value(value::regex)?;
    if !(versions.as_str().starts_with('^') && versions.as_str().ends_with('$')) {
        let message = format!("`{versions}` matches any name that has such a part in it");
        let hint = format!("write '^{}$'", versions.as_str().trim_start_matches('^').trim_end_matches('$'));
        reader.report(Problem::warning("", message).hint(hint));
    }
    Some(versions)
}

fn promote(text: &str) -> Result<Promote, Problem> {
    match text {
        "manual" => Ok(Promote::Manual),
        "auto" => Ok(Promote::Auto),
        _ => {
            let hint = match nearest(text, ["manual", "auto"]) {
                Some(word) => format!("did you mean `{word}`?"),
                None => "write `manual` or `auto`".to_owned(),
            };
            Err(Problem::error("", format!("`{text}` is neither manual nor auto")).hint(hint))
        }
    }
}

fn rules(service: &Fields<'_>, name: &str, context: &Context<'_>) -> Option<RulesAt> {
    let Some(reader) = service.get("rules") else {
        return match context.etcd {
            Some(prefix) => Some(RulesAt::Etcd(format!("{prefix}/{name}/rules"))),
            None => Some(RulesAt::File(context.state.join(name).join("rules.yaml"))),
        };
    };
    if reader.node().map().is_none() {
        return path(&reader, context.folder).map(RulesAt::File);
    }
    if !context.etcd_written {
        let problem = Problem::error("", "the rules are to come from etcd, and no etcd is configured");
        reader.report(problem.hint("add at the top: `etcd: {endpoints: [\"http://127.0.0.1:2379\"]}`"));
    }
    let key = reader.fields(&names(&[&RULES]))?.require("etcd", "/switchman/app/rules")?;
    key.text().map(|key| RulesAt::Etcd(key.to_owned()))
}

/// How a version runs: what `fields` say, key by key, over `base`.
pub(super) fn run_spec(fields: &Fields<'_>, base: RunSpec) -> RunSpec {
    let mut env = base.env;
    if let Some(reader) = fields.get("env") {
        env.extend(variables(&reader));
    }
    let workers = fields.get("workers").and_then(|r| r.number(1..=WORKERS_MAX));
    RunSpec {
        run: fields.get("run").and_then(|r| command(&r)).or(base.run),
        env,
        workers: workers.map_or(base.workers, |n| n as u32),
        ready: match fields.get("ready") {
            Some(reader) => ready(reader, base.ready),
            None => base.ready,
        },
        stop: match fields.get("stop") {
            Some(reader) => stop(reader, base.stop),
            None => base.stop,
        },
    }
}

fn command(reader: &Reader<'_>) -> Option<RunCommand> {
    let empty = || {
        let problem = Problem::error("", "the command is empty");
        reader.report(problem.hint("write it as in `run: \"node server.js --port $PORT\"`"));
    };
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
            if text.contains("$PORT") || text.contains("${PORT}") {
                let message = format!("`{text}` stays as it is: a list is executed without a shell");
                let hint = "write the command as one text, or let it read PORT from its environment";
                word.report(Problem::warning("", message).hint(hint));
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
            reader.report(Problem::warning("", message).hint("remove it"));
        }
        let Some(text) = reader.node().text() else {
            let problem = Problem::error("", format!("{} is not text", reader.node().describe()));
            reader.report(problem.hint(format!("write one text, as in `{name}: \"\"`")));
            return None;
        };
        if text.contains('\0') {
            let problem = Problem::error("", "the value has a NUL character in it");
            reader.report(problem.hint("remove it: no program could read what follows"));
        }
        Some((name.clone(), text.to_owned()))
    };
    reader.entries().into_iter().flatten().filter_map(variable).collect()
}

fn ready(reader: Reader<'_>, base: Ready) -> Ready {
    const LATER: [&str; 2] = ["log", "notify"];
    let mut known = names(&[&READY]);
    known.extend(LATER);
    if reader.node().scalar().is_some() {
        reader.expected("a map", "ready: {http: /healthz}");
        return base;
    }
    let Some(fields) = reader.fields(&known) else { return base };
    for later in LATER.iter().filter_map(|key| fields.get(key)) {
        let message = "this way to show readiness is not supported yet";
        later.report(
            Problem::error("", message).hint("use one of `http: /healthz`, `tcp: true`, `after: 5s`"),
        );
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
        let message = format!("ready after {after:?}, but given up at the deadline of {:?}", ready.deadline);
        at.report(Problem::error("", message).hint("make `deadline` longer than `after`"));
    }
    ready
}

fn check(fields: &Fields<'_>) -> Option<ReadyCheck> {
    let written: Vec<_> =
        ["http", "tcp", "after"].iter().filter_map(|key| Some((*key, fields.get(key)?))).collect();
    if let [(first, _), (second, at), ..] = &written[..] {
        let problem = Problem::error("", format!("`{first}` and `{second}` cannot both be the check"));
        at.report(problem.hint("keep one of the two"));
    }
    let (key, reader) = written.into_iter().next()?;
    match key {
        "http" => reader.value(value::request_path).map(ReadyCheck::Http),
        "after" => duration(&reader, Duration::ZERO).map(ReadyCheck::After),
        _ => {
            if reader.boolean()? {
                return Some(ReadyCheck::Tcp);
            }
            let problem = Problem::error("", "`tcp: false` says nothing about how to check");
            reader.report(problem.hint("write `http: /healthz` or `after: 5s`, or remove it"));
            None
        }
    }
}

fn stop(reader: Reader<'_>, base: Stop) -> Stop {
    let Some(fields) = reader.fields(&names(&[&STOP])) else { return base };
    let time = |key| fields.get(key).and_then(|r| duration(&r, Duration::ZERO));
    Stop { grace: time("grace").unwrap_or(base.grace), drain: time("drain").unwrap_or(base.drain) }
}

/// A folder without `.` parts, links resolved where it is there: two spellings of one folder compare equal.
pub(super) fn identity(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}
