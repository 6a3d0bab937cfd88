//! Workers on unix sockets, from the command line to the client.

use super::super::support::eventually;
use super::super::support::http::{Load, get};
use super::super::support::switchman::{Setup, Switchman};
use std::path::{Path, PathBuf};

/// The socket files that there are.
fn sockets(switchman: &Switchman) -> Vec<PathBuf> {
    let folder = switchman.folder.path().join("state/run/@sockets");
    std::fs::read_dir(folder).into_iter().flatten().map(|entry| entry.unwrap().path()).collect()
}

fn addresses(version: &serde_json::Value) -> Vec<String> {
    version["workers"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|w| w["address"].as_str())
        .map(str::to_owned)
        .collect()
}

#[tokio::test]
async fn promote_and_restart_under_load_lose_nothing_and_leave_no_socket() {
    let setup = Setup { service: "    workers: 2\n    upstream: unix\n", ..Setup::default() };
    let mut switchman = Switchman::start(setup).await;
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures");
    let first = switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.rsync(&fixtures.join("node-app"), "aaaaaa1").await;
    switchman.rsync(&fixtures.join("python-app"), "bbbbbb2").await;
    switchman.wait_state("aaaaaa1", "ready").await;
    switchman.wait_state("bbbbbb2", "ready").await;
    let folder = switchman.folder.path().canonicalize().unwrap().join("state/run/@sockets");
    for address in addresses(&first) {
        assert!(address.starts_with(&format!("unix:{}/", folder.display())), "{address}");
    }
    assert_eq!(sockets(&switchman).len(), 6);

    let load = Load::start(&switchman.url("/"), 8);
    load.more(200).await;
    for version in ["aaaaaa1", "bbbbbb2", "4f2a91c", "aaaaaa1"] {
        switchman.done(&["promote", version]).await;
        assert_eq!(get(&switchman.url("/")).await.unwrap().version(), version);
        load.more(200).await;
    }
    for version in ["aaaaaa1", "4f2a91c"] {
        let before = addresses(&switchman.version(version).await.unwrap());
        switchman.done(&["promote", version]).await;
        load.more(200).await;
        switchman.done(&["restart", version]).await;
        switchman
            .wait_version(version, "has two other workers", |v| {
                let now = addresses(v);
                v["state"] == "ready" && now.len() == 2 && now.iter().all(|a| !before.contains(a))
            })
            .await;
        load.more(200).await;
    }
    let tally = load.stop().await;
    assert!(tally.failures.is_empty(), "{tally}");
    assert!(["4f2a91c", "aaaaaa1", "bbbbbb2"].iter().all(|version| tally.of(version) > 0), "{tally}");
    eventually("only living workers have sockets", async || (sockets(&switchman).len() == 6).then_some(()))
        .await;

    switchman.terminate().await;
    assert!(sockets(&switchman).is_empty(), "{:?}", sockets(&switchman));
}

#[tokio::test]
async fn sockets_that_a_killed_switchman_left_are_in_nobodys_way() {
    let setup = Setup {
        service: "    upstream: unix\n    run: sleep 1000\n    ready: {after: 20ms}\n",
        ..Setup::default()
    };
    let mut switchman = Switchman::start(setup).await;
    let build = switchman.build("4f2a91c");
    std::fs::write(
        build.join("switchman.yaml"),
        format!("run: [{:?}]\n", super::super::support::switchman::worker_program()),
    )
    .unwrap();
    switchman.rsync(&build, "4f2a91c").await;
    let before = switchman.wait_state("4f2a91c", "ready").await;
    // Its last moments: the worker is killed too, and removes nothing.
    let pid = rustix::process::Pid::from_raw(before["workers"][0]["pid"].as_i64().unwrap() as i32).unwrap();
    eventually("it listens", async || (sockets(&switchman).len() == 1).then_some(())).await;
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(switchman.pid() as i32).unwrap(),
        rustix::process::Signal::STOP,
    )
    .unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    switchman.kill_and_start().await;
    switchman.wait_state("4f2a91c", "ready").await;
    eventually("it answers", async || get(&switchman.url("/")).await.ok().filter(|a| a.status == 200)).await;
    assert_eq!(sockets(&switchman).len(), 1);
}
