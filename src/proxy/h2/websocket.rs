//! WebSockets on HTTP/2 (RFC 8441) become WebSockets on HTTP/1.1: the key of the handshake is made here, and the
//! worker's answer to it is checked here, for the client knows neither.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// What a server adds to the key before it hashes it (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A new `Sec-WebSocket-Key`.
pub(super) fn new_key() -> String {
    let mut bytes = [0; 16];
    // The kernel's generator does not fail once the machine is up, and the key keeps no secret.
    let _ = getrandom::fill(&mut bytes);
    STANDARD.encode(bytes)
}

/// The `Sec-WebSocket-Accept` that answers `key`.
pub(super) fn accept(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(GUID).finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_answered_as_the_rfc_says() {
        assert_eq!(accept("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        let (one, other) = (new_key(), new_key());
        assert_eq!(STANDARD.decode(&one).map(|bytes| bytes.len()), Ok(16));
        assert_ne!(one, other);
    }
}
