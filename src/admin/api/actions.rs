//! What is done to one version: start, stop, restart, drain, scale (the supervisor), promote and rollback (the
//! rule source).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use jiff::Timestamp;

use super::{ByWhom, Flags, apply, find, json, until};
use crate::admin::problem::{ApiError, Kind};
use crate::admin::{AdminState, types, view};
use crate::registry;
use crate::rules::source::{Change, Who};
use crate::supervisor::command::{Action, Restarting};
use crate::version::{CURRENT, PREVIOUS, ServiceName, VersionState};

/// How long the answer to an accepted action waits for the first sign of it in the snapshot.
const SIGN_WITHIN: Duration = Duration::from_millis(250);

/// The longest that a promote or rollback waits for a version that it has woken; shorter than clients wait for an answer.
const AWAKE_WITHIN: Duration = Duration::from_secs(20);

type Named = Path<(String, String)>;
type RestartAccepted = Result<(StatusCode, Json<types::Restarting>), ApiError>;
type Accepted = Result<(StatusCode, Json<types::Version>), ApiError>;

pub(super) async fn start(State(state): State<AdminState>, Path(named): Named) -> Accepted {
    act(&state, &named, Action::Start).await
}

pub(super) async fn stop(
    State(state): State<AdminState>,
    Path(named): Named,
    Query(flags): Query<Flags>,
) -> Accepted {
    act(&state, &named, Action::Stop { force: flags.force() }).await
}

pub(super) async fn restart(State(state): State<AdminState>, Path(named): Named) -> Accepted {
    act(&state, &named, Action::Restart).await
}

pub(super) async fn restart_all(State(state): State<AdminState>) -> RestartAccepted {
    restart_of(&state, None).await
}

pub(super) async fn restart_service(
    State(state): State<AdminState>,
    Path(service): Path<String>,
) -> RestartAccepted {
    let service = find(&state.live.load(), &service)?.name.clone();
    restart_of(&state, Some(service)).await
}

/// Restarts everything that runs. The work goes on after the answer.
async fn restart_of(state: &AdminState, service: Option<ServiceName>) -> RestartAccepted {
    let restarting = state.supervisor.restart_all(service).await?;
    let named =
        |r: Restarting| types::Named { service: r.service.to_string(), version: r.version.to_string() };
    let restarting = restarting.into_iter().map(named).collect();
    Ok((StatusCode::ACCEPTED, Json(types::Restarting { restarting })))
}

pub(super) async fn drain(
    State(state): State<AdminState>,
    Path(named): Named,
    Query(flags): Query<Flags>,
) -> Accepted {
    act(&state, &named, Action::Drain { force: flags.force() }).await
}

pub(super) async fn scale(State(state): State<AdminState>, Path(named): Named, body: Bytes) -> Accepted {
    let wanted: types::Scale = json(&body, r#"{"workers": 4}"#)?;
    if wanted.workers == 0 {
        return Err(ApiError::new(Kind::BadRequest, "a version cannot have 0 workers")
            .hint("to end its workers, stop it"));
    }
    act(&state, &named, Action::Scale { workers: wanted.workers }).await
}

/// Asks the supervisor. 200 when what was asked for is so already, 202 while the work goes on.
async fn act(state: &AdminState, (service, version): &(String, String), action: Action) -> Accepted {
    let routing = state.live.load();
    let service = find(&routing, service)?;
    let before = service.resolve(version)?;
    let id = before.id.clone();
    if is_so(before, action) {
        return Ok((StatusCode::OK, Json(view::version(service, before, Timestamp::now()))));
    }
    state.supervisor.ask(service.name.clone(), id.clone(), action).await?;
    until(&state.live, &service.name, SIGN_WITHIN, |now| {
        now.registry.versions.get(&id).is_none_or(|v| !Arc::ptr_eq(v, before))
    })
    .await;
    let routing = state.live.load();
    let (service, now) = match routing.service(service.name.as_str()) {
        Some(s) => (s, s.registry.versions.get(&id).unwrap_or(before)),
        None => (service, before),
    };
    let status = if is_so(now, action) { StatusCode::OK } else { StatusCode::ACCEPTED };
    Ok((status, Json(view::version(service, now, Timestamp::now()))))
}

/// Whether nothing is left to do. A restart always is.
fn is_so(version: &registry::Version, action: Action) -> bool {
    match action {
        Action::Start => version.state == VersionState::Ready,
        Action::Stop { .. } | Action::Drain { .. } => version.state == VersionState::Stopped,
        Action::Restart => false,
        Action::Scale { workers } => {
            version.ready.len() == workers as usize && version.workers.len() == workers as usize
        }
    }
}

pub(super) async fn promote(
    State(state): State<AdminState>,
    Path((service, version)): Named,
    Query(flags): Query<Flags>,
    ByWhom(who): ByWhom,
) -> Result<Json<types::Version>, ApiError> {
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    let version = service.resolve(&version)?;
    if !flags.force() {
        let version = awake(&state, version).await;
        must_be_ready(&version, &format!("promote {}", version.id))?;
    }
    let change = Change::Promote { version: version.id.to_string() };
    turn_current(&state, service.name.as_str(), change, who).await
}

pub(super) async fn rollback(
    State(state): State<AdminState>,
    Path(service): Path<String>,
    Query(flags): Query<Flags>,
    ByWhom(who): ByWhom,
) -> Result<Json<types::Version>, ApiError> {
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    // Without a `previous` the source refuses, and says so better.
    if service.rules.aliases.contains_key(PREVIOUS) && !flags.force() {
        let version = service.resolve(PREVIOUS).map_err(|_| {
            let stored = service.rules.aliases.get(PREVIOUS).map_or("", String::as_str);
            ApiError::new(Kind::Refused, format!("`previous` is `{stored}`, and that version is not there"))
                .hint("promote a version that is there: switchman versions")
        })?;
        let version = awake(&state, version).await;
        must_be_ready(&version, "rollback")?;
    }
    turn_current(&state, service.name.as_str(), Change::Rollback, who).await
}

/// Changes `current`, and answers with the version that it names then.
async fn turn_current(
    state: &AdminState,
    service: &str,
    change: Change,
    who: Who,
) -> Result<Json<types::Version>, ApiError> {
    let routing = state.live.load();
    apply(state, find(&routing, service)?, change, who, |s, aliases| *s.rules.aliases == *aliases).await?;
    let routing = state.live.load();
    let service = find(&routing, service)?;
    let current = service.resolve(CURRENT)?;
    tracing::info!(service = %service.name, version = %current.id, "current changed");
    Ok(Json(view::version(service, current, Timestamp::now())))
}

/// A version as it is once it has been woken, if it sleeps: traffic is about to be turned to it.
async fn awake(state: &AdminState, version: &Arc<registry::Version>) -> Arc<registry::Version> {
    let Some(wake) = &version.wake else { return version.clone() };
    wake.ring();
    let within = wake.within.min(AWAKE_WITHIN);
    // However that ends, it is looked at.
    until(&state.live, &version.service, within, |now| {
        now.registry.versions.get(&version.id).is_none_or(|version| version.wake.is_none())
    })
    .await;
    let routing = state.live.load();
    let now = routing.service(version.service.as_str()).and_then(|s| s.registry.versions.get(&version.id));
    now.unwrap_or(version).clone()
}

/// Traffic must not be turned to a version that does not answer. `command` is what was asked for, as it is typed.
fn must_be_ready(version: &registry::Version, command: &str) -> Result<(), ApiError> {
    if version.state == VersionState::Ready {
        return Ok(());
    }
    let mut detail = format!("version {} is {}, not ready", version.id, version.state);
    if let Some(reason) = version.reason.as_deref().and_then(|r| r.lines().next()) {
        detail.push_str(": ");
        detail.push_str(reason);
    }
    let hint = match version.state {
        VersionState::Stopped | VersionState::Failed => {
            format!("switchman start {}, or with all consequences: switchman {command} --force", version.id)
        }
        _ => format!("wait until it is ready, or with all consequences: switchman {command} --force"),
    };
    Err(ApiError::new(Kind::Refused, detail).hint(hint))
}
