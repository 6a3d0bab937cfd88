//! From one process to the next, without a refused connection or a cut request: `switchman upgrade`.
//!
//! Both processes talk over a socket pair, which the new one has as its stdin. At no time do both act on workers:
//! they change hands between `Built` and `Ready`, and come back if the new one dies in between.
//!
//! ```text
//! old                                             new (same arguments and environment, maybe another binary)
//!  |---- start, channel as stdin ------------------>|
//!  |---- Hello (lock, log), Tcp.., Unix.., Offered ->|  reads its configuration, takes the sockets, binds what is
//!  |                                                 |  new, reads certificates: what can fail without workers
//!  |<--- Built --------------------------------------|
//!  | changes are refused; the supervisor leaves;     |
//!  | requests go on with the workers as they are     |
//!  |---- Yours ------------------------------------->|  adopts the workers by their records, checks them once,
//!  |                                                 |  rules in force, accepts requests from the same sockets
//!  |<--- Ready --------------------------------------|
//!  | MAINPID to systemd                              |
//!  |---- Go ---------------------------------------->|  answers the admin API, logs by itself, READY to systemd
//!  | accepts no more; requests end, streams are      |
//!  | ended one after the other, up to `drain`        |
//!  |---- end of the channel ------------------------>|  knows that nobody else uses its workers
//! ```
//!
//! A new process that ends, says something else or is late: it is killed, and if the workers were already its own,
//! the old one adopts them by the same records. The sockets were never closed, so nobody has noticed.
//! An old process that dies: before `Yours` the new one ends too; after it, the new one goes on alone.

mod channel;
mod heir;
mod predecessor;
pub mod sockets;

pub use heir::{Heir, NoHeir, own_binary};
pub use predecessor::{Inheritance, NoPredecessor, Predecessor};

/// Tells a new process that it is to take over.
pub const VARIABLE: &str = "SWITCHMAN_HANDOVER";
