//! The data plane on real sockets: registry and rules are made by hand, workers are tasks.

mod answers;
mod balance;
mod bodies;
mod drains;
mod faults;
mod limits;
mod payloads;
mod queue;
mod retry;
mod rig;
mod upgrades;

pub(crate) use rig::{GET, Rig, VERSION};
