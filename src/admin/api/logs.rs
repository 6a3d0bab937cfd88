//! What the workers of a version print: the last lines, and with `?follow=1` every line from then on.

use std::collections::VecDeque;
use std::convert::Infallible;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{Flags, find};
use crate::admin::AdminState;
use crate::admin::problem::ApiError;
use crate::supervisor::output::{LogLine, Stream};
use crate::version::{ServiceName, VersionId};

pub(super) async fn logs(
    State(state): State<AdminState>,
    Path((service, version)): Path<(String, String)>,
    Query(flags): Query<Flags>,
) -> Result<impl IntoResponse, ApiError> {
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    let version = service.resolve(&version)?;
    let store = state.supervisor.logs();
    // First listen, then read: a line in between comes twice and is dropped once, instead of being lost.
    let coming = flags.follow().then(|| store.follow());
    let kept = store.logs(&service.name, &version.id);
    let body = match coming {
        None => Body::from(kept.iter().map(render).collect::<String>()),
        Some(coming) => follow(kept, coming, service.name.clone(), version.id.clone()),
    };
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], body))
}

/// The kept lines, then those that come, until the client goes away or switchman ends.
fn follow(kept: Vec<LogLine>, coming: Receiver<LogLine>, service: ServiceName, version: VersionId) -> Body {
    let first = Bytes::from(kept.iter().map(render).collect::<String>());
    let state = (Some(first), VecDeque::from(kept), coming);
    Body::from_stream(stream::unfold(state, move |(first, mut kept, mut coming)| {
        let (service, version) = (service.clone(), version.clone());
        async move {
            if let Some(first) = first {
                return Some((Ok::<Bytes, Infallible>(first), (None, kept, coming)));
            }
            loop {
                let text = match coming.recv().await {
                    Ok(line) if line.service != service || line.version != version => continue,
                    Ok(line) if is_kept(&mut kept, &line) => continue,
                    Ok(line) => render(&line),
                    Err(RecvError::Lagged(lines)) => format!("({lines} lines were too fast to follow)\n"),
                    Err(RecvError::Closed) => return None,
                };
                return Some((Ok(Bytes::from(text)), (None, kept, coming)));
            }
        }
    }))
}

/// Whether a line that comes was among the kept ones; each is dropped once, and once a line is newer than all
/// of them, none is left to compare with.
fn is_kept(kept: &mut VecDeque<LogLine>, line: &LogLine) -> bool {
    while kept.front().is_some_and(|first| first.at < line.at) {
        kept.pop_front();
    }
    match kept.iter().position(|k| k == line) {
        Some(index) => kept.remove(index).is_some(),
        None => false,
    }
}

/// One line: when, which worker, which of its outputs, what.
fn render(line: &LogLine) -> String {
    let stream = match line.stream {
        Stream::Stdout => "out",
        Stream::Stderr => "err",
    };
    format!("{:.3} {} {stream} {}\n", line.at, line.worker, line.text)
}
