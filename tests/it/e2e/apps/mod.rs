//! Real servers, as docs/apps.md says to run them: deployed by rsync, restarted, promoted and stopped under load with
//! no failed request, and each process ends in its own good way.

mod load;

use std::path::{Path, PathBuf};

use crate::support::eventually;
use crate::support::switchman::{Setup, Switchman, processes_in, worker_program};
use load::{Load, Paths};

/// One server of docs/apps.md.
struct App {
    /// Its heading there.
    heading: &'static str,
    /// Its folder in `fixtures`.
    folder: &'static str,
    /// What one of its processes prints last when it ends well: what is killed prints nothing.
    last_line: &'static str,
}

/// Workers of a version.
const WORKERS: usize = 2;

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What `scripts/install-deps test` has put into `target/apps`.
fn installed() -> PathBuf {
    let folder = top().join("target/apps");
    for file in ["requirements.txt", "node_modules/express/package.json", "venv/bin/gunicorn"] {
        assert!(folder.join(file).is_file(), "target/apps/{file} is missing: scripts/install-deps test");
    }
    folder
}

/// The YAML blocks below a heading of docs/apps.md.
fn blocks(heading: &str) -> Vec<String> {
    let text = std::fs::read_to_string(top().join("docs/apps.md")).unwrap();
    let section = text.split("\n## ").find(|section| section.lines().next() == Some(heading));
    let section = section.unwrap_or_else(|| panic!("docs/apps.md has no heading `{heading}`"));
    section.split("```").filter_map(|block| block.strip_prefix("yaml\n")).map(str::to_owned).collect()
}

impl App {
    /// A build of it, with this `switchman.yaml`.
    fn build(&self, switchman: &Switchman, version: &str, yaml: &str) -> PathBuf {
        let build = switchman.build(version);
        let copy = |from: &Path| {
            let copied = std::process::Command::new("cp").arg("-r").arg(from).arg(&build).status().unwrap();
            assert!(copied.success(), "{} cannot be copied: {copied}", from.display());
        };
        for entry in std::fs::read_dir(top().join("fixtures").join(self.folder)).unwrap() {
            copy(&entry.unwrap().path());
        }
        match self.folder {
            "apps/express" => copy(&installed().join("node_modules")),
            "worker" => copy(&worker_program()),
            _ => {}
        }
        std::fs::write(build.join("switchman.yaml"), yaml).unwrap();
        build
    }

    /// The lines with which processes of this version have ended well.
    async fn goodbyes(&self, switchman: &Switchman, version: &str) -> usize {
        let logs = switchman.done(&["logs", version]).await;
        logs.lines().filter(|line| line.contains(self.last_line)).count()
    }

    async fn serves_without_a_failure(&self) {
        let path = std::env::var("PATH").unwrap();
        let path = format!("{}:{path}", installed().join("venv/bin").display());
        let service = format!(
            "    workers: {WORKERS}\n    env: {{PATH: {path:?}, PYTHONDONTWRITEBYTECODE: \"1\", NODE_ENV: production}}\n"
        );
        let mut switchman = Switchman::start(Setup { service: &service, ..Setup::default() }).await;
        let blocks = blocks(self.heading);
        let own = std::fs::read_to_string(top().join("fixtures").join(self.folder).join("switchman.yaml"));
        let own: String = own.unwrap().lines().filter(|line| !line.starts_with('#')).collect();
        assert_eq!(blocks[0].replace('\n', ""), own, "the first block of docs/apps.md is the fixture's own");

        // The first version as the first block says, the next as the next: each is restarted twice, then gives way.
        let mut load: Option<Load> = None;
        for (number, yaml) in blocks.iter().enumerate() {
            let version = format!("{number}4f2a91c");
            switchman.rsync(&self.build(&switchman, &version, yaml), &version).await;
            switchman.wait_state(&version, "ready").await;
            switchman.done(&["promote", &version]).await;
            let load = load.get_or_insert_with(|| Load::start(&switchman, Paths::of(self.folder)));
            load.until_answered_by(&version).await;
            if number > 0 {
                let before = format!("{}4f2a91c", number - 1);
                switchman.done(&["stop", &before]).await;
                self.all_have_ended_well(&switchman, &before).await;
            }
            for restart in 1..=2 {
                switchman.done(&["restart", &version]).await;
                switchman
                    .wait_version(&version, "has all its workers", |v| {
                        let workers = v["workers"].as_array().unwrap();
                        v["state"] == "ready" && workers.iter().all(|worker| worker["state"] == "ready")
                    })
                    .await;
                load.more(50).await;
                let said = format!("{} processes have ended well", restart * WORKERS);
                eventually(&said, async || {
                    (self.goodbyes(&switchman, &version).await == restart * WORKERS).then_some(())
                })
                .await;
            }
        }
        load.unwrap().stop_without_a_failure().await;

        let last = format!("{}4f2a91c", blocks.len() - 1);
        switchman.done(&["stop", "--force", &last]).await;
        self.all_have_ended_well(&switchman, &last).await;
        switchman.terminate().await;
        assert_eq!(processes_in(&switchman.root()), Vec::<String>::new(), "no process is left");
    }

    /// All processes of a stopped version that was restarted twice.
    async fn all_have_ended_well(&self, switchman: &Switchman, version: &str) {
        switchman.wait_state(version, "stopped").await;
        let logs = switchman.done(&["logs", version]).await;
        let ended = self.goodbyes(switchman, version).await;
        assert_eq!(ended, 3 * WORKERS, "`{}` in the log of {version}:\n{logs}", self.last_line);
    }
}

#[tokio::test]
async fn gunicorn_loses_no_request() {
    let last_line = "Shutting down: Master";
    App { heading: "gunicorn", folder: "apps/gunicorn", last_line }.serves_without_a_failure().await;
}

#[tokio::test]
async fn uvicorn_loses_no_request() {
    let last_line = "Finished server process";
    App { heading: "uvicorn", folder: "apps/uvicorn", last_line }.serves_without_a_failure().await;
}

#[tokio::test]
async fn waitress_loses_no_request() {
    let last_line = "waitress has ended";
    App { heading: "waitress", folder: "apps/waitress", last_line }.serves_without_a_failure().await;
}

#[tokio::test]
async fn puma_loses_no_request() {
    let last_line = "- Goodbye!";
    App { heading: "puma", folder: "apps/puma", last_line }.serves_without_a_failure().await;
}

#[tokio::test]
async fn node_loses_no_request() {
    let last_line = "server.js has ended with 0";
    App { heading: "Node.js", folder: "apps/node", last_line }.serves_without_a_failure().await;
}

#[tokio::test]
async fn express_loses_no_request() {
    let last_line = "server.js has ended with 0";
    App { heading: "Express", folder: "apps/express", last_line }.serves_without_a_failure().await;
}

#[tokio::test]
async fn a_hyper_server_loses_no_request() {
    let last_line = "worker: has ended";
    App { heading: "Rust", folder: "worker", last_line }.serves_without_a_failure().await;
}
