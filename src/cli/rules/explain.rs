//! `switchman rules explain`: which route, version and worker a request would get, and why.

use std::collections::BTreeMap;
use std::net::IpAddr;

use http::Method;

use crate::admin::client::Call;
use crate::admin::types::{Explain, Explanation, OneOrMany, RouteExplanation, SplitExplanation};
use crate::cli::connect::Reach;
use crate::cli::failure::Failure;
use crate::cli::{output, table};

#[derive(Debug, clap::Args)]
pub(in crate::cli) struct Args {
    /// The path, with its query
    #[arg(default_value = "/")]
    path: String,
    /// A header, as in 'x-qa: yes'; may be repeated
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header)]
    headers: Vec<(String, String)>,
    /// A cookie, as in uid=77; may be repeated
    #[arg(short = 'b', long = "cookie", value_name = "NAME=VALUE", value_parser = cookie)]
    cookies: Vec<(String, String)>,
    /// The method
    #[arg(short = 'X', long = "request", value_name = "METHOD", default_value = "GET")]
    method: String,
    /// The host that is asked for
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// The client's address
    #[arg(long, value_name = "IP")]
    client_ip: Option<IpAddr>,
    #[command(flatten)]
    reach: Reach,
}

pub(super) async fn run(args: Args) -> Result<(), Failure> {
    let client = args.reach.client()?;
    let service = args.reach.service(&client).await?;
    let json = args.reach.json;
    let body = serde_json::to_vec(&request(args)).map_err(|e| Failure::failed(e.to_string()))?;
    let call = Call::new(Method::POST, &["services", &service, "rules", "explain"]).body(body);
    let answer = client.send(call).await?;
    output::data(&if json { answer.text() } else { render(&answer.json()?) })
}

fn request(args: Args) -> Explain {
    let mut headers: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in args.headers {
        headers.entry(name).or_default().push(value);
    }
    Explain {
        method: Some(args.method),
        path: Some(args.path),
        host: args.host,
        headers: headers.into_iter().map(|(name, values)| (name, OneOrMany::Many(values))).collect(),
        cookies: args.cookies.into_iter().collect(),
        client_ip: args.client_ip,
    }
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("write it as NAME: VALUE")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn cookie(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    Ok((name.trim().to_owned(), value.to_owned()))
}

/// The routes in order, then the decision.
fn render(explanation: &Explanation) -> String {
    let mut text = String::new();
    if !explanation.routes.is_empty() {
        let mut routes = table::plain(&["ROUTE", "TAKES IT", "TO", "BECAUSE"]);
        for route in &explanation.routes {
            let takes = match (route.decides, route.matched) {
                (true, _) => "yes, decides",
                (false, true) => "yes, too late",
                (false, false) => "no",
            };
            routes.add_row([&route.route, takes, route.to.as_deref().unwrap_or("-"), &because(route)]);
        }
        text.push_str(&table::trimmed(&routes));
        text.push('\n');
    }
    text.push_str(&explanation.why);
    text.push('\n');
    if let Some(cookie) = &explanation.assign {
        text.push_str(&format!("the answer would set the cookie `{cookie}` to a new id\n"));
    }
    match (&explanation.version, explanation.worker) {
        (Some(version), Some(worker)) => text.push_str(&format!("version {version}, worker {worker}\n")),
        (Some(version), None) => text.push_str(&format!("version {version}\n")),
        (None, _) => text.push_str("no version answers\n"),
    }
    text
}

fn because(route: &RouteExplanation) -> String {
    if let Some(failed) = &route.failed {
        return match &failed.seen {
            Some(seen) => format!("{} does not hold: it is `{seen}`", failed.condition),
            None => format!("{} does not hold: the request has none", failed.condition),
        };
    }
    route.split.as_ref().map_or_else(|| "its conditions hold".to_owned(), split)
}

fn split(split: &SplitExplanation) -> String {
    match (&split.id, split.bucket) {
        (None, None) => format!("the request has no {}", split.by),
        (_, Some(bucket)) => {
            let arms: Vec<String> =
                split.arms.iter().map(|arm| format!("{}..{} {}", arm.from, arm.until, arm.to)).collect();
            format!("{} is in bucket {bucket} of {}", split.by, arms.join(", "))
        }
        (Some(id), None) => format!("{} `{id}` takes no part", split.by),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::types::{Arm, FailedCondition};

    #[test]
    fn an_explanation_reads_from_the_first_route_to_the_worker() {
        let route = |name: &str| RouteExplanation {
            route: name.into(),
            matched: false,
            decides: false,
            to: None,
            failed: None,
            split: None,
        };
        let explanation = Explanation {
            service: "app".into(),
            version: Some("4f2a91c".into()),
            worker: Some(1),
            why: "route `canary` chose 4f2a91c for bucket 123 of 10000".into(),
            to: "4f2a91c".into(),
            route: Some("canary".into()),
            unavailable: "current".into(),
            bucket: Some(123),
            assign: None,
            routes: vec![
                RouteExplanation {
                    failed: Some(FailedCondition {
                        condition: "header.x-qa equal `yes`".into(),
                        seen: Some("no".into()),
                    }),
                    ..route("qa")
                },
                RouteExplanation {
                    matched: true,
                    decides: true,
                    to: Some("4f2a91c".into()),
                    split: Some(SplitExplanation {
                        by: "cookie.uid".into(),
                        id: Some("77".into()),
                        bucket: Some(123),
                        arms: vec![Arm { to: "4f2a91c".into(), from: 0, until: 500 }],
                    }),
                    ..route("canary")
                },
            ],
        };
        let expected = "\
ROUTE   TAKES IT      TO       BECAUSE
qa      no            -        header.x-qa equal `yes` does not hold: it is `no`
canary  yes, decides  4f2a91c  cookie.uid is in bucket 123 of 0..500 4f2a91c

route `canary` chose 4f2a91c for bucket 123 of 10000
version 4f2a91c, worker 1
";
        assert_eq!(render(&explanation), expected);
    }
}
