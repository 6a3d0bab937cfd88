//! Reading: the versions, one of them; the services.

use axum::Json;
use axum::extract::{Path, Query, State};
use jiff::Timestamp;

use super::{Flags, find};
use crate::admin::problem::ApiError;
use crate::admin::view::{self, Filter};
use crate::admin::{AdminState, types};

pub(super) async fn list(
    State(state): State<AdminState>,
    Query(flags): Query<Flags>,
) -> Result<Json<types::Versions>, ApiError> {
    let routing = state.live.load();
    if let Some(service) = &flags.service {
        find(&routing, service)?;
    }
    let filter = Filter { service: flags.service.as_deref(), all: flags.all() };
    Ok(Json(view::versions(&state.node, &routing, filter, Timestamp::now())))
}

pub(super) async fn services(State(state): State<AdminState>) -> Json<types::Services> {
    Json(view::services(&state.live.load()))
}

pub(super) async fn one(
    State(state): State<AdminState>,
    Path((service, version)): Path<(String, String)>,
) -> Result<Json<types::Version>, ApiError> {
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    Ok(Json(view::version(service, service.resolve(&version)?, Timestamp::now())))
}
