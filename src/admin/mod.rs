//! The admin API: what runs, and how it is changed, for people (through the command line) and programs.
//!
//! ```text
//! cli -> client --unix socket | TCP--> server (auth, every error a problem) -> api
//!     api reads   routing::Live snapshots --view--> types (the JSON)
//!     api changes supervisor (start, stop, restart, drain, scale), rule sources (promote, aliases, rules)
//! ```
//!
//! It runs on the control runtime and never on the data plane. A change answers once it is stored and the
//! published snapshot shows it, so that who changes and then reads sees the change.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

use crate::config::Secret;
use crate::control::ControlHandle;
use crate::routing::Live;
use crate::rules::source::SourceHandle;
use crate::supervisor::command::SupervisorHandle;
use crate::version::ServiceName;

/// The paths.
mod api;
/// Who may do what.
pub mod auth;
/// The other end, for the command line.
pub mod client;
/// Errors as RFC 9457 problems.
mod problem;
/// A time in the past.
mod since;
/// The listeners.
mod server;
/// What the API says, field for field.
pub mod types;
/// Snapshots to types.
mod view;

pub use server::{BindError, Bound, SocketFile, bind, serve};

/// What the API reads and asks.
#[derive(Debug, Clone)]
pub struct AdminState {
    /// This machine's name in the fleet.
    pub node: String,
    /// What exists and where requests go.
    pub live: Arc<Live>,
    /// Starts and stops versions, and keeps what their workers print.
    pub supervisor: SupervisorHandle,
    /// Changes rules and aliases; one for each service.
    pub sources: watch::Receiver<BTreeMap<ServiceName, SourceHandle>>,
    /// Reloads and upgrades.
    pub control: ControlHandle,
    /// What a request over TCP must carry to change something.
    pub token: Secret,
    /// Turns true when the data plane listens, for `/readyz`.
    pub listening: watch::Receiver<bool>,
}
