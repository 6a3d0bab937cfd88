//! What people get wrong: each gets a message that names file, key and value, and nothing that works stops.

use std::process::Stdio;

use super::super::support::http::get;
use super::super::support::switchman::{PROGRAM, Setup, Switchman, command};

/// Runs `serve` on a configuration that cannot work; answers with what it says.
async fn serve_fails(config: &str) -> String {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("app")).unwrap();
    std::fs::write(folder.path().join("switchman.yaml"), config).unwrap();
    let output = command(folder.path(), &["serve"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("hint:"), "{said}");
    said
}

#[tokio::test]
async fn all_problems_of_a_configuration_are_told_at_once() {
    let said = serve_fails(
        "lisen: 127.0.0.1:1\nstate: s\nservices:\n  app:\n    root: app\n    run: x\n    settle: 5\n    versions: \"[\"\n    workers: two\n",
    )
    .await;
    for part in ["lisen", "listen", "settle", "`5`", "versions", "workers", "two", "switchman.yaml:"] {
        assert!(said.contains(part), "`{part}` is missing:\n{said}");
    }
}

#[tokio::test]
async fn a_port_in_use_is_named_for_each_listener() {
    let switchman = Switchman::start(Setup::default()).await;
    let taken = switchman.address;
    let said = serve_fails(&format!(
        "listen: [\"{taken}\"]\nadmin: {{listen: \"127.0.0.1:0\"}}\nstate: s\nservices: {{app: {{root: app, run: x}}}}\n"
    ))
    .await;
    assert!(said.contains(&taken.to_string()), "{said}");
    let taken = switchman.admin;
    let said = serve_fails(&format!(
        "listen: [\"127.0.0.1:0\"]\nadmin: {{listen: \"{taken}\"}}\nstate: s\nservices: {{app: {{root: app, run: x}}}}\n"
    ))
    .await;
    assert!(said.contains(&taken.to_string()), "{said}");
}

#[tokio::test]
async fn a_second_switchman_on_the_same_state_is_refused() {
    let switchman = Switchman::start(Setup::default()).await;
    let output = command(switchman.folder.path(), &["serve"]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains(&switchman.pid().to_string()) && said.contains("hint:"), "{said}");
    assert_eq!(get(&format!("http://{}/healthz", switchman.admin)).await.unwrap().status, 200);
}

#[tokio::test]
async fn a_deploy_root_that_is_not_there_is_told_and_heals() {
    let switchman = Switchman::start(Setup::default()).await;
    std::fs::remove_dir(switchman.root()).unwrap();
    let url = format!("http://{}/versions?all=1", switchman.admin);
    super::super::support::eventually("the problem is shown", || async {
        get(&url).await.unwrap().text().contains(switchman.root().to_str().unwrap()).then_some(())
    })
    .await;
    std::fs::create_dir(switchman.root()).unwrap();
    switchman.deploy_ready("4f2a91c").await;
}

#[tokio::test]
async fn an_alias_that_leads_nowhere_is_told_and_current_is_an_error() {
    let mut switchman = Switchman::start(Setup::default()).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["aliases"][0] == "current").await;
    switchman.done(&["tag", "beta", "4f2a91c"]).await;
    switchman.terminate().await;
    std::fs::remove_dir_all(switchman.root().join("4f2a91c")).unwrap();
    switchman.restart().await;
    let all = get(&format!("http://{}/versions?all=1", switchman.admin)).await.unwrap().json();
    let told = |key: &str| {
        let found = all["problems"].as_array().unwrap().iter().find(|p| p["key"] == key);
        found.unwrap_or_else(|| panic!("no problem at {key}: {all}"))["severity"].clone()
    };
    assert_eq!((told("aliases.current"), told("aliases.beta")), ("error".into(), "warning".into()));
    let answer = get(&switchman.url("/")).await.unwrap();
    assert_eq!((answer.status, answer.header("x-switchman-error")), (503, Some("no-version")));
    let shown = switchman.done(&["versions", "--all"]).await;
    assert!(shown.contains("4f2a91c"), "{shown}");
}

#[tokio::test]
async fn a_command_without_a_switchman_says_how_to_start_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("admin.sock");
    let output = tokio::process::Command::new(PROGRAM)
        .args(["versions", "--admin"])
        .arg(&socket)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("switchman serve") && said.contains(socket.to_str().unwrap()), "{said}");
}

#[tokio::test]
async fn a_version_whose_command_is_missing_or_that_listens_elsewhere_says_so() {
    let switchman = Switchman::start(Setup {
        service: "    ready: {http: /healthz, deadline: 2s}\n",
        ..Setup::default()
    })
    .await;
    let worker = super::super::support::switchman::worker_program();
    for (version, run, part) in [
        ("aaaaaa1", "run: [no-such-program, --port]\n".to_owned(), "no-such-program"),
        ("bbbbbb2", "run: no-such-program --port\n".to_owned(), "no-such-program"),
        ("cccccc3", format!("run: [{worker:?}, --never-listen]\n"), "listen"),
        ("dddddd4", format!("run: [{worker:?}, --listen-elsewhere]\n"), "listens on"),
        ("eeeeee5", "runn: x\n".to_owned(), "runn"),
    ] {
        let build = switchman.build(version);
        std::fs::write(build.join("switchman.yaml"), run).unwrap();
        switchman.rsync(&build, version).await;
        let failed = switchman.wait_state(version, "failed").await;
        let reason = failed["reason"].as_str().unwrap();
        assert!(reason.contains(part), "{version}: {reason}");
    }
    switchman.deploy_ready("4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    assert_eq!(get(&switchman.url("/")).await.unwrap().status, 200);
}
