//! Names, fallbacks, darkness and hosts, on joined services made by hand.

pub(crate) mod make;

use make::{join, published};

use super::*;
use crate::rules::request::PlainRequest;
use crate::version::NameError;
use crate::version::VersionState::{Failed, Ready, Stopped};

/// The version that answers `request`, or why none does.
fn answers(service: &ServiceRouting, request: &PlainRequest) -> Result<String, NoVersion> {
    let decision = service.rules.table.decide(request);
    choose(service, &decision, true).map(|chosen| chosen.version().id.to_string())
}

const PIN: &str =
    r#"routes: [{name: pin, when: {header.v: {exists: true}}, to: "{header.v}", unavailable: error}]"#;

#[test]
fn a_request_may_name_a_version_by_name_prefix_or_alias() {
    let versions =
        [("4f2a91c0", Ready, 1), ("4f2a91cd", Ready, 2), ("b001bee77", Ready, 3), ("dead000", Failed, 4)];
    let service = join(&versions, PIN, &[("current", "4f2a91c0"), ("beta", "b001bee77")]);
    let named = |name: &str| answers(&service, &PlainRequest::get("/").header("v", name));
    assert_eq!(named("4f2a91cd").as_deref(), Ok("4f2a91cd"));
    assert_eq!(named("b001bee").as_deref(), Ok("b001bee77"));
    assert_eq!(named("beta").as_deref(), Ok("b001bee77"));
    assert_eq!(named("latest"), Err(NoVersion::NotReady), "the latest one has failed");
    assert_eq!(named("dead000"), Err(NoVersion::NotReady));
    for unknown in ["4f2a91c", "b001be", "", "fffffff", "b001bee770"] {
        assert_eq!(named(unknown), Err(NoVersion::Unknown), "{unknown:?}");
    }
    assert_eq!(answers(&service, &PlainRequest::get("/")).as_deref(), Ok("4f2a91c0"));
}

#[test]
fn what_a_person_means_is_found_or_said_to_be_ambiguous() {
    let service = join(&[("4f2a91c0", Ready, 1), ("4f2a91cd", Ready, 2)], "", &[("current", "4f2a91c0")]);
    assert_eq!(service.resolve("latest").unwrap().id.as_str(), "4f2a91cd");
    assert_eq!(service.resolve("current").unwrap().id.as_str(), "4f2a91c0");
    assert!(
        matches!(service.resolve("4f2a91c"), Err(NameError::Ambiguous { versions, .. }) if versions.len() == 2)
    );
    assert!(matches!(service.resolve("previous"), Err(NameError::Unknown(name)) if name == "previous"));
}

#[test]
fn what_is_not_ready_falls_to_current_unless_the_rule_says_otherwise() {
    let versions = [("4f2a91c", Ready, 1), ("b001bee", Stopped, 2)];
    let to = |more: &str| format!("routes: [{{name: a, to: b001bee{more}}}]");
    for (more, expected) in [
        ("", Ok("4f2a91c".to_owned())),
        (", unavailable: current", Ok("4f2a91c".to_owned())),
        (", unavailable: error", Err(NoVersion::NotReady)),
        (", unavailable: wait", Err(NoVersion::NotReady)),
    ] {
        let service = join(&versions, &to(more), &[("current", "4f2a91c")]);
        assert_eq!(answers(&service, &PlainRequest::get("/")), expected, "{more}");
    }
    for (aliases, expected) in [
        (&[][..], NoVersion::NoCurrent),
        (&[("current", "fffffff")], NoVersion::Unknown),
        (&[("current", "b001bee")], NoVersion::NotReady),
    ] {
        let service = join(&versions, "", aliases);
        assert_eq!(answers(&service, &PlainRequest::get("/")), Err(expected), "{aliases:?}");
    }
}

#[test]
fn dark_is_what_nothing_in_use_leads_to() {
    let versions =
        [("1111111", Ready, 1), ("2222222", Ready, 2), ("3333333", Ready, 3), ("4444444", Ready, 4)];
    let document = "default: stable\nkey: cookie.uid\nroutes: [{name: a, when: {path: /a}, to: beta}, {name: b, split: {3333333: 5%, 2222222: 5%}}]";
    let aliases = [("current", "1111111"), ("stable", "2222222"), ("beta", "3333333"), ("spare", "4444444")];
    let service = join(&versions, document, &aliases);
    let dark = |id: &str| service.is_dark(&service.registry.versions[id]);
    assert!(!dark("1111111"), "`current` is what everything falls back to");
    assert!(!dark("2222222") && !dark("3333333"));
    assert!(dark("4444444"), "an alias that no route uses sends nothing");
    assert_eq!(service.routes_of(&"3333333".into()), ["a", "b"]);
    assert_eq!(service.routes_of(&"2222222".into()), ["b"]);
    assert_eq!(service.aliases_of(&"4444444".into()), ["latest", "spare"]);
}

#[test]
fn a_tag_never_redirects_a_hash() {
    let service = join(&[("4f2a91c", Ready, 1), ("b001bee", Ready, 2)], PIN, &[("4f2a91c", "b001bee")]);
    assert_eq!(answers(&service, &PlainRequest::get("/").header("v", "4f2a91c")).as_deref(), Ok("4f2a91c"));
}

#[tokio::test]
async fn hosts_choose_the_service_and_each_change_is_a_generation() {
    let (registry, reader) = registry::Registry::new();
    let (rules, rules_reader) = watch::channel(published("", &[]));
    let live = Live::new();
    let services = ["app", "web"].map(|name| (ServiceName::from(name), rules_reader.clone()));
    let hosts = BTreeMap::from([("web".into(), vec!["www.example.com".to_owned(), "::1".to_owned()])]);
    let joining = tokio::spawn(run(live.clone(), reader, services.into(), hosts));
    let mut generations = live.watch();
    generations.wait_for(|g| *g == 1).await.unwrap();
    for (host, service) in [
        ("www.example.com", "web"),
        ("WWW.Example.com", "web"),
        ("[::1]", "web"),
        ("[::2]", "app"),
        ("other", "app"),
        ("", "app"),
    ] {
        assert_eq!(live.load().service_for_host(host).unwrap().name.as_str(), service, "{host}");
    }
    registry.update(|services| {
        services.entry("app".into()).or_default().problem = Some("gone".into());
    });
    generations.wait_for(|g| *g == 2).await.unwrap();
    assert_eq!(live.load().service("app").unwrap().registry.problem.as_deref(), Some("gone"));
    rules.send_replace(published("routes: [{to: current}]", &[]));
    generations.wait_for(|g| *g >= 3).await.unwrap();
    drop(registry);
    joining.await.unwrap();
}
