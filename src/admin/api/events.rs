//! What has happened, and what happens: server-sent events, or with `?follow=0` the kept ones as JSON.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{self, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use jiff::Timestamp;
use serde::Deserialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use super::{find, is_on};
use crate::admin::problem::ApiError;
use crate::admin::{AdminState, since, types, view};
use crate::journal::{Event, Journal};

/// The number of the last event that somebody has seen, as browsers send it.
const LAST_EVENT_ID: &str = "last-event-id";

/// What may stand in the query.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Asked {
    follow: Option<String>,
    since: Option<String>,
    service: Option<String>,
    lines: Option<usize>,
}

pub(super) async fn events(
    State(state): State<AdminState>,
    Query(asked): Query<Asked>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if let Some(service) = &asked.service {
        find(&state.live.load(), service)?;
    }
    let follow = asked.follow.as_deref().is_none_or(|follow| is_on(Some(follow)));
    let journal = state.supervisor.journal().clone();
    let seen = match (&asked.since, headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok())) {
        (_, Some(id)) if id.parse::<u64>().is_ok() => id.parse().ok(),
        (Some(text), _) => Some(seen(text)?),
        // Who follows wants to see what comes; who does not, what has been. With a number, of both.
        (None, _) => (!follow || asked.lines.is_some()).then_some(0),
    };
    let (mut kept, coming) = journal.after(seen.unwrap_or(u64::MAX));
    let last = kept.last().map_or(seen.unwrap_or(0), |event| event.id);
    kept.retain(|event| wanted(event, asked.service.as_deref()));
    if let Some(lines) = asked.lines {
        kept.drain(..kept.len().saturating_sub(lines));
    }
    if !follow {
        let events = kept.iter().map(|event| view::event(event)).collect();
        return Ok(Json(types::Events { events }).into_response());
    }
    let following = Following { journal, coming, ready: kept.into(), last, service: asked.service };
    let events = stream::unfold(following, |mut following| async move {
        let event = following.next().await?;
        let data = sse::Event::default().id(event.id.to_string());
        // Numbers and text can always be written.
        let data = data.json_data(view::event(&event)).unwrap_or_default();
        Some((Ok::<_, Infallible>(data), following))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::default()).into_response())
}

/// The number of the last event before what is asked for: a number that was seen, a duration, or a time.
fn seen(text: &str) -> Result<u64, ApiError> {
    if let Ok(id) = text.parse() {
        return Ok(id);
    }
    let since = since::read(text, Timestamp::now())?;
    Ok(u64::try_from(since.as_microsecond()).unwrap_or(0).saturating_sub(1))
}

fn wanted(event: &Event, service: Option<&str>) -> bool {
    service.is_none_or(|service| event.service.as_str() == service)
}

/// Somebody who follows.
struct Following {
    journal: Journal,
    /// What was kept and is not handed out yet.
    ready: VecDeque<Arc<Event>>,
    coming: Receiver<Arc<Event>>,
    /// The number of the last event that was looked at.
    last: u64,
    service: Option<String>,
}

impl Following {
    /// The next one that happens; none when nothing does any more.
    async fn come(&mut self) -> Option<Result<Arc<Event>, RecvError>> {
        tokio::select! {
            biased;
            event = self.coming.recv() => Some(event),
            () = self.journal.closed() => None,
        }
    }

    async fn next(&mut self) -> Option<Arc<Event>> {
        loop {
            let event = match self.ready.pop_front() {
                Some(event) => event,
                None => match self.come().await? {
                    Ok(event) => event,
                    Err(RecvError::Lagged(_)) => {
                        let (missed, coming) = self.journal.after(self.last);
                        (self.ready, self.coming) = (missed.into(), coming);
                        continue;
                    }
                    Err(RecvError::Closed) => return None,
                },
            };
            self.last = event.id;
            if wanted(&event, self.service.as_deref()) {
                return Some(event);
            }
        }
    }
}
