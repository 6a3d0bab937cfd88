//! Work that all nodes together do once: one key says who does it, and later how it went.
//!
//! ```text
//! no key --ours: put under a lease--> running --it ended--> done | failed (without the lease: it stays)
//!    ^                                   |
//!    +---- our node died: the lease -----+
//! ```
//!
//! A node that does not have its turn looks again and again; there is nothing to miss. Whoever cannot keep its
//! lease alive ends its work, because another node may begin it.

use std::time::Duration;

use etcd_client::{Client, Compare, CompareOp, PutOptions, Txn, TxnOp};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::etcd::{Cluster, Failure, in_time};

/// How long a node that is not heard of keeps its turn. Longer than etcd takes to choose another leader.
const LEASE: Duration = Duration::from_secs(15);
/// How often the lease is made to last longer.
const BEAT: Duration = Duration::from_secs(4);
/// How often somebody who waits for another node looks.
const LOOK: Duration = Duration::from_millis(500);
/// The first and the longest wait before an etcd that does not answer is asked again.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long to try to store how it went. Until it is stored, another node would do it again.
const STORE_WITHIN: Duration = Duration::from_secs(60);

/// One piece of work.
#[derive(Debug, Clone)]
pub struct Once {
    /// Where the key is.
    pub cluster: Cluster,
    /// The key.
    pub key: String,
    /// This node, for the others.
    pub node: String,
    /// Do it although it has failed before.
    pub again: bool,
}

/// Why it was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unfinished {
    /// It went wrong, in words; here or on another node.
    Failed(String),
    /// Somebody told it to end.
    Told,
}

/// What the key holds.
#[derive(Debug, Serialize, Deserialize)]
struct Record {
    state: State,
    node: String,
    at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Running,
    Done,
    Failed,
}

/// Whose turn it is.
#[derive(Debug)]
enum Turn {
    Ours(Held),
    Of(String),
    Done,
    Failed(String),
}

/// Our turn.
#[derive(Debug)]
struct Held {
    lease: i64,
    /// That of our record.
    revision: i64,
}

impl Once {
    /// The key under which the nodes agree about a hook of a version.
    pub fn key(cluster: &Cluster, service: &str, version: &str, hook: &str) -> String {
        format!("{}/{service}/hooks/{version}/{hook}", cluster.prefix())
    }

    /// Waits for its turn and does `work`, unless another node has done it. `work` is given what tells it to end, and
    /// must have ended when it returns. `tell` gets what is waited for, in words.
    ///
    /// # Errors
    /// The work failed, here or on another node; or `told` says that nobody wants it any more.
    pub async fn run<F>(
        &self,
        told: &CancellationToken,
        tell: impl Fn(String),
        work: impl Fn(CancellationToken) -> F,
    ) -> Result<(), Unfinished>
    where
        F: Future<Output = Result<(), Unfinished>>,
    {
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let pause = match self.take().await {
                Ok(Turn::Done) => return Ok(()),
                Ok(Turn::Failed(why)) => return Err(Unfinished::Failed(why)),
                Ok(Turn::Of(node)) => {
                    tell(format!("waits for {node}, which runs it for all nodes"));
                    LOOK
                }
                Ok(Turn::Ours(held)) => {
                    match self.work(&held, told, &work).await {
                        Some(result) => return result,
                        None => {
                            tell("was ended, because etcd could not be reached to keep the other nodes from it".into());
                            LOOK
                        }
                    }
                }
                Err(failure) => {
                    tell(format!("waits for etcd at {}: {failure}", self.cluster.endpoints()));
                    backoff.next_delay()
                }
            };
            tokio::select! {
                () = told.cancelled() => return Err(Unfinished::Told),
                () = sleep(pause) => {}
            }
        }
    }

    /// Looks whose turn it is, and takes it if it is nobody's.
    async fn take(&self) -> Result<Turn, Failure> {
        let client = self.cluster.client().await?;
        let mut kv = client.kv_client();
        let found = in_time(kv.get(self.key.as_str(), None)).await?;
        let mut revision = 0;
        if let Some(found) = found.kvs().first() {
            let Ok(record) = serde_json::from_slice::<Record>(found.value()) else {
                let why = format!("the etcd key {} holds something else; hint: etcdctl del it", self.key);
                return Ok(Turn::Failed(why));
            };
            match record.state {
                State::Done => return Ok(Turn::Done),
                State::Running => return Ok(Turn::Of(record.node)),
                State::Failed if !self.again => {
                    let why = record.reason.unwrap_or_default();
                    return Ok(Turn::Failed(format!("on {}: {why}", record.node)));
                }
                State::Failed => revision = found.mod_revision(),
            }
        }
        let lease = in_time(client.lease_client().grant(LEASE.as_secs().cast_signed(), None)).await?.id();
        let put = self.put(State::Running, None, Some(lease));
        let txn = Txn::new().when([self.unchanged_since(revision)]).and_then([put]);
        // Without an answer nobody keeps the lease alive: the turn is free again when it ends.
        let answer = in_time(kv.txn(txn)).await?;
        if !answer.succeeded() {
            self.revoke(&client, lease).await;
            return Ok(Turn::Of("another node".to_owned()));
        }
        Ok(Turn::Ours(Held { lease, revision: answer.header().map_or(0, |header| header.revision()) }))
    }

    /// Does the work while the lease lasts, and stores how it went. None if the lease was lost.
    async fn work<F>(
        &self,
        held: &Held,
        told: &CancellationToken,
        work: impl Fn(CancellationToken) -> F,
    ) -> Option<Result<(), Unfinished>>
    where
        F: Future<Output = Result<(), Unfinished>>,
    {
        let end = told.child_token();
        let mut working = std::pin::pin!(work(end.clone()));
        let result = tokio::select! {
            result = &mut working => result,
            () = self.until_lost(held.lease) => {
                end.cancel();
                let _ = working.await;
                return None;
            }
        };
        self.store(held, &result).await;
        Some(result)
    }

    /// Keeps the lease alive; returns when that has failed for as long as it lasts.
    async fn until_lost(&self, lease: i64) {
        let mut alive = Instant::now();
        while alive.elapsed() < LEASE {
            sleep(BEAT).await;
            let asked = Instant::now();
            match self.keep_alive(lease).await {
                Ok(true) => alive = asked,
                Ok(false) => return,
                Err(failure) => {
                    tracing::warn!(key = self.key, %failure, "a lease of etcd cannot be kept alive; trying again");
                }
            }
        }
    }

    /// Whether the lease is still there.
    async fn keep_alive(&self, lease: i64) -> Result<bool, Failure> {
        let client = self.cluster.client().await?;
        let (mut keeper, mut answers) = in_time(client.lease_client().keep_alive(lease)).await?;
        in_time(keeper.keep_alive()).await?;
        let answer = in_time(answers.message()).await?;
        Ok(answer.is_some_and(|answer| answer.ttl() > 0))
    }

    /// Stores how it went, or frees the turn if it was told to end.
    async fn store(&self, held: &Held, result: &Result<(), Unfinished>) {
        let begun = Instant::now();
        let mut backoff = Backoff::new(RETRY.0, RETRY.1);
        loop {
            let failure = match self.try_store(held, result).await {
                Ok(()) => return,
                Err(failure) => failure,
            };
            if begun.elapsed() > STORE_WITHIN || *result == Err(Unfinished::Told) {
                tracing::error!(key = self.key, %failure, "etcd could not be told how it went; other nodes may do it again");
                return;
            }
            sleep(backoff.next_delay()).await;
        }
    }

    async fn try_store(&self, held: &Held, result: &Result<(), Unfinished>) -> Result<(), Failure> {
        let client = self.cluster.client().await?;
        let put = || match result {
            Ok(()) => self.put(State::Done, None, None),
            Err(Unfinished::Failed(why)) => self.put(State::Failed, Some(why.clone()), None),
            Err(Unfinished::Told) => TxnOp::delete(self.key.as_str(), None),
        };
        let mut kv = client.kv_client();
        // Either our record is still there, or its lease has ended meanwhile and nobody has taken the turn.
        for revision in [held.revision, 0] {
            let txn = Txn::new().when([self.unchanged_since(revision)]).and_then([put()]);
            if in_time(kv.txn(txn)).await?.succeeded() {
                self.revoke(&client, held.lease).await;
                return Ok(());
            }
        }
        tracing::warn!(key = self.key, "another node has taken this turn meanwhile; what it finds counts");
        Ok(())
    }

    /// A lease that nobody uses ends by itself; this is sooner.
    async fn revoke(&self, client: &Client, lease: i64) {
        if let Err(failure) = in_time(client.lease_client().revoke(lease)).await {
            tracing::debug!(key = self.key, %failure, "a lease of etcd was not given back");
        }
    }

    /// The key's last change was this one; 0: it is not there.
    fn unchanged_since(&self, revision: i64) -> Compare {
        Compare::mod_revision(self.key.as_str(), CompareOp::Equal, revision)
    }

    fn put(&self, state: State, reason: Option<String>, lease: Option<i64>) -> TxnOp {
        let record = Record { state, node: self.node.clone(), at: Timestamp::now(), reason };
        // Plain text and a time: it can always be written.
        let text = serde_json::to_string(&record).unwrap_or_default();
        let options = lease.map(|lease| PutOptions::new().with_lease(lease));
        TxnOp::put(self.key.as_str(), text, options)
    }
}
