//! What RFC 9113 and RFC 7541 demand of a server, case by case, with frames written by hand: the ground that the
//! h2spec program covers, told in our own words.
//!
//! A case is what is sent after the two sides have shaken hands, and what must come. As in h2spec a connection
//! error may be a GOAWAY with one of the codes or a bare end, and a stream error may be answered as a connection
//! error. Where the `h2` crate says another code than it must, the case says so and why ([`Case::but`]); none of
//! them lets anything through that should have been refused.

mod connection;
mod flow;
mod hpack;
mod kinds;
mod messages;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use axum::Router;
use switchman::proxy::Settings;

use super::frames::{
    DATA, END_HEADERS, END_STREAM, Frame, GET, GOAWAY, HEADERS, PING, RST_STREAM, Raw, SETTINGS, block,
    frame, status,
};
use crate::proxy::Rig;
use crate::proxy::rig::application;
use crate::support::patience;

const PRIORITY: u8 = 2;
const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;
/// No kind that any document knows.
const UNKNOWN: u8 = 0x2a;
const ACK: u8 = 1;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;
/// HEADERS that are a whole request.
const WHOLE: u8 = END_HEADERS | END_STREAM;

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const REFUSED: u32 = 7;
const CANCEL: u32 = 8;
const COMPRESSION: u32 = 9;

/// What must come of a case.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Must {
    /// The end of the connection, with one of these codes where there is a GOAWAY.
    End(Vec<u32>),
    /// The end of this stream with one of these codes, or that of the connection.
    EndStream(u32, Vec<u32>),
    /// This stream is refused, by its end or by an answer of ours, and no worker hears of it.
    Refuse(u32),
    /// This stream is answered with 200.
    Answer(u32),
    /// Nothing: the connection goes on.
    Nothing,
}

/// One case.
#[derive(Debug)]
struct Case {
    section: &'static str,
    what: &'static str,
    send: Vec<u8>,
    /// What is sent when the first stream was answered to its end.
    then: Vec<u8>,
    must: Must,
    /// The code that comes instead, and why.
    but: Option<(u32, &'static str)>,
}

fn case(section: &'static str, what: &'static str, send: &[Vec<u8>], must: Must) -> Case {
    Case { section, what, send: send.concat(), then: Vec::new(), must, but: None }
}

impl Case {
    /// Sends more once stream 1 was answered to its end.
    fn then(self, more: &[Vec<u8>]) -> Self {
        Self { then: more.concat(), ..self }
    }

    /// What comes instead of what must, which is not less strict.
    fn but(self, code: u32, why: &'static str) -> Self {
        Self { but: Some((code, why)), ..self }
    }
}

fn end(code: u32) -> Must {
    Must::End(vec![code])
}

fn end_stream(code: u32) -> Must {
    Must::EndStream(1, vec![code])
}

/// A GET as one HEADERS frame.
fn request(stream: u32) -> Vec<u8> {
    frame(HEADERS, WHOLE, stream, &block(&GET))
}

/// A POST whose body is to come.
fn upload(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, stream, &block(&post(&[])))
}

fn post<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let head = [(":method", "POST"), (":scheme", "http"), (":authority", "app"), (":path", "/")];
    [&head[..], more].concat()
}

fn setting(id: u16, value: u32) -> Vec<u8> {
    [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()
}

fn settings(values: &[(u16, u32)]) -> Vec<u8> {
    let payload: Vec<Vec<u8>> = values.iter().map(|(id, value)| setting(*id, *value)).collect();
    frame(SETTINGS, 0, 0, &payload.concat())
}

fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

fn window(stream: u32, more: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &more.to_be_bytes())
}

fn code(payload: &[u8]) -> u32 {
    u32::from_be_bytes(payload[..4].try_into().unwrap())
}

/// An application that sends bodies back, or says hello; and how many requests reached it.
async fn rig(settings: Settings) -> (Rig, Arc<AtomicUsize>) {
    let asked: Arc<AtomicUsize> = Arc::default();
    let count = asked.clone();
    let app = Router::new().fallback(move |body: axum::body::Bytes| {
        count.fetch_add(1, Relaxed);
        async move { if body.is_empty() { "hello".into() } else { body } }
    });
    (Rig::start(settings, &[application(app).await]).await, asked)
}

/// What came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    Goaway(u32),
    Closed,
    Reset(u32),
    Answer(u16),
    Pong,
}

const MARK: &[u8; 8] = b"the mark";

/// Reads until something happens to `stream` or to the connection; a whole answer and `MARK` coming back are
/// something only if those are waited for.
async fn see(raw: &mut Raw, stream: u32, answer: bool, pong: bool) -> Seen {
    let mut answered = 0;
    loop {
        let Some(Frame { kind, flags, stream: of, payload }) = raw.next().await else { return Seen::Closed };
        match kind {
            GOAWAY => return Seen::Goaway(code(&payload[4..])),
            RST_STREAM if of == stream => return Seen::Reset(code(&payload)),
            PING if pong && flags & ACK != 0 && payload == MARK => return Seen::Pong,
            HEADERS if of == stream && answered == 0 => answered = status(&payload),
            _ => {}
        }
        let is_end = matches!(kind, HEADERS | DATA) && of == stream && flags & END_STREAM != 0;
        if is_end && answer {
            return Seen::Answer(answered);
        }
    }
}

/// Runs one case; what is wrong with what came.
async fn run(rig: &Rig, asked: &AtomicUsize, case: &Case) -> Result<(), String> {
    asked.store(0, Relaxed);
    let mut raw = Raw::connect(rig.address).await;
    raw.client.send(&case.send).await;
    if !case.then.is_empty() {
        let first = see(&mut raw, 1, true, false).await;
        if first != Seen::Answer(200) {
            return Err(format!("the first request was not answered: {first:?}"));
        }
        raw.client.send(&case.then).await;
    }
    let is = |codes: &[u32], code: u32| codes.contains(&code) || case.but.is_some_and(|(but, _)| but == code);
    let (seen, good) = match &case.must {
        Must::End(codes) => {
            let seen = see(&mut raw, 0, false, false).await;
            (seen, matches!(seen, Seen::Goaway(code) if is(codes, code)) || seen == Seen::Closed)
        }
        Must::EndStream(stream, codes) => {
            let seen = see(&mut raw, *stream, false, false).await;
            let coded = matches!(seen, Seen::Goaway(code) | Seen::Reset(code) if is(codes, code));
            (seen, coded || seen == Seen::Closed)
        }
        Must::Refuse(stream) => {
            let seen = see(&mut raw, *stream, true, false).await;
            let refused = match seen {
                Seen::Goaway(code) | Seen::Reset(code) => is(&[PROTOCOL], code),
                Seen::Answer(status) => status != 200,
                Seen::Closed | Seen::Pong => seen == Seen::Closed,
            };
            (seen, refused && asked.load(Relaxed) == 0)
        }
        Must::Answer(stream) => {
            let seen = see(&mut raw, *stream, true, false).await;
            (seen, seen == Seen::Answer(200))
        }
        Must::Nothing => {
            raw.send(PING, 0, 0, MARK).await;
            let seen = see(&mut raw, 1, false, true).await;
            (seen, seen == Seen::Pong)
        }
    };
    // After GOAWAY with an error comes the end, without waiting for the client.
    if matches!(seen, Seen::Goaway(code) if code != 0) {
        raw.kinds().await;
    }
    if good {
        Ok(())
    } else {
        Err(format!("{seen:?}, and {} requests reached the worker", asked.load(Relaxed)))
    }
}

/// Runs a whole table; says all that is wrong.
async fn hold(cases: Vec<Case>) {
    let (rig, asked) = rig(Settings::default()).await;
    let mut wrong = Vec::new();
    for case in &cases {
        // Shorter than the patience of one read, so that one case that hears nothing is one line of many.
        let ran = tokio::time::timeout(patience() / 2, run(&rig, &asked, case)).await;
        if let Err(seen) = ran.unwrap_or_else(|_| Err("nothing".to_owned())) {
            wrong.push(format!("{} {}: must {:?}, came {seen}", case.section, case.what, case.must));
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}
