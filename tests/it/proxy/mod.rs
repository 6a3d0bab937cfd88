//! The data plane on real sockets: registry and rules are made by hand, workers are tasks.

mod answers;
mod balance;
mod bodies;
mod buffer;
mod compress;
mod drains;
mod faults;
mod forwarded;
mod grpc;
mod h2c;
mod h2c_programs;
mod http2;
mod limits;
mod pages;
mod payloads;
mod proxy_protocol;
mod queue;
mod retry;
mod rig;
mod streams;
pub(crate) mod tls;
mod upgrades;
mod websocket;

pub(crate) use rig::{GET, Rig, VERSION};
