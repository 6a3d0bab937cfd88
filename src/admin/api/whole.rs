//! What is asked of switchman as a whole: to read its configuration anew, and to give way to a new binary.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::State;
use axum::{Extension, Json};

use super::json;
use crate::admin::auth::Access;
use crate::admin::problem::{ApiError, Kind};
use crate::admin::{AdminState, types};
use crate::control::UPGRADE_WITHIN;
use crate::version::{ServiceName, VersionId};

pub(super) async fn reload(State(state): State<AdminState>) -> Result<Json<types::Reloaded>, ApiError> {
    let done = state.control.reload().await?;
    let version = |(service, version): (ServiceName, VersionId)| types::Named {
        service: service.to_string(),
        version: version.to_string(),
    };
    Ok(Json(types::Reloaded {
        changed: done.changed,
        restart_needed: done.restart_needed.into_iter().map(version).collect(),
        warnings: done.warnings.0,
    }))
}

/// Who may name a binary may run anything as switchman's user: only who may use the unix socket.
pub(super) async fn upgrade(
    State(state): State<AdminState>,
    Extension(access): Extension<Access>,
    body: Bytes,
) -> Result<Json<types::Upgraded>, ApiError> {
    let wanted: types::Upgrade = if body.is_empty() {
        types::Upgrade::default()
    } else {
        json(&body, r#"{"binary": "/usr/bin/switchman"}"#)?
    };
    if wanted.binary.is_some() && access != Access::Socket {
        return Err(ApiError::new(Kind::Forbidden, "a binary can be named over the unix socket only")
            .hint("leave it out: the binary that switchman was started from is used, as it is now"));
    }
    let within = wanted.timeout_ms.map_or(UPGRADE_WITHIN, Duration::from_millis);
    let done = state.control.upgrade(wanted.binary, within).await?;
    Ok(Json(types::Upgraded {
        pid: done.pid,
        old_pid: done.old_pid,
        binary: done.binary,
        versions: done.versions,
    }))
}
