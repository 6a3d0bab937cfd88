//! The data plane against raw sockets.
