//! The shared source: etcd, v3 API. The only module that uses `etcd_client`.
//!
//! ```text
//! read everything at revision R --> watch from R+1 --event--> mirror --> View
//!   ^                                   | connection lost, compacted, silent, cancelled
//!   +------------- back-off ------------+
//! ```
//!
//! One task a service ([`run`]) owns the mirror. Whatever ends a watch, the answer is the same: read everything
//! again. A watch is never resumed, so there is no gap to reason about. Silence counts as an end: the task
//! asks for a sign of life and gives the watch up when none comes.

mod change;
mod connection;
mod mirror;
mod write;

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, WatchOptions, WatchResponse, WatchStream};
use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

pub use self::connection::Cluster;
pub(crate) use self::mirror::{Contents, Keys};

use self::connection::in_time;
use self::mirror::{Mirror, Seen, Value};
use crate::backoff::Backoff;
use crate::hint::Problem;
use crate::rules::source::{Change, ChangeError, Who};

/// The largest message that is taken from etcd.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// The first wait before etcd is tried again.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest wait before etcd is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a watch is asked for a sign of life.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);
/// A watch that gives none for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);
/// Changes that may wait.
const REQUESTS_MAX: usize = 16;

/// Why etcd cannot be followed at the moment.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("{}", plain(.0))]
    Client(#[from] etcd_client::Error),
    #[error("no answer within {0:?}")]
    NoAnswer(Duration),
    #[error("the revisions before {0} were compacted away")]
    Compacted(i64),
    #[error("the watch was cancelled: {0}")]
    Cancelled(String),
    #[error("the watch has ended")]
    Ended,
    #[error("the watch was silent for {0:?}")]
    Silent(Duration),
}

/// An error of the client in few words: what etcd said, or the innermost cause that it did not come to that.
fn plain(error: &etcd_client::Error) -> String {
    let etcd_client::Error::GRpcStatus(status) = error else { return error.to_string() };
    let mut cause = std::error::Error::source(status);
    while let Some(inner) = cause.and_then(std::error::Error::source) {
        cause = Some(inner);
    }
    match cause {
        Some(cause) => format!("{}: {cause}", status.message()),
        None => status.message().to_owned(),
    }
}

/// What is known of etcd's keys for one service.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct View {
    /// What etcd holds; none as long as that is not known.
    pub(crate) contents: Option<Arc<Contents>>,
    /// What is wrong with etcd itself.
    pub(crate) problem: Option<Problem>,
    /// Since when it cannot be reached.
    pub(crate) stale_since: Option<Timestamp>,
    /// The newest revision of the whole store that was heard of.
    pub(crate) revision: i64,
}

/// One change that is asked of the task.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) change: Change,
    pub(crate) who: Who,
    /// Gets the view after the change.
    pub(crate) reply: oneshot::Sender<Result<Arc<View>, ChangeError>>,
}

/// The task's other end.
#[derive(Debug)]
pub(crate) struct Store {
    pub(crate) view: watch::Receiver<Arc<View>>,
    pub(crate) requests: mpsc::Sender<Request>,
}

/// Follows the keys of one service until `cancel`. `kept` is what was in force when switchman ran last, and
/// `kept_revision` the store's revision then: what it is told by that etcd has lost its data.
pub(crate) fn spawn(
    cluster: Cluster,
    keys: Keys,
    kept: Contents,
    kept_revision: i64,
    cancel: CancellationToken,
) -> Store {
    let (requests, asked) = mpsc::channel(REQUESTS_MAX);
    let view = View { stale_since: Some(Timestamp::now()), revision: kept_revision, ..View::default() };
    let (view, reader) = watch::channel(Arc::new(view));
    let mut mirror = Mirror::default();
    mirror.revision = kept_revision;
    let follower =
        Follower { cluster, keys, mirror, kept: Arc::new(kept), lost: false, view, asked, waiting: None };
    tokio::spawn(async move { cancel.run_until_cancelled(follower.run()).await });
    Store { view: reader, requests }
}

struct Follower {
    cluster: Cluster,
    keys: Keys,
    mirror: Mirror,
    /// The newest contents that were worth keeping.
    kept: Arc<Contents>,
    /// This is not the store that `kept` came from, and it holds nothing: `kept` stays in force.
    lost: bool,
    view: watch::Sender<Arc<View>>,
    asked: mpsc::Receiver<Request>,
    /// A change that came while etcd was not there: worth a try at once.
    waiting: Option<Request>,
}

impl Follower {
    async fn run(mut self) {
        let mut backoff = Backoff::new(RETRY_MIN, RETRY_MAX);
        let mut away_since: Option<Timestamp> = None;
        loop {
            let mut listed = false;
            let failure = self.follow(&mut listed, &mut backoff).await;
            if listed {
                away_since = None;
            }
            let since = *away_since.get_or_insert_with(Timestamp::now);
            // A watch that ended is nothing to be told of; an etcd that then does not answer is.
            if !listed {
                self.away(since, &failure);
            }
            if let Some(request) = self.waiting.take() {
                let _ = request.reply.send(Err(change::unavailable(&failure)));
            }
            tracing::debug!(%failure, "etcd is read again");
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                request = self.asked.recv() => match request {
                    Some(request) => self.waiting = Some(request),
                    None => return,
                }
            }
        }
    }

    /// Reads everything, then watches, until that fails.
    async fn follow(&mut self, listed: &mut bool, backoff: &mut Backoff) -> Failure {
        match self.try_follow(listed, backoff).await {
            Ok(never) => match never {},
            Err(failure) => failure,
        }
    }

    async fn try_follow(
        &mut self,
        listed: &mut bool,
        backoff: &mut Backoff,
    ) -> Result<std::convert::Infallible, Failure> {
        let client = self.cluster.client().await?;
        let found = change::read(&client, &self.keys, &[]).await?;
        let from = found.revision + 1;
        // Revisions only grow: one that went back belongs to a store that was made anew or restored. And 0 is
        // that of rules that were in files until now.
        let known = self.view.borrow().revision;
        let new_store = found.revision < known || known == 0;
        self.lost = found.seen.is_empty() && !self.kept.is_empty() && (self.lost || new_store);
        self.mirror.replace(found.seen, found.revision);
        *listed = true;
        let stale_since = self.view.borrow().stale_since;
        if let Some(since) = stale_since {
            tracing::info!(endpoints = self.cluster.endpoints(), %since, keys = self.keys.aliases, "etcd answers");
        }
        self.publish();
        if let Some(request) = self.waiting.take() {
            self.change(&client, request).await;
        }

        let mut stream = watch(&client, &self.keys, from).await?;
        let mut heard = Instant::now();
        let mut ask = tokio::time::interval(PROGRESS_INTERVAL);
        loop {
            tokio::select! {
                message = stream.message() => {
                    heard = Instant::now();
                    backoff.reset();
                    self.hear(message?.ok_or(Failure::Ended)?)?;
                }
                request = self.asked.recv() => match request {
                    Some(request) => self.change(&client, request).await,
                    None => std::future::pending().await, // shutting down: nobody asks any more
                },
                _ = ask.tick() => {
                    if heard.elapsed() > SILENCE_MAX {
                        return Err(Failure::Silent(SILENCE_MAX));
                    }
                    stream.request_progress().await?;
                }
            }
        }
    }

    /// Takes one message of the watch.
    fn hear(&mut self, message: WatchResponse) -> Result<(), Failure> {
        if message.compact_revision() > 0 {
            return Err(Failure::Compacted(message.compact_revision()));
        }
        if message.canceled() {
            return Err(Failure::Cancelled(message.cancel_reason().to_owned()));
        }
        for kv in message.events().iter().filter_map(|event| event.kv()) {
            // A removal carries the key at version 0.
            let value = if kv.version() == 0 { Value::Removed } else { Value::from(kv.value()) };
            let key = String::from_utf8_lossy(kv.key()).into_owned();
            self.mirror.event(Seen { key, revision: kv.mod_revision(), value });
        }
        if !message.events().is_empty() {
            self.publish();
        }
        Ok(())
    }

    async fn change(&mut self, client: &Client, request: Request) {
        let lost = self.lost.then(|| self.kept.clone());
        let Request { change, who, reply } = request;
        let made = change::apply(client, &self.keys, &mut self.mirror, lost.as_deref(), &change, &who).await;
        self.publish();
        let made = made.map(|()| self.view.borrow().clone());
        let changed = made.is_ok();
        let _ = reply.send(made);
        if changed && let Err(failure) = change::prune_history(client, &self.keys).await {
            tracing::debug!(%failure, "the history is pruned with the next change");
        }
    }

    /// Publishes what the mirror holds.
    fn publish(&mut self) {
        self.lost &= self.mirror.is_empty();
        let mut view = View { revision: self.mirror.revision, ..View::default() };
        if self.lost {
            view.problem = Some(self.lost_problem());
            // Kept, so that it is still known as lost after a restart.
            view.revision = self.view.borrow().revision;
        } else {
            let contents = Arc::new(self.mirror.contents(&self.keys));
            self.kept = contents.clone();
            view.contents = Some(contents);
        }
        self.show(view);
    }

    /// Publishes that etcd cannot be reached; what it held stays.
    fn away(&self, since: Timestamp, failure: &Failure) {
        let before = self.view.borrow().clone();
        let since = before.stale_since.unwrap_or(since);
        let problem = Problem::warning("", format!("etcd cannot be reached: {failure}"))
            .hint("the last good rules stay in force; etcd is tried again and again");
        let problem = Problem { file: Some(self.cluster.endpoints().into()), ..problem };
        self.show(View { problem: Some(problem), stale_since: Some(since), ..View::clone(&before) });
    }

    fn lost_problem(&self) -> Problem {
        let keys = self.keys.aliases.trim_end_matches("aliases/");
        let message = format!("etcd holds nothing under {keys}: the last good rules stay in force");
        let hint = "any change (switchman promote VERSION) writes them there; or restore etcd's data";
        Problem { file: Some(self.cluster.endpoints().into()), ..Problem::error("", message).hint(hint) }
    }

    fn show(&self, view: View) {
        self.view.send_if_modified(|shown| {
            let modified = **shown != view;
            *shown = Arc::new(view);
            modified
        });
    }
}

/// Watches everything of a service, from a revision on.
async fn watch(client: &Client, keys: &Keys, from: i64) -> Result<WatchStream, Failure> {
    let options = || Some(WatchOptions::new().with_start_revision(from));
    let under = || options().map(WatchOptions::with_prefix);
    let mut watcher = client.watch_client().max_decoding_message_size(MESSAGE_BYTES_MAX);
    let mut stream = in_time(watcher.watch(keys.aliases.as_str(), under())).await?;
    stream.watch(keys.routes.as_str(), under()).await?;
    if let Some(key) = &keys.document {
        stream.watch(key.as_str(), options()).await?;
    }
    Ok(stream)
}
