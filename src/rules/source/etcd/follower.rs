//! Reads everything, watches it, makes changes, begins again: one task for the keys of one service.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, WatchOptions, WatchResponse, WatchStream};
use jiff::Timestamp;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::backoff::Backoff;
use crate::etcd::{Cluster, Failure, in_time};
use crate::hint::Problem;
use crate::rules::source::etcd::mirror::{Contents, Keys, Mirror, Seen, Value};
use crate::rules::source::etcd::{MESSAGE_BYTES_MAX, Request, View, change};

/// The first wait before etcd is tried again.
const RETRY_MIN: Duration = Duration::from_millis(50);
/// The longest wait before etcd is tried again.
const RETRY_MAX: Duration = Duration::from_secs(5);
/// How often a watch is asked for a sign of life.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(3);
/// A watch that gives none for this long is given up.
const SILENCE_MAX: Duration = Duration::from_secs(10);

/// The one owner of what is known of etcd's keys for one service.
pub(crate) struct Follower {
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
    /// Since when everything has failed; none while a watch runs.
    away_since: Option<Timestamp>,
    backoff: Backoff,
}

impl Follower {
    /// Nothing known yet but what was kept.
    pub(crate) fn new(
        cluster: Cluster,
        keys: Keys,
        kept: Contents,
        view: watch::Sender<Arc<View>>,
        asked: mpsc::Receiver<Request>,
    ) -> Self {
        let away_since = view.borrow().stale_since;
        Self {
            cluster,
            keys,
            mirror: Mirror::default(),
            kept: Arc::new(kept),
            lost: false,
            away_since,
            view,
            asked,
            waiting: None,
            backoff: Backoff::new(RETRY_MIN, RETRY_MAX),
        }
    }

    /// Follows etcd for as long as somebody may ask for changes.
    pub(crate) async fn run(mut self) {
        loop {
            let Err(failure) = self.follow().await;
            tracing::debug!(%failure, keys = self.keys.aliases, "etcd is read again");
            // A watch that ended is nothing to be told of; an etcd that then does not answer is.
            match self.away_since {
                Some(since) => self.away(since, &failure),
                None => self.away_since = Some(Timestamp::now()),
            }
            if let Some(request) = self.waiting.take() {
                let _ = request.reply.send(Err(change::unavailable(&failure)));
            }
            tokio::select! {
                () = tokio::time::sleep(self.backoff.next_delay()) => {}
                request = self.asked.recv() => match request {
                    Some(request) => self.waiting = Some(request),
                    None => return,
                }
            }
        }
    }

    /// Reads everything, then watches, until that fails.
    async fn follow(&mut self) -> Result<Infallible, Failure> {
        let client = self.cluster.client().await?;
        let found = change::read(&client, &self.keys, &[]).await?;
        let from = found.revision + 1;
        // Revisions only grow: one that went back belongs to a store that was made anew or restored. And 0 is
        // that of rules that were in files until now.
        let known = self.view.borrow().revision;
        let new_store = found.revision < known || known == 0;
        self.lost = found.seen.is_empty() && !self.kept.is_empty() && (self.lost || new_store);
        self.mirror.replace(found.seen, found.revision);
        self.away_since = None;
        if self.view.borrow().stale_since.is_some() {
            tracing::info!(endpoints = self.cluster.endpoints(), keys = self.keys.aliases, "etcd answers");
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
                    self.backoff.reset();
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
        let before = View::clone(&self.view.borrow());
        let problem = Problem::warning("", format!("etcd cannot be reached: {failure}"))
            .hint("the last good rules stay in force; etcd is tried again and again");
        let problem = Problem { file: Some(self.cluster.endpoints().into()), ..problem };
        self.show(View { problem: Some(problem), stale_since: Some(since), ..before });
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
