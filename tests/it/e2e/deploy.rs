//! A folder is rsynced: a version starts, dark, on a port that was picked for it.

use super::super::support::http::get;
use super::super::support::switchman::{Setup, Switchman};

#[tokio::test]
async fn the_first_version_becomes_current_and_the_next_is_dark() {
    let switchman = Switchman::start(Setup::default()).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().header("x-switchman-error"), Some("no-current"));

    switchman.deploy("4f2a91c").await;
    switchman
        .wait_version("4f2a91c", "is current", |v| v["aliases"] == serde_json::json!(["current", "latest"]))
        .await;
    let answer = get(&switchman.url("/")).await.unwrap();
    assert_eq!((answer.status, answer.version()), (200, "4f2a91c"), "{}", answer.text());

    let second = switchman.deploy_ready("b001bee").await;
    assert_eq!(second["dark"], true, "{second}");
    assert_eq!(second["aliases"], serde_json::json!(["latest"]));
    for _ in 0..20 {
        assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
    }
    assert_eq!(switchman.version("b001bee").await.unwrap()["traffic"]["requests"], 0);
}

#[tokio::test]
async fn a_worker_gets_its_environment_and_runs_in_its_folder() {
    let switchman = Switchman::start(Setup {
        service: "    workers: 2\n    env: {COLOUR: blue, ZIP: 01234}\n",
        ..Setup::default()
    })
    .await;
    let version = switchman.deploy_ready("4f2a91c").await;
    let addresses: Vec<&str> =
        version["workers"].as_array().unwrap().iter().map(|w| w["address"].as_str().unwrap()).collect();
    assert_eq!(addresses.len(), 2);
    assert_ne!(addresses[0], addresses[1]);
    for (id, address) in addresses.iter().enumerate() {
        let env = get(&format!("http://{address}/env")).await.unwrap().json();
        let port = address.strip_prefix("127.0.0.1:").unwrap();
        for (name, value) in [
            ("PORT", port),
            ("HOST", "127.0.0.1"),
            ("COMMIT", "4f2a91c"),
            ("SWITCHMAN_SERVICE", "app"),
            ("SWITCHMAN_VERSION", "4f2a91c"),
            ("SWITCHMAN_WORKER", &id.to_string()),
        ] {
            assert_eq!(env["env"][name], value, "{name} of worker {id}: {env}");
        }
        assert!(env["env"]["PIDFILE"].as_str().unwrap().starts_with('/'), "{env}");
        assert_eq!(env["cwd"], switchman.root().join("4f2a91c").canonicalize().unwrap().to_str().unwrap());
    }
}

#[tokio::test]
async fn twenty_versions_arrive_at_once_and_all_run() {
    let switchman = Switchman::start(Setup::default()).await;
    let versions: Vec<String> = (0..20).map(|n| format!("{n:02}abcde")).collect();
    let uploads = versions.iter().map(|v| switchman.deploy(v));
    futures_util::future::join_all(uploads).await;
    let mut ports = std::collections::BTreeSet::new();
    for version in &versions {
        let ready = switchman.wait_state(version, "ready").await;
        ports.insert(ready["workers"][0]["address"].as_str().unwrap().to_owned());
    }
    assert_eq!(ports.len(), 20, "every worker has a port of its own");
    let current = get(&switchman.url("/")).await.unwrap();
    let all = switchman.versions().await;
    let dark = all["versions"].as_array().unwrap().iter().filter(|v| v["dark"] == true).count();
    assert_eq!(dark, 19, "all but {} are dark", current.version());
}

#[tokio::test]
async fn what_is_no_version_is_listed_with_its_reason() {
    let switchman = Switchman::start(Setup::default()).await;
    std::fs::write(switchman.root().join("notes.txt"), "x").unwrap();
    std::fs::create_dir(switchman.root().join("node_modules")).unwrap();
    let url = format!("http://{}/versions?all=1", switchman.admin);
    let ignored = super::super::support::eventually("two ignored entries", || async {
        let all = get(&url).await.unwrap().json();
        all["ignored"].as_array().filter(|i| i.len() == 2).cloned()
    })
    .await;
    assert!(
        ignored.iter().all(|i| i["service"] == "app" && !i["reason"].as_str().unwrap().is_empty()),
        "{ignored:?}"
    );
    assert!(switchman.versions().await["versions"].as_array().unwrap().is_empty());
}

#[tokio::test]
async fn a_folder_that_vanishes_under_traffic_goes_on_serving_and_says_so() {
    let switchman = Switchman::start(Setup::default()).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.deploy_ready("b001bee").await;
    std::fs::remove_dir_all(switchman.root().join("4f2a91c")).unwrap();
    std::fs::remove_dir_all(switchman.root().join("b001bee")).unwrap();
    let kept =
        switchman.wait_version("4f2a91c", "says that its folder is gone", |v| !v["reason"].is_null()).await;
    assert_eq!(kept["state"], "ready", "{kept}");
    assert_eq!(get(&switchman.url("/")).await.unwrap().version(), "4f2a91c");
    super::super::support::eventually("the dark one is gone", || async {
        switchman.version("b001bee").await.is_none().then_some(())
    })
    .await;
}
