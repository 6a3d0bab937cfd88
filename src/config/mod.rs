//! The configuration: what `switchman.yaml` says, with every default filled in.
//!
//! ```text
//! file --text--> YAML tree --read, service, run--> Config --clash--> Config, warnings
//! flags --------> YAML tree --^                        every problem at once, with its place
//! version folder: switchman.yaml, Procfile --folder--> RunSpec (over the service's, over the default)
//! ```
//!
//! `keys` lists every key; the readers take no other, and `reference` makes `docs/configuration.md` from it.

mod bodies;
mod clash;
mod delivery;
mod flags;
mod front;
pub mod folder;
mod http2;
mod isolation;
mod keep;
mod keys;
mod life;
mod limits;
mod load;
mod read;
mod reference;
mod run;
mod service;
mod settle;
mod size;
mod streams;
#[cfg(test)]
mod tests;
mod text;
mod value;

pub use delivery::{Coding, Compress, Delivery, Queue};
pub use front::{Front, Tls};
pub use http2::Http2;
pub use isolation::{Account, CgroupLimits, Isolation, Person, Resource, Rlimit};
pub use keep::{Hook, Hooks, Scale, Upkeep};
pub use life::{Life, Live, LiveCheck, RestartOrder, Warm};
pub use limits::{HEADERS_MAX, Limits};
pub use load::{default_state, find, load};
pub use reference::reference;
pub use settle::Upload;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use crate::version::ServiceName;

/// Everything that `switchman serve` needs to know; all defaults filled in, all paths absolute.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file it was read from; none for a run from flags.
    pub file: Option<PathBuf>,
    /// The public addresses.
    pub listen: Vec<SocketAddr>,
    /// TLS, and who may say who a client is.
    pub front: Front,
    /// The admin listener and socket.
    pub admin: Admin,
    /// This machine's name in the fleet.
    pub node: String,
    /// The folder for what survives a restart.
    pub state: PathBuf,
    /// The shared store; none where rules and aliases live in files.
    pub etcd: Option<Etcd>,
    /// Data-plane threads.
    pub threads: usize,
    /// How long running requests may take to end at shutdown.
    pub drain: Duration,
    /// Workers that may be starting at the same moment, over all services; from 1.
    pub max_workers_starting: usize,
    /// The folder with pages for the answers that switchman makes itself, where a service has none of its own.
    pub errors: Option<PathBuf>,
    /// What bounds connections and requests.
    pub limits: Limits,
    /// The services by name.
    pub services: BTreeMap<ServiceName, Service>,
}

/// Where the admin API is reached.
#[derive(Debug, Clone)]
pub struct Admin {
    /// TCP address; loopback unless a person says otherwise. None switches it off.
    pub listen: Option<SocketAddr>,
    /// Unix socket, mode 0600; what the CLI uses.
    pub socket: PathBuf,
}

/// The etcd cluster.
#[derive(Debug, Clone)]
pub struct Etcd {
    /// `http://` or `https://` URLs.
    pub endpoints: Vec<String>,
    /// What every key begins with, without a slash at the end.
    pub prefix: String,
    /// User name and password, where the cluster wants them.
    pub user: Option<(String, Secret)>,
}

/// A value that is in no log: `Debug` hides it.
#[derive(Clone)]
pub struct Secret(pub String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

/// One service.
#[derive(Debug, Clone)]
pub struct Service {
    /// The deploy root: each folder in it that matches `versions` is a version.
    pub root: PathBuf,
    /// Host names it answers, lower-case; empty answers every host.
    pub hosts: Vec<String>,
    /// Folder names that are versions.
    pub versions: Regex,
    /// How long nothing below a folder may change before it counts as complete.
    pub settle: Duration,
    /// What else makes a folder complete, and what follows from a change of a complete one.
    pub upload: Upload,
    /// When `current` moves by itself.
    pub promote: Promote,
    /// Where the rule document is.
    pub rules: RulesAt,
    /// How requests are delivered to its workers.
    pub delivery: Arc<Delivery>,
    /// What becomes of its versions over time.
    pub upkeep: Upkeep,
    /// How a version runs, where its own folder does not say otherwise. `run` may be missing here.
    pub run: RunSpec,
}

/// When `current` moves by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Promote {
    /// Only for the first version of all.
    Manual,
    /// Each new version becomes current once it is ready.
    Auto,
}

/// Where a service's rule document is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RulesAt {
    /// No document: everything goes to `current`. (File source; aliases live under `state`.)
    /// `rules set` writes to `<state>/<service>/rules.yaml`, which is this path.
    File(PathBuf),
    /// An etcd key.
    Etcd(String),
}

/// How the workers of a version are run. The default is what holds where nobody says anything.
#[derive(Debug, Clone, PartialEq)]
pub struct RunSpec {
    /// The command; none where neither the service nor the version folder says one.
    pub run: Option<RunCommand>,
    /// Environment variables added to switchman's own.
    pub env: BTreeMap<String, String>,
    /// Workers of a version; what it begins with, where they follow the load.
    pub workers: u32,
    /// How the workers follow the load; none: they do not.
    pub scale: Option<Scale>,
    /// What a worker listens on.
    pub upstream: UpstreamAt,
    /// What a worker speaks.
    pub protocol: Protocol,
    /// How a worker shows that it is ready.
    pub ready: Ready,
    /// How a worker is stopped.
    pub stop: Stop,
    /// How its workers are looked after; the service's own, no version folder says it.
    pub life: Life,
    /// As whom and within which limits a worker runs.
    pub isolation: Isolation,
}

/// What a worker listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum UpstreamAt {
    /// A port on loopback: `PORT` in its environment.
    #[default]
    Port,
    /// A unix socket: `SOCKET` in its environment.
    Unix,
    /// A port on loopback that switchman has opened: file descriptor 3.
    Inherit,
}

/// What a worker speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Protocol {
    /// HTTP/1.1.
    #[default]
    Http1,
    /// HTTP/2 without TLS, by prior knowledge; what gRPC servers speak.
    H2c,
}

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunCommand {
    /// One string: run by `sh -c`, with `$1` = port or socket and `$2` = pidfile.
    Shell(String),
    /// A list: executed as it is.
    Exec(Vec<String>),
}

/// How a worker shows that it is ready.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// What is asked.
    pub check: ReadyCheck,
    /// Time between two checks.
    pub interval: Duration,
    /// The longest one check may take.
    pub timeout: Duration,
    /// The longest a worker may take to become ready.
    pub deadline: Duration,
}

/// What a readiness check asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReadyCheck {
    /// GET of this path must answer 2xx or 3xx.
    Http(String),
    /// A connection must be accepted.
    Tcp,
    /// The worker must have run for this long.
    After(Duration),
    /// The worker must say `READY=1` to its `NOTIFY_SOCKET`.
    Notify,
    /// This command must exit with 0.
    Command(RunCommand),
}

/// How a worker is stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// Time between TERM and KILL.
    pub grace: Duration,
    /// The longest wait for its running requests before TERM.
    pub drain: Duration,
}

impl Default for RunSpec {
    fn default() -> Self {
        let ready = Ready {
            check: ReadyCheck::Tcp,
            interval: Duration::from_millis(200),
            timeout: Duration::from_secs(5),
            deadline: Duration::from_secs(60),
        };
        let stop = Stop { grace: Duration::from_secs(30), drain: Duration::from_secs(30) };
        let (upstream, protocol) = (UpstreamAt::Port, Protocol::Http1);
        let isolation = Isolation::default();
        let life = Life::default();
        let env = BTreeMap::new();
        Self { run: None, env, workers: 1, scale: None, upstream, protocol, ready, stop, isolation, life }
    }
}
