//! The data plane on real sockets: registry and rules are made by hand, workers are tasks.

mod answers;
mod bodies;
mod buffer;
mod compress;
mod drains;
mod faults;
mod grpc;
mod h2c;
mod http2;
mod pages;
mod payloads;
mod rig;
mod upgrades;

pub(crate) use rig::{GET, Rig, VERSION};
