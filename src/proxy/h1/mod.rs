//! HTTP/1.0 and HTTP/1.1 as bytes, for both sides: heads are parsed on `httparse` and then held to the letter.
//!
//! The rule for requests: either everybody behind us reads a message the way we do, or it is refused. So what
//! `httparse` tolerates (a line feed alone) and what it does not look at (lengths, codings, hosts) is checked
//! here. Nothing in here does I/O except [`pump`], and nothing knows of versions or workers: HTTP/2 can stand
//! beside it.

pub(crate) mod body;
pub(crate) mod buf;
pub(crate) mod chunked;
pub(crate) mod field;
pub(crate) mod lines;
pub(crate) mod pump;
pub(crate) mod request;
pub(crate) mod response;
pub(crate) mod target;
