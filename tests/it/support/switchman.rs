//! A real switchman process on a temporary folder, and what a person does with it.

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::sync::atomic::{AtomicU16, Ordering::Relaxed};

use procfs::process::Process;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

use super::eventually;

/// The binary under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_switchman");

/// The sample worker, built by cargo as an example beside the tests.
pub(crate) fn worker_program() -> PathBuf {
    let deps = std::env::current_exe().unwrap();
    let program = deps.parent().unwrap().parent().unwrap().join("examples/worker");
    assert!(program.is_file(), "{} is missing: cargo build --examples", program.display());
    program
}

/// A running switchman.
pub(crate) struct Switchman {
    pub(crate) folder: TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) admin: SocketAddr,
    process: Child,
    /// What it is started under.
    within: Vec<String>,
    /// The public listening socket, if the test holds it.
    held: Option<TcpListener>,
    /// The process that took over in an upgrade, which is no child of ours.
    successor: Option<Process>,
    /// Those that ran before: an upgrade leaves one with requests that still run.
    before: Vec<Child>,
}

/// What a test wants other than the usual.
#[derive(Default)]
pub(crate) struct Setup<'a> {
    /// Lines at the top level of the configuration.
    pub(crate) top: &'a str,
    /// Lines of the service, indented by four.
    pub(crate) service: &'a str,
    /// The rule document at the start; none: no `rules:` line.
    pub(crate) rules: Option<&'a str>,
    /// A command that switchman is started by, as in `unshare --pid`; none: as it is.
    pub(crate) within: &'a [&'a str],
    /// The test holds the public listening socket and passes it on as systemd does, so that connections wait in its
    /// queue while no switchman runs.
    pub(crate) held: bool,
}

impl Switchman {
    /// Starts one service `app` on a fresh folder with the sample worker.
    pub(crate) async fn start(setup: Setup<'_>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("app")).unwrap();
        let address = free_address();
        let admin = free_address();
        let run = if setup.service.contains("run:") {
            String::new()
        } else {
            format!("    run: [{:?}]\n", worker_program())
        };
        let ready = if setup.service.contains("ready:") {
            ""
        } else {
            "    ready: {http: /healthz, interval: 50ms}\n"
        };
        let rules = match setup.rules {
            Some(text) => {
                std::fs::write(folder.path().join("rules.yaml"), text).unwrap();
                "    rules: rules.yaml\n"
            }
            None => "",
        };
        let config = format!(
            "listen: [\"{address}\"]\nadmin: {{listen: \"{admin}\"}}\nnode: host-a\nstate: state\n{}services:\n  app:\n    \
             root: app\n    settle: 200ms\n{run}{ready}{rules}{}",
            setup.top, setup.service
        );
        std::fs::write(folder.path().join("switchman.yaml"), config).unwrap();
        let mut within: Vec<String> = setup.within.iter().map(|word| (*word).to_owned()).collect();
        let held = setup.held.then(|| TcpListener::bind(address).unwrap());
        if held.is_some() {
            within.extend(["sh", "-c", PASS_ON, "sh"].map(str::to_owned));
        }
        let process = spawn(folder.path(), &within, held.as_ref());
        let (successor, before) = (None, Vec::new());
        let mut switchman = Self { folder, address, admin, process, within, held, successor, before };
        switchman.wait_ready().await;
        switchman
    }

    /// kill -9, then a new process on the same folder.
    pub(crate) async fn kill_and_start(&mut self) {
        self.kill().await;
        self.start_again().await;
    }

    /// kill -9, and waits until it has ended.
    pub(crate) async fn kill(&mut self) {
        match self.successor.take() {
            Some(successor) => {
                let pid = rustix::process::Pid::from_raw(successor.pid).unwrap();
                rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
                ended(&successor).await;
            }
            None => self.process.kill().await.unwrap(),
        }
    }

    /// `switchman upgrade`: another process takes over, and the old one ends when its requests have.
    pub(crate) async fn upgrade(&mut self) {
        let before = self.pid() as i32;
        self.done(&["upgrade"]).await;
        // It signs the lock once it has been let go.
        let successor = eventually("another process has taken over", async || {
            let lock = std::fs::read_to_string(self.folder.path().join("state/lock")).unwrap();
            let pid = lock.lines().next()?.parse().ok().filter(|pid| *pid != before)?;
            Process::new(pid).ok()
        })
        .await;
        self.successor = Some(successor);
    }

    /// A new process on the same folder, after the end of the one before.
    pub(crate) async fn start_again(&mut self) {
        self.start_without_waiting();
        self.wait_ready().await;
    }

    /// Likewise, and it may do anything yet.
    pub(crate) fn start_without_waiting(&mut self) {
        let process = spawn(self.folder.path(), &self.within, self.held.as_ref());
        self.before.push(std::mem::replace(&mut self.process, process));
    }

    /// TERM if it still runs, then a new process on the same folder.
    pub(crate) async fn restart(&mut self) {
        if self.successor.is_some() || self.process.id().is_some() {
            self.terminate().await;
        }
        self.start_again().await;
    }

    async fn wait_ready(&mut self) {
        let url = format!("http://{}/readyz", self.admin);
        let process = &mut self.process;
        let log = self.folder.path().join("switchman.log");
        eventually("switchman is ready", || {
            if let Some(status) = process.try_wait().unwrap() {
                panic!("switchman ended with {status}:\n{}", std::fs::read_to_string(&log).unwrap());
            }
            async { super::http::get(&url).await.ok().filter(|a| a.status == 200) }
        })
        .await;
    }

    pub(crate) fn pid(&self) -> u32 {
        match &self.successor {
            Some(successor) => successor.pid as u32,
            None => self.process.id().expect("switchman runs"),
        }
    }

    /// Waits for the end of the process that was started first; how it ended.
    pub(crate) async fn ended(&mut self) -> std::process::ExitStatus {
        tokio::time::timeout(super::patience(), self.process.wait()).await.expect("it ends").unwrap()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("switchman.log")).unwrap()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("app")
    }

    /// A build of the sample worker, outside the deploy root.
    pub(crate) fn build(&self, version: &str) -> PathBuf {
        let build = self.folder.path().join("builds").join(version);
        std::fs::create_dir_all(build.join("public")).unwrap();
        std::fs::write(build.join("COMMIT"), version).unwrap();
        std::fs::write(build.join("public/index.html"), format!("<h1>{version}</h1>")).unwrap();
        build
    }

    /// Copies a folder in with the real rsync, as a person does.
    pub(crate) async fn rsync(&self, from: &Path, version: &str) {
        let status = Command::new("rsync")
            .arg("-a")
            .arg(format!("{}/", from.display()))
            .arg(format!("{}/", self.root().join(version).display()))
            .status()
            .await
            .expect("rsync is missing: apt-get install rsync");
        assert!(status.success(), "rsync ended with {status}");
    }

    /// Builds and uploads a version of the sample worker.
    pub(crate) async fn deploy(&self, version: &str) {
        self.rsync(&self.build(version), version).await;
    }

    /// Uploads and waits until it is ready.
    pub(crate) async fn deploy_ready(&self, version: &str) -> Value {
        self.deploy(version).await;
        self.wait_state(version, "ready").await
    }

    /// `GET /versions`.
    pub(crate) async fn versions(&self) -> Value {
        super::http::get(&format!("http://{}/versions", self.admin)).await.unwrap().json()
    }

    /// One version's element of `GET /versions`, if it is listed.
    pub(crate) async fn version(&self, version: &str) -> Option<Value> {
        let all = self.versions().await;
        all["versions"].as_array().unwrap().iter().find(|v| v["version"] == version).cloned()
    }

    /// Waits until `held` is true of a version; answers with it.
    pub(crate) async fn wait_version(
        &self,
        version: &str,
        what: &str,
        held: impl Fn(&Value) -> bool,
    ) -> Value {
        let held = &held;
        let what = format!("{version}: {what}");
        eventually(&what, || async move { self.version(version).await.filter(held) }).await
    }

    pub(crate) async fn wait_state(&self, version: &str, state: &str) -> Value {
        self.wait_version(version, state, |v| v["state"] == state).await
    }

    /// Types a command; `--config` is added.
    pub(crate) async fn command(&self, args: &[&str]) -> Output {
        command(self.folder.path(), args).await
    }

    /// Types a command that must end with 0; answers with what it printed.
    pub(crate) async fn done(&self, args: &[&str]) -> String {
        let output = self.command(args).await;
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "`switchman {}` ended with {}:\n{said}",
            args.join(" "),
            output.status
        );
        String::from_utf8(output.stdout).unwrap()
    }

    /// Writes the rule file as an editor does: a new file renamed over the old one.
    pub(crate) fn write_rules(&self, text: &str) {
        let unfinished = self.folder.path().join(".rules.yaml.swp");
        std::fs::write(&unfinished, text).unwrap();
        std::fs::rename(unfinished, self.folder.path().join("rules.yaml")).unwrap();
    }

    /// TERM to switchman; waits for its end, which must be a good one.
    pub(crate) async fn terminate(&mut self) {
        let pid = rustix::process::Pid::from_raw(self.pid() as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        if let Some(successor) = self.successor.take() {
            return ended(&successor).await;
        }
        let status =
            tokio::time::timeout(super::patience(), self.process.wait()).await.expect("it ends").unwrap();
        assert!(status.success(), "switchman ended with {status}:\n{}", self.log());
    }
}

/// Types a command about the switchman configured in `folder`.
pub(crate) async fn command(folder: &Path, args: &[&str]) -> Output {
    let mut words = args.to_vec();
    let config = folder.join("switchman.yaml");
    words.extend(["--config", config.to_str().unwrap()]);
    Command::new(PROGRAM).args(words).current_dir(folder).stdin(Stdio::null()).output().await.unwrap()
}

/// Waits for the end of a process that is no child of ours; whose it is may not have waited for it yet.
async fn ended(process: &Process) {
    // The first thread of a process that is killed may end before the others, which hold its files.
    let running = || process.stat().is_ok_and(|stat| stat.state != 'Z' || stat.num_threads > 1);
    eventually("switchman ends", async || (!running()).then_some(())).await;
}

/// Gives what is on its stdin to a program as systemd gives it a listening socket.
const PASS_ON: &str =
    "exec 3<&0 </dev/null; export LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=switchman.socket; exec \"$@\"";

fn spawn(folder: &Path, within: &[String], held: Option<&TcpListener>) -> Child {
    let stdin = held.map_or_else(Stdio::null, |held| OwnedFd::from(held.try_clone().unwrap()).into());
    let log =
        std::fs::OpenOptions::new().create(true).append(true).open(folder.join("switchman.log")).unwrap();
    let mut words = within.iter().map(String::as_str).chain([PROGRAM, "serve", "--config", "switchman.yaml"]);
    Command::new(words.next().unwrap())
        .args(words)
        .current_dir(folder)
        .stdin(stdin)
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .unwrap()
}

/// An address on loopback that is free, and that no other test of this run gets. Between the ports that
/// switchman picks for workers and those that the kernel picks for outgoing connections.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(26_000);
    loop {
        let address = SocketAddr::from(([127, 0, 0, 1], NEXT.fetch_add(1, Relaxed)));
        assert!(address.port() < 32_000, "no port is left between 26000 and 32000");
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

impl Drop for Switchman {
    /// A test that ends early, or well without a stop, leaves no process behind.
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        end_processes_in(self.folder.path());
    }
}

/// Everything that runs in `folder`.
fn running_in(folder: &Path) -> impl Iterator<Item = Process> {
    let folder = folder.canonicalize().unwrap();
    let all = procfs::process::all_processes().unwrap().filter_map(Result::ok);
    all.filter(move |p| p.cwd().is_ok_and(|cwd| cwd.starts_with(&folder)))
}

/// Whether a process runs. One that has ended and is reaped by nobody does not: orphans come to this process, which is
/// a subreaper as soon as one of its tests has run a supervisor.
pub(crate) fn runs(pid: u32) -> bool {
    let stat = procfs::process::Process::new(pid.cast_signed()).and_then(|process| process.stat());
    stat.is_ok_and(|stat| !matches!(stat.state, 'Z' | 'X'))
}

/// Likewise, in words.
pub(crate) fn processes_in(folder: &Path) -> Vec<String> {
    running_in(folder).map(|p| format!("{} {}", p.pid, p.cmdline().unwrap_or_default().join(" "))).collect()
}

/// Ends everything that runs in `folder`; one that is ended may just have started another.
pub(crate) fn end_processes_in(folder: &Path) {
    let end = |process: Process| {
        let pid = rustix::process::Pid::from_raw(process.pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL)
    };
    while running_in(folder).map(end).count() > 0 {}
}
