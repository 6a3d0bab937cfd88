//! The admin API over TCP and its socket.
