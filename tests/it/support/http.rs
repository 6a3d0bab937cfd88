//! Requests as the tests send them, and a load that counts what came back.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;
use tokio::task::JoinSet;

pub(crate) type Http = Client<HttpConnector, Full<Bytes>>;

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|v| v.to_str().ok())
    }

    /// The version that answered.
    pub(crate) fn version(&self) -> &str {
        self.header("x-switchman-version").unwrap_or("none")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|e| panic!("{e}: {}", self.text()))
    }
}

pub(crate) fn client() -> Http {
    Client::builder(TokioExecutor::new()).build_http()
}

pub(crate) async fn send(http: &Http, request: http::Request<Full<Bytes>>) -> Result<Answer, String> {
    let text = |e: &dyn std::error::Error| {
        let source = e.source().map(|s| format!(": {s}")).unwrap_or_default();
        format!("{e}{source}")
    };
    let (head, body) = http.request(request).await.map_err(|e| text(&e))?.into_parts();
    let body = body.collect().await.map_err(|e| text(&e))?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// GET with headers.
pub(crate) async fn get_with(url: &str, headers: &[(&str, &str)]) -> Result<Answer, String> {
    let mut request = http::Request::get(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(&client(), request.body(Full::default()).unwrap()).await
}

pub(crate) async fn get(url: &str) -> Result<Answer, String> {
    get_with(url, &[]).await
}

/// Any method with a body.
pub(crate) async fn request(
    method: &str,
    url: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Result<Answer, String> {
    let mut request = http::Request::builder().method(method).uri(url);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    send(&client(), request.body(Full::from(body.to_owned())).unwrap()).await
}

/// Who answered how often, and what failed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) by_version: BTreeMap<String, u64>,
    pub(crate) failures: Vec<String>,
}

impl Tally {
    pub(crate) fn of(&self, version: &str) -> u64 {
        self.by_version.get(version).copied().unwrap_or(0)
    }

    pub(crate) fn requests(&self) -> u64 {
        self.by_version.values().sum::<u64>() + self.failures.len() as u64
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}, failures: {} {:?}", self.by_version, self.failures.len(), self.failures.first())
    }
}

/// A steady load until it is stopped: GETs with a `uid` cookie, one user after the other.
pub(crate) struct Load {
    tally: Arc<Mutex<Tally>>,
    stop: Arc<AtomicBool>,
    tasks: JoinSet<()>,
}

impl Load {
    pub(crate) fn start(url: &str, connections: usize) -> Self {
        let tally: Arc<Mutex<Tally>> = Arc::default();
        let stop: Arc<AtomicBool> = Arc::default();
        let mut tasks = JoinSet::new();
        for connection in 0..connections {
            let (tally, stop, url) = (tally.clone(), stop.clone(), url.to_owned());
            tasks.spawn(async move {
                let http = client();
                for user in (0..1_000).cycle().skip(connection * 37) {
                    if stop.load(Relaxed) {
                        return;
                    }
                    let request = http::Request::get(&url).header("cookie", format!("uid={user}"));
                    let answer = send(&http, request.body(Full::default()).unwrap()).await;
                    let mut tally = tally.lock().unwrap();
                    match answer {
                        Ok(answer) if answer.status == 200 => {
                            *tally.by_version.entry(answer.version().to_owned()).or_default() += 1;
                        }
                        Ok(answer) => tally.failures.push(format!("{} {}", answer.status, answer.text())),
                        Err(error) => tally.failures.push(error),
                    }
                }
            });
        }
        Self { tally, stop, tasks }
    }

    pub(crate) fn tally(&self) -> Tally {
        self.tally.lock().unwrap().clone()
    }

    /// Waits until `held` is true of the tally.
    pub(crate) async fn until(&self, what: &str, held: impl Fn(&Tally) -> bool) {
        let held = &held;
        super::eventually(what, || async move { held(&self.tally()).then_some(()) }).await;
    }

    /// Waits for this many more requests.
    pub(crate) async fn more(&self, requests: u64) {
        let before = self.tally().requests();
        self.until("the load goes on", |t| t.requests() >= before + requests).await;
    }

    pub(crate) async fn stop(mut self) -> Tally {
        self.stop.store(true, Relaxed);
        while let Some(ended) = self.tasks.join_next().await {
            ended.unwrap();
        }
        self.tally()
    }
}
