//! RFC 9113 sections 3 to 5: how a connection begins, frames as such, the states of streams, errors, extensions.

use super::super::frames::{CONTINUATION, PREFACE};
use super::*;
use crate::proxy::rig::Client;

/// Frames as such (section 4), and header blocks in them.
#[tokio::test]
async fn frames_and_header_blocks() {
    let reserved_bit = |stream: u32| stream | 1 << 31;
    let part = |end: u8| frame(HEADERS, END_STREAM | end, 1, &block(&GET)[..5]);
    hold(vec![
        case("4.1", "a frame of an unknown kind is dropped", &[frame(UNKNOWN, 0, 0, &[0; 8])], Must::Nothing),
        case("4.1", "one on a stream", &[frame(UNKNOWN, 0xff, 1, b""), request(1)], Must::Answer(1)),
        case("4.1", "flags that mean nothing are ignored", &[frame(PING, 0xfe, 0, &[7; 8])], Must::Nothing),
        case(
            "4.1",
            "the reserved bit of a stream's number is ignored",
            &[frame(PING, 0, reserved_bit(0), &[7; 8]), frame(HEADERS, WHOLE, reserved_bit(1), &block(&GET))],
            Must::Answer(1),
        ),
        case(
            "4.2",
            "16 KiB of DATA",
            &[upload(1), frame(DATA, END_STREAM, 1, &[1; 1 << 14])],
            Must::Answer(1),
        ),
        case(
            "4.2",
            "more DATA in a frame than allowed",
            &[upload(1), frame(DATA, END_STREAM, 1, &[1; (1 << 14) + 1])],
            end_stream(FRAME_SIZE),
        ),
        case(
            "4.2",
            "HEADERS larger than allowed",
            &[frame(HEADERS, WHOLE, 1, &[0; (1 << 14) + 1])],
            end(FRAME_SIZE),
        ),
        case("4.2", "SETTINGS larger than allowed", &[frame(SETTINGS, 0, 0, &[9; 16_386])], end(FRAME_SIZE)),
        case("4.2", "PING larger than allowed", &[frame(PING, 0, 0, &[0; (1 << 14) + 1])], end(FRAME_SIZE)),
        case("4.3", "a header block that ends in the middle", &[part(END_HEADERS)], end(COMPRESSION))
            .but(PROTOCOL, hpack::CODE),
        case("4.3", "PRIORITY inside a header block", &[part(0), priority(1, 0)], end(PROTOCOL)),
        case("4.3", "another stream's HEADERS inside a header block", &[part(0), request(3)], end(PROTOCOL)),
        case("4.3", "DATA inside a header block", &[part(0), frame(DATA, 0, 1, b"a")], end(PROTOCOL)),
        case("4.3", "PING inside a header block", &[part(0), frame(PING, 0, 0, &[0; 8])], end(PROTOCOL)),
        case("4.3", "SETTINGS inside a header block", &[part(0), settings(&[])], end(PROTOCOL)),
    ])
    .await;
}

/// PRIORITY that makes `stream` depend on `on`.
pub(super) fn priority(stream: u32, on: u32) -> Vec<u8> {
    frame(PRIORITY, 0, stream, &[&on.to_be_bytes()[..], &[15]].concat())
}

/// Why a frame that comes too late is met with another code.
pub(super) const STATE: &str =
    "while the h2 crate still knows the stream it says PROTOCOL_ERROR, and the right code later";

/// The states of a stream (section 5.1).
#[tokio::test]
async fn the_states_of_a_stream() {
    let data = || frame(DATA, END_STREAM, 1, b"late");
    let rest = || frame(CONTINUATION, END_HEADERS, 1, b"");
    hold(vec![
        case("5.1", "idle: DATA", &[data()], end(PROTOCOL)),
        case("5.1", "idle: RST_STREAM", &[reset(1, CANCEL)], end(PROTOCOL)),
        case("5.1", "idle: WINDOW_UPDATE", &[window(1, 100)], end(PROTOCOL)),
        case("5.1", "idle: CONTINUATION", &[rest()], end(PROTOCOL)),
        case("5.1", "idle: PRIORITY is no error", &[priority(1, 0), request(1)], Must::Answer(1)),
        case("5.1", "half closed: DATA", &[request(1), data()], end_stream(STREAM_CLOSED))
            .but(PROTOCOL, STATE),
        case("5.1", "half closed: HEADERS", &[request(1), request(1)], end_stream(STREAM_CLOSED))
            .but(PROTOCOL, STATE),
        case("5.1", "half closed: CONTINUATION", &[request(1), rest()], end(PROTOCOL)),
        case("5.1", "half closed: WINDOW_UPDATE is no error", &[request(1), window(1, 9)], Must::Answer(1)),
        case("5.1", "half closed: PRIORITY is no error", &[request(1), priority(1, 0)], Must::Answer(1)),
        case("5.1", "half closed: RST_STREAM is no error", &[request(1), reset(1, CANCEL)], Must::Nothing),
        case("5.1", "reset: DATA", &[upload(1), reset(1, CANCEL), data()], end_stream(STREAM_CLOSED))
            .but(PROTOCOL, STATE),
        case("5.1", "reset: HEADERS", &[upload(1), reset(1, CANCEL), request(1)], end_stream(STREAM_CLOSED))
            .but(PROTOCOL, STATE),
        case("5.1", "reset: CONTINUATION", &[upload(1), reset(1, CANCEL), rest()], end(PROTOCOL)),
        case(
            "5.1",
            "reset: PRIORITY is no error",
            &[upload(1), reset(1, CANCEL), priority(1, 0)],
            Must::Nothing,
        ),
        case("5.1", "closed: DATA", &[request(1)], end_stream(STREAM_CLOSED))
            .then(&[data()])
            .but(PROTOCOL, STATE),
        case("5.1", "closed: HEADERS", &[request(1)], end_stream(STREAM_CLOSED))
            .then(&[request(1)])
            .but(PROTOCOL, STATE),
        case("5.1", "closed: CONTINUATION", &[request(1)], end(PROTOCOL)).then(&[rest()]),
        case("5.1", "closed: WINDOW_UPDATE is no error", &[request(1)], Must::Nothing).then(&[window(1, 9)]),
        case("5.1", "closed: RST_STREAM is no error", &[request(1)], Must::Nothing).then(&[reset(1, CANCEL)]),
        case("5.1", "closed: PRIORITY is no error", &[request(1)], Must::Nothing).then(&[priority(1, 0)]),
        case("5.1.1", "a stream with an even number", &[request(2)], end(PROTOCOL)),
        case(
            "5.1.1",
            "a stream with a lower number than the one before",
            &[request(5), request(3)],
            end(PROTOCOL),
        ),
        case("5.1.1", "numbers may be left out", &[request(1001)], Must::Answer(1001)),
        case("5.3.1", "HEADERS of a stream that depends on itself", &[on_itself()], end_stream(PROTOCOL)),
        case("5.3.1", "PRIORITY of a stream that depends on itself", &[priority(1, 1)], end_stream(PROTOCOL)),
    ])
    .await;
}

fn on_itself() -> Vec<u8> {
    let payload = [&[0, 0, 0, 1, 15][..], &block(&GET)].concat();
    frame(HEADERS, WHOLE | WITH_PRIORITY, 1, &payload)
}

/// Errors and extensions (sections 5.4, 5.5 and 7).
#[tokio::test]
async fn errors_and_extensions() {
    let part = || frame(HEADERS, END_STREAM, 1, &block(&GET)[..5]);
    hold(vec![
        case("5.4.1", "a broken PING ends the connection", &[frame(PING, 0, 0, &[0; 6])], end(FRAME_SIZE))
            .but(PROTOCOL, kinds::CODE),
        case(
            "5.4.2",
            "an error of a stream leaves the others alone",
            &[frame(HEADERS, WHOLE, 1, &block(&[(":method", "GET")])), request(3)],
            Must::Answer(3),
        ),
        case(
            "5.5",
            "a frame of an unknown kind between two",
            &[frame(UNKNOWN, 0, 0, b"a"), request(1)],
            Must::Answer(1),
        ),
        case("5.5", "one inside a header block", &[part(), frame(UNKNOWN, 0, 1, b"")], end(PROTOCOL)),
        case("5.5", "a setting that nobody knows", &[settings(&[(0xff, 1)]), request(1)], Must::Answer(1)),
        case("7", "a GOAWAY with a code that nobody knows", &[goaway(0xff)], Must::End(vec![0])),
        case("7", "a RST_STREAM with a code that nobody knows", &[upload(1), reset(1, 0xff)], Must::Nothing),
    ])
    .await;
}

/// GOAWAY that names no stream of the server.
pub(super) fn goaway(code: u32) -> Vec<u8> {
    frame(GOAWAY, 0, 0, &[0u32.to_be_bytes(), code.to_be_bytes()].concat())
}

/// How a connection begins (section 3.4).
#[tokio::test]
async fn a_connection_begins_with_the_preface_and_settings_on_both_sides() {
    let (rig, asked) = rig(Settings::default()).await;
    let mut raw = Raw::connect(rig.address).await;
    let first = raw.next().await.unwrap();
    assert_eq!((first.kind, first.flags, first.stream), (SETTINGS, 0, 0), "settings come first");
    assert!(first.payload.len().is_multiple_of(6));
    // What follows the preface must be SETTINGS. The h2 crate does not insist, and nothing depends on it here.
    let mut raw = Raw { client: Client::connect(rig.address).await };
    raw.client.send([PREFACE, &request(1)].concat()).await;
    assert_eq!(see(&mut raw, 1, true, false).await, Seen::Answer(200));
    assert_eq!(asked.swap(0, Relaxed), 1);
    // Half a preface, and then something else; none of it is taken for HTTP/1 either.
    for wrong in
        ["PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\t", "PRI / HTTP/2.0\r\n\r\n"]
    {
        let mut client = Client::connect(rig.address).await;
        client.send(wrong).await;
        assert!(client.is_closed().await);
        assert!(client.buffer.is_empty() || !client.buffer.starts_with(b"HTTP/1.1 2"), "{wrong:?}");
    }
    assert_eq!(asked.load(Relaxed), 0);
}
