//! What exists now: services, their versions, the workers of each and which of them take requests.
//!
//! Written by the supervisor alone, through [`Registry::update`]; everybody else reads immutable
//! [`Snapshot`]s. Each update that changes something makes the next generation, so that the page, the logs
//! and the tests can speak of the same state.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::config::{Delivery, Protocol};
use crate::drain::Window;
use crate::metrics::{InFlight, VersionCounters};
use crate::version::{ServiceName, VersionId, VersionState, WorkerId, WorkerState};

/// Where a worker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// A port on loopback, picked by the supervisor.
    Tcp(SocketAddr),
    /// A socket file.
    Unix(PathBuf),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// One process that can take requests, as the data plane sees it. A restarted worker is a new `Upstream`, so
/// that connections to the old process are never taken for connections to the new one.
#[derive(Debug)]
pub struct Upstream {
    /// Unique for as long as this switchman runs.
    pub serial: u64,
    /// The worker's number within its version.
    pub worker: WorkerId,
    /// Where it listens.
    pub address: Address,
    /// What it speaks.
    pub protocol: Protocol,
    /// When it began to take requests.
    pub since: Instant,
    /// Requests that it is answering, streams among them.
    pub in_flight: InFlight,
    /// Of those, the streams: what goes on until somebody ends it.
    pub streams: InFlight,
    /// Set when it takes no more requests and is to stop: the time in which its streams are to end.
    pub stops: OnceLock<Window>,
}

impl Upstream {
    /// The data-plane side of a worker that takes requests from now on, counted by `threads` threads.
    pub fn new(serial: u64, worker: WorkerId, address: Address, protocol: Protocol, threads: usize) -> Self {
        let (in_flight, streams) = (InFlight::new(threads), InFlight::new(threads));
        let (since, stops) = (Instant::now(), OnceLock::new());
        Self { serial, worker, address, protocol, since, in_flight, streams, stops }
    }
}

/// One worker as people see it.
#[derive(Debug, Clone)]
pub struct Worker {
    /// Its number within its version.
    pub id: WorkerId,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// Where it listens or will listen.
    pub address: Option<Address>,
    /// Where it stands.
    pub state: WorkerState,
    /// How often it was started again because it had ended by itself, or hung.
    pub restarts: u32,
    /// Its data-plane side, from its first passed check until it has ended.
    pub upstream: Option<Arc<Upstream>>,
}

/// One version of one service.
#[derive(Debug, Clone)]
pub struct Version {
    /// The service it belongs to.
    pub service: ServiceName,
    /// Its folder's name.
    pub id: VersionId,
    /// Its folder.
    pub path: PathBuf,
    /// Where it stands.
    pub state: VersionState,
    /// Since when it stands there.
    pub since: Timestamp,
    /// When its folder was first seen complete; orders versions for the alias `latest`.
    pub arrived: Timestamp,
    /// Why it is in this state, where that needs saying: the failure, or a loud warning (folder gone).
    pub reason: Option<String>,
    /// Files that it runs from have changed since.
    pub modified: bool,
    /// All its workers, by number.
    pub workers: Vec<Worker>,
    /// The workers that take requests now.
    pub ready: Vec<Arc<Upstream>>,
    /// It sleeps or is being woken, and this is how: a request for it rings, and waits for a worker.
    pub wake: Option<Arc<Wake>>,
    /// How its requests are delivered.
    pub delivery: Arc<Delivery>,
    /// Its counters; the same object for as long as the version is known.
    pub counters: Arc<VersionCounters>,
}

/// How a version is woken that sleeps. Another one each time it is put to sleep.
#[derive(Debug)]
pub struct Wake {
    /// The longest that a request waits for it.
    pub within: Duration,
    who: (ServiceName, VersionId),
    rung: AtomicBool,
    bell: mpsc::UnboundedSender<(ServiceName, VersionId)>,
}

impl Wake {
    /// Of `who`, heard at the other end of `bell`.
    pub fn new(
        who: (ServiceName, VersionId),
        within: Duration,
        bell: mpsc::UnboundedSender<(ServiceName, VersionId)>,
    ) -> Self {
        Self { within, who, rung: AtomicBool::new(false), bell }
    }

    /// Wakes it. Only the first ring is heard: requests that come together wake it once.
    pub fn ring(&self) {
        if !self.rung.swap(true, Relaxed) {
            // The supervisor has ended: nobody is woken any more.
            let _ = self.bell.send(self.who.clone());
        }
    }
}

/// Something under a deploy root that is no version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The entry's name.
    pub name: String,
    /// Why it is no version.
    pub reason: String,
}

/// One service.
#[derive(Debug, Clone, Default)]
pub struct Service {
    /// Its deploy root.
    pub root: PathBuf,
    /// What is wrong with the deploy root, while something is.
    pub problem: Option<String>,
    /// Its versions by name.
    pub versions: BTreeMap<VersionId, Arc<Version>>,
    /// What else lies under the deploy root.
    pub ignored: Vec<Ignored>,
}

/// Everything that exists, at one moment.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Goes up by one with each change.
    pub generation: u64,
    /// The configured services by name.
    pub services: BTreeMap<ServiceName, Service>,
}

/// The writing end; owned by the supervisor.
#[derive(Debug)]
pub struct Registry {
    published: watch::Sender<Arc<Snapshot>>,
}

impl Registry {
    /// An empty registry, and the end that everybody reads.
    pub fn new() -> (Self, watch::Receiver<Arc<Snapshot>>) {
        let (published, reader) = watch::channel(Arc::new(Snapshot::default()));
        (Self { published }, reader)
    }

    /// Publishes the next generation: what is there now, as `change` leaves it.
    pub fn update(&self, change: impl FnOnce(&mut BTreeMap<ServiceName, Service>)) {
        let mut next = Snapshot::clone(&self.published.borrow());
        change(&mut next.services);
        next.generation += 1;
        self.published.send_replace(Arc::new(next));
    }
}
