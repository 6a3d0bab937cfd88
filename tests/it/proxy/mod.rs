//! The data plane on real sockets: registry and rules are made by hand, workers are tasks.

mod answers;
mod bodies;
mod drains;
mod faults;
mod payloads;
mod rig;
mod streams;
mod upgrades;
mod websocket;

pub(crate) use rig::{GET, Rig, VERSION};
