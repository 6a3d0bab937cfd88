//! Bodies through the pump with everything that may be done to them, whatever the pace of both sides.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use compression_codecs::core::util::{PartialBuffer, WriteBuffer};
use compression_codecs::{DecodeV2, GzipDecoder};
use futures_util::task::noop_waker_ref;
use proptest::prelude::*;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::ahead::{Ahead, Share};
use super::compress::Compressor;
use crate::config::Coding;
use crate::proxy::ends::{BodyReceiver, BodySender, Framing};
use crate::proxy::h1::body::{Body, Encode};
use crate::proxy::h1::buf::Buf;
use crate::proxy::h1::chunked::Chunked;
use crate::proxy::h1::pump::Pump;
use crate::proxy::streams::events::Events;
use crate::proxy::streams::messages::Messages;
use crate::proxy::streams::parts::Parts;

/// Sends these pieces, and pauses before each.
struct Sender {
    pieces: VecDeque<Vec<u8>>,
    paused: bool,
}

impl AsyncRead for Sender {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        room: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.paused = !self.paused;
        if self.paused {
            return Poll::Pending;
        }
        if let Some(mut piece) = self.pieces.pop_front() {
            let n = piece.len().min(room.remaining());
            room.put_slice(&piece[..n]);
            if n < piece.len() {
                self.pieces.push_front(piece.split_off(n));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl BodySender for Sender {}

/// Takes so many bytes at a time; after each it pauses so often.
struct Receiver {
    taken: Vec<u8>,
    pace: usize,
    pauses: usize,
    left: usize,
}

impl AsyncWrite for Receiver {
    fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.left > 0 {
            self.left -= 1;
            return Poll::Pending;
        }
        self.left = self.pauses;
        let n = bytes.len().min(self.pace);
        self.taken.extend_from_slice(&bytes[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

impl BodyReceiver for Receiver {}

/// As chunks, with the last one.
fn chunks(text: &[u8]) -> Vec<u8> {
    let mut chunks = Vec::new();
    for part in text.chunks(1000) {
        chunks.extend([format!("{:x}\r\n", part.len()).as_bytes(), part, b"\r\n"].concat());
    }
    [&chunks[..], b"0\r\n\r\n"].concat()
}

fn without_chunks(bytes: &[u8]) -> Vec<u8> {
    let (mut chunked, mut text) = (Chunked::new(), Vec::new());
    let used = chunked.advance(bytes, |data| text.extend_from_slice(data), |_| {}).unwrap();
    assert!(chunked.is_done() && used == bytes.len(), "one whole body");
    text
}

fn gunzip(bytes: &[u8]) -> Vec<u8> {
    let mut room = vec![0; 1 << 20];
    let mut out = WriteBuffer::new_initialized(&mut room);
    assert!(GzipDecoder::new().decode(&mut PartialBuffer::new(bytes), &mut out).unwrap(), "it has its end");
    out.written().to_vec()
}

/// `wire` in pieces of these lengths, again and again.
fn pieces(wire: &[u8], lengths: &[usize]) -> VecDeque<Vec<u8>> {
    let (mut pieces, mut rest) = (VecDeque::new(), wire);
    for length in lengths.iter().cycle().take_while(|_| !wire.is_empty()) {
        let (piece, after) = rest.split_at((*length).min(rest.len()));
        pieces.push_back(piece.to_vec());
        rest = after;
        if rest.is_empty() {
            break;
        }
    }
    pieces
}

/// A part of a stream with so many bytes of its own.
fn part(is_event: bool, length: usize) -> Vec<u8> {
    match is_event {
        true => ["data: ", &"x".repeat(length), "\n\n"].concat().into_bytes(),
        false => [&[0], &(length as u32).to_be_bytes()[..], &vec![b'\n'; length]].concat(),
    }
}

proptest! {
    #[test]
    fn a_stream_that_is_ended_ends_after_a_whole_part(
        lengths in proptest::collection::vec(0usize..3_000, 1..40),
        is_event in any::<bool>(),
        cuts in proptest::collection::vec(1usize..5_000, 1..20),
        (pace, pauses) in (1usize..20_000, 0usize..4),
        (chunked, http11, frames) in (any::<bool>(), any::<bool>(), any::<bool>()),
        ends_at in 0usize..60,
    ) {
        let parts: Vec<_> = lengths.iter().map(|length| part(is_event, *length)).collect();
        let ends: Vec<usize> = parts.iter().scan(0, |at, part| { *at += part.len(); Some(*at) }).collect();
        let text = parts.concat();
        let (body, wire) = match chunked {
            true => (Body::Chunked(Chunked::new()), chunks(&text)),
            false => (Body::UntilClose, text.clone()),
        };
        let framing = match (frames, http11) {
            (true, _) => Framing::Frames,
            (false, true) => Framing::Chunks,
            (false, false) => Framing::Close,
        };
        let encode = framing.encode(&body);
        let mut sender = Sender { pieces: pieces(&wire, &cuts), paused: false };
        let mut receiver = Receiver { taken: Vec::new(), pace, pauses, left: 0 };
        let (mut buf, mut out) = (Buf::new(), Vec::new());
        let mut pump = Pump::new(body, encode);
        pump.follow(Some(match is_event {
            true => Parts::Events(Events::new()),
            false => Parts::Messages(Messages::new()),
        }));
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut polls = 0;
        // How much the sender had sent by then; with chunks, more than that of the body.
        let mut sent = wire.len();
        loop {
            if polls == ends_at && !pump.ends_early() {
                pump.end_early();
                sent = wire.len() - sender.pieces.iter().map(Vec::len).sum::<usize>();
            }
            match pump.poll(&mut cx, &mut sender, &mut buf, &mut receiver, &mut out) {
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(stopped)) => return Err(TestCaseError::fail(format!("{stopped:?}"))),
                Poll::Pending => polls += 1,
            }
            prop_assert!(polls < 1_000_000, "it comes to an end");
        }
        let has_chunks = framing == Framing::Chunks;
        let arrived = if has_chunks { without_chunks(&receiver.taken) } else { receiver.taken };
        prop_assert!(text.starts_with(&arrived), "{} bytes", arrived.len());
        prop_assert!(arrived.is_empty() || ends.contains(&arrived.len()), "{} of {ends:?}", arrived.len());
        // Where chunks pass as they come, it has to be between two of them as well.
        let last = ends.iter().copied().find(|end| *end >= sent).unwrap_or(text.len());
        prop_assert!(chunked && encode == Encode::AsIs || arrived.len() <= last, "{} after {last}", arrived.len());
        prop_assert!(pump.ends_early() || arrived == text);
    }

    #[test]
    fn a_body_arrives_whole_whatever_is_done_to_it(
        length in 0usize..200_000,
        cuts in proptest::collection::vec(1usize..50_000, 1..20),
        pace in 1_000usize..70_000,
        pauses in 0usize..4,
        (framing, compress) in (0..3, any::<bool>()),
        most in prop_oneof![Just(0u64), Just(10_000), Just(100_000), Just(1_000_000)],
        http11 in any::<bool>(),
    ) {
        let text: Vec<u8> = (0..length).map(|i| (i * i % 251) as u8).collect();
        let (body, wire) = match framing {
            0 => (Body::Length(length as u64), text.clone()),
            1 => (Body::Chunked(Chunked::new()), chunks(&text)),
            _ => (Body::UntilClose, text.clone()),
        };
        let encode = match (&body, http11, compress) {
            (Body::Chunked(_), false, false) => Encode::Plain,
            (Body::UntilClose, true, _) | (_, true, true) => Encode::Chunk,
            _ => Encode::AsIs,
        };
        let has_chunks = encode == Encode::Chunk || (framing == 1 && encode == Encode::AsIs && !compress);
        let mut sender = Sender { pieces: pieces(&wire, &cuts), paused: false };
        let mut receiver = Receiver { taken: Vec::new(), pace, pauses, left: 0 };
        let share = Share::default();
        let mut ahead = Ahead::new(&share, most);
        let (mut buf, mut out) = (Buf::new(), b"head".to_vec());
        let mut pump = Pump::new(body, encode);
        if compress && !body.is_done() {
            pump.compress(Some(Box::new(Compressor::new(Coding::Gzip, Rc::default()))));
        }
        let mut cx = Context::from_waker(noop_waker_ref());
        let mut polls = 0;
        loop {
            match pump.poll_ahead(&mut cx, &mut sender, &mut buf, &mut receiver, &mut out, Some(&mut ahead)) {
                Poll::Ready(Ok(())) => break,
                Poll::Ready(Err(stopped)) => return Err(TestCaseError::fail(format!("{stopped:?}"))),
                Poll::Pending => polls += 1,
            }
            prop_assert!(polls < 100_000, "it comes to an end");
            let waiting = out.len().max(buf.filled().len());
            prop_assert!(waiting <= 2 * (most as usize + 70_000), "{waiting} bytes are held");
        }
        prop_assert!(pump.is_all_of(&buf), "nothing is left");
        let sent = receiver.taken.strip_prefix(b"head").unwrap();
        let mut arrived = if has_chunks && !(compress && body.is_done()) { without_chunks(sent) } else { sent.to_vec() };
        if compress && !body.is_done() {
            arrived = gunzip(&arrived);
        }
        prop_assert!(arrived == text, "{} of {length} bytes", arrived.len());
    }
}
