//! Why a request goes where it goes.

use proptest::prelude::*;

use super::*;
use crate::rules::Failure;
use crate::rules::bucket::bucket;
use crate::rules::explain::ArmExplanation;

const DOCUMENT: &str = "
key: cookie.uid
routes:
  - {name: qa, when: {method: GET, header.x-qa: 'yes'}, to: 4f2a91c}
  - {name: pin, to: '{header.x-version}'}
  - {name: area, when: {any: [{path: {prefix: /a}}, {not: {host: b.example.com}}]}, to: beta}
  - {name: canary, when: {not: {header.user-agent: {regex: bot}}}, split: {new: 5%, other: 20%}}
  - {name: network, when: {client.ip: {cidr: [10.0.0.0/8, 'fd00::/8']}}, to: inside}
";

#[test]
fn every_route_says_what_it_makes_of_the_request() {
    let table = table(DOCUMENT);
    let request = PlainRequest { host: "b.example.com".into(), ..get("/b?x=1") }
        .header("x-qa", "no")
        .header("cookie", "uid=77")
        .header("user-agent", "a bot");
    let explanation = table.explain(&request);
    assert_eq!((explanation.to.as_str(), explanation.route), ("current", None));
    let failures: Vec<(&str, Option<Failure>)> =
        explanation.routes.iter().map(|r| (r.route.as_str(), r.failed.clone())).collect();
    let failure = |condition: &str, seen: Option<&str>| {
        Some(Failure { condition: condition.to_owned(), seen: seen.map(str::to_owned) })
    };
    assert_eq!(
        failures,
        [
            ("qa", failure("header.x-qa equal `yes`", Some("no"))),
            ("pin", failure("header.x-version exists", None)),
            ("area", failure("any of (path prefix `/a`, not (host equal `b.example.com`))", None)),
            ("canary", failure("not (header.user-agent regex `bot`)", Some("a bot"))),
            ("network", failure("client.ip cidr 10.0.0.0/8, fd00::/8", None)),
        ]
    );
}

#[test]
fn a_split_shows_the_id_its_bucket_and_every_range() {
    let table = table(DOCUMENT);
    let request = PlainRequest { host: "b.example.com".into(), ..get("/b") }.header("cookie", "uid=77");
    let explanation = table.explain(&request);
    let split = explanation.routes[3].split.as_ref().unwrap();
    assert_eq!((split.by.as_str(), split.id.as_deref()), ("cookie.uid", Some("77")));
    assert_eq!(split.bucket, Some(bucket("app", "77")));
    let arm = |to: &str, from, until| ArmExplanation { to: to.to_owned(), from, until };
    assert_eq!(split.arms, [arm("new", 0, 500), arm("other", 500, 2500)]);
}

#[test]
fn routes_after_the_one_that_decides_are_told_too() {
    let table = table(DOCUMENT);
    let request = PlainRequest { client_ip: "10.0.0.1".parse().ok(), ..get("/a") }.header("x-qa", "yes");
    let explanation = table.explain(&request);
    let matched: Vec<(&str, bool, Option<&str>)> = explanation
        .routes
        .iter()
        .filter(|r| r.matched)
        .map(|r| (r.route.as_str(), r.decides, r.to.as_deref()))
        .collect();
    assert_eq!(
        matched,
        [("qa", true, Some("4f2a91c")), ("area", false, Some("beta")), ("network", false, Some("inside")),]
    );
}

#[test]
fn rules_of_flipr_are_told_in_words() {
    let table = table(include_str!("../../../rules/flipr.yaml"));
    let explanation = table.explain(&get("/").header("cookie", "user_id=9; uid=1"));
    let first = &explanation.routes[0];
    let failure = Failure {
        condition: "cookie.user_id list `1234`, `5678` (without case)".into(),
        seen: Some("9".into()),
    };
    assert_eq!(first.failed, Some(failure));
    let percent = explanation.routes.iter().find_map(|r| r.split.as_ref()).unwrap();
    assert_eq!(percent.bucket, Some(5083), "idToPercent of 1 is 0.50836");
}

proptest! {
    /// The explanation is that of the decision, and each route says it matched where it has no failure to show.
    #[test]
    fn an_explanation_tells_what_was_decided(
        path in "/[ab]", uid in "[0-9]{0,3}", qa in prop::option::of("yes|no"), bot in any::<bool>(),
    ) {
        let table = table(DOCUMENT);
        let mut request = get(&path).header("cookie", &format!("uid={uid}"));
        request.host = "b.example.com".to_owned();
        if let Some(qa) = &qa {
            request = request.header("x-qa", qa);
        }
        if bot {
            request = request.header("user-agent", "bot");
        }
        let (explanation, decision) = (table.explain(&request), table.decide(&request));
        prop_assert_eq!(explanation.to, to(&table, &request));
        prop_assert_eq!(explanation.route.as_deref(), decision.route);
        prop_assert_eq!(explanation.bucket, decision.bucket);
        let first = explanation.routes.iter().find(|r| r.matched).map(|r| r.route.as_str());
        prop_assert_eq!(first, decision.route);
        for route in &explanation.routes {
            prop_assert!(!route.matched || route.failed.is_none());
            prop_assert_eq!(route.decides, decision.route == Some(&route.route));
        }
    }
}
