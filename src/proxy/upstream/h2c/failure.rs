//! What the error of a stream's read or write says beside its text.

use std::io;

use h2::Reason;

/// A stream's error as an I/O error.
pub(super) fn wrap(error: h2::Error) -> io::Error {
    io::Error::other(error)
}

fn inner(error: &io::Error) -> Option<&h2::Error> {
    error.get_ref()?.downcast_ref()
}

/// The error in words.
pub(crate) fn describe(error: &io::Error) -> String {
    let hint = match inner(error).filter(|error| !error.is_remote()).and_then(h2::Error::reason) {
        // What begins with `HTTP` is, read as a frame, far too long.
        Some(Reason::FRAME_SIZE_ERROR) => "; a worker that speaks HTTP/1.1 wants `protocol: http1`",
        _ => "",
    };
    format!("{error}{hint}")
}

/// The worker says that it has done nothing with the request: it refused the stream, or was about to close the
/// connection and names an earlier stream as its last (RFC 9113 sections 6.8 and 8.7). Any request may be sent
/// again.
pub(crate) fn is_unprocessed(error: &io::Error) -> bool {
    inner(error).is_some_and(|error| {
        error.is_remote()
            && (error.is_go_away() || error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM))
    })
}

/// The code with which the worker reset the stream, for a client that can be told it.
pub(crate) fn reset_code(error: &io::Error) -> Option<Reason> {
    inner(error).filter(|error| error.is_reset() && error.is_remote()).and_then(h2::Error::reason)
}
