//! From a request that somebody wrote down to what the rules in force make of it, down to the worker.

use crate::admin::types;
use crate::routing::{Chosen, NoVersion, ServiceRouting, choose};
use crate::rules::explain::{RouteExplanation, SplitExplanation};
use crate::rules::request::PlainRequest;
use crate::rules::table::Unavailable;

/// Asks the table in force, and the join that the data plane asks, about one request.
pub(super) fn explanation(service: &ServiceRouting, asked: types::Explain) -> types::Explanation {
    let request = request(asked);
    let table = &service.rules.table;
    let explained = table.explain(&request);
    let decision = table.decide(&request);
    let wanted = service.version(decision.to).ok();
    let chosen = choose(service, &decision, true);
    let sleeps = matches!(chosen, Ok(Chosen::Asleep(..)));
    let chosen = chosen.map(Chosen::version);
    let least_busy = chosen.ok().and_then(|v| v.ready.iter().min_by_key(|w| w.in_flight.now()));
    types::Explanation {
        service: service.name.to_string(),
        version: chosen.ok().map(|v| v.id.to_string()),
        worker: least_busy.map(|w| w.worker.0),
        why: why(service, &explained, wanted.map(|v| v.id.as_str()), chosen.map(|v| v.id.as_str()))
            + if sleeps { "; it sleeps: the request wakes it and waits" } else { "" },
        to: explained.to,
        route: explained.route,
        unavailable: word(explained.unavailable).to_owned(),
        bucket: explained.bucket,
        assign: explained.assign,
        routes: explained.routes.into_iter().map(route).collect(),
    }
}

fn request(asked: types::Explain) -> PlainRequest {
    let mut request = PlainRequest::get(asked.path.as_deref().unwrap_or("/"));
    if let Some(method) = asked.method {
        request.method = method;
    }
    for (name, values) in asked.headers {
        for value in values.into_vec() {
            request = request.header(&name, &value);
        }
    }
    for (name, value) in asked.cookies {
        request = request.header("cookie", &format!("{name}={value}"));
    }
    let host = asked.host.or_else(|| {
        request.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case("host")).map(|(_, v)| v.clone())
    });
    request.host = host.map(|h| without_port(&h).to_owned()).unwrap_or_default();
    request.client_ip = asked.client_ip;
    request
}

/// `app.example.com:7000` without the port, and without a root's dot before it; an IPv6 address keeps its brackets
/// and colons.
fn without_port(host: &str) -> &str {
    let host = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !ends_inside_brackets(name) => name,
        _ => host,
    };
    host.strip_suffix('.').unwrap_or(host)
}

fn ends_inside_brackets(name: &str) -> bool {
    name.contains(':') && !name.ends_with(']')
}

/// One sentence: which route decided, and whether the version that answers is the one it chose.
fn why(
    service: &ServiceRouting,
    explained: &crate::rules::explain::Explanation,
    wanted: Option<&str>,
    chosen: Result<&str, NoVersion>,
) -> String {
    let mut text = match &explained.route {
        Some(route) => format!("route `{route}` chose {}", explained.to),
        None => format!("no route took it, and the default is {}", explained.to),
    };
    if let Some(bucket) = explained.bucket {
        text.push_str(&format!(" for bucket {bucket} of 10000"));
    }
    if let Some(id) = wanted.filter(|id| *id != explained.to) {
        text.push_str(&format!(" ({id})"));
    }
    let lack = match wanted {
        None if explained.to == crate::version::CURRENT && service.rules.aliases.is_empty() => "is not set",
        None => "is not there",
        Some(_) => "is not ready",
    };
    match chosen {
        Ok(id) if Some(id) == wanted => {}
        Ok(id) => text.push_str(&format!("; that {lack}, so current answers ({id})")),
        Err(_) if explained.unavailable == Unavailable::Wait => {
            text.push_str(&format!("; that {lack}, so the request waits for it"));
        }
        Err(_) => text.push_str(&format!("; that {lack}, so the answer is 503")),
    }
    text
}

fn route(route: RouteExplanation) -> types::RouteExplanation {
    types::RouteExplanation {
        route: route.route,
        matched: route.matched,
        decides: route.decides,
        to: route.to,
        failed: route.failed.map(|f| types::FailedCondition { condition: f.condition, seen: f.seen }),
        split: route.split.map(split),
    }
}

fn split(split: SplitExplanation) -> types::SplitExplanation {
    let arm = |arm: crate::rules::explain::ArmExplanation| types::Arm {
        to: arm.to,
        from: arm.from,
        until: arm.until,
    };
    types::SplitExplanation {
        by: split.by,
        id: split.id,
        bucket: split.bucket,
        arms: split.arms.into_iter().map(arm).collect(),
    }
}

fn word(unavailable: Unavailable) -> &'static str {
    match unavailable {
        Unavailable::Current => "current",
        Unavailable::Error => "error",
        Unavailable::Wait => "wait",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_taken_off_a_host() {
        for (host, expected) in [
            ("app.example.com:7000", "app.example.com"),
            ("app.example.com", "app.example.com"),
            ("app.example.com.:7000", "app.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("::1", "::1"),
        ] {
            assert_eq!(without_port(host), expected);
        }
    }
}
