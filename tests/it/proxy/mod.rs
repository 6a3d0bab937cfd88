//! The data plane on real sockets: registry and rules are made by hand, workers are tasks.

mod answers;
mod bodies;
mod drains;
mod faults;
mod forwarded;
mod grpc;
mod h2c;
mod http2;
mod payloads;
mod proxy_protocol;
mod rig;
pub(crate) mod tls;
mod upgrades;

pub(crate) use rig::{GET, Rig, VERSION};
