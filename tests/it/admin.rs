//! The admin API and the command line: a real server on a socket and a port, real rule sources, real workers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use switchman::admin::{self, AdminState};
use switchman::config::{self, RulesAt};
use switchman::deploy::{ChangeKind, VersionChange};
use switchman::metrics::{InFlight, ThreadSlot, VersionCounters};
use switchman::registry::{self, Address, Ignored, Registry, Upstream};
use switchman::routing::{self, Live};
use switchman::rules::source::{self, SourceSpec};
use switchman::supervisor;
use switchman::version::{ServiceName, VersionId, VersionState, WorkerId, WorkerState};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::support::{eventually, patience};

/// A switchman without watchers and data plane: registry, sources, supervisor and the admin API are real.
struct World {
    folder: tempfile::TempDir,
    address: SocketAddr,
    socket: PathBuf,
    token: String,
    live: Arc<Live>,
    changes: mpsc::Sender<VersionChange>,
    supervisor: supervisor::command::SupervisorHandle,
    listening: watch::Sender<bool>,
    cancel: CancellationToken,
    server: tokio::task::JoinHandle<()>,
}

/// Who writes the registry that the API shows.
enum Writer {
    /// The supervisor, which starts `python3 -m http.server` for each version.
    Supervisor,
    /// The test.
    Test,
}

impl World {
    async fn start(services: &[&str], writer: Writer) -> (Self, Registry) {
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
            services: configured.iter().map(|n| (n.clone(), service(folder.path(), n))).collect(),
            threads: 1,
            state: state.clone(),
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
    async fn arrive(&self, service: &str, version: &str) {
        let path = self.folder.path().join(service).join(version);
        std::fs::create_dir_all(&path).unwrap();
        let kind = ChangeKind::Settled { version: version.into(), path, identity: (1, 1) };
        self.changes.send(VersionChange { service: service.into(), kind }).await.unwrap();
    }

    async fn state_of(&self, service: &str, version: &str) -> Option<VersionState> {
        let routing = self.live.load();
        Some(routing.service(service)?.registry.versions.get(version)?.state)
    }

    async fn ready(&self, service: &str, version: &str) {
        eventually("the version is ready", || async {
            (self.state_of(service, version).await? == VersionState::Ready).then_some(())
        })
        .await;
    }

    /// One request over the unix socket.
    async fn ask(&self, line: &str, body: &str) -> Reply {
        self.ask_with(line, &["host: localhost"], body).await
    }

    async fn ask_with(&self, line: &str, headers: &[&str], body: &str) -> Reply {
        let stream = UnixStream::connect(&self.socket).await.unwrap();
        exchange(stream, line, headers, body.as_bytes()).await
    }

    /// One request over TCP.
    async fn ask_tcp(&self, line: &str, headers: &[&str]) -> Reply {
        exchange(TcpStream::connect(self.address).await.unwrap(), line, headers, b"").await
    }

    /// Runs the real binary against this switchman.
    async fn cli(&self, args: &[&str]) -> Output {
        let admin = self.socket.to_str().unwrap();
        cli(&[args, &["--admin", admin]].concat(), self.folder.path()).await
    }

    async fn end(self) {
        self.supervisor.shutdown().await;
        self.cancel.cancel();
        self.server.await.unwrap();
        assert!(!self.socket.exists(), "the socket is removed at the end");
    }
}

async fn cli(args: &[&str], folder: &Path) -> Output {
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

fn service(folder: &Path, name: &ServiceName) -> config::Service {
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
    };
    config::Service {
        root: folder.join(name.as_str()),
        hosts: Vec::new(),
        versions: regex::Regex::new("^[0-9a-f]{7,64}$").unwrap(),
        settle: Duration::from_secs(1),
        promote: config::Promote::Manual,
        rules: RulesAt::File(folder.join("rules.yaml")),
        run,
    }
}

/// An answer, read to its end.
struct Reply {
    status: u16,
    head: String,
    body: String,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.body))
    }

    /// Holds the answer to RFC 9457 and our own form, and gives the end of its `type`.
    fn problem(&self) -> String {
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

async fn exchange<S>(mut stream: S, line: &str, headers: &[&str], body: &[u8]) -> Reply
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

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// A version as the supervisor would write it, with one ready worker (or none).
fn version(service: &str, id: &str, state: VersionState) -> registry::Version {
    let ready: Vec<Arc<Upstream>> = (state == VersionState::Ready)
        .then(|| {
            Arc::new(Upstream {
                serial: 1,
                worker: WorkerId(0),
                address: Address::Tcp("127.0.0.1:41234".parse().unwrap()),
                in_flight: InFlight::new(1),
            })
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
        workers,
        ready,
        counters: Arc::new(VersionCounters::new(1)),
    }
}

fn put(registry: &Registry, versions: Vec<registry::Version>) {
    registry.update(|services| {
        for version in versions {
            let service = services.entry(version.service.clone()).or_default();
            service.root = format!("/srv/{}", version.service).into();
            service.versions.insert(VersionId::from(version.id.as_str()), Arc::new(version));
        }
    });
}

/// Waits until the snapshot has a version.
async fn shown(world: &World, service: &str, id: &str) {
    eventually("the version is in the snapshot", || async { world.state_of(service, id).await.map(|_| ()) })
        .await;
}

#[tokio::test]
async fn versions_is_the_json_of_the_contract() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready)]);
    shown(&world, "app", "4f2a91c").await;
    let reply = world.ask("GET /versions", "").await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json")));
    let generation = world.live.load().generation;
    let expected = format!(
        r#"{{"node":"host-a","generation":{generation},"versions":[{{"service":"app","version":"4f2a91c","state":"ready","dark":true,"aliases":["latest"],"routes":[],"path":"/srv/app/4f2a91c","since":"2026-11-21T07:30:00Z","reason":null,"workers":[{{"id":0,"pid":4711,"address":"127.0.0.1:41234","state":"ready","in_flight":0,"restarts":0}}],"traffic":{{"requests":0,"in_flight":0,"rps":0.0,"errors":0,"p50_ms":null,"p99_ms":null,"last_hit":null}}}}]}}"#
    );
    assert_eq!(reply.body, expected);

    // One of them, by prefix, by alias: the same element.
    let one = world.ask("GET /services/app/versions/latest", "").await;
    assert_eq!(one.json(), reply.json()["versions"][0]);

    // Traffic shows, in flight as the sum over the workers.
    let routing = world.live.load();
    let counted = routing.service("app").unwrap().resolve("4f2a91c").unwrap().clone();
    counted.ready[0].in_flight.begin(ThreadSlot(0));
    counted.counters.record(ThreadSlot(0), true, Duration::from_millis(2), 1_000_500);
    let traffic = world.ask("GET /versions?service=app", "").await.json()["versions"][0]["traffic"].clone();
    assert_eq!((&traffic["requests"], &traffic["errors"]), (&json!(1), &json!(1)));
    assert_eq!(traffic["in_flight"], 1);
    assert_eq!(traffic["last_hit"], "1970-01-01T00:16:40Z");
    world.end().await;
}

#[tokio::test]
async fn all_adds_what_is_ignored_and_what_is_wrong() {
    let (world, registry) = World::start(&["app", "web"], Writer::Test).await;
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready)]);
    registry.update(|services| {
        let app = services.get_mut("app").unwrap();
        app.problem = Some("/srv/app cannot be read: permission denied".into());
        app.ignored.push(Ignored { name: "tmp".into(), reason: "its name is no hash".into() });
    });
    let document = "routes:\n  - {name: qa, when: {header.x-qa: \"yes\"}, to: b001bee}\n";
    assert_eq!(world.ask("PUT /services/app/rules", document).await.status, 200);
    eventually("the root's problem is in the snapshot", || async {
        let all = world.ask("GET /versions?all=1", "").await.json();
        (all["ignored"].as_array()?.len() == 1).then_some(())
    })
    .await;
    let all = world.ask("GET /versions?all=1", "").await.json();
    assert_eq!(
        all["ignored"],
        json!([{"service": "app", "name": "tmp", "path": "/srv/app/tmp", "reason": "its name is no hash"}])
    );
    let problems = all["problems"].as_array().unwrap();
    assert_eq!(problems[0]["message"], "/srv/app cannot be read: permission denied");
    assert_eq!(problems[1]["message"], "no version or alias is called `b001bee`");
    assert_eq!((&problems[1]["severity"], &problems[1]["line"]), (&json!("warning"), &json!(2)));
    assert!(world.ask("GET /versions", "").await.json().get("ignored").is_none());
    let web = world.ask("GET /versions?service=web&all=1", "").await.json();
    assert_eq!((&web["versions"], &web["ignored"], &web["problems"]), (&json!([]), &json!([]), &json!([])));
    world.end().await;
}

#[tokio::test]
async fn who_may_do_what() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready)]);
    shown(&world, "app", "4f2a91c").await;
    let host = format!("host: {}", world.address);
    let right = format!("authorization: Bearer {}", world.token);
    let wrong = format!("authorization: Bearer {}", "0".repeat(64));
    let promote = "POST /services/app/versions/4f2a91c/promote";
    let cases: &[(&str, &[&str], u16)] = &[
        ("GET /versions", &[&host], 200),
        ("GET /versions", &["host: evil.example"], 403),
        (promote, &[&host], 401),
        (promote, &[&host, &wrong], 401),
        (promote, &[&host, &right, "origin: http://evil.example"], 403),
        (promote, &["host: evil.example", &right], 403),
        (promote, &[&host, &right], 200),
        ("PUT /services/app/aliases/beta", &[&host], 401),
        ("DELETE /services/app/aliases/beta", &[&host], 401),
        ("POST /nowhere", &[&host], 401),
        ("GET /healthz", &[&host], 200),
    ];
    for (line, headers, status) in cases {
        let reply = world.ask_tcp(line, headers).await;
        assert_eq!(reply.status, *status, "{line} {headers:?}: {}", reply.body);
        if *status >= 400 {
            reply.problem();
        }
        if *status == 401 {
            assert_eq!(reply.header("www-authenticate"), Some("Bearer"));
        }
    }
    assert_eq!(world.ask(promote, "").await.status, 200, "the socket needs no token");

    use std::os::unix::fs::MetadataExt;
    assert_eq!(std::fs::metadata(&world.socket).unwrap().mode() & 0o777, 0o600);
    world.end().await;
}

#[tokio::test]
async fn every_error_is_a_problem() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    let one = version("app", "4f2a91c000", VersionState::Ready);
    let two = version("app", "4f2a91c111", VersionState::Failed);
    put(&registry, vec![one, two]);
    shown(&world, "app", "4f2a91c111").await;
    let cases: &[(&str, &str, u16, &str)] = &[
        ("GET /", "", 404, "not-found"),
        ("GET /nowhere", "", 404, "not-found"),
        ("GET /services/app/versions/4f2a91c000/nowhere", "", 404, "not-found"),
        ("DELETE /versions", "", 405, "method-not-allowed"),
        ("GET /services/app/versions/4f2a91c000/start", "", 405, "method-not-allowed"),
        ("GET /versions?service=web", "", 404, "unknown-service"),
        ("GET /services/web/versions/4f2a91c000", "", 404, "unknown-service"),
        ("GET /services/app/versions/b001bee", "", 404, "unknown-version"),
        ("GET /services/app/versions/4f2a91c", "", 400, "ambiguous-version"),
        ("GET /services/app/versions/%ff", "", 400, "bad-request"),
        ("GET /services/app/aliases/beta", "", 404, "unknown-alias"),
        ("DELETE /services/app/aliases/beta", "", 404, "unknown-alias"),
        ("PUT /services/app/aliases/beta", "{", 400, "bad-request"),
        ("PUT /services/app/aliases/beta", r#"{"versoin": "4f2a91c000"}"#, 400, "bad-request"),
        ("PUT /services/app/aliases/beta", r#"{"version": "b001bee"}"#, 404, "unknown-version"),
        ("PUT /services/app/aliases/current", r#"{"version": "4f2a91c000"}"#, 409, "refused"),
        ("POST /services/app/versions/4f2a91c000/scale", r#"{"workers": 0}"#, 400, "bad-request"),
        ("POST /services/app/versions/4f2a91c000/scale", r#"{"workers": -1}"#, 400, "bad-request"),
        ("POST /services/app/versions/4f2a91c111/promote", "", 409, "refused"),
        ("POST /services/app/rollback", "", 409, "refused"),
        ("PUT /services/app/rules", "routes: 7\n", 422, "invalid-rules"),
        ("POST /services/app/rules/explain", r#"{"headers": 1}"#, 400, "bad-request"),
        ("GET /readyz", "", 503, "not-ready"),
    ];
    for (line, body, status, kind) in cases {
        let reply = world.ask(line, body).await;
        assert_eq!(reply.status, *status, "{line}: {}", reply.body);
        assert_eq!(reply.problem(), *kind, "{line}");
    }
    let refused = world.ask("DELETE /services/app/rules", "").await;
    assert_eq!(refused.header("allow"), Some("GET,HEAD,PUT"), "a 405 says what is possible");
    let large = "#".repeat(10 * 1024 * 1024 + 1);
    assert_eq!(world.ask("PUT /services/app/rules", &large).await.problem(), "too-large");
    let refused = world.ask("PUT /services/app/rules", "routes: 7\n").await.json();
    assert_eq!(refused["problems"][0]["line"], 1, "{refused}");

    world.listening.send_replace(true);
    let ready = world.ask("GET /readyz", "").await;
    assert_eq!((ready.status, ready.body.as_str()), (200, "ok\n"));
    world.end().await;
}

#[tokio::test]
async fn who_changes_and_then_reads_sees_the_change() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    let mut other = version("app", "b001bee", VersionState::Ready);
    other.arrived = at("2026-11-21T07:45:00Z");
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready), other]);
    shown(&world, "app", "b001bee").await;
    let current =
        || async { world.ask("GET /services/app/versions/current", "").await.json()["version"].clone() };

    let promoted = world.ask("POST /services/app/versions/4f2a91c/promote", "").await.json();
    assert_eq!((&promoted["version"], &promoted["dark"]), (&json!("4f2a91c"), &json!(false)));
    assert_eq!(promoted["aliases"], json!(["current"]));
    assert_eq!(current().await, "4f2a91c");
    assert_eq!(
        world.ask("POST /services/app/versions/latest/promote", "").await.json()["version"],
        "b001bee"
    );
    assert_eq!(world.ask("POST /services/app/rollback", "").await.json()["version"], "4f2a91c");
    assert_eq!(current().await, "4f2a91c");

    let tagged = world.ask("PUT /services/app/aliases/beta", r#"{"version": "latest"}"#).await.json();
    assert_eq!(tagged, json!({"service": "app", "name": "beta", "version": "b001bee"}));
    assert_eq!(
        world.ask("GET /services/app/aliases", "").await.json()["aliases"],
        json!({"beta": "b001bee", "current": "4f2a91c", "latest": "b001bee", "previous": "b001bee"})
    );
    assert_eq!(world.ask("DELETE /services/app/aliases/beta", "").await.status, 204);
    assert_eq!(world.ask("GET /services/app/aliases/beta", "").await.status, 404);

    // A previous version that is not ready must not become current by accident.
    put(&registry, vec![version("app", "b001bee", VersionState::Failed)]);
    eventually("the failure shows", || async {
        (world.state_of("app", "b001bee").await? == VersionState::Failed).then_some(())
    })
    .await;
    assert_eq!(world.ask("POST /services/app/rollback", "").await.problem(), "refused");
    assert_eq!(world.ask("POST /services/app/rollback?force=1", "").await.status, 200);
    world.end().await;
}

#[tokio::test]
async fn rules_are_read_replaced_checked_and_explained() {
    let (world, registry) = World::start(&["app"], Writer::Test).await;
    let beta = version("app", "b001bee", VersionState::Ready);
    put(&registry, vec![version("app", "4f2a91c", VersionState::Ready), beta]);
    shown(&world, "app", "b001bee").await;
    assert_eq!(world.ask("POST /services/app/versions/4f2a91c/promote", "").await.status, 200);

    let document = "routes:\n  - {name: qa, when: {header.x-qa: \"yes\"}, to: b001bee}\n";
    let set = world.ask("PUT /services/app/rules", document).await;
    assert_eq!(set.status, 200, "{}", set.body);
    let etag = set.header("etag").unwrap().to_owned();
    let got = world.ask("GET /services/app/rules", "").await;
    assert_eq!(got.json()["document"], document);
    assert_eq!(got.header("etag"), Some(etag.as_str()));
    assert_eq!(format!("\"{}\"", got.json()["revision"]), etag);
    let text = world.ask_with("GET /services/app/rules", &["host: x", "accept: text/yaml"], "").await;
    assert_eq!(
        (text.body.as_str(), text.header("content-type")),
        (document, Some("text/yaml; charset=utf-8"))
    );
    assert_eq!(world.ask("GET /services/app/versions/b001bee", "").await.json()["routes"], json!(["qa"]));

    // Two people edit the same revision: the second is told.
    let guard = format!("if-match: {etag}");
    let edit = json!({ "document": document.replace("yes", "on") }).to_string();
    let first = world.ask_with("PUT /services/app/rules", &["host: x", &guard], &edit).await;
    assert_eq!(first.status, 200, "{}", first.body);
    let second = world.ask_with("PUT /services/app/rules", &["host: x", &guard], &edit).await;
    assert_eq!((second.status, second.problem().as_str()), (412, "revision-changed"));

    let checked = world.ask("POST /services/app/rules/check?name=my.yaml", "default: nightly\n").await.json();
    assert_eq!(checked["ok"], true);
    let warning = &checked["problems"][0];
    assert_eq!(warning["message"], "no version or alias is called `nightly`");
    assert_eq!((&warning["file"], &warning["line"]), (&json!("my.yaml"), &json!(1)));
    let checked = world.ask("POST /services/app/rules/check", "defualt: x\n").await.json();
    assert_eq!(checked["ok"], false);

    let asked = json!({"path": "/cart", "headers": {"x-qa": "on"}}).to_string();
    let explained = world.ask("POST /services/app/rules/explain", &asked).await.json();
    assert_eq!((&explained["route"], &explained["version"]), (&json!("qa"), &json!("b001bee")));
    assert_eq!((&explained["worker"], &explained["routes"][0]["decides"]), (&json!(0), &json!(true)));
    let asked = json!({"headers": {"x-qa": ["off"]}}).to_string();
    let explained = world.ask("POST /services/app/rules/explain", &asked).await.json();
    assert_eq!((&explained["route"], &explained["version"]), (&Value::Null, &json!("4f2a91c")));
    assert_eq!(explained["routes"][0]["failed"]["seen"], "off");
    assert_eq!(explained["why"], "no route took it, and the default is current (4f2a91c)");
    world.end().await;
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
    let (world, _registry) = World::start(&["app"], Writer::Test).await;
    let again = |socket: &Path| {
        let admin = config::Admin { listen: None, socket: socket.to_owned() };
        async move { admin::bind(&admin).await }
    };
    let error = again(&world.socket).await.unwrap_err();
    assert!(error.to_string().starts_with("another switchman runs here"), "{error}");
    let taken = config::Admin { listen: Some(world.address), socket: world.folder.path().join("s") };
    let error = admin::bind(&taken).await.unwrap_err();
    assert!(error.hint().contains("ss -ltnp"), "{error}: {}", error.hint());

    // A socket without its process, as after a kill -9.
    let stale = world.folder.path().join("stale.sock");
    drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
    assert!(stale.exists());
    let bound = again(&stale).await.unwrap();
    assert_eq!(bound.socket(), stale);
    UnixStream::connect(&stale).await.unwrap();

    let file = world.folder.path().join("file");
    std::fs::write(&file, "precious").unwrap();
    assert!(again(&file).await.unwrap_err().to_string().ends_with("is no socket"));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), "precious");
    world.end().await;
}

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
