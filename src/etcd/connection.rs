//! The connection to etcd that all of this switchman shares.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use tokio::sync::OnceCell;

use crate::config;
use crate::etcd::Failure;

/// The longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest wait for the answer to one request.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that says nothing is asked this often whether it lives. More often than each 5 s is abuse to etcd.
const KEEP_ALIVE: Duration = Duration::from_secs(6);
/// The longest wait for that answer.
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// An etcd cluster; clones share the connection.
#[derive(Clone)]
pub struct Cluster {
    config: Arc<config::Etcd>,
    client: Arc<OnceCell<Client>>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Cluster {
    /// The cluster of a configuration. Connects when it is first asked something.
    pub fn new(config: config::Etcd) -> Self {
        Self { config: Arc::new(config), client: Arc::new(OnceCell::new()) }
    }

    /// What every key begins with.
    pub(crate) fn prefix(&self) -> &str {
        &self.config.prefix
    }

    /// The addresses, for people.
    pub(crate) fn endpoints(&self) -> String {
        self.config.endpoints.join(", ")
    }

    /// The client. It connects by itself, again and again; only where etcd wants a password does this already
    /// need etcd to answer.
    pub(crate) async fn client(&self) -> Result<Client, Failure> {
        let connect = self.client.get_or_try_init(|| async {
            let mut options = ConnectOptions::new()
                .with_connect_timeout(CONNECT_TIMEOUT)
                .with_keep_alive(KEEP_ALIVE, KEEP_ALIVE_TIMEOUT)
                .with_keep_alive_while_idle(true)
                // A member that is cut off from the others must not pass for a quiet one.
                .with_require_leader(true)
                .with_auto_token_refresh(true);
            if let Some((user, password)) = &self.config.user {
                options = options.with_user(user, &password.0);
            }
            Client::connect(&self.config.endpoints, Some(options)).await.map_err(Failure::from)
        });
        in_time(connect).await.cloned()
    }
}

/// Waits for an answer of etcd, not for ever.
pub(crate) async fn in_time<T, E: Into<Failure>>(
    answer: impl Future<Output = Result<T, E>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => answer.map_err(Into::into),
        Err(_) => Err(Failure::NoAnswer(REQUEST_TIMEOUT)),
    }
}
