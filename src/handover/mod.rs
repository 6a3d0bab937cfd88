//! x
pub mod sockets;
