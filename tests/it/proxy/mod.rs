//! The data plane on real sockets: registry and rules are made by hand, workers are tasks.

mod answers;
mod rig;

pub(crate) use rig::{GET, Rig, VERSION};
