//! What a person sees of uploads that are not whole, and of files that change under a version that runs.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use super::super::support::http::get;
use super::super::support::switchman::{Setup, Switchman};

fn pids(version: &Value) -> BTreeSet<u64> {
    version["workers"].as_array().unwrap().iter().filter_map(|worker| worker["pid"].as_u64()).collect()
}

fn reason(version: &Value) -> &str {
    version["reason"].as_str().unwrap_or_default()
}

fn sums(folder: &Path) {
    let script = "find . -type f ! -name manifest.sha256 -exec sha256sum {} + > manifest.sha256";
    let done = std::process::Command::new("sh").args(["-c", script]).current_dir(folder).status().unwrap();
    assert!(done.success());
}

/// Waits until all workers of a version are others than these, and ready.
async fn wait_replaced(switchman: &Switchman, version: &str, old: &BTreeSet<u64>) -> Value {
    let replaced = |v: &Value| {
        let workers = v["workers"].as_array().unwrap();
        workers.iter().all(|w| w["state"] == "ready")
            && pids(v).is_disjoint(old)
            && pids(v).len() == old.len()
    };
    switchman.wait_version(version, "has new workers", replaced).await
}

#[tokio::test]
async fn why_a_version_does_not_start_is_shown_and_ends_with_the_last_file() {
    let service = "    complete_when: manifest.sha256\n";
    let switchman = Switchman::start(Setup { service, ..Setup::default() }).await;
    let build = switchman.build("4f2a91c");
    switchman.rsync(&build, "4f2a91c").await;
    let says = |why: &'static str| move |v: &Value| v["state"] == "arriving" && reason(v) == why;
    switchman.wait_version("4f2a91c", "waits", says("waits for manifest.sha256")).await;
    let refused = switchman.command(&["start", "4f2a91c"]).await;
    assert_eq!(refused.status.code(), Some(3));

    // The list is right, and a file is not: the version fails, and cannot be started by hand.
    sums(&build);
    let target = switchman.root().join("4f2a91c");
    std::fs::write(target.join("public/index.html"), "half").unwrap();
    std::fs::copy(build.join("manifest.sha256"), target.join("manifest.sha256")).unwrap();
    let failed = switchman.wait_state("4f2a91c", "failed").await;
    assert_eq!(
        reason(&failed),
        "manifest.sha256: public/index.html is not what it says (another checksum)",
        "{failed}"
    );
    let refused = switchman.command(&["start", "4f2a91c"]).await;
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("are not what their list of checksums says"), "{said}");

    std::fs::copy(build.join("public/index.html"), target.join("public/index.html")).unwrap();
    let ready = switchman.wait_state("4f2a91c", "ready").await;
    assert_eq!(ready["reason"], Value::Null, "{ready}");
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_version_whose_files_changed_says_so_until_it_is_restarted() {
    let switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    let before = switchman.deploy_ready("4f2a91c").await;
    assert_eq!(before.get("modified"), None, "{before}");
    let target = switchman.root().join("4f2a91c");
    std::fs::write(target.join("app.log"), "started\n").unwrap();
    std::fs::write(target.join("public/index.html"), "hot fix").unwrap();
    let modified = switchman.wait_version("4f2a91c", "is modified", |v| v["modified"] == true).await;
    assert_eq!(
        reason(&modified),
        "modified: public/index.html; it still runs what was there before; hint: switchman restart 4f2a91c"
    );
    assert_eq!(pids(&modified), pids(&before), "nothing restarts by itself");
    let table = switchman.done(&["versions"]).await;
    assert!(table.contains("modified"), "{table}");

    switchman.done(&["restart", "4f2a91c"]).await;
    let after = wait_replaced(&switchman, "4f2a91c", &pids(&before)).await;
    assert_eq!((after.get("modified"), &after["reason"]), (None, &Value::Null), "{after}");
}

#[tokio::test]
async fn what_changed_before_switchman_was_killed_is_still_said_of_the_workers_that_lived_on() {
    let mut switchman = Switchman::start(Setup::default()).await;
    let before = switchman.deploy_ready("4f2a91c").await;
    let target = switchman.root().join("4f2a91c");
    std::fs::write(target.join("app.log"), "started\n").unwrap();
    std::fs::write(target.join("public/index.html"), "hot fix").unwrap();
    switchman.kill_and_start().await;
    let modified = switchman.wait_version("4f2a91c", "is modified", |v| v["modified"] == true).await;
    assert_eq!(pids(&modified), pids(&before), "the workers live on");
    assert!(reason(&modified).starts_with("modified: public/index.html;"), "{modified}");
}

#[tokio::test]
async fn a_touched_restart_file_restarts_its_own_version_and_no_other() {
    let switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    let first = switchman.deploy_ready("4f2a91c").await;
    let other = switchman.deploy_ready("b001bee").await;
    let tmp = switchman.root().join("4f2a91c/tmp");
    std::fs::create_dir(&tmp).unwrap();
    std::fs::write(tmp.join("restart.txt"), "").unwrap();
    let replaced = wait_replaced(&switchman, "4f2a91c", &pids(&first)).await;
    assert_eq!(replaced.get("modified"), None, "{replaced}");
    let events = switchman.done(&["events"]).await;
    assert!(events.contains("asked for: restart (tmp/restart.txt was touched)"), "{events}");
    assert_eq!(pids(&switchman.version("b001bee").await.unwrap()), pids(&other));

    // One that a person has stopped stays so.
    switchman.done(&["stop", "b001bee"]).await;
    let tmp = switchman.root().join("b001bee/tmp");
    std::fs::create_dir(&tmp).unwrap();
    std::fs::write(tmp.join("restart.txt"), "").unwrap();
    super::super::support::eventually("the request is logged", || async {
        switchman.log().contains("not restarted, it is stopped").then_some(())
    })
    .await;
    assert_eq!(switchman.version("b001bee").await.unwrap()["state"], "stopped");
}

#[tokio::test]
async fn with_restart_on_change_an_upload_over_a_running_version_restarts_it() {
    let service = "    workers: 2\n    restart_on_change: true\n";
    let switchman = Switchman::start(Setup { service, ..Setup::default() }).await;
    let before = switchman.deploy_ready("4f2a91c").await;
    let build = switchman.build("4f2a91c");
    std::fs::write(build.join("public/index.html"), "<h1>the next build</h1>").unwrap();
    switchman.rsync(&build, "4f2a91c").await;
    let after = wait_replaced(&switchman, "4f2a91c", &pids(&before)).await;
    assert_eq!((after.get("modified"), &after["reason"]), (None, &Value::Null), "{after}");
}
