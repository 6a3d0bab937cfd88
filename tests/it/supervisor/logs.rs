//! What workers print, on disk: real workers, real files, a disk that is really full.

use std::process::Command;

use switchman::supervisor::output::{Entry, Query};

use super::*;

/// A service with these settings.
fn settings(logs: Logs) -> Extra {
    Extra { logs, ..Extra::default() }
}

impl World {
    async fn read(&self, version: &str, query: Query) -> Vec<Entry> {
        let mut portions = self.handle.logs().read(&APP.into(), &version.into(), query, false);
        let mut lines = Vec::new();
        while let Some(portion) = portions.recv().await {
            lines.extend(portion);
        }
        lines
    }

    fn log(&self, version: &str, name: &str) -> PathBuf {
        self.state.path().join("logs").join(APP).join(version).join(name)
    }
}

fn text(line: &Entry) -> String {
    String::from_utf8_lossy(&line.text).into_owned()
}

#[tokio::test]
async fn a_million_lines_are_all_on_disk_in_order() {
    const LINES: usize = 1_000_000;
    let extra = settings(Logs { max_file: 4 << 20, ..Logs::default() });
    let world = World::with(spec(), extra);
    world.deploy("4f2a91c", &format!("seq {LINES}; echo done; {SERVE}")).await;
    eventually("the last line is read", async || {
        world.lines("4f2a91c").last().filter(|line| *line == "done").map(|_| ())
    })
    .await;
    world.handle.shutdown().await;
    let folder = std::fs::read_dir(world.log("4f2a91c", "")).unwrap();
    let mut files: Vec<PathBuf> = folder.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() > 8, "{files:?}");
    let mut next = 1;
    for file in files {
        for line in std::fs::read_to_string(file).unwrap().lines().take(LINES + 1 - next) {
            assert_eq!(line.rsplit(' ').next(), Some(next.to_string().as_str()), "{line}");
            next += 1;
        }
    }
    assert_eq!(next, LINES + 1);
}

#[tokio::test]
async fn lines_are_there_after_a_stop_and_a_restart_of_switchman_and_after_the_folder_has_gone() {
    let world = World::new(spec());
    world.deploy("4f2a91c", &format!("echo first; {SERVE}")).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.ask("4f2a91c", Action::Stop { force: true }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    let world = world.restarted().await;
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Stopped).await;
    assert_eq!(world.lines("4f2a91c"), [""; 0], "nothing is in memory");
    let lines = world.read("4f2a91c", Query::default()).await;
    assert_eq!(lines.iter().map(text).collect::<Vec<_>>(), ["first"]);

    // The same worker again: another process in the same file.
    world.ask("4f2a91c", Action::Start).await.unwrap();
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let lines = world.read("4f2a91c", Query::default()).await;
    assert_eq!(lines.iter().map(text).collect::<Vec<_>>(), ["first", "first"]);
    assert_eq!(lines[1].pid, pids(&version)[0]);
    assert_ne!(lines[0].pid, lines[1].pid);

    world.gone("4f2a91c").await;
    world.until_forgotten("4f2a91c").await;
    assert_eq!(world.handle.logs().on_disk(&APP.into()), ["4f2a91c".into()]);
    assert_eq!(world.read("4f2a91c", Query::default()).await.len(), 2);
    world.end().await;
}

/// A file system of one MiB; gone when it is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "switchman-test"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        mounted.is_ok_and(|status| status.success()).then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_worker_goes_on_while_the_disk_is_full() {
    let state = Arc::new(TempDir::new().unwrap());
    let logs = state.path().join("logs");
    std::fs::create_dir(&logs).unwrap();
    let Some(disk) = SmallDisk::mount(&logs) else {
        tracing_note("only root may mount a small file system: a full disk is tried with /dev/full alone");
        return;
    };
    let world = World::over(Root::new(), state, spec());
    let noisy = format!(
        "i=0; while [ $i -lt 40 ]; do i=$((i+1)); head -c 100000 /dev/zero | tr '\\0' x; echo; done; echo end; {SERVE}"
    );
    world.deploy("4f2a91c", &noisy).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let Address::Tcp(_) = &version.ready[0].address else { panic!() };
    assert!(get(&version.ready[0].address, "/").await.starts_with("HTTP/1.0 200"));
    assert_eq!(world.lines("4f2a91c").last().map(String::as_str), Some("end"));
    let last = world.read("4f2a91c", Query { lines: Some(1), ..Query::default() }).await;
    assert_eq!(text(&last[0]), "end", "the last lines are in memory");

    // Somebody makes room.
    std::fs::remove_file(world.log("4f2a91c", "worker-0.log")).unwrap();
    eventually("it is written again, and says what is missing", async || {
        // Each request that is answered with an error is a line of this server's.
        let _ = get(&version.ready[0].address, "/").await;
        world.ask("4f2a91c", Action::Restart).await.unwrap();
        let text = std::fs::read_to_string(world.log("4f2a91c", "worker-0.log")).ok()?;
        text.lines().next()?.contains(" lines were lost here: the disk was full").then_some(())
    })
    .await;
    world.end().await;
    drop(disk);
}

/// Says on the test's stderr what is skipped and why.
#[allow(clippy::print_stderr, reason = "a test that skips something says so")]
fn tracing_note(text: &str) {
    eprintln!("skipped: {text}");
}

#[tokio::test]
async fn ready_is_the_worker_that_says_so() {
    let mut by_line = spec();
    by_line.ready.check = ReadyCheck::Log(Pattern::parse("^listening on [0-9]+").unwrap());
    let world = World::new(by_line.clone());
    let says = "echo starting >&2; (while [ ! -e go ]; do sleep 0.02; done; echo listening on $PORT) & exec python3 server.py";
    world.deploy("4f2a91c", says).await;
    world.until("4f2a91c", "it has said that it starts", |v| !pids(v).is_empty()).await;
    eventually("its first line is read", async || (!world.lines("4f2a91c").is_empty()).then_some(())).await;
    assert_eq!(world.version("4f2a91c").unwrap().state, VersionState::Starting);
    std::fs::write(world.folder("4f2a91c").join("go"), "").unwrap();
    let first = world.until_state("4f2a91c", VersionState::Ready).await;

    // A line of an earlier process says nothing about a new one.
    std::fs::remove_file(world.folder("4f2a91c").join("go")).unwrap();
    kill(pids(&first)[0]);
    world.until("4f2a91c", "another one is started", |v| pids(v).iter().any(|p| *p != pids(&first)[0])).await;
    assert_ne!(world.version("4f2a91c").unwrap().state, VersionState::Ready);
    std::fs::write(world.folder("4f2a91c").join("go"), "").unwrap();
    world.until_state("4f2a91c", VersionState::Ready).await;

    // One that never says it is late, with what was waited for.
    by_line.ready.deadline = Duration::from_millis(300);
    let silent = World::new(by_line);
    silent.deploy("b001bee", SERVE).await;
    let failed = silent.until_state("b001bee", VersionState::Failed).await;
    let reason = failed.reason.clone().unwrap();
    assert!(
        reason.contains("within 300ms: no line that it printed matches `^listening on [0-9]+`"),
        "{reason}"
    );
    world.end().await;
    silent.end().await;
}
