//! The command line, as the real binary: what it prints where, and how it ends.

use std::process::Output;

use serde_json::{Value, json};
use switchman::config::Delivery;
use switchman::metrics::ThreadSlot;
use switchman::version::VersionState;
use tokio::io::AsyncBufReadExt;
use tokio::net::TcpStream;

use super::world::{World, Writer, cli, exchange, put, shown, version};
use crate::support::patience;

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

#[tokio::test]
async fn the_command_line_runs_versions_that_really_run() {
    let (world, _registry) = World::start(&["app"], Writer::Supervisor).await;
    let (status, stdout, _) = told(&world.cli(&["versions"]).await);
    assert_eq!(status, 0);
    assert!(stdout.contains("no versions yet: rsync a build into"), "{stdout}");

    world.arrive("app", "4f2a91c").await;
    world.arrive("app", "b001bee").await;
    world.ready("app", "4f2a91c").await;
    world.ready("app", "b001bee").await;
    let (status, stdout, stderr) = told(&world.cli(&["promote", "4f2a91c"]).await);
    assert_eq!(
        (status, stdout.as_str(), stderr.as_str()),
        (0, "", "app: current -> 4f2a91c, previous -> not set\n")
    );
    let (status, stdout, _) = told(&world.cli(&["versions"]).await);
    assert_eq!(status, 0);
    assert!(stdout.lines().any(|l| l.contains("b001bee") && l.contains("ready (dark)")), "{stdout}");
    let (status, stdout, _) = told(&world.cli(&["versions", "--json"]).await);
    let json: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((status, &json["node"]), (0, &json!("host-a")));

    // What carries traffic is not stopped by accident; what does not, is, and comes back.
    let (status, _, stderr) = told(&world.cli(&["stop", "current"]).await);
    assert_eq!(status, 3, "{stderr}");
    assert!(stderr.contains("error: ") && stderr.contains("hint: "), "{stderr}");
    let (status, _, stderr) = told(&world.cli(&["stop", "b001bee"]).await);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(world.state_of("app", "b001bee").await, Some(VersionState::Stopped));
    let (status, _, stderr) = told(&world.cli(&["promote", "b001bee"]).await);
    assert_eq!(status, 3);
    assert!(stderr.contains("version b001bee is stopped, not ready"), "{stderr}");
    let (status, _, stderr) = told(&world.cli(&["start", "b001bee"]).await);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(world.state_of("app", "b001bee").await, Some(VersionState::Ready));

    let workers = || async {
        let version = world.ask("GET /services/app/versions/4f2a91c", "").await.json();
        version["workers"].as_array().unwrap().clone()
    };
    let before = workers().await;
    let (status, _, stderr) = told(&world.cli(&["restart", "4f2a91c"]).await);
    assert_eq!(status, 0, "{stderr}");
    assert_ne!(workers().await[0]["pid"], before[0]["pid"]);
    let (status, stdout, stderr) = told(&world.cli(&["scale", "4f2a91c", "--workers", "2", "--json"]).await);
    assert_eq!(status, 0, "{stderr}");
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["workers"].as_array().unwrap().len(), 2);

    let (status, stdout, _) = told(&world.cli(&["logs", "4f2a91c"]).await);
    assert_eq!(status, 0);
    assert!(stdout.lines().any(|l| l.ends_with("out serving")), "{stdout}");
    world.end().await;
}

#[tokio::test]
async fn a_stop_says_what_it_waits_for_and_waits_as_long_as_that_may_take() {
    let (world, _registry) = World::start(&["app"], Writer::Supervisor).await;
    world.arrive("app", "4f2a91c").await;
    world.ready("app", "4f2a91c").await;
    let routing = world.live.load();
    let version = &routing.service("app").unwrap().registry.versions["4f2a91c"];
    let upstream = version.ready[0].clone();
    // Two streams and a request, as the data plane counts them.
    for _ in 0..3 {
        upstream.in_flight.begin(ThreadSlot(0));
    }
    for _ in 0..2 {
        upstream.streams.begin(ThreadSlot(0));
    }
    let begun = jiff::Timestamp::now();
    let (status, _, stderr) = told(&world.cli(&["stop", "4f2a91c", "--timeout", "500ms"]).await);
    assert_eq!(status, 1, "{stderr}");
    let waits = regex::Regex::new(
        r"(?m)^error: 4f2a91c is not done after 500ms: it is draining, 0 of 1 workers ready; waits for 1 request and 2 streams, which end by (\d\d:\d\d:\d\d)Z$",
    );
    let until: jiff::civil::Time = waits.unwrap().captures(&stderr).expect(&stderr)[1].parse().unwrap();
    let expected = (begun + Delivery::default().streams).to_zoned(jiff::tz::TimeZone::UTC);
    let off = until.until(expected.time()).unwrap().total(jiff::Unit::Second).unwrap();
    assert!(off.abs() < 5.0, "{until} and not {expected}");
    assert!(stderr.contains("hint: the work goes on"), "{stderr}");
    let (_, table, _) = told(&world.cli(&["versions"]).await);
    assert!(table.contains("4f2a91c draining: waits for 1 request and 2 streams, which end by "), "{table}");

    // Typed again without a time, it waits for them; and comes back when they have ended.
    let mut again = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchman"))
        .args(["stop", "4f2a91c", "--admin", world.socket.to_str().unwrap()])
        .stderr(std::process::Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut said = tokio::io::BufReader::new(again.stderr.take().unwrap()).lines();
    let first = said.next_line().await.unwrap().unwrap();
    let waits = "4f2a91c: draining, 0 of 1 workers ready; waits for 1 request and 2 streams, which end by ";
    assert!(first.starts_with(waits), "{first}");
    for _ in 0..2 {
        upstream.streams.end(ThreadSlot(0));
    }
    for _ in 0..3 {
        upstream.in_flight.end(ThreadSlot(0));
    }
    let status = tokio::time::timeout(patience(), again.wait()).await.expect("it ends").unwrap();
    assert_eq!(status.code(), Some(0));
    let stopped = world.ask("GET /services/app/versions/4f2a91c", "").await.json();
    assert_eq!(stopped["reason"], Value::Null);
    world.end().await;
}

/// A command that goes on until Ctrl-C.
struct Following {
    child: tokio::process::Child,
    lines: tokio::io::Lines<tokio::io::BufReader<tokio::process::ChildStdout>>,
}

impl Following {
    fn start(world: &World, args: &[&str]) -> Self {
        let mut child = tokio::process::Command::new(env!("CARGO_BIN_EXE_switchman"))
            .args(args)
            .arg("--admin")
            .arg(&world.socket)
            .stdout(std::process::Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = tokio::io::BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    async fn line(&mut self) -> String {
        let line = tokio::time::timeout(patience(), self.lines.next_line()).await.expect("a line comes");
        line.unwrap().expect("it goes on")
    }

    async fn interrupt(mut self) -> i32 {
        let pid = rustix::process::Pid::from_raw(self.child.id().unwrap() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let status = tokio::time::timeout(patience(), self.child.wait()).await.expect("it ends").unwrap();
        status.code().unwrap()
    }
}

#[tokio::test]
async fn watch_tells_each_change_and_follow_each_line() {
    let (world, _registry) = World::start(&["app"], Writer::Supervisor).await;
    world.arrive("app", "4f2a91c").await;
    world.ready("app", "4f2a91c").await;

    let mut watch = Following::start(&world, &["versions", "--watch", "--json"]);
    let first: Value = serde_json::from_str(&watch.line().await).unwrap();
    assert_eq!(first["versions"][0]["aliases"], json!(["latest"]));
    assert_eq!(world.ask("POST /services/app/versions/4f2a91c/promote", "").await.status, 200);
    let second: Value = serde_json::from_str(&watch.line().await).unwrap();
    assert_eq!(second["versions"][0]["aliases"], json!(["current", "latest"]));
    assert!(first["generation"].as_u64() < second["generation"].as_u64());
    assert_eq!(watch.interrupt().await, 0);

    let mut follow = Following::start(&world, &["logs", "-f", "current"]);
    assert!(follow.line().await.ends_with(" 0 out serving"));
    let address =
        world.ask("GET /services/app/versions/4f2a91c", "").await.json()["workers"][0]["address"].clone();
    let worker = TcpStream::connect(address.as_str().unwrap()).await.unwrap();
    exchange(worker, "GET /a-line-for-the-log", &["host: x"], b"").await;
    // http.server tells of the missing file in a line of its own first.
    let line = eventually_line(&mut follow, "/a-line-for-the-log").await;
    assert!(line.contains(" 0 err "), "{line}");
    assert_eq!(follow.interrupt().await, 0);
    world.end().await;
}

async fn eventually_line(follow: &mut Following, part: &str) -> String {
    loop {
        let line = follow.line().await;
        if line.contains(part) {
            return line;
        }
    }
}

#[tokio::test]
async fn the_command_line_changes_aliases_and_rules() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready)]);
    shown(&world, "app", "4f2a91c").await;
    assert_eq!(told(&world.cli(&["tag", "beta", "4f2a91c"]).await).0, 0);
    let file = world.folder.path().join("rules.yaml");
    let document = "routes:\n  - {name: qa, when: {header.x-qa: \"yes\"}, to: beta}\n";
    std::fs::write(&file, document).unwrap();
    let (status, _, stderr) = told(&world.cli(&["rules", "check", "rules.yaml"]).await);
    assert_eq!((status, stderr.as_str()), (0, "rules.yaml is in order\n"));
    assert_eq!(told(&world.cli(&["rules", "set", "rules.yaml"]).await).0, 0);
    let (status, stdout, _) = told(&world.cli(&["rules", "get"]).await);
    assert_eq!((status, stdout.as_str()), (0, document));
    let (status, stdout, stderr) = told(&world.cli(&["rules", "explain", "-H", "x-qa: yes", "/cart"]).await);
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.ends_with("route `qa` chose beta (4f2a91c)\nversion 4f2a91c, worker 0\n"), "{stdout}");

    std::fs::write(&file, "routes: 7\n").unwrap();
    let (status, _, stderr) = told(&world.cli(&["rules", "set", "rules.yaml"]).await);
    assert_eq!(status, 3);
    assert!(stderr.contains("what was in force stays in force"), "{stderr}");
    assert_eq!(told(&world.cli(&["rules", "check", "rules.yaml"]).await).0, 1);
    assert_eq!(told(&world.cli(&["rules", "get"]).await).1, document);
    let (status, _, stderr) = told(&world.cli(&["untag", "gamma"]).await);
    assert_eq!(status, 3, "{stderr}");
    assert_eq!(told(&world.cli(&["untag", "beta"]).await).0, 0);
    world.end().await;
}

#[tokio::test]
async fn the_command_line_says_what_to_do_when_it_cannot_reach_anything() {
    let folder = tempfile::tempdir().unwrap();
    let (status, stdout, stderr) =
        told(&cli(&["versions", "--admin", "/nowhere/admin.sock"], folder.path()).await);
    assert_eq!((status, stdout.as_str()), (1, ""));
    assert!(
        stderr.starts_with("error: no switchman answers at /nowhere/admin.sock\nhint: start it with"),
        "{stderr}"
    );
    let (status, _, stderr) = told(&cli(&["versions", "--admin", "ftp://x"], folder.path()).await);
    assert_eq!(status, 1, "{stderr}");
    std::fs::write(folder.path().join("good.yaml"), "default: current\n").unwrap();
    let (status, _, stderr) =
        told(&cli(&["rules", "check", "good.yaml", "--admin", "/nowhere/admin.sock"], folder.path()).await);
    assert_eq!(status, 0, "{stderr}");
    assert!(stderr.contains("checked without a running switchman"), "{stderr}");

    let (world, _registry) = World::start(&["app", "web"], Writer::Test).await;
    let (status, _, stderr) = told(&world.cli(&["promote", "4f2a91c"]).await);
    assert_eq!(status, 2);
    assert!(stderr.contains("there are several services: app, web"), "{stderr}");
    assert_eq!(told(&world.cli(&["promote", "4f2a91c", "--service", "web"]).await).0, 3);
    let url = format!("http://{}", world.address);
    let (status, _, stderr) =
        told(&cli(&["rollback", "--service", "app", "--admin", &url], folder.path()).await);
    assert_eq!(status, 3, "no token over TCP: {stderr}");
    assert!(stderr.contains("no token"), "{stderr}");

    // The configuration leads to the socket, also when the rest of it is wrong.
    let config = world.folder.path().join("switchman.yaml");
    std::fs::write(&config, "state: state\nservices: 7\n").unwrap();
    let (status, stdout, stderr) =
        told(&cli(&["versions", "--json", "--config", config.to_str().unwrap()], folder.path()).await);
    assert_eq!(status, 0, "{stderr}");
    assert!(stdout.starts_with(r#"{"node":"host-a""#), "{stdout}");
    world.end().await;
}
