//! What the admin tests stand on: a server with real sources and a real supervisor, and how it is asked.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::Value;
use switchman::admin::{self, AdminState};
use switchman::config::{self, Protocol, RulesAt};
use switchman::deploy::{ChangeKind, VersionChange};
use switchman::metrics::VersionCounters;
use switchman::registry::{self, Address, Registry, Upstream};
use switchman::routing::{self, Live};
use switchman::rules::source::{self, SourceSpec};
use switchman::supervisor;
use switchman::version::{ServiceName, VersionId, VersionState, WorkerId, WorkerState};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::support::eventually;

/// A switchman without watchers and data plane: registry, sources, supervisor and the admin API are real.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) socket: PathBuf,
    pub(crate) token: String,
    pub(crate) live: Arc<Live>,
    changes: mpsc::Sender<VersionChange>,
    supervisor: supervisor::command::SupervisorHandle,
    pub(crate) listening: watch::Sender<bool>,
    cancel: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

/// Who writes the registry that the API shows.
pub(crate) enum Writer {
    /// The supervisor, which starts `python3 -m http.server` for each version.
    Supervisor,
    /// The test.
    Test,
}

impl World {
    pub(crate) async fn start(services: &[&str], writer: Writer) -> (Self, Registry) {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        let cancel = CancellationToken::new();
        let live = Live::new();
        let names: Vec<ServiceName> = services.iter().map(|s| ServiceName::from(*s)).collect();

        let (shown, reader) = Registry::new();
        let (other, _) = Registry::new();
        let (supervised, by_test, configured) = match writer {
            Writer::Supervisor => (shown, other, names.clone()),
            Writer::Test => (other, shown, Vec::new()),
        };
        let settings = supervisor::Settings {
            max_workers_starting: 8,
            services: configured.iter().map(|n| (n.clone(), service(folder.path(), n))).collect(),
            threads: 1,
            state: state.clone(),
            etcd: None,
            node: "host-a".to_owned(),
            alone: CancellationToken::new(),
        };
        let (changes, changed) = mpsc::channel(16);
        let (supervisor, _) = supervisor::spawn(settings, supervised, changed, live.clone());

        let mut sources = BTreeMap::new();
        let mut readers = BTreeMap::new();
        for name in &names {
            let rules = RulesAt::File(state.join(name.as_str()).join("rules.yaml"));
            let spec = SourceSpec { service: name.clone(), rules, state: state.clone(), etcd: None };
            let rules = source::spawn(spec, cancel.clone()).unwrap();
            sources.insert(name.clone(), rules.handle);
            readers.insert(name.clone(), rules.reader);
        }
        let hosts = names.iter().map(|name| (name.clone(), Vec::new())).collect();
        tokio::spawn(routing::run(live.clone(), reader, readers, hosts));

        let socket = state.join("admin.sock");
        let listen = Some("127.0.0.1:0".parse().unwrap());
        let bound = admin::bind(&config::Admin { listen, socket: socket.clone() }).await.unwrap();
        let address = bound.address().unwrap();
        let token = admin::auth::token(&state).unwrap();
        let (listening, is_listening) = watch::channel(false);
        let admin_state = AdminState {
            node: "host-a".into(),
            live: live.clone(),
            supervisor: supervisor.clone(),
            sources,
            token: token.clone(),
            listening: is_listening,
        };
        let server = admin::serve(bound, admin_state, cancel.clone());
        let token = token.0;
        let world =
            Self { folder, address, socket, token, live, changes, supervisor, listening, cancel, server };
        (world, by_test)
    }

    /// Tells of a folder that is complete; what the deploy watcher does.
    pub(crate) async fn arrive(&self, service: &str, version: &str) {
        let path = self.folder.path().join(service).join(version);
        std::fs::create_dir_all(&path).unwrap();
        let kind = ChangeKind::Settled { version: version.into(), path, identity: (1, 1) };
        self.changes.send(VersionChange { service: service.into(), kind }).await.unwrap();
    }

    pub(crate) async fn state_of(&self, service: &str, version: &str) -> Option<VersionState> {
        let routing = self.live.load();
        Some(routing.service(service)?.registry.versions.get(version)?.state)
    }

    pub(crate) async fn ready(&self, service: &str, version: &str) {
        eventually("the version is ready", || async {
            (self.state_of(service, version).await? == VersionState::Ready).then_some(())
        })
        .await;
    }

    /// One request over the unix socket.
    pub(crate) async fn ask(&self, line: &str, body: &str) -> Reply {
        self.ask_with(line, &["host: localhost"], body).await
    }

    pub(crate) async fn ask_with(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        exchange(stream, line, headers, body.as_bytes()).await
    }

    /// One request over TCP.
    pub(crate) async fn ask_tcp(&self, line: &str, headers: &[&str]) -> Reply {
        exchange(TcpStream::connect(self.address).await.unwrap(), line, headers, b"").await
    }

    /// Runs the real binary against this switchman.
    pub(crate) async fn cli(&self, args: &[&str]) -> Output {
        let admin = self.socket.to_str().unwrap();
        cli(&[args, &["--admin", admin]].concat(), self.folder.path()).await
    }

    pub(crate) async fn end(self) {
        self.supervisor.shutdown().await;
        self.cancel.cancel();
        self.server.await.unwrap();
        assert!(!self.socket.exists(), "the socket is removed at the end");
    }
}

pub(crate) async fn cli(args: &[&str], folder: &Path) -> Output {
    tokio::process::Command::new(env!("CARGO_BIN_EXE_switchman"))
        .args(args)
        .current_dir(folder)
        .env_remove("SWITCHMAN_ADMIN")
        .env_remove("SWITCHMAN_LOG")
        .env("XDG_STATE_HOME", folder)
        .stdin(std::process::Stdio::null())
        .output()
        .await
        .unwrap()
}

pub(crate) fn service(folder: &Path, name: &ServiceName) -> config::Service {
    let ready = config::Ready {
        check: config::ReadyCheck::Tcp,
        interval: Duration::from_millis(20),
        timeout: Duration::from_secs(2),
        deadline: Duration::from_secs(20),
    };
    let run = config::RunSpec {
        run: Some(config::RunCommand::Shell(
            "echo serving; exec python3 -m http.server --bind 127.0.0.1 $PORT".into(),
        )),
        env: BTreeMap::new(),
        workers: 1,
        ready,
        stop: config::Stop { grace: Duration::from_secs(5), drain: Duration::from_secs(5) },
        ..config::RunSpec::default()
    };
    config::Service {
        root: folder.join(name.as_str()),
        hosts: Vec::new(),
        versions: regex::Regex::new("^[0-9a-f]{7,64}$").unwrap(),
        settle: Duration::from_secs(1),
        upload: config::Upload::default(),
        promote: config::Promote::Manual,
        rules: RulesAt::File(folder.join("rules.yaml")),
        delivery: Arc::default(),
        upkeep: config::Upkeep::default(),
        run,
    }
}

/// An answer, read to its end.
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Holds the answer to RFC 9457 and our own form, and gives the end of its `type`.
    pub(crate) fn problem(&self) -> String {
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{}", self.head);
        let json = self.json();
        assert_eq!(json["status"], self.status, "{json}");
        for key in ["title", "detail"] {
            assert!(json[key].as_str().is_some_and(|text| !text.is_empty()), "{key} in {json}");
        }
        let kind = json["type"].as_str().unwrap();
        kind.strip_prefix("urn:switchman:problem:").unwrap().to_owned()
    }
}

pub(crate) async fn exchange<S>(mut stream: S, line: &str, headers: &[&str], body: &[u8]) -> Reply
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let headers: String = headers.iter().map(|h| format!("{h}\r\n")).collect();
    let head =
        format!("{line} HTTP/1.1\r\n{headers}connection: close\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await.unwrap();
    // A body that is too large is refused before it is read to its end.
    let _ = stream.write_all(body).await;
    let mut bytes = Vec::new();
    let _ = stream.read_to_end(&mut bytes).await;
    let text = String::from_utf8(bytes).unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head in {text:?}"));
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    assert!(!chunked, "the answers of these tests have a length");
    Reply { status, head: head.to_owned(), body: body.to_owned() }
}

pub(crate) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A version as the supervisor would write it, with one ready worker (or none).
pub(crate) fn version(service: &str, id: &str, state: VersionState) -> registry::Version {
    let ready: Vec<Arc<Upstream>> = (state == VersionState::Ready)
        .then(|| {
            let address = Address::Tcp("127.0.0.1:41234".parse().unwrap());
            Arc::new(Upstream::new(1, WorkerId(0), address, Protocol::Http1, 1))
        })
        .into_iter()
        .collect();
    let workers = ready
        .iter()
        .map(|upstream| registry::Worker {
            id: WorkerId(0),
            pid: Some(4711),
            address: Some(upstream.address.clone()),
            state: WorkerState::Ready,
            restarts: 0,
            upstream: Some(upstream.clone()),
        })
        .collect();
    registry::Version {
        service: service.into(),
        id: id.into(),
        path: format!("/srv/{service}/{id}").into(),
        state,
        since: at("2026-11-21T07:30:00.123456789Z"),
        arrived: at("2026-11-21T07:29:00Z"),
        reason: None,
        modified: false,
        workers,
        wake: None,
        ready,
        delivery: Arc::default(),
        counters: Arc::new(VersionCounters::new(1)),
    }
}

pub(crate) fn put(registry: &Registry, versions: Vec<registry::Version>) {
    registry.update(|services| {
        for version in versions {
            let service = services.entry(version.service.clone()).or_default();
            service.root = format!("/srv/{}", version.service).into();
            service.versions.insert(VersionId::from(version.id.as_str()), Arc::new(version));
        }
    });
}

/// Waits until the snapshot has a version.
pub(crate) async fn shown(world: &World, service: &str, id: &str) {
    eventually("the version is in the snapshot", || async { world.state_of(service, id).await.map(|_| ()) })
        .await;
}
