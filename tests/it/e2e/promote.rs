//! Promote, roll back, restart, stop: under load, and no request fails.

use super::super::support::http::{Load, get, request};
use super::super::support::switchman::{Setup, Switchman};

async fn two_versions() -> Switchman {
    let switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.deploy_ready("b001bee").await;
    switchman
}

#[tokio::test]
async fn promote_and_rollback_under_load_lose_nothing() {
    let switchman = two_versions().await;
    let load = Load::start(&switchman.url("/"), 8);
    load.more(200).await;
    assert_eq!(load.tally().of("b001bee"), 0);

    switchman.done(&["promote", "b001bee"]).await;
    let promoted = switchman.version("b001bee").await.unwrap();
    assert_eq!(promoted["aliases"], serde_json::json!(["current", "latest"]), "promote reads its own write");
    assert_eq!(promoted["dark"], false);
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
    assert_eq!(switchman.version("4f2a91c").await.unwrap()["aliases"], serde_json::json!(["previous"]));
    assert_eq!(switchman.version("4f2a91c").await.unwrap()["dark"], true);
    load.more(200).await;

    switchman.done(&["rollback"]).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
    load.more(200).await;

    for _ in 0..5 {
        switchman.done(&["promote", "latest"]).await;
        switchman.done(&["promote", "previous"]).await;
    }
    load.more(100).await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty() && tally.of("b001bee") > 0 && tally.of("4f2a91c") > 0, "{tally}");
}

#[tokio::test]
async fn a_rolling_restart_under_load_loses_nothing() {
    let switchman = two_versions().await;
    let before = switchman.version("4f2a91c").await.unwrap();
    let load = Load::start(&switchman.url("/"), 8);
    load.more(200).await;
    switchman.done(&["restart", "4f2a91c"]).await;
    let after = switchman
        .wait_version("4f2a91c", "has two other workers", |v| {
            let pids = |v: &serde_json::Value| -> Vec<u64> {
                v["workers"].as_array().unwrap().iter().filter_map(|w| w["pid"].as_u64()).collect()
            };
            v["state"] == "ready"
                && pids(v).len() == 2
                && pids(v).iter().all(|pid| !pids(&before).contains(pid))
        })
        .await;
    load.more(200).await;
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}\n{after}");
}

#[tokio::test]
async fn what_carries_traffic_is_not_stopped_by_accident() {
    let switchman = two_versions().await;
    let refused = switchman.command(&["stop", "4f2a91c"]).await;
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("error:") && said.contains("hint:"), "{said}");
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");

    switchman.done(&["stop", "b001bee"]).await;
    let stopped = switchman.wait_state("b001bee", "stopped").await;
    assert!(stopped["workers"].as_array().unwrap().iter().all(|w| w["pid"].is_null()), "{stopped}");
    let refused = switchman.command(&["promote", "b001bee"]).await;
    assert_eq!(refused.status.code(), Some(3), "a stopped version is not promoted");

    switchman.done(&["start", "b001bee"]).await;
    switchman.wait_state("b001bee", "ready").await;
    switchman.done(&["promote", "b001bee"]).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
}

#[tokio::test]
async fn tags_name_versions_and_exit_statuses_tell() {
    let switchman = two_versions().await;
    switchman.done(&["tag", "beta", "b001bee"]).await;
    assert_eq!(switchman.version("b001bee").await.unwrap()["aliases"], serde_json::json!(["beta", "latest"]));
    switchman.done(&["promote", "beta"]).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
    switchman.done(&["untag", "beta"]).await;
    assert_eq!(
        switchman.version("b001bee").await.unwrap()["aliases"],
        serde_json::json!(["current", "latest"])
    );

    for (args, status) in [
        (vec!["promote", "fffffff"], 3),
        (vec!["untag", "beta"], 3),
        (vec!["tag", "current", "4f2a91c"], 3),
        (vec!["promote"], 2),
        (vec!["no-such-command"], 2),
    ] {
        let output = switchman.command(&args).await;
        assert_eq!(
            output.status.code(),
            Some(status),
            "{args:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[tokio::test]
async fn aliases_and_stops_survive_a_restart_of_switchman() {
    let mut switchman = two_versions().await;
    switchman.deploy_ready("c0ffee1").await;
    switchman.done(&["promote", "b001bee"]).await;
    switchman.done(&["stop", "c0ffee1"]).await;
    switchman.restart().await;
    switchman.wait_state("b001bee", "ready").await;
    switchman.wait_state("4f2a91c", "ready").await;
    assert_eq!(switchman.version("b001bee").await.unwrap()["aliases"][0], "current");
    assert_eq!(switchman.version("4f2a91c").await.unwrap()["aliases"][0], "previous");
    let stopped = switchman.wait_state("c0ffee1", "stopped").await;
    assert_eq!(stopped["aliases"], serde_json::json!(["latest"]), "the order of arrival survives");
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
}

#[tokio::test]
async fn over_tcp_a_change_wants_the_token_and_reading_does_not() {
    let switchman = two_versions().await;
    let url = format!("http://{}/services/app/versions/b001bee/promote", switchman.admin);
    let refused = request("POST", &url, &[], "").await.unwrap();
    assert_eq!((refused.status, refused.header("content-type")), (401, Some("application/problem+json")));
    let token = std::fs::read_to_string(switchman.folder.path().join("state/admin.token")).unwrap();
    let bearer = format!("Bearer {}", token.trim());
    let done = request("POST", &url, &[("authorization", &bearer)], "").await.unwrap();
    assert_eq!(done.status, 200, "{}", done.text());
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "b001bee");
    assert!(!switchman.log().contains(token.trim()), "the token is in no log");
}

#[tokio::test]
async fn promote_auto_moves_current_once_the_new_version_is_ready() {
    let switchman = Switchman::start(Setup { service: "    promote: auto\n", ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.deploy("b001bee").await;
    switchman.wait_version("b001bee", "is current", |v| v["aliases"][0] == "current").await;
    switchman.done(&["rollback"]).await;
    switchman.deploy_ready("c0ffee1").await;
    switchman.wait_version("c0ffee1", "is current", |v| v["aliases"][0] == "current").await;
    assert_eq!(switchman.version("4f2a91c").await.unwrap()["aliases"], serde_json::json!(["previous"]));
}
