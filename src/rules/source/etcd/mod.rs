//! The shared source: etcd, v3 API, over the connection of [`crate::etcd`].
//!
//! ```text
//! read everything at revision R --> watch from R+1 --event--> mirror --> View
//!   ^                                   | connection lost, compacted, silent, cancelled
//!   +------------- back-off ------------+
//! ```
//!
//! One task a service (`follower`) owns the mirror. Whatever ends a watch, the answer is the same: read everything
//! again. A watch is never resumed, so there is no gap to reason about. Silence counts as an end: the task
//! asks for a sign of life and gives the watch up when none comes.

mod change;
mod follower;
mod mirror;
mod write;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use self::mirror::{Contents, Keys};

use self::follower::Follower;
use crate::etcd::Cluster;
use crate::hint::Problem;
use crate::rules::source::{Change, ChangeError, Who};

/// The largest message that is taken from etcd.
const MESSAGE_BYTES_MAX: usize = 64 << 20;
/// Changes that may wait.
const REQUESTS_MAX: usize = 16;

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
    let follower = Follower::new(cluster, keys, kept, view, asked);
    tokio::spawn(async move { cancel.run_until_cancelled(follower.run()).await });
    Store { view: reader, requests }
}
