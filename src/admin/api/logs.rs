//! What the workers of a version print: what is kept, from files and memory, and with `?follow=1` every line from then on.

use std::convert::Infallible;
use std::io::Write;

use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::header;
use axum::response::IntoResponse;
use bytes::Bytes;
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;

use super::{find, is_on};
use crate::admin::problem::{ApiError, Kind};
use crate::admin::{AdminState, since, types};
use crate::config::Pattern;
use crate::routing::ServiceRouting;
use crate::supervisor::output::{self, Entry, LogStore};
use crate::version::{self, VersionId, WorkerId};

/// Lines that are shown of what is kept, where nobody says which.
const LINES: usize = 1_000;
/// The most lines that may be asked for by their number.
const LINES_MAX: usize = 1_000_000;

/// What may stand in the query.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    follow: Option<String>,
    since: Option<String>,
    worker: Option<String>,
    grep: Option<String>,
    lines: Option<String>,
    json: Option<String>,
}

pub(super) async fn logs(
    State(state): State<AdminState>,
    Path((service, version)): Path<(String, String)>,
    Query(asked): Query<Asked>,
) -> Result<impl IntoResponse, ApiError> {
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    let store = state.supervisor.logs();
    let version = resolve(service, store, &version)?;
    let query = query(&asked, Timestamp::now())?;
    let lines = store.read(&service.name, &version, query, is_on(asked.follow.as_deref()));
    let (kind, render): (_, fn(&Entry, &mut Vec<u8>)) = match is_on(asked.json.as_deref()) {
        true => ("application/x-ndjson", render_json),
        false => ("text/plain; charset=utf-8", render_text),
    };
    let body = stream::unfold(lines, move |mut lines| async move {
        let mut text = Vec::new();
        lines.recv().await?.iter().for_each(|line| render(line, &mut text));
        Some((Ok::<Bytes, Infallible>(text.into()), lines))
    });
    Ok(([(header::CONTENT_TYPE, kind)], Body::from_stream(body)))
}

/// The version that is meant; one that is gone is known by its log files, for as long as they are kept.
fn resolve(service: &ServiceRouting, store: &LogStore, name: &str) -> Result<VersionId, ApiError> {
    match service.resolve(name) {
        Ok(version) => Ok(version.id.clone()),
        Err(error) => match version::resolve_name(name, store.on_disk(&service.name).iter()) {
            Ok(version) => Ok(version.clone()),
            Err(_) => Err(error.into()),
        },
    }
}

/// What is asked for, or what is wrong with it.
fn query(asked: &Asked, now: Timestamp) -> Result<output::Query, ApiError> {
    let bad = |message: String, hint: &str| ApiError::new(Kind::BadRequest, message).hint(hint);
    let since = asked.since.as_deref().map(|text| since::read(text, now)).transpose()?;
    let worker = match asked.worker.as_deref() {
        Some(text) => {
            let worker = text
                .parse()
                .map_err(|_| bad(format!("`{text}` is no number of a worker"), "write it as in: worker=0"))?;
            Some(WorkerId(worker))
        }
        None => None,
    };
    let grep = match asked.grep.as_deref() {
        Some(text) => Some(Pattern::parse(text).map_err(|error| {
            bad(format!("`{text}` is not a regular expression: {error}"), "write it as in: grep=ERROR")
        })?),
        None => None,
    };
    let lines = match asked.lines.as_deref() {
        Some(text) => Some(text.parse().ok().filter(|lines| *lines <= LINES_MAX).ok_or_else(|| {
            bad(format!("`{text}` is not from 0 to {LINES_MAX}"), "leave it out and use since=10m for more")
        })?),
        None => since.is_none().then_some(LINES),
    };
    Ok(output::Query { since, worker, grep, lines })
}

/// One line: when, which worker, which of its outputs, what.
fn render_text(line: &Entry, text: &mut Vec<u8>) {
    // Writing to memory does not fail.
    let _ = write!(text, "{:.6} {} {} ", line.at, line.worker, line.stream.short());
    text.extend_from_slice(&line.text);
    text.push(b'\n');
}

fn render_json(line: &Entry, text: &mut Vec<u8>) {
    let line = types::LogLine {
        at: line.at,
        worker: line.worker.0,
        pid: line.pid,
        stream: line.stream.as_str().to_owned(),
        text: String::from_utf8_lossy(&line.text).into_owned(),
    };
    // Numbers and text can always be written.
    let _ = serde_json::to_writer(&mut *text, &line);
    text.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_that_is_wrong_is_refused() {
        let now = Timestamp::now();
        let asked = |name: &str, value: &str| {
            let value = Some(value.to_owned());
            match name {
                "worker" => Asked { worker: value, ..Asked::default() },
                "grep" => Asked { grep: value, ..Asked::default() },
                "since" => Asked { since: value, ..Asked::default() },
                _ => Asked { lines: value, ..Asked::default() },
            }
        };
        for (name, value) in
            [("worker", "x"), ("grep", "["), ("since", "soon"), ("lines", "-1"), ("lines", "1000001")]
        {
            assert!(query(&asked(name, value), now).is_err(), "{name}={value}");
        }
        assert_eq!(query(&Asked::default(), now).ok().and_then(|q| q.lines), Some(LINES));
        let since = query(&asked("since", "10m"), now).ok().unwrap();
        assert_eq!((since.lines, since.since.is_some()), (None, true), "all of the last ten minutes");
    }
}
