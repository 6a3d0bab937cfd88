//! The YAML tree of a configuration to a [`Config`], every problem on the way collected.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::front;
use super::keys::front::FRONT;
use super::keys::{ADMIN, ETCD, FILE, names};
use super::text::{self, Links};
use super::value::{self, DURATION_MAX, SOCKET_PATH_MAX};
use super::{Admin, Config, Etcd, Secret, bodies, clash, limits, service};
use crate::hint::{Problem, Problems};
use crate::version::ServiceName;
use crate::yaml::{Collector, Fields, Node, Reader};

/// What holds where the file says nothing and the machine knows.
#[derive(Debug, Clone)]
pub(super) struct Surroundings {
    /// What relative paths begin at; absolute.
    pub folder: PathBuf,
    /// The default state folder; none where there is no home either.
    pub state: Option<PathBuf>,
    /// The default name of the node.
    pub node: String,
    /// The default number of data-plane threads.
    pub threads: usize,
    /// Whether this is root.
    pub is_root: bool,
}

/// The default admin address.
const ADMIN_LISTEN: SocketAddr = loopback(7001);
/// The default public address.
const LISTEN: SocketAddr = loopback(7000);
/// The most data-plane threads.
const THREADS_MAX: u64 = 1024;
/// The most workers that may be said to start at once; and, on small machines, how many may if nobody says.
const WORKERS_STARTING_MAX: u64 = 1000;
const WORKERS_STARTING: usize = 4;
const DRAIN: Duration = Duration::from_secs(30);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), port)
}

/// Reads a whole document. There is a configuration only where no problem is an error.
pub(super) fn config(node: &Node, around: &Surroundings) -> (Option<Config>, Problems) {
    let problems = Collector::default();
    let config = document(Reader::new(node, &problems), around);
    let problems = problems.into_inner();
    (config.filter(|_| !problems.has_errors()), problems)
}

fn document(reader: Reader<'_>, around: &Surroundings) -> Option<Config> {
    let file = reader.fields(&names(&[&FILE, &FRONT]))?;
    let listen = file.get("listen").map_or_else(|| vec![LISTEN], |r| addresses(&r));
    let front = front::front(&file, &listen, &around.folder);
    let node = file.get("node").and_then(|r| r.value(value::name)).unwrap_or_else(|| around.node.clone());
    let state = state(&file, around);
    let admin = admin(&file, state.as_deref(), around);
    let with_tls = front.iter().filter_map(|front| front.tls.as_ref()).flat_map(|tls| &tls.listen);
    let public: Vec<SocketAddr> = listen.iter().chain(with_tls).copied().collect();
    clash::listeners(&file, &public, admin.as_ref());
    let etcd = file.get("etcd").and_then(|r| etcd(r, around));
    let threads = file.get("threads").and_then(|r| r.number(1..=THREADS_MAX));
    let starting = file.get("max_workers_starting").and_then(|r| r.number(1..=WORKERS_STARTING_MAX));
    let drain = file.get("drain").and_then(|r| duration(&r, Duration::ZERO)).unwrap_or(DRAIN);
    let errors = file.get("errors").and_then(|r| bodies::errors(&r, &around.folder));
    let limits = file.get("limits").and_then(limits::limits).unwrap_or_default();
    let state = state.unwrap_or_default();
    let context = service::Context {
        folder: &around.folder,
        state: &state,
        etcd: etcd.as_ref().map(|e| e.prefix.as_str()),
        // A broken `etcd:` must not be reported a second time by every service that leans on it.
        etcd_written: file.get("etcd").is_some(),
        is_root: around.is_root,
    };
    let services = services(&file, &context);
    Some(Config {
        file: None,
        listen,
        front: front?,
        admin: admin?,
        node,
        threads: threads.map_or(around.threads, |n| n as usize),
        drain,
        max_workers_starting: starting
            .map_or_else(|| (2 * around.threads).max(WORKERS_STARTING), |n| n as usize),
        errors,
        limits,
        services: services?,
        etcd,
        state,
    })
}

/// Addresses to listen on, at least one.
pub(super) fn addresses(reader: &Reader<'_>) -> Vec<SocketAddr> {
    let addresses = reader.one_or_more();
    if addresses.is_empty() {
        reader.error("the list is empty", "write an address, as in \"127.0.0.1:7000\"");
    }
    addresses.iter().filter_map(|r| r.value(value::address)).collect()
}

fn state(file: &Fields<'_>, around: &Surroundings) -> Option<PathBuf> {
    match file.get("state") {
        Some(reader) => path(&reader, &around.folder),
        None => {
            if around.state.is_none() {
                let problem = Problem::error("state", "there is no home folder to keep the state in");
                file.map().report(problem.hint("say where, as in `state: /var/lib/switchman`"));
            }
            around.state.clone()
        }
    }
}

fn admin(file: &Fields<'_>, state: Option<&Path>, around: &Surroundings) -> Option<Admin> {
    let fields = match file.get("admin") {
        Some(reader) => Some(reader.fields(&names(&[&ADMIN]))?),
        None => None,
    };
    let get = |key| fields.as_ref().and_then(|f| f.get(key));
    let listen = match get("listen") {
        None => Some(ADMIN_LISTEN),
        Some(reader) if reader.node().text() == Some("off") => None,
        Some(reader) => reader.value(value::address),
    };
    let socket = match get("socket") {
        Some(reader) => path(&reader, &around.folder)?,
        None => state?.join("admin.sock"),
    };
    let length = socket.as_os_str().len();
    if length > SOCKET_PATH_MAX {
        let message = format!("the path {} has {length} bytes, a socket at most 107", socket.display());
        let problem = Problem::error("admin.socket", message);
        let at = get("socket").or_else(|| file.get("state")).unwrap_or_else(|| file.map().clone());
        at.report(problem.hint("say a shorter one, as in `admin: {socket: /run/switchman/admin.sock}`"));
    }
    Some(Admin { listen, socket })
}

fn etcd(reader: Reader<'_>, around: &Surroundings) -> Option<Etcd> {
    let fields = reader.fields(&names(&[&ETCD]))?;
    let endpoints = fields.require("endpoints", r#"["http://127.0.0.1:2379"]"#).map(|r| {
        let endpoints = r.one_or_more();
        if endpoints.is_empty() {
            r.error("the list is empty", "write a URL, as in \"http://127.0.0.1:2379\"");
        }
        endpoints.iter().filter_map(|r| r.value(value::endpoint)).collect()
    });
    let prefix = fields.get("prefix").map(|r| r.value(value::etcd_prefix));
    let user = fields.get("user").and_then(|r| r.text());
    let password = fields.get("password_file").and_then(|r| {
        let path = path(&r, &around.folder)?;
        let text = text::read(&path, Links::Follow);
        let text = text.map_err(|problem| r.report(in_value(&path, *problem))).ok()?;
        Some(Secret(text.trim_end_matches(['\r', '\n']).to_owned()))
    });
    for (one, other, example) in
        [("user", "password_file", "/etc/switchman/etcd.password"), ("password_file", "user", "root")]
    {
        if fields.get(one).is_some() {
            fields.require(other, example);
        }
    }
    Some(Etcd {
        endpoints: endpoints?,
        prefix: prefix.unwrap_or_else(|| Some("/switchman".to_owned()))?,
        user: user.map(str::to_owned).zip(password),
    })
}

/// The problem of another file as one of the key that names it: the place is here, the path in the message.
fn in_value(path: &Path, problem: Problem) -> Problem {
    let message = format!("{}: {}", path.display(), problem.message);
    Problem { file: None, message, ..problem }
}

fn services(
    file: &Fields<'_>,
    context: &service::Context<'_>,
) -> Option<BTreeMap<ServiceName, super::Service>> {
    let example = "{app: {root: /srv/app, run: \"node server.js --port $PORT\"}}";
    let reader = file.require("services", example)?;
    let entries = reader.entries()?;
    if entries.is_empty() {
        reader.error("there is no service", format!("add one, as in `services: {example}`"));
    }
    let drafts: Vec<_> =
        entries.into_iter().filter_map(|(entry, reader)| service::read(entry, reader, context)).collect();
    clash::services(&drafts);
    Some(drafts.into_iter().map(|draft| (draft.name, draft.service)).collect())
}

/// A path; a relative one begins at `folder`.
pub(super) fn path(reader: &Reader<'_>, folder: &Path) -> Option<PathBuf> {
    reader.value(|text| value::path(text, folder))
}

/// A duration of at least `low`.
pub(super) fn duration(reader: &Reader<'_>, low: Duration) -> Option<Duration> {
    reader.value(|text| value::duration(text, low..=DURATION_MAX))
}
