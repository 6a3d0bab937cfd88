//! What may be done to a body beside passing it on; a service asks for it, and what it does not ask for costs one
//! branch.
//!
//! - [`weight`] reads what a client says it would rather have.
//! - [`coding`] decides whether a response is compressed, and what its head then says. Pure.
//! - [`compress`] does it, piece by piece.
//! - [`ahead`] bounds what is taken from a worker ahead of a slow client.
//! - [`gather`] reads a slow upload before a worker is asked.

pub(crate) mod ahead;
pub(crate) mod coding;
pub(crate) mod compress;
pub(crate) mod gather;
#[cfg(test)]
mod tests;
pub(crate) mod weight;
