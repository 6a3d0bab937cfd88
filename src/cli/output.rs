//! stdout for data, stderr for the rest. A closed pipe ends a command quietly instead of with a panic.

use std::io::{self, IsTerminal, Write};

use crate::cli::failure::Failure;

/// Writes data to stdout, with a line end if it has none.
pub(super) fn data(text: &str) -> Result<(), Failure> {
    raw(text.as_bytes())?;
    if text.is_empty() || text.ends_with('\n') { Ok(()) } else { raw(b"\n") }
}

/// Writes data to stdout as it is.
pub(super) fn raw(bytes: &[u8]) -> Result<(), Failure> {
    write(io::stdout().lock(), bytes)
}

/// Writes what a worker printed: its colours only to a terminal that shows them, and without `NO_COLOR`.
pub(super) fn printed(bytes: &[u8]) -> Result<(), Failure> {
    write(anstream::AutoStream::auto(io::stdout().lock()), bytes)
}

fn write(mut stdout: impl Write, bytes: &[u8]) -> Result<(), Failure> {
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::nobody_reads()),
        Err(error) => Err(Failure::failed(format!("stdout cannot be written: {error}"))),
    }
}

/// Writes one line to stderr; where nobody reads that either, there is nothing left to do about it.
pub(super) fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Whether a person looks at stdout.
pub(super) fn is_terminal() -> bool {
    io::stdout().is_terminal()
}
