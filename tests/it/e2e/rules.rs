//! Rules edited in a file and in a real etcd, on live traffic; and a table of requests with the version each gets.

use std::time::Instant;

use super::super::support::etcd::Etcd;
use super::super::support::eventually;
use super::super::support::http::{Load, get, get_with};
use super::super::support::switchman::{Setup, Switchman};

async fn three_versions(setup: Setup<'_>) -> Switchman {
    let switchman = Switchman::start(setup).await;
    for version in ["4f2a91c", "b001bee", "0123456"] {
        switchman.deploy_ready(version).await;
    }
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman
}

/// Asks until `version` answers requests with `header`; answers with the time it took.
async fn in_force(switchman: &Switchman, header: (&str, &str), version: &str) -> std::time::Duration {
    let began = Instant::now();
    eventually(&format!("{version} answers {header:?}"), || async {
        let answer = get_with(&switchman.url("/"), &[header]).await.unwrap();
        (answer.version() == version).then_some(())
    })
    .await;
    began.elapsed()
}

#[tokio::test]
async fn every_request_gets_the_version_that_the_rules_say() {
    let rules = r#"
default: current
key: cookie.uid
routes:
  - {name: qa, when: {header.x-qa: "yes"}, to: b001bee}
  - {name: insiders, when: {cookie.user_id: [1234, 5678], method: GET}, to: 0123456}
  - {name: api, when: {path: {prefix: /api/}}, to: b001bee}
  - {name: query, when: {query.v: two}, to: 0123456}
  - {name: host, when: {host: qa.example.com}, to: b001bee}
  - {name: pin, when: {header.x-version: {regex: "^[0-9a-f]{7,64}$"}}, to: "{header.x-version}", unavailable: error}
  - {name: canary, when: {not: {header.user-agent: {regex: "bot|crawler"}}}, split: {b001bee: 25%}}
"#;
    let switchman = three_versions(Setup { rules: Some(rules), ..Setup::default() }).await;
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let table: &[Row<'_>] = &[
        ("/", &[], "4f2a91c"),
        ("/", &[("x-qa", "yes")], "b001bee"),
        ("/", &[("X-QA", "yes")], "b001bee"),
        ("/", &[("x-qa", "no")], "4f2a91c"),
        ("/", &[("cookie", "a=b; user_id=5678")], "0123456"),
        ("/", &[("cookie", "user_id=56789")], "4f2a91c"),
        ("/api/cart", &[], "b001bee"),
        ("/apiary", &[], "4f2a91c"),
        ("/?v=two", &[], "0123456"),
        ("/?v=three&v=two", &[], "4f2a91c"),
        ("/", &[("host", "qa.example.com")], "b001bee"),
        ("/", &[("x-version", "0123456")], "0123456"),
        ("/", &[("x-version", "not-a-hash")], "4f2a91c"),
    ];
    for (path, headers, version) in table {
        let answer = get_with(&switchman.url(path), headers).await.unwrap();
        assert_eq!(answer.version(), *version, "{path} {headers:?}: {}", answer.text());
    }
    let gone = get_with(&switchman.url("/"), &[("x-version", "fffffff")]).await.unwrap();
    assert_eq!(gone.status, 503);
    assert!(gone.header("x-switchman-error").is_some());

    let mut canary = 0;
    for user in 0..1_000 {
        let cookie = format!("uid=user-{user}");
        let first = get_with(&switchman.url("/"), &[("cookie", &cookie)]).await.unwrap().version().to_owned();
        canary += u32::from(first == "b001bee");
        if user % 50 == 0 {
            let again = get_with(&switchman.url("/"), &[("cookie", &cookie)]).await.unwrap();
            assert_eq!(again.version(), first, "a user stays");
            let bot =
                get_with(&switchman.url("/"), &[("cookie", &cookie), ("user-agent", "a bot")]).await.unwrap();
            assert_eq!(bot.version(), "4f2a91c", "bots take no part");
        }
    }
    assert!((200..300).contains(&canary), "25 % of 1,000 users, seen: {canary}");

    let routes = switchman.version("b001bee").await.unwrap();
    assert_eq!(routes["routes"], serde_json::json!(["qa", "api", "host", "canary"]));
    let why = switchman.done(&["rules", "explain", "-H", "x-qa: yes", "-b", "uid=77", "/cart"]).await;
    assert!(why.contains("qa") && why.contains("b001bee"), "{why}");
}

#[tokio::test]
async fn a_request_waits_for_its_version_where_the_rule_says_so() {
    let rules = "routes: [{name: next, when: {header.x-next: yes}, to: c0ffee1, unavailable: wait}]\n";
    let switchman = three_versions(Setup { rules: Some(rules), ..Setup::default() }).await;
    let waiting = tokio::spawn({
        let url = switchman.url("/");
        async move { get_with(&url, &[("x-next", "yes")]).await }
    });
    switchman.deploy("c0ffee1").await;
    let answer = waiting.await.unwrap().unwrap();
    assert_eq!((answer.status, answer.version()), (200, "c0ffee1"), "{}", answer.text());
}

#[tokio::test]
async fn a_client_without_an_id_is_given_one_and_stays_where_it_is() {
    let rules = "routes: [{name: half, split: {b001bee: 50%}, by: cookie.uid, assign: true}]\n";
    let switchman = three_versions(Setup { rules: Some(rules), ..Setup::default() }).await;
    let mut seen = std::collections::BTreeMap::new();
    for _ in 0..40 {
        let first = get(&switchman.url("/")).await.unwrap();
        let given = first.header("set-cookie").expect("an id is assigned");
        let cookie =
            given.strip_suffix("; Path=/; HttpOnly; SameSite=Lax").unwrap_or_else(|| panic!("{given}"));
        assert!(cookie.starts_with("uid="), "{given}");
        *seen.entry(first.version().to_owned()).or_insert(0) += 1;
        let again = get_with(&switchman.url("/"), &[("cookie", cookie)]).await.unwrap();
        assert_eq!((again.version(), again.header("set-cookie")), (first.version(), None), "{given}");
    }
    assert_eq!(seen.len(), 2, "both halves of 40 new clients: {seen:?}");
}

#[tokio::test]
async fn a_file_edit_is_in_force_at_once_and_a_bad_one_never() {
    let switchman = three_versions(Setup { rules: Some(""), ..Setup::default() }).await;
    let load = Load::start(&switchman.url("/"), 4);
    let mut times = Vec::new();
    for version in ["b001bee", "0123456", "b001bee", "0123456"] {
        switchman
            .write_rules(&format!("routes: [{{name: qa, when: {{header.x-qa: yes}}, to: {version}}}]\n"));
        times.push(in_force(&switchman, ("x-qa", "yes"), version).await);
    }
    println!("rule edit by file to in force: {times:?}");

    switchman.write_rules(
        "routes: [{name: qa, when: {header.x-qa: yes, headers.y: {regex: \"(\"}}, split: {b001bee: 500%}}]\n",
    );
    let refused = eventually("the document is refused", || async {
        let rules = get(&format!("http://{}/services/app/rules", switchman.admin)).await.unwrap().json();
        (rules["rejected"] == true).then_some(rules)
    })
    .await;
    let problems = refused["problems"].as_array().unwrap();
    assert!(problems.len() >= 3, "all problems at once: {refused}");
    assert!(
        problems.iter().all(|p| p["line"] == 1 && p["file"].as_str().unwrap().ends_with("rules.yaml")),
        "{refused}"
    );
    assert_eq!(get_with(&switchman.url("/"), &[("x-qa", "yes")]).await.unwrap().version(), "0123456");

    std::fs::remove_file(switchman.folder.path().join("rules.yaml")).unwrap();
    load.more(50).await;
    assert_eq!(get_with(&switchman.url("/"), &[("x-qa", "yes")]).await.unwrap().version(), "0123456");
    let tally = load.stop().await;
    assert!(tally.failures.is_empty() && tally.of("4f2a91c") == tally.requests(), "{tally}");
}

#[tokio::test]
async fn rules_and_aliases_live_in_a_real_etcd() {
    let etcd = Etcd::start().await;
    let top = format!("etcd: {{endpoints: [{:?}], prefix: /sm}}\n", etcd.url());
    let switchman = three_versions(Setup { top: &top, ..Setup::default() }).await;
    assert_eq!(etcd.get("/sm/app/aliases/current").await.as_deref(), Some("4f2a91c"));

    let mut times = Vec::new();
    for version in ["b001bee", "0123456", "b001bee", "0123456"] {
        etcd.put(
            "/sm/app/rules",
            &format!("routes: [{{name: qa, when: {{header.x-qa: yes}}, to: {version}}}]"),
        )
        .await;
        times.push(in_force(&switchman, ("x-qa", "yes"), version).await);
    }
    println!("rule edit by etcd to in force: {times:?}");

    etcd.put("/sm/app/routes/10-beta", "{when: {header.x-beta: yes}, to: b001bee}").await;
    in_force(&switchman, ("x-beta", "yes"), "b001bee").await;

    switchman.done(&["promote", "b001bee"]).await;
    assert_eq!(etcd.get("/sm/app/aliases/current").await.as_deref(), Some("b001bee"));
    assert_eq!(etcd.get("/sm/app/aliases/previous").await.as_deref(), Some("4f2a91c"));
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
    etcd.put("/sm/app/aliases/current", "4f2a91c").await;
    in_force(&switchman, ("x-none", "1"), "4f2a91c").await;
}

#[tokio::test]
async fn etcd_away_changes_nothing_also_after_a_restart_of_switchman() {
    let mut etcd = Etcd::start().await;
    let top = format!("etcd: {{endpoints: [{:?}], prefix: /sm}}\n", etcd.url());
    let mut switchman = three_versions(Setup { top: &top, ..Setup::default() }).await;
    switchman.done(&["promote", "b001bee"]).await;
    etcd.put("/sm/app/rules", "routes: [{name: qa, when: {header.x-qa: yes}, to: 0123456}]").await;
    in_force(&switchman, ("x-qa", "yes"), "0123456").await;

    etcd.kill().await;
    let refused = switchman.command(&["promote", "4f2a91c"]).await;
    assert!(matches!(refused.status.code(), Some(1 | 3)), "{refused:?}");
    switchman.restart().await;
    switchman.wait_state("b001bee", "ready").await;
    switchman.wait_state("0123456", "ready").await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
    assert_eq!(get_with(&switchman.url("/"), &[("x-qa", "yes")]).await.unwrap().version(), "0123456");
    let rules = get(&format!("http://{}/services/app/rules", switchman.admin)).await.unwrap().json();
    assert!(rules["stale_since"].is_string(), "{rules}");

    etcd.restart().await;
    etcd.put("/sm/app/rules", "routes: [{name: qa, when: {header.x-qa: yes}, to: 4f2a91c}]").await;
    switchman.wait_state("4f2a91c", "ready").await;
    in_force(&switchman, ("x-qa", "yes"), "4f2a91c").await;
}

#[tokio::test]
async fn a_flipr_document_routes_as_flipr_would() {
    let rules = r#"
rules:
  - {type: list, input: cookie.user_id, property: users}
  - {type: equal, input: header.x-version, property: pin}
  - {type: percent, input: cookie.uid}
version:
  values:
    - {value: b001bee, users: [1234, 5678], percent: 20}
    - {value: 0123456, pin: next}
    - {value: current}
"#;
    let switchman = three_versions(Setup { rules: Some(rules), ..Setup::default() }).await;
    // idToPercent: 127.0.0.1 is .1629 and below 20 %, 1234 is .7590, bob is .7896.
    for (headers, version) in [
        (vec![], "4f2a91c"),
        (vec![("cookie", "user_id=1234")], "b001bee"),
        (vec![("x-version", "NEXT")], "0123456"),
        (vec![("cookie", "uid=127.0.0.1")], "b001bee"),
        (vec![("cookie", "uid=bob")], "4f2a91c"),
    ] {
        let answer = get_with(&switchman.url("/"), &headers).await.unwrap();
        assert_eq!(answer.version(), version, "{headers:?}");
    }
}
