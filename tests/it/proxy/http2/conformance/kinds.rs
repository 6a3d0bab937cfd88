//! RFC 9113 section 6: every kind of frame.

use super::super::frames::CONTINUATION;
use super::connection::{STATE, goaway, priority};
use super::*;

/// Why a frame of a wrong size ends the connection with another code.
pub(super) const CODE: &str = "the h2 crate has one code for every frame that it cannot read, PROTOCOL_ERROR";

#[tokio::test]
async fn data_headers_and_priority() {
    let padded = |length: u8, content: &[u8]| [&[length][..], content, &[0; 4]].concat();
    let data = |flags, payload: &[u8]| frame(DATA, flags | END_STREAM, 1, payload);
    let head = |flags, payload: &[u8]| frame(HEADERS, flags | WHOLE, 1, payload);
    let with_priority = [&[0x80, 0, 0, 3, 200][..], &block(&GET)].concat();
    hold(vec![
        case("6.1", "DATA on stream 0", &[frame(DATA, 0, 0, b"a")], end(PROTOCOL)),
        case(
            "6.1",
            "DATA on a stream that is not open",
            &[request(1), data(0, b"a")],
            end_stream(STREAM_CLOSED),
        )
        .but(PROTOCOL, STATE),
        case("6.1", "DATA with padding", &[upload(1), data(PADDED, &padded(4, b"body"))], Must::Answer(1)),
        case(
            "6.1",
            "DATA that is padding alone",
            &[upload(1), data(PADDED, &padded(4, b""))],
            Must::Answer(1),
        ),
        case(
            "6.1",
            "DATA with padding of no length",
            &[upload(1), data(PADDED, &[0, 1, 2])],
            Must::Answer(1),
        ),
        case(
            "6.1",
            "padding as long as the frame",
            &[upload(1), data(PADDED, &[5, 0, 0, 0, 0])],
            end(PROTOCOL),
        ),
        case("6.1", "padding longer than the frame", &[upload(1), data(PADDED, &[9, 0, 0])], end(PROTOCOL)),
        case("6.1", "padding without its length", &[upload(1), data(PADDED, &[])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.1", "DATA without content", &[upload(1), data(0, b"")], Must::Answer(1)),
        case("6.2", "HEADERS on stream 0", &[frame(HEADERS, WHOLE, 0, &block(&GET))], end(PROTOCOL)),
        case("6.2", "HEADERS with padding", &[head(PADDED, &padded(4, &block(&GET)))], Must::Answer(1)),
        case(
            "6.2",
            "HEADERS with padding longer than the frame",
            &[head(PADDED, &padded(200, &block(&GET)))],
            end(PROTOCOL),
        ),
        case("6.2", "HEADERS with padding without its length", &[head(PADDED, b"")], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.2", "HEADERS with a priority", &[head(WITH_PRIORITY, &with_priority)], Must::Answer(1)),
        case(
            "6.2",
            "HEADERS with padding and a priority",
            &[head(PADDED | WITH_PRIORITY, &padded(4, &with_priority))],
            Must::Answer(1),
        ),
        case("6.2", "HEADERS too short for their priority", &[head(WITH_PRIORITY, &[0; 4])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.3", "PRIORITY on stream 0", &[priority(0, 1)], end(PROTOCOL)),
        case(
            "6.3",
            "PRIORITY of 4 bytes",
            &[request(1), frame(PRIORITY, 0, 1, &[0; 4])],
            end_stream(FRAME_SIZE),
        )
        .but(PROTOCOL, CODE),
        case(
            "6.3",
            "PRIORITY of 6 bytes",
            &[request(1), frame(PRIORITY, 0, 1, &[0; 6])],
            end_stream(FRAME_SIZE),
        )
        .but(PROTOCOL, CODE),
        case(
            "6.3",
            "PRIORITY of an open stream",
            &[upload(1), priority(1, 0), data(0, b"a")],
            Must::Answer(1),
        ),
    ])
    .await;
}

#[tokio::test]
async fn reset_settings_and_push() {
    let promise = [&[0, 0, 0, 2][..], &block(&GET)].concat();
    hold(vec![
        case("6.4", "RST_STREAM on stream 0", &[reset(0, CANCEL)], end(PROTOCOL)),
        case("6.4", "RST_STREAM of an idle stream", &[reset(1, CANCEL)], end(PROTOCOL)),
        case("6.4", "RST_STREAM of 3 bytes", &[upload(1), frame(RST_STREAM, 0, 1, &[0; 3])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.4", "RST_STREAM of 5 bytes", &[upload(1), frame(RST_STREAM, 0, 1, &[0; 5])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.5", "an ACK with content", &[frame(SETTINGS, ACK, 0, &setting(3, 1))], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.5", "SETTINGS on a stream", &[frame(SETTINGS, 0, 1, b"")], end(PROTOCOL)),
        case("6.5", "SETTINGS of 3 bytes", &[frame(SETTINGS, 0, 0, &[0; 3])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.5", "SETTINGS of 7 bytes", &[frame(SETTINGS, 0, 0, &[0; 7])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.5.2", "a table without room", &[settings(&[(1, 0)]), request(1)], Must::Answer(1)),
        case("6.5.2", "push that is neither on nor off", &[settings(&[(2, 2)])], end(PROTOCOL)),
        case("6.5.2", "push that is off", &[settings(&[(2, 0)]), request(1)], Must::Answer(1)),
        case("6.5.2", "a window of 2^31", &[settings(&[(4, 1 << 31)])], end(FLOW_CONTROL))
            .but(PROTOCOL, CODE),
        case("6.5.2", "the largest window", &[settings(&[(4, (1 << 31) - 1)]), request(1)], Must::Answer(1)),
        case("6.5.2", "frames of less than 16 KiB", &[settings(&[(5, (1 << 14) - 1)])], end(PROTOCOL)),
        case("6.5.2", "frames of 2^24 bytes", &[settings(&[(5, 1 << 24)])], end(PROTOCOL)),
        case("6.5.2", "the largest frames", &[settings(&[(5, (1 << 24) - 1)]), request(1)], Must::Answer(1)),
        case("6.5.2", "a header list of no length", &[settings(&[(6, 0)])], Must::Nothing),
        case("6.5.2", "extended CONNECT that is neither on nor off", &[settings(&[(8, 2)])], end(PROTOCOL)),
        case(
            "6.6",
            "PUSH_PROMISE from a client",
            &[upload(1), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)],
            end(PROTOCOL),
        ),
        case(
            "6.6",
            "PUSH_PROMISE on stream 0",
            &[frame(PUSH_PROMISE, END_HEADERS, 0, &promise)],
            end(PROTOCOL),
        ),
    ])
    .await;
}

#[tokio::test]
async fn ping_goaway_window_and_continuation() {
    let all = block(&GET);
    let (a, b) = all.split_at(20);
    let begin = |flags| frame(HEADERS, END_STREAM | flags, 1, a);
    let rest = |flags, bytes: &[u8]| frame(CONTINUATION, flags, 1, bytes);
    hold(vec![
        case("6.7", "an answer to no PING is dropped", &[frame(PING, ACK, 0, &[1; 8])], Must::Nothing),
        case("6.7", "PING on a stream", &[frame(PING, 0, 1, &[0; 8])], end(PROTOCOL)),
        case("6.7", "PING of 7 bytes", &[frame(PING, 0, 0, &[0; 7])], end(FRAME_SIZE)).but(PROTOCOL, CODE),
        case("6.7", "PING of 9 bytes", &[frame(PING, 0, 0, &[0; 9])], end(FRAME_SIZE)).but(PROTOCOL, CODE),
        case("6.8", "GOAWAY on a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], end(PROTOCOL)),
        case("6.8", "GOAWAY of 7 bytes", &[frame(GOAWAY, 0, 0, &[0; 7])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.8", "GOAWAY lets a running request end", &[request(1), goaway(0)], Must::Answer(1)),
        case("6.8", "GOAWAY ends a connection without requests", &[goaway(0)], Must::End(vec![0])),
        case("6.9", "a window that grows by nothing", &[window(0, 0)], end(PROTOCOL)),
        case(
            "6.9",
            "a stream's window that grows by nothing",
            &[upload(1), window(1, 0)],
            end_stream(PROTOCOL),
        ),
        case("6.9", "WINDOW_UPDATE of 3 bytes", &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case("6.9", "WINDOW_UPDATE of 5 bytes", &[frame(WINDOW_UPDATE, 0, 0, &[0; 5])], end(FRAME_SIZE))
            .but(PROTOCOL, CODE),
        case(
            "6.9",
            "the reserved bit of a window is ignored",
            &[window(0, 1 << 31 | 9), request(1)],
            Must::Answer(1),
        ),
        case("6.9.1", "a window beyond 2^31-1", &[window(0, (1 << 31) - 1)], end(FLOW_CONTROL)),
        case(
            "6.9.1",
            "a stream's window beyond 2^31-1",
            &[upload(1), window(1, (1 << 31) - 1)],
            end_stream(FLOW_CONTROL),
        ),
        case(
            "6.9.2",
            "settings that move a stream's window beyond 2^31-1",
            &[upload(1), window(1, 1 << 30), settings(&[(4, (1 << 31) - 1)])],
            end(FLOW_CONTROL),
        ),
        case("6.10", "one CONTINUATION", &[begin(0), rest(END_HEADERS, b)], Must::Answer(1)),
        case(
            "6.10",
            "several",
            &[begin(0), rest(0, &b[..9]), rest(0, b""), rest(END_HEADERS, &b[9..])],
            Must::Answer(1),
        ),
        case(
            "6.10",
            "one with content alone",
            &[frame(HEADERS, END_STREAM, 1, b""), rest(END_HEADERS, &all)],
            Must::Answer(1),
        ),
        case(
            "6.10",
            "PING inside a header block",
            &[begin(0), rest(0, b), frame(PING, 0, 0, &[0; 8])],
            end(PROTOCOL),
        ),
        case(
            "6.10",
            "CONTINUATION on stream 0",
            &[begin(0), frame(CONTINUATION, END_HEADERS, 0, b)],
            end(PROTOCOL),
        ),
        case(
            "6.10",
            "CONTINUATION of another stream",
            &[begin(0), frame(CONTINUATION, END_HEADERS, 3, b)],
            end(PROTOCOL),
        ),
        case(
            "6.10",
            "CONTINUATION behind a whole head",
            &[request(1), rest(END_HEADERS, b"")],
            end(PROTOCOL),
        ),
        case(
            "6.10",
            "CONTINUATION behind the last one",
            &[begin(0), rest(END_HEADERS, b), rest(END_HEADERS, b"")],
            end(PROTOCOL),
        ),
        case(
            "6.10",
            "CONTINUATION behind DATA",
            &[upload(1), frame(DATA, 0, 1, b"a"), rest(END_HEADERS, b"")],
            end(PROTOCOL),
        ),
    ])
    .await;
}
