//! What bounds one HTTP/2 connection of a client. Plain values; the data plane holds connections to them.

/// The limits of one HTTP/2 connection. [`Http2::default`] is meant for production.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http2 {
    /// Requests that run at a time; more are refused with `REFUSED_STREAM`, which allows to send them again.
    pub streams: u32,
    /// Bytes of one request's body that a client may send before a worker takes them.
    pub stream_window: u32,
    /// Likewise for all requests of the connection together.
    pub connection_window: u32,
    /// Largest frame, in bytes.
    pub frame_bytes: u32,
    /// Bytes of one response that may wait for the connection to take them.
    pub send_buffer: usize,
    /// Requests that the client has reset before we saw them; more end the connection.
    pub pending_resets: usize,
    /// Requests that we have reset for errors of the client; more end the connection.
    pub error_resets: usize,
    /// Requests that the client may reset at once; more end the connection.
    pub reset_burst: u32,
    /// Resets a second that it may go on with.
    pub resets_per_second: u32,
}

impl Default for Http2 {
    fn default() -> Self {
        Self {
            streams: 250,
            stream_window: 256 * 1024,
            connection_window: 1024 * 1024,
            frame_bytes: 16 * 1024,
            send_buffer: 64 * 1024,
            pending_resets: 20,
            error_resets: 256,
            // A browser that leaves a page resets all of its requests at once, two pages in a row.
            reset_burst: 500,
            resets_per_second: 50,
        }
    }
}
