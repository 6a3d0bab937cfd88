//! The ports that workers were given: no two workers get the same one.
//!
//! portpicker finds a port that is free at this moment; the table keeps it from being given out again until
//! everything that was started with it has ended. That nobody else takes it meanwhile cannot be prevented, only
//! seen: `readiness` looks who listens there.

use std::collections::HashSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How often another port is picked before giving up.
const TRIES_MAX: usize = 200;

/// The ports in use by workers; clonable.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortTable(Arc<Mutex<HashSet<u16>>>);

/// One port, held until this is dropped.
#[derive(Debug)]
pub(crate) struct PortGuard {
    table: PortTable,
    port: u16,
}

/// No free port was found.
#[derive(Debug, thiserror::Error)]
#[error("no free port was found in {TRIES_MAX} tries; hint: see what listens with `ss -ltn`")]
pub(crate) struct NoPort;

impl PortTable {
    /// Picks a port that nobody listens on and no worker holds.
    pub(crate) fn pick(&self) -> Result<PortGuard, NoPort> {
        for _ in 0..TRIES_MAX {
            // Asked without the lock: it opens sockets.
            let port = portpicker::pick_unused_port().ok_or(NoPort)?;
            if self.held().insert(port) {
                return Ok(PortGuard { table: self.clone(), port });
            }
        }
        Err(NoPort)
    }

    /// This port, for a worker that has it already; none if another one holds it.
    pub(crate) fn claim(&self, port: u16) -> Option<PortGuard> {
        self.held().insert(port).then(|| PortGuard { table: self.clone(), port })
    }

    fn held(&self) -> MutexGuard<'_, HashSet<u16>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PortGuard {
    /// Where a worker with this port listens.
    pub(crate) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.port).into()
    }
}

impl Drop for PortGuard {
    fn drop(&mut self) {
        self.table.held().remove(&self.port);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_workers_hold_the_same_port_and_a_dropped_one_is_free_again() {
        let table = PortTable::default();
        let guards: Vec<PortGuard> = (0..100).map(|_| table.pick().unwrap()).collect();
        let ports: HashSet<u16> = guards.iter().map(|g| g.address().port()).collect();
        assert_eq!(ports.len(), 100);
        assert_eq!(*table.held(), ports);
        drop(guards);
        assert!(table.held().is_empty());
    }
}
