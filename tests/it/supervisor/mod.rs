//! Real worker processes under a real supervisor: small `sh` and `python3` programs in temporary deploy roots.
//!
//! Every version is run as `sh ./run.sh`, so that each test writes the program it needs into the version's folder.

mod adopt;
mod autoscale;
mod daemons;
mod faults;
mod hooks;
mod inherit;
mod isolation;
mod life;
mod notify;
mod retention;
mod sleep;
mod starts;
mod stop;
mod unix;

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use switchman::config::{
    Promote, Ready, ReadyCheck, RulesAt, RunCommand, RunSpec, Service, Stop, Upkeep, Upload,
};
use switchman::deploy::{ChangeKind, VersionChange};
use switchman::hint::Problems;
use switchman::registry::{self, Address, Registry};
use switchman::routing::{self, Live};
use switchman::rules::publisher::{Aliases, Published};
use switchman::rules::table::RuleTable;
use switchman::supervisor::command::{Action, Refused, SupervisorHandle};
use switchman::supervisor::{self, Settings};
use switchman::version::{ServiceName, VersionId, VersionState};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::either::Either;
use tokio_util::sync::CancellationToken;

use crate::support::eventually;
use crate::support::switchman::end_processes_in;

const APP: &str = "app";

/// Answers GET with 200 (`/env`: its environment, a variable a line); other ports and statuses by argument.
const SERVER: &str = r#"
import http.server, os, sys
port = int(sys.argv[1]) if len(sys.argv) > 1 else int(os.environ["PORT"])
cwd = f"CWD={os.getcwd()}\n"
status = int(sys.argv[2]) if len(sys.argv) > 2 else 200
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = "".join(f"{k}={v}\n" for k, v in os.environ.items()) + cwd
        self.send_response(status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())
    def log_message(self, *args): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"#;
/// A version that works.
const SERVE: &str = "exec python3 server.py";

/// A deploy root. A test that fails leaves no process behind in it.
struct Root(TempDir);

impl Root {
    fn new() -> Arc<Self> {
        Arc::new(Self(TempDir::new().unwrap()))
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        end_processes_in(self.path());
    }
}

/// One supervisor with one service.
struct World {
    root: Arc<Root>,
    state: Arc<TempDir>,
    spec: RunSpec,
    upkeep: Upkeep,
    handle: SupervisorHandle,
    task: JoinHandle<()>,
    changes: mpsc::Sender<VersionChange>,
    registry: watch::Receiver<Arc<registry::Snapshot>>,
    rules: watch::Sender<Arc<Published>>,
    live: Arc<Live>,
}

/// One worker that is stopped without mercy, and has to be ready within ten seconds.
fn spec() -> RunSpec {
    RunSpec {
        run: Some(RunCommand::Shell("exec sh ./run.sh \"$1\" \"$2\"".to_owned())),
        env: BTreeMap::new(),
        workers: 1,
        ready: Ready {
            check: ReadyCheck::Http("/healthz".to_owned()),
            interval: Duration::from_millis(25),
            timeout: Duration::from_secs(2),
            deadline: Duration::from_secs(10),
        },
        stop: Stop { grace: Duration::from_millis(300), drain: Duration::from_secs(10) },
        ..RunSpec::default()
    }
}

/// `spec` with this deadline.
fn deadline(ms: u64) -> RunSpec {
    let mut spec = spec();
    spec.ready.deadline = Duration::from_millis(ms);
    spec
}

impl World {
    fn new(spec: RunSpec) -> Self {
        Self::over(Root::new(), Arc::new(TempDir::new().unwrap()), spec)
    }

    /// Over folders that are there.
    fn over(root: Arc<Root>, state: Arc<TempDir>, spec: RunSpec) -> Self {
        Self::over_with(root, state, spec, &[])
    }

    /// Likewise, with these aliases from the beginning.
    fn over_with(root: Arc<Root>, state: Arc<TempDir>, spec: RunSpec, aliases: &[(&str, &str)]) -> Self {
        Self::with(root, state, spec, Upkeep::default(), aliases)
    }

    /// A new one with this upkeep of its versions.
    fn keeping(upkeep: Upkeep, spec: RunSpec) -> Self {
        Self::with(Root::new(), Arc::new(TempDir::new().unwrap()), spec, upkeep, &[])
    }

    fn with(
        root: Arc<Root>,
        state: Arc<TempDir>,
        spec: RunSpec,
        upkeep: Upkeep,
        aliases: &[(&str, &str)],
    ) -> Self {
        let service = Service {
            root: root.path().to_owned(),
            hosts: Vec::new(),
            versions: regex("^[0-9a-f]{7,64}$"),
            settle: Duration::from_secs(1),
            upload: Upload::default(),
            promote: Promote::Manual,
            rules: RulesAt::File(root.path().join("rules.yaml")),
            delivery: Arc::default(),
            upkeep: upkeep.clone(),
            run: spec.clone(),
        };
        let app = ServiceName::from(APP);
        let settings = Settings {
            services: BTreeMap::from([(app.clone(), service)]),
            threads: 2,
            state: state.path().to_owned(),
            etcd: None,
            node: "host-a".to_owned(),
            alone: CancellationToken::new(),
            max_workers_starting: 8,
        };
        settings.alone.cancel();
        let (writer, registry) = Registry::new();
        let (rules, rules_reader) = watch::channel(published(aliases));
        let live = Live::new();
        let readers = BTreeMap::from([(app.clone(), rules_reader)]);
        let hosts = BTreeMap::from([(app, Vec::new())]);
        tokio::spawn(routing::run(live.clone(), registry.clone(), readers, hosts));
        let (changes, changed) = mpsc::channel(64);
        let (handle, task) = supervisor::spawn(settings, writer, changed, live.clone());
        Self { root, state, spec, upkeep, handle, task, changes, registry, rules, live }
    }

    /// Ends this supervisor, and starts another one over the same folders.
    async fn restarted(self) -> Self {
        self.end().await;
        Self::with(self.root, self.state, self.spec, self.upkeep, &[])
    }

    /// This supervisor leaves its workers, and another one over the same folders goes on.
    async fn succeeded(self) -> Self {
        self.handle.leave().await;
        Self::with(self.root, self.state, self.spec, self.upkeep, &[])
    }

    async fn end(&self) {
        self.handle.shutdown().await;
    }

    fn folder(&self, version: &str) -> PathBuf {
        self.root.path().join(version)
    }

    /// Writes a version's folder without telling anybody.
    fn write(&self, version: &str, run: &str) {
        let folder = self.folder(version);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("run.sh"), run).unwrap();
        std::fs::write(folder.join("server.py"), SERVER).unwrap();
    }

    async fn tell(&self, kind: ChangeKind) {
        self.changes.send(VersionChange { service: APP.into(), kind }).await.unwrap();
    }

    /// Tells that a version's folder is complete.
    async fn settle(&self, version: &str) {
        let path = self.folder(version);
        let metadata = std::fs::metadata(&path).unwrap();
        let identity = (metadata.dev(), metadata.ino());
        self.tell(ChangeKind::Settled { version: version.into(), path, identity }).await;
    }

    /// Deploys a version that runs this script.
    async fn deploy(&self, version: &str, run: &str) {
        self.write(version, run);
        self.settle(version).await;
    }

    async fn gone(&self, version: &str) {
        std::fs::remove_dir_all(self.folder(version)).unwrap();
        self.tell(ChangeKind::Gone { version: version.into() }).await;
    }

    async fn ask(&self, version: &str, action: Action) -> Result<(), Refused> {
        self.handle.ask(APP.into(), version.into(), action).await
    }

    /// Makes a version `current` and waits until that is in force.
    async fn promote(&self, version: &str) {
        self.rules.send_replace(published(&[("current", version)]));
        eventually("current is in force", async || {
            self.live.load().service(APP)?.carries_traffic(&VersionId::from(version)).then_some(())
        })
        .await;
    }

    fn version(&self, version: &str) -> Option<Arc<registry::Version>> {
        self.registry.borrow().services.get(APP)?.versions.get(version).cloned()
    }

    /// Waits until a version is as it should be.
    async fn until(
        &self,
        version: &str,
        what: &str,
        is_so: impl Fn(&registry::Version) -> bool,
    ) -> Arc<registry::Version> {
        eventually(what, async || self.version(version).filter(|v| is_so(v))).await
    }

    async fn until_state(&self, version: &str, state: VersionState) -> Arc<registry::Version> {
        self.until(version, &format!("{version} is {state}"), |v| v.state == state).await
    }

    /// Waits until a version is gone from the registry.
    async fn until_forgotten(&self, version: &str) {
        eventually("the version is forgotten", async || self.version(version).is_none().then_some(())).await;
    }

    fn lines(&self, version: &str) -> Vec<String> {
        self.handle.logs().logs(&APP.into(), &version.into()).iter().map(|l| l.text.to_string()).collect()
    }
}

fn regex(text: &str) -> regex::Regex {
    regex::Regex::new(text).unwrap()
}

fn published(aliases: &[(&str, &str)]) -> Arc<Published> {
    let aliases: Aliases = aliases.iter().map(|(a, v)| ((*a).to_owned(), (*v).to_owned())).collect();
    Arc::new(Published {
        generation: 1,
        table: Arc::new(RuleTable::empty()),
        aliases: Arc::new(aliases),
        document: Arc::from(""),
        origin: Arc::from("test"),
        revision: 0,
        since: jiff::Timestamp::now(),
        problems: Arc::new(Problems::default()),
        rejected: false,
        stale_since: None,
    })
}

fn pids(version: &registry::Version) -> Vec<u32> {
    version.workers.iter().filter_map(|w| w.pid).collect()
}

/// Whether a process exists, be it a zombie.
fn exists(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
}

/// Waits for a file that a worker writes a line to.
async fn written(file: &Path) -> String {
    eventually(&format!("{} is written", file.display()), async || {
        std::fs::read_to_string(file).ok().filter(|text| text.ends_with('\n'))
    })
    .await
    .trim()
    .to_owned()
}

/// GET over a connection of its own: the whole answer.
async fn get(address: &Address, path: &str) -> String {
    let mut stream = match address {
        Address::Tcp(address) => Either::Left(TcpStream::connect(address).await.unwrap()),
        Address::Unix(path) => Either::Right(UnixStream::connect(path).await.unwrap()),
    };
    let request = format!("GET {path} HTTP/1.0\r\nhost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}
