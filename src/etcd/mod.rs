//! etcd: the one connection of this switchman, and work that all nodes together do once. Rules and aliases in etcd
//! are [`crate::rules::source`]'s, over the same connection.

mod connection;
pub mod once;

use std::time::Duration;

pub use connection::Cluster;
pub(crate) use connection::in_time;

/// Why etcd does not do what it was asked.
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
