//! From one routing snapshot to what the API says of it. Pure: values and `now` in, `types` out.

use jiff::Timestamp;

use crate::admin::types;
use crate::hint::{Problem, Problems};
use crate::registry;
use crate::routing::{Routing, ServiceRouting};
use crate::rules::table::{RuleTable, TargetId};
use crate::version::{CURRENT, PREVIOUS, VersionState};

/// Which versions are asked for.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Filter<'a> {
    /// Only this service's.
    pub service: Option<&'a str>,
    /// Also what is ignored, and what is wrong.
    pub all: bool,
}

/// The answer of `GET /versions`.
pub(crate) fn versions(node: &str, routing: &Routing, filter: Filter<'_>, now: Timestamp) -> types::Versions {
    let services =
        || routing.services.iter().filter(|s| filter.service.is_none_or(|wanted| s.name.as_str() == wanted));
    types::Versions {
        node: node.to_owned(),
        generation: routing.generation,
        versions: services().flat_map(|s| versions_of(s, now)).collect(),
        ignored: filter.all.then(|| services().flat_map(ignored).collect()),
        problems: filter.all.then(|| services().flat_map(problems).collect()),
    }
}

/// The versions of one service, the last arrived first.
fn versions_of(service: &ServiceRouting, now: Timestamp) -> Vec<types::Version> {
    let mut listed: Vec<_> =
        service.registry.versions.values().filter(|v| v.state != VersionState::Gone).collect();
    listed.sort_by(|a, b| b.arrived.cmp(&a.arrived).then_with(|| a.id.cmp(&b.id)));
    listed.into_iter().map(|v| version(service, v, now)).collect()
}

/// One element of that list.
pub(crate) fn version(
    service: &ServiceRouting,
    version: &registry::Version,
    now: Timestamp,
) -> types::Version {
    let workers: Vec<types::Worker> = version.workers.iter().map(worker).collect();
    let traffic = version.counters.traffic(now);
    types::Version {
        service: version.service.to_string(),
        version: version.id.to_string(),
        state: version.state,
        dark: service.is_dark(version),
        aliases: service.aliases_of(&version.id).into_iter().map(str::to_owned).collect(),
        routes: service.routes_of(&version.id).to_vec(),
        path: version.path.display().to_string(),
        since: seconds(version.since),
        reason: version.reason.clone().or_else(|| waits_for(version)),
        modified: version.modified,
        traffic: types::Traffic {
            requests: traffic.requests,
            in_flight: workers.iter().map(|w| w.in_flight).sum(),
            rps: traffic.rps,
            errors: traffic.errors,
            p50_ms: traffic.p50_ms,
            p99_ms: traffic.p99_ms,
            last_hit: traffic.last_hit.map(seconds),
        },
        workers,
    }
}

/// What a version that drains waits for, and until when at the longest.
fn waits_for(version: &registry::Version) -> Option<String> {
    if version.state != VersionState::Draining {
        return None;
    }
    let upstreams = || version.workers.iter().filter_map(|worker| worker.upstream.as_ref());
    // Streams first: one that ends between the two looks is taken for a request.
    let streams: u64 = upstreams().map(|upstream| upstream.streams.now()).sum();
    let in_flight: u64 = upstreams().map(|upstream| upstream.in_flight.now()).sum();
    let requests = match in_flight.saturating_sub(streams) {
        0 => None,
        1 => Some("1 request".to_owned()),
        many => Some(format!("{many} requests")),
    };
    let until =
        version.since.saturating_add(jiff::SignedDuration::try_from(version.delivery.streams).ok()?).ok()?;
    let until = until.strftime("%H:%M:%SZ");
    let streams = match streams {
        0 => None,
        1 => Some(format!("1 stream, which ends by {until}")),
        many => Some(format!("{many} streams, which end by {until}")),
    };
    let what: Vec<String> = requests.into_iter().chain(streams).collect();
    (!what.is_empty()).then(|| format!("waits for {}", what.join(" and ")))
}

fn worker(worker: &registry::Worker) -> types::Worker {
    types::Worker {
        id: worker.id.0,
        pid: worker.pid,
        address: worker.address.as_ref().map(ToString::to_string),
        state: worker.state,
        in_flight: worker.upstream.as_ref().map_or(0, |u| u.in_flight.now()),
        restarts: worker.restarts,
    }
}

fn ignored(service: &ServiceRouting) -> impl Iterator<Item = types::Ignored> {
    service.registry.ignored.iter().map(|entry| types::Ignored {
        service: service.name.to_string(),
        name: entry.name.clone(),
        path: service.registry.root.join(&entry.name).display().to_string(),
        reason: entry.reason.clone(),
    })
}

/// What is wrong with a service: its deploy root, its rules, its rule source.
fn problems(service: &ServiceRouting) -> impl Iterator<Item = types::ServiceProblem> {
    let key = format!("services.{}.root", service.name);
    let root = service.registry.problem.iter().map(move |text| Problem::error(key.clone(), text.clone()));
    let stale = service.rules.stale_since.map(|since| {
        let message = format!("the rule source cannot be reached since {}", seconds(since));
        let mut problem = Problem::warning("", message)
            .hint("routing goes on with the last good rules; look at the source and its log lines");
        problem.file = Some(service.rules.origin.clone());
        problem
    });
    root.chain(stale)
        .chain(lost_aliases(service))
        .chain(rule_problems(service))
        .map(|problem| types::ServiceProblem { service: service.name.to_string(), problem })
}

/// The aliases that lead to no version. Without the one that `current` names, nobody is answered.
fn lost_aliases(service: &ServiceRouting) -> impl Iterator<Item = Problem> {
    service.rules.aliases.iter().filter(|(_, version)| service.resolve(version).is_err()).map(
        |(alias, version)| {
            let key = format!("aliases.{alias}");
            let message = format!("`{alias}` is {version}, and that version is not there");
            if alias == CURRENT {
                Problem::error(key, message)
                    .hint(format!("upload {version} again, or: switchman promote VERSION"))
            } else if alias == PREVIOUS {
                Problem::warning(key, message).hint("a rollback needs it: upload it again")
            } else {
                Problem::warning(key, message)
                    .hint(format!("switchman tag {alias} VERSION, or: switchman untag {alias}"))
            }
        },
    )
}

/// What the publisher found, and the names in the table in force that lead nowhere now.
pub(crate) fn rule_problems(service: &ServiceRouting) -> Vec<Problem> {
    let mut unknown = unknown_names(service, &service.rules.table);
    unknown.locate(&service.rules.origin, &service.rules.document);
    let mut problems = service.rules.problems.0.clone();
    problems.append(&mut unknown.0);
    problems
}

/// A warning for each version or alias that `table` names and that does not exist now: it may still arrive.
/// `current` is left out, since a service without versions has none.
pub(crate) fn unknown_names(service: &ServiceRouting, table: &RuleTable) -> Problems {
    let mut problems = Problems::default();
    for (name, id) in table.targets().iter().zip(0..).filter(|(name, _)| *name != CURRENT) {
        let Err(error) = service.resolve(name) else { continue };
        let problem = Problem::warning("", error.to_string())
            .hint("it may still arrive; until then `unavailable` says what its requests get");
        problems.push(match table.target_place(TargetId(id)) {
            Some((line, column)) => problem.at(line, column),
            None => problem,
        });
    }
    problems
}

/// The answer of `GET /services`.
pub(crate) fn services(routing: &Routing) -> types::Services {
    let service = |s: &ServiceRouting| types::Service {
        service: s.name.to_string(),
        root: s.registry.root.display().to_string(),
        versions: s.registry.versions.len(),
        current: s.current().ok().map(|v| v.id.to_string()),
    };
    types::Services { services: routing.services.iter().map(service).collect() }
}

/// The answer of `GET .../aliases`: what is stored, whole names where they are known, and `latest`.
pub(crate) fn aliases(service: &ServiceRouting) -> types::Aliases {
    let stored = service.rules.aliases.iter().map(|(name, version)| (name.as_str(), version.as_str()));
    let latest =
        service.resolve(crate::version::LATEST).ok().map(|v| (crate::version::LATEST, v.id.as_str()));
    types::Aliases {
        service: service.name.to_string(),
        aliases: stored
            .chain(latest)
            .map(|(name, version)| {
                let whole = service.resolve(version).map_or(version, |v| v.id.as_str());
                (name.to_owned(), whole.to_owned())
            })
            .collect(),
    }
}

/// The answer of `GET .../rules`.
pub(crate) fn rules(service: &ServiceRouting) -> types::Rules {
    let rules = &service.rules;
    types::Rules {
        document: rules.document.to_string(),
        origin: rules.origin.to_string(),
        revision: rules.revision,
        generation: rules.generation,
        since: seconds(rules.since),
        rejected: rules.rejected,
        problems: rule_problems(service),
        stale_since: rules.stale_since.map(seconds),
    }
}

/// Whole seconds, as the contract has it.
fn seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}
