//! The data plane on real sockets: registry and rules are made by hand, workers are tasks.

mod answers;
mod bodies;
mod drains;
mod faults;
mod grpc;
mod h2c;
mod h2c_programs;
mod http2;
mod payloads;
mod rig;
mod upgrades;

pub(crate) use rig::{GET, Rig, VERSION};
