//! What the body of a stream consists of, so that it can be ended between two parts of it. Pure.

use crate::proxy::grpc;
use crate::proxy::h1::body::Body;
use crate::proxy::h1::response::ResponseHead;
use crate::proxy::streams::events::Events;
use crate::proxy::streams::messages::Messages;

/// How far a stream's body was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Parts {
    /// Server-sent events.
    Events(Events),
    /// gRPC messages.
    Messages(Messages),
    /// What nothing is known of: where its sender pauses, it has most likely said something whole.
    Unknown,
}

impl Parts {
    /// Those of the body behind `head`, which answers a gRPC call or not; none if it ends by itself, or cannot be
    /// ended so that its client understands.
    pub(crate) fn of(head: &ResponseHead<'_, '_>, is_call: bool) -> Option<Self> {
        let is_coded = || head.headers.iter().any(|h| h.name.eq_ignore_ascii_case("content-encoding"));
        match head.body {
            Body::Length(_) => None,
            _ if head.event_stream && is_coded() => Some(Self::Unknown),
            _ if head.event_stream => Some(Self::Events(Events::new())),
            _ if head.grpc && is_call => Some(Self::Messages(Messages::new())),
            _ => None,
        }
    }

    /// Whether nothing of a part was sent that is not ended.
    pub(crate) fn between(&self) -> bool {
        match self {
            Self::Events(events) => events.between(),
            Self::Messages(messages) => messages.between(),
            Self::Unknown => true,
        }
    }

    /// Notes that `bytes` pass.
    pub(crate) fn pass(&mut self, bytes: &[u8]) {
        match self {
            Self::Events(events) => events.pass(bytes),
            Self::Messages(messages) => messages.pass(bytes),
            Self::Unknown => {}
        }
    }

    /// How many of the next `bytes` can pass without going beyond the end of a part.
    pub(crate) fn within(&self, bytes: &[u8]) -> usize {
        match self {
            // An event ends with a line.
            Self::Events(_) => line(bytes),
            Self::Messages(messages) => messages.ahead().min(bytes.len()),
            Self::Unknown => bytes.len(),
        }
    }

    /// The trailers that tell the client why its stream ends; where it has no word for that, none.
    pub(crate) fn farewell(&self) -> &'static [u8] {
        match self {
            Self::Events(_) | Self::Unknown => b"",
            Self::Messages(_) => grpc::STOPPED,
        }
    }
}

/// The length of the first of the lines in `bytes`, with its end as far as that is there.
pub(crate) fn line(bytes: &[u8]) -> usize {
    bytes.iter().position(|b| *b == b'\n').map_or(bytes.len(), |at| at + 1)
}
