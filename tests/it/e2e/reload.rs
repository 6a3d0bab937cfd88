//! `switchman reload` and SIGHUP: each kind of change, and files that change nothing.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::super::support::eventually;
use super::super::support::http::{Load, client, get, get_with, request, send};
use super::super::support::switchman::{Setup, Switchman, free_address};

/// Replaces `from` by `to` in the configuration, as an editor does.
fn edit(switchman: &Switchman, from: &str, to: &str) {
    let file = switchman.folder.path().join("switchman.yaml");
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains(from), "{from} is not in:\n{text}");
    std::fs::write(file, text.replacen(from, to, 1)).unwrap();
}

async fn reload(switchman: &Switchman) -> Value {
    serde_json::from_str(&switchman.done(&["reload", "--json"]).await).unwrap()
}

async fn refused(switchman: &Switchman) -> String {
    let output = switchman.command(&["reload"]).await;
    assert_eq!(output.status.code(), Some(3));
    String::from_utf8(output.stderr).unwrap()
}

/// One version that is current.
async fn serving(setup: Setup<'_>) -> Switchman {
    let switchman = Switchman::start(setup).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    switchman
}

fn pids(version: &Value) -> Vec<u64> {
    version["workers"].as_array().unwrap().iter().map(|w| w["pid"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn what_did_not_change_is_not_touched() {
    let switchman = serving(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    let before = pids(&switchman.version("4f2a91c").await.unwrap());
    let load = Load::start(&switchman.url("/"), 4);
    load.more(50).await;
    let idle = client();
    let ask = || http::Request::get(switchman.url("/")).body(Default::default()).unwrap();
    send(&idle, ask()).await.unwrap();

    assert_eq!(reload(&switchman).await, serde_json::json!({"changed": [], "restart_needed": []}));
    let more = free_address();
    edit(&switchman, "listen: [", &format!("listen: [\"{more}\", "));
    edit(&switchman, "settle: 200ms", "settle: 100ms");
    edit(&switchman, "services:", "limits: {uri: 1KiB}\nservices:");
    let answer = reload(&switchman).await;
    assert_eq!(answer["changed"], serde_json::json!(["listen", "limits", "services.app.settle"]));
    assert_eq!(get(&format!("http://{more}/")).await.unwrap().version(), "4f2a91c");
    let long = format!("/{}", "x".repeat(2000));
    assert_eq!(
        get(&switchman.url(&long)).await.unwrap().status,
        414,
        "the new limit holds on the old address"
    );

    edit(&switchman, &format!("\"{more}\", "), "");
    edit(&switchman, "limits: {uri: 1KiB}\n", "");
    assert_eq!(reload(&switchman).await["changed"], serde_json::json!(["listen", "limits"]));
    eventually("the address is closed", || async {
        std::net::TcpStream::connect(more).is_err().then_some(())
    })
    .await;
    assert_eq!(get(&switchman.url(&long)).await.unwrap().version(), "4f2a91c", "the worker is asked");
    switchman.deploy_ready("b001bee").await;
    send(&idle, ask()).await.unwrap();

    load.more(50).await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");
    assert_eq!(pids(&switchman.version("4f2a91c").await.unwrap()), before);
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_every_problem_is_told() {
    let switchman = serving(Setup::default()).await;
    edit(&switchman, "settle: 200ms", "settle: 200\n    wrokers: 2");
    let said = refused(&switchman).await;
    for words in ["switchman.yaml:", "`200` has no unit", "did you mean `workers`?", "switchman reload"] {
        assert!(said.contains(words), "{words} is not in {said}");
    }
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");

    edit(&switchman, "settle: 200\n    wrokers: 2", "settle: 200ms");
    edit(&switchman, "node: host-a", "node: host-b\nthreads: 7");
    let said = refused(&switchman).await;
    assert!(said.contains("`threads`, `node`") && said.contains("switchman upgrade"), "{said}");

    edit(&switchman, "node: host-b\nthreads: 7", "node: host-a");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    edit(&switchman, "listen: [", &format!("listen: [\"{address}\", "));
    let output = switchman.command(&["reload"]).await;
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(&format!("cannot listen on {address}")) && said.contains("ss -ltnp"), "{said}");

    drop(taken);
    assert_eq!(reload(&switchman).await["changed"], serde_json::json!(["listen"]));
    assert_eq!(get(&format!("http://{address}/")).await.unwrap().version(), "4f2a91c");
}

#[tokio::test]
async fn new_settings_of_a_version_wait_for_its_restart() {
    let switchman = serving(Setup::default()).await;
    let before = pids(&switchman.version("4f2a91c").await.unwrap());
    edit(&switchman, "    settle: 200ms", "    env: {COLOUR: blue}\n    settle: 200ms");
    let answer = reload(&switchman).await;
    assert_eq!(answer["changed"], serde_json::json!(["services.app.env"]));
    assert_eq!(answer["restart_needed"], serde_json::json!([{"service": "app", "version": "4f2a91c"}]));
    assert_eq!(pids(&switchman.version("4f2a91c").await.unwrap()), before);
    let environment = |pid: u64| {
        let process = procfs::process::Process::new(pid as i32).unwrap();
        process.environ().unwrap().get(std::ffi::OsStr::new("COLOUR")).map(|v| v.to_str().unwrap().to_owned())
    };
    assert_eq!(environment(before[0]), None);
    switchman.done(&["restart", "4f2a91c"]).await;
    let after = pids(&switchman.version("4f2a91c").await.unwrap());
    assert_eq!(environment(after[0]).as_deref(), Some("blue"));
    assert_eq!(reload(&switchman).await["restart_needed"], serde_json::json!([]));
}

#[tokio::test]
async fn services_come_and_go() {
    let switchman = serving(Setup::default()).await;
    let folder = switchman.folder.path();
    let shop = folder.join("shop");
    std::fs::create_dir(&shop).unwrap();
    std::fs::rename(switchman.build("c0ffee1"), shop.join("c0ffee1")).unwrap();
    let file = folder.join("switchman.yaml");
    let before = std::fs::read_to_string(&file).unwrap();
    let run = before.lines().find(|line| line.contains("run:")).unwrap();
    let added = format!(
        "{before}  shop:\n    root: shop\n    hosts: [shop.example]\n{run}\n    ready: {{http: /healthz, interval: 50ms}}\n"
    );
    std::fs::write(&file, &added).unwrap();
    assert_eq!(reload(&switchman).await["changed"], serde_json::json!(["services.shop"]));
    switchman.wait_state("c0ffee1", "ready").await;
    let ask = |host: &'static str| {
        let url = switchman.url("/");
        async move { get_with(&url, &[("host", host)]).await.unwrap().version().to_owned() }
    };
    eventually("the new service answers", || async {
        (ask("shop.example").await == "c0ffee1").then_some(())
    })
    .await;
    assert_eq!(ask("other.example").await, "4f2a91c");
    switchman.done(&["tag", "beta", "c0ffee1", "--service", "shop"]).await;

    std::fs::write(&file, added.replace("shop.example", "mall.example")).unwrap();
    assert_eq!(reload(&switchman).await["changed"], serde_json::json!(["services.shop.hosts"]));
    eventually("its host is another one", || async {
        (ask("mall.example").await == "c0ffee1" && ask("shop.example").await == "4f2a91c").then_some(())
    })
    .await;

    let slow = tokio::spawn({
        let url = switchman.url("/slow/500");
        async move { get_with(&url, &[("host", "mall.example")]).await }
    });
    switchman.wait_version("c0ffee1", "answers the slow request", |v| v["traffic"]["in_flight"] == 1).await;
    std::fs::write(&file, &before).unwrap();
    assert_eq!(reload(&switchman).await["changed"], serde_json::json!(["services.shop"]));
    assert_eq!(ask("mall.example").await, "4f2a91c", "its hosts lead to it no more");
    assert_eq!(slow.await.unwrap().unwrap().version(), "c0ffee1", "what ran has ended well");
    eventually("it is gone", || async { switchman.version("c0ffee1").await.is_none().then_some(()) }).await;
    assert!(!has_process_in(&shop));
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
}

fn has_process_in(folder: &Path) -> bool {
    !super::super::support::switchman::processes_in(folder).is_empty()
}

#[tokio::test]
async fn another_rule_document_and_another_root_are_taken() {
    let switchman = serving(Setup { rules: Some("default: current\n"), ..Setup::default() }).await;
    switchman.deploy_ready("b001bee").await;
    let folder = switchman.folder.path();
    std::fs::write(folder.join("other.yaml"), "default: b001bee\n").unwrap();
    edit(&switchman, "rules: rules.yaml", "rules: other.yaml");
    assert_eq!(reload(&switchman).await["changed"], serde_json::json!(["services.app.rules"]));
    eventually("the other document is in force", || async {
        (get(&switchman.url("/")).await.unwrap().version() == "b001bee").then_some(())
    })
    .await;

    // b001bee carries traffic and is not under the new root: it goes on.
    std::fs::create_dir(folder.join("elsewhere")).unwrap();
    std::fs::rename(switchman.build("c0ffee1"), folder.join("elsewhere/c0ffee1")).unwrap();
    edit(&switchman, "root: app", "root: elsewhere");
    assert_eq!(reload(&switchman).await["changed"], serde_json::json!(["services.app.root"]));
    switchman.wait_state("c0ffee1", "ready").await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
    switchman
        .wait_version("b001bee", "says that its folder is gone", |v| {
            v["reason"].as_str().is_some_and(|reason| reason.contains("is gone"))
        })
        .await;
}

#[tokio::test]
async fn hup_reloads_and_logs_what_is_wrong() {
    let switchman = serving(Setup::default()).await;
    let pid = Pid::from_raw(switchman.pid() as i32).unwrap();
    let log = |words: &'static str| {
        let switchman = &switchman;
        async move { eventually(words, || async { switchman.log().contains(words).then_some(()) }).await }
    };
    edit(&switchman, "settle: 200ms", "settle: 200");
    kill_process(pid, Signal::HUP).unwrap();
    log("`200` has no unit").await;
    log("the signal HUP changed nothing").await;
    edit(&switchman, "settle: 200", "settle: 300ms");
    kill_process(pid, Signal::HUP).unwrap();
    log("the configuration was read anew changed=[\"services.app.settle\"]").await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
}

#[tokio::test]
async fn an_upgrade_of_a_binary_by_name_is_not_for_everybody() {
    let switchman = serving(Setup::default()).await;
    let token = std::fs::read_to_string(switchman.folder.path().join("state/admin.token")).unwrap();
    let url = format!("http://{}/upgrade", switchman.admin);
    let bearer = format!("Bearer {}", token.trim());
    let answer =
        request("POST", &url, &[("authorization", &bearer)], r#"{"binary": "/bin/sh"}"#).await.unwrap();
    assert_eq!(answer.status, 403, "{}", answer.text());
}
