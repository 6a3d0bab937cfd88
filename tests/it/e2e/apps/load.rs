//! A steady load on a real server: GETs, slow GETs and POSTs over connections that stay open, and a look at each answer.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::Bytes;
use tokio::task::JoinSet;

use crate::support::eventually;
use crate::support::http::{Answer, client, send};
use crate::support::switchman::Switchman;

/// Clients, each with a connection of its own.
const CLIENTS: usize = 6;
/// The longest that a slow request takes, in ms.
const SLOW_MAX: u64 = 60;
/// The longest pause of a client, in ms: the machine is busy and not drowned.
const PAUSE_MAX: u64 = 10;
/// The largest body that is sent.
const BODY_MAX: usize = 20_000;

/// Where an application answers what.
#[derive(Debug, Clone, Copy)]
pub(super) struct Paths {
    /// What stands before the number of milliseconds.
    slow: &'static str,
}

impl Paths {
    pub(super) fn of(folder: &str) -> Self {
        Self { slow: if folder == "worker" { "/slow/" } else { "/slow?ms=" } }
    }
}

/// Right answers of each version, and everything else in words.
#[derive(Debug, Default)]
struct Tally {
    answered: BTreeMap<String, u64>,
    failures: Vec<String>,
}

/// Runs until it is stopped.
pub(super) struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    clients: JoinSet<()>,
}

impl Load {
    pub(super) fn start(switchman: &Switchman, paths: Paths) -> Self {
        let (tally, stop): (Arc<Mutex<Tally>>, Arc<AtomicBool>) = Default::default();
        let mut clients = JoinSet::new();
        for _ in 0..CLIENTS {
            let (tally, stop, base) = (tally.clone(), stop.clone(), switchman.url(""));
            clients.spawn(async move {
                let http = client();
                while !stop.load(Relaxed) {
                    let went = one(&http, &base, paths).await;
                    {
                        let mut tally = tally.lock().unwrap();
                        match went {
                            Ok(version) => *tally.answered.entry(version).or_default() += 1,
                            Err(failure) => tally.failures.push(failure),
                        }
                    }
                    tokio::time::sleep(Duration::from_millis(fastrand::u64(..PAUSE_MAX))).await;
                }
            });
        }
        Self { tally, stop, clients }
    }

    fn answered(&self) -> u64 {
        self.tally.lock().unwrap().answered.values().sum()
    }

    /// Waits for so many more right answers.
    pub(super) async fn more(&self, answers: u64) {
        let before = self.answered();
        eventually("the load goes on", async || (self.answered() >= before + answers).then_some(())).await;
    }

    /// Waits for right answers of a version.
    pub(super) async fn until_answered_by(&self, version: &str) {
        let said = format!("{version} answers");
        let some = || self.tally.lock().unwrap().answered.get(version).is_some_and(|answers| *answers > 50);
        eventually(&said, async || some().then_some(())).await;
    }

    /// Ends it: every request was answered, and rightly.
    pub(super) async fn stop_without_a_failure(mut self) {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.clients.join_next().await {
            ended.unwrap();
        }
        let tally = self.tally.lock().unwrap();
        let (answered, failures) = (&tally.answered, &tally.failures);
        assert!(
            failures.is_empty(),
            "{} failed beside {answered:?}; the first: {}",
            failures.len(),
            failures[0]
        );
    }
}

/// One request; the version that gave the right answer, or what was wrong with it.
async fn one(http: &crate::support::http::Http, base: &str, paths: Paths) -> Result<String, String> {
    let (method, path, body) = match fastrand::u8(..4) {
        0 => ("POST", "/echo".to_owned(), "x".repeat(fastrand::usize(1..BODY_MAX))),
        1 => ("GET", format!("{}{}", paths.slow, fastrand::u64(..SLOW_MAX)), String::new()),
        _ => ("GET", "/".to_owned(), String::new()),
    };
    let request = http::Request::builder().method(method).uri(format!("{base}{path}"));
    let request = request.body(Full::from(Bytes::from(body.clone()))).unwrap();
    let wrong = |why: &str| format!("{method} {path} with {} bytes: {why}", body.len());
    let answer: Answer = send(http, request).await.map_err(|error| wrong(&error))?;
    let version = answer.version().to_owned();
    let right = match method {
        "POST" => answer.body == body,
        _ => answer.text().starts_with(&format!("version={version} worker=")),
    };
    if answer.status == 200 && right {
        Ok(version)
    } else {
        Err(wrong(&format!("{} {:?} {}", answer.status, answer.headers, answer.text())))
    }
}
