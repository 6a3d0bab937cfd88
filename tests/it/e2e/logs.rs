//! `switchman logs` and `switchman events`, as they are typed: what is asked for, and each line once over restarts.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::super::support::eventually;
use super::super::support::switchman::{PROGRAM, Setup, Switchman, worker_program};

/// Something that is followed; what it prints goes into a file.
struct Following {
    file: PathBuf,
    _process: Child,
}

impl Following {
    fn start(switchman: &Switchman, name: &str, args: &[&str]) -> Self {
        let folder = switchman.folder.path();
        let file = folder.join(name);
        let process = Command::new(PROGRAM)
            .args(args)
            .args(["--config", "switchman.yaml"])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(&file).unwrap())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        Self { file, _process: process }
    }

    fn lines(&self) -> Vec<String> {
        let text = std::fs::read_to_string(&self.file).unwrap();
        // The last one may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        whole.lines().map(str::to_owned).collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn(&[String]) -> bool) {
        eventually(what, async || is_so(&self.lines()).then_some(())).await;
    }
}

/// A build whose workers first run this shell code, and then are the sample worker.
fn build(switchman: &Switchman, version: &str, before: &str) -> PathBuf {
    let build = switchman.build(version);
    let run = format!("run: |\n  {before}\n  exec {}\n", worker_program().display());
    std::fs::write(build.join("switchman.yaml"), run).unwrap();
    build
}

async fn deploy(switchman: &Switchman, build: &Path, version: &str) {
    switchman.rsync(build, version).await;
    switchman.wait_state(version, "ready").await;
}

#[tokio::test]
async fn lines_are_chosen_by_time_worker_expression_and_number() {
    let switchman = Switchman::start(Setup { service: "    workers: 2\n", ..Setup::default() }).await;
    let before = r"for n in 1 2 3 4 5; do echo line $n of $SWITCHMAN_WORKER; done; printf '\033[31mred\033[0m \377\n' >&2";
    deploy(&switchman, &build(&switchman, "4f2a91c", before), "4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    let logs = async |args: &[&str]| switchman.command(&[&["logs", "current"], args].concat()).await;
    let texts = async |args: &[&str]| {
        let output = logs(args).await;
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().map(|line| line.splitn(4, ' ').nth(3).unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&["--grep", "^line [45] of"]).await.len(), 4);
    assert_eq!(texts(&["--worker", "1", "--grep", "^line", "-n", "2"]).await, ["line 4 of 1", "line 5 of 1"]);
    assert_eq!(texts(&["--since", "1h", "--grep", "of 0$"]).await.len(), 5);
    assert_eq!(texts(&["--since", "2999-01-01"]).await, [""; 0]);
    assert_eq!(texts(&["-n", "0"]).await, [""; 0]);

    // What a worker prints is kept as it is; colours are for terminals.
    let file = switchman.folder.path().join("state/logs/app/4f2a91c/worker-0.log");
    let kept = std::fs::read(file).unwrap();
    let printed = b"\x1b[31mred\x1b[0m \xff\n";
    assert!(kept.windows(printed.len()).any(|part| part == printed));
    assert_eq!(texts(&["--worker", "0", "--grep", "red"]).await, ["red \u{fffd}"]);

    let output = logs(&["--json", "--grep", "line 3 of 1"]).await.stdout;
    let line: serde_json::Value = serde_json::from_slice(&output).unwrap();
    assert_eq!(
        (&line["worker"], &line["stream"], &line["text"]),
        (&1.into(), &"stdout".into(), &"line 3 of 1".into())
    );
    for (args, part) in [
        (["--grep", "["], "`[` is not a regular expression"),
        (["--since", "soon"], "`soon` is neither a duration nor a time"),
    ] {
        let output = logs(&args).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && said.contains(part) && said.contains("hint: "), "{said}");
    }

    // A version that is gone is still known by its log files, by any name that leads to one.
    deploy(&switchman, &build(&switchman, "b001bee0", "echo of a version that is gone"), "b001bee0").await;
    std::fs::remove_dir_all(switchman.root().join("b001bee0")).unwrap();
    eventually("it is gone", async || switchman.version("b001bee0").await.is_none().then_some(())).await;
    assert!(switchman.done(&["logs", "b001bee"]).await.contains("of a version that is gone"));
    assert_eq!(switchman.command(&["logs", "c0ffee0"]).await.status.code(), Some(3));
}

#[tokio::test]
async fn who_follows_sees_each_line_and_event_once_over_restarts_of_switchman() {
    let mut switchman = Switchman::start(Setup::default()).await;
    let ticks = "(n=0; while sleep 0.01; do n=$((n+1)); echo tick $$ $n; done) &";
    deploy(&switchman, &build(&switchman, "4f2a91c", ticks), "4f2a91c").await;
    switchman.wait_version("4f2a91c", "is current", |v| v["dark"] == false).await;
    let logs = Following::start(
        &switchman,
        "logs.txt",
        &["logs", "current", "-f", "--since", "1h", "--grep", "^tick"],
    );
    let events = Following::start(&switchman, "events.txt", &["events", "-f", "--since", "1h", "--json"]);
    logs.until("it ticks", |lines| lines.len() > 30).await;
    for round in 0..2 {
        match round {
            0 => switchman.restart().await,
            _ => switchman.kill_and_start().await,
        }
        let version = switchman.wait_state("4f2a91c", "ready").await;
        let pid = format!(" tick {} ", version["workers"][0]["pid"]);
        let seen = logs.lines().len();
        logs.until("it ticks again", |lines| {
            lines.len() > seen + 30 && lines.last().is_some_and(|line| line.contains(&pid))
        })
        .await;
    }
    let followed = logs.lines();
    let mut sorted = followed.clone();
    sorted.sort();
    sorted.dedup();
    assert_eq!(sorted, followed, "in order, and none twice");
    let kept = switchman.done(&["logs", "4f2a91c", "--since", "1h", "--grep", "^tick"]).await;
    let kept: Vec<&str> = kept.lines().take(followed.len() - 30).collect();
    let missed: Vec<&&str> =
        kept.iter().filter(|line| sorted.binary_search(&line.to_string()).is_err()).collect();
    assert!(missed.is_empty(), "{} of {} were missed: {missed:#?}", missed.len(), kept.len());

    let is = |line: &str, kind: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        (event["kind"] == kind).then(|| event["id"].as_u64().unwrap())
    };
    events
        .until("the third life is told", |lines| {
            lines.iter().filter(|line| line.contains(r#""state":"ready""#)).count() >= 3
        })
        .await;
    let lines = events.lines();
    let ids: Vec<u64> = lines.iter().filter_map(|line| is(line, "state")).collect();
    assert!(ids.len() >= 3 && ids.is_sorted_by(|a, b| a < b), "{lines:#?}");
}

#[tokio::test]
async fn events_tell_what_was_done_and_what_was_refused() {
    let switchman = Switchman::start(Setup { rules: Some("default: current\n"), ..Setup::default() }).await;
    switchman.deploy_ready("4f2a91c").await;
    switchman.deploy_ready("b001bee").await;
    switchman.done(&["promote", "b001bee"]).await;
    switchman.done(&["tag", "beta", "4f2a91c"]).await;
    switchman.done(&["restart", "4f2a91c"]).await;
    switchman.write_rules("default: [nonsense\n");
    let told = async |part: &str| {
        eventually(part, async || {
            let events = switchman.done(&["events"]).await;
            events.lines().find(|line| line.contains(part)).map(str::to_owned)
        })
        .await
    };
    told("app: a rule document was refused, what was in force stays: error: ").await;
    for part in [
        "app 4f2a91c: is arriving",
        "app 4f2a91c: is ready",
        "app 4f2a91c: worker 0 is started, pid ",
        "app 4f2a91c: worker 0 is ready, pid ",
        "app 4f2a91c: current is 4f2a91c",
        "app b001bee: current is b001bee; it was 4f2a91c",
        "app 4f2a91c: previous is 4f2a91c",
        "app 4f2a91c: beta is 4f2a91c",
        "app 4f2a91c: asked for: restart",
        "app 4f2a91c: worker 0 has ended, pid ",
    ] {
        told(part).await;
    }
    switchman.write_rules("default: current # mended\n");
    told("rules.yaml are in force").await;
    let last = switchman.done(&["events", "-n", "1", "--json"]).await;
    let last: serde_json::Value = serde_json::from_str(&last).unwrap();
    assert_eq!((last["events"].as_array().unwrap().len(), &last["events"][0]["kind"]), (1, &"rules".into()));
    assert_eq!(switchman.command(&["events", "--service", "nope"]).await.status.code(), Some(3));
}
