//! The demo's steady load: users with cookies who ask all the time, and a tally of which version answered.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http_body_util::{BodyExt as _, Empty};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use tokio::task::JoinSet;

use super::stage::{PATIENCE, StepError};

type Http = Client<HttpConnector, Empty<Bytes>>;

/// Connections that ask at the same time.
const CONNECTIONS: usize = 8;

/// Which version answered how often.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally {
    by_version: BTreeMap<String, u64>,
    latest: String,
    failures: Vec<String>,
}

impl Tally {
    pub(super) fn of(&self, version: &str) -> u64 {
        self.by_version.get(version).copied().unwrap_or(0)
    }

    pub(super) fn requests(&self) -> u64 {
        self.by_version.values().sum::<u64>() + self.failures() as u64
    }

    pub(super) fn failures(&self) -> usize {
        self.failures.len()
    }

    pub(super) fn first_failure(&self) -> &str {
        self.failures.first().map_or("none", String::as_str)
    }

    /// Whether every request was answered, by this version.
    pub(super) fn only(&self, version: &str) -> bool {
        self.of(version) > 0 && self.of(version) == self.requests()
    }

    pub(super) fn latest_is(&self, version: &str) -> bool {
        self.latest == version
    }

    /// Percent of the requests that this version answered.
    pub(super) fn share(&self, version: &str) -> f64 {
        self.of(version) as f64 * 100.0 / self.requests().max(1) as f64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} requests", self.requests())?;
        for (version, count) in &self.by_version {
            write!(f, ", {version}: {count} ({:.1} %)", self.share(version))?;
        }
        write!(f, ", failures: {}", self.failures())
    }
}

#[derive(Debug, Default)]
struct Shared {
    /// Since the last [`Load::fresh`], and since the beginning.
    counts: Mutex<(Tally, Tally)>,
    pause_ms: AtomicU64,
    stop: AtomicBool,
}

impl Shared {
    fn counts(&self) -> MutexGuard<'_, (Tally, Tally)> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, answer: &Result<String, StepError>) {
        let mut counts = self.counts();
        let (fresh, total) = &mut *counts;
        for tally in [fresh, total] {
            match answer {
                Ok(version) => {
                    *tally.by_version.entry(version.clone()).or_default() += 1;
                    tally.latest.clone_from(version);
                }
                Err(error) => tally.failures.push(error.to_string()),
            }
        }
    }
}

/// The running load.
pub(super) struct Load {
    shared: Arc<Shared>,
    tasks: JoinSet<()>,
}

impl Load {
    /// Begins to ask `address`, as `users` users in turn.
    pub(super) fn start(address: SocketAddr, users: usize) -> Self {
        let shared = Arc::new(Shared { pause_ms: AtomicU64::new(1), ..Shared::default() });
        let mut tasks = JoinSet::new();
        for connection in 0..CONNECTIONS {
            let shared = shared.clone();
            tasks.spawn(async move {
                let http = client();
                for user in (0..users).cycle().skip(connection * users / CONNECTIONS) {
                    if shared.stop.load(Relaxed) {
                        return;
                    }
                    let answer = ask(&http, address, Some(("cookie", &format!("uid={user}")))).await;
                    shared.count(&answer);
                    tokio::time::sleep(Duration::from_millis(shared.pause_ms.load(Relaxed))).await;
                }
            });
        }
        Self { shared, tasks }
    }

    /// What was seen since the last [`Load::fresh`].
    pub(super) fn tally(&self) -> Tally {
        self.shared.counts().0.clone()
    }

    /// What was seen since the beginning.
    pub(super) fn total(&self) -> Tally {
        self.shared.counts().1.clone()
    }

    /// Waits until at least `requests` have been seen.
    pub(super) async fn seen_after(&self, requests: u64) -> Result<(), StepError> {
        self.until("requests are answered", |tally| tally.requests() >= requests).await
    }

    /// Begins a new tally and waits until it holds `requests`.
    pub(super) async fn fresh(&self, requests: u64) -> Result<(), StepError> {
        // A request that was already on its way belongs to the tally before.
        self.shared.counts().0 = Tally::default();
        self.seen_after(CONNECTIONS as u64).await?;
        self.shared.counts().0 = Tally::default();
        self.seen_after(requests).await
    }

    /// Waits until `held` is true of the tally.
    pub(super) async fn until(&self, what: &str, held: impl Fn(&Tally) -> bool) -> Result<(), StepError> {
        let began = Instant::now();
        while !held(&self.tally()) {
            if began.elapsed() > PATIENCE {
                return Err(StepError::new(format!(
                    "waited {PATIENCE:?} until {what}; seen: {}",
                    self.tally()
                )));
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        Ok(())
    }

    /// Waits until a request with this header gets `version`; answers with it.
    pub(super) async fn until_version(
        &self,
        address: SocketAddr,
        header: (&str, &str),
        version: &str,
    ) -> Result<String, StepError> {
        let began = Instant::now();
        loop {
            let seen = version_for(address, Some(header)).await?;
            if seen == version {
                return Ok(seen);
            }
            if began.elapsed() > PATIENCE {
                return Err(StepError::new(format!(
                    "waited {PATIENCE:?} for {version}, {seen} still answers"
                )));
            }
        }
    }

    /// Goes on more slowly.
    pub(super) fn keep_up(&self, pause: Duration) {
        self.shared.pause_ms.store(pause.as_millis() as u64, Relaxed);
    }

    /// Ends the load; answers with everything that was seen.
    pub(super) async fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Relaxed);
        while self.tasks.join_next().await.is_some() {}
        self.total()
    }
}

/// Which version answers one request.
pub(super) async fn version_for(
    address: SocketAddr,
    header: Option<(&str, &str)>,
) -> Result<String, StepError> {
    ask(&client(), address, header).await
}

fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

async fn ask(http: &Http, address: SocketAddr, header: Option<(&str, &str)>) -> Result<String, StepError> {
    let failed = |error: &dyn fmt::Display| StepError::new(format!("GET http://{address}/: {error}"));
    let mut request = http::Request::get(format!("http://{address}/"));
    if let Some((name, value)) = header {
        request = request.header(name, value);
    }
    let request = request.body(Empty::new()).map_err(|e| failed(&e))?;
    let answer = http.request(request).await.map_err(|e| failed(&e))?;
    let (status, version) = (answer.status(), answer.headers().get("x-switchman-version").cloned());
    answer.into_body().collect().await.map_err(|e| failed(&e))?;
    match version.as_ref().and_then(|v| v.to_str().ok()) {
        Some(version) if status.is_success() => Ok(version.to_owned()),
        _ => Err(failed(&status)),
    }
}
