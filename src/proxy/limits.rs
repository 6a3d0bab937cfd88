//! What bounds the data plane: the values are [`config::Limits`](crate::config::Limits), read from `limits:`.

use std::io;

use rustix::process::{Resource, Rlimit};

pub(crate) use crate::config::HEADERS_MAX;
/// The data plane's limits.
pub use crate::config::Limits as Settings;

/// Raises this process's limit of open files to what the system allows, as [`Settings::default`] builds on it.
/// Returns the limit before and after. Processes started later inherit it.
///
/// # Errors
/// The system refuses; the limit is as it was.
pub fn raise_open_files() -> io::Result<(Option<u64>, Option<u64>)> {
    let before = rustix::process::getrlimit(Resource::Nofile);
    let after = Rlimit { current: before.maximum, maximum: before.maximum };
    rustix::process::setrlimit(Resource::Nofile, after)?;
    Ok((before.current, before.maximum))
}
