//! Aliases: names that point to a version.

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::StatusCode;

use super::{ByWhom, apply, find, json};
use crate::admin::problem::{ApiError, Kind};
use crate::admin::{AdminState, types, view};
use crate::routing::ServiceRouting;
use crate::rules::source::Change;

pub(super) async fn list(
    State(state): State<AdminState>,
    Path(service): Path<String>,
) -> Result<Json<types::Aliases>, ApiError> {
    let routing = state.live.load();
    Ok(Json(view::aliases(find(&routing, &service)?)))
}

pub(super) async fn one(
    State(state): State<AdminState>,
    Path((service, name)): Path<(String, String)>,
) -> Result<Json<types::Alias>, ApiError> {
    let routing = state.live.load();
    alias(find(&routing, &service)?, &name).map(Json)
}

pub(super) async fn set(
    State(state): State<AdminState>,
    Path((service, name)): Path<(String, String)>,
    ByWhom(who): ByWhom,
    body: Bytes,
) -> Result<Json<types::Alias>, ApiError> {
    let wanted: types::SetAlias = json(&body, r#"{"version": "4f2a91c"}"#)?;
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    let version = service.resolve(&wanted.version)?.id.to_string();
    let change = Change::Tag { name: name.clone(), version: version.clone() };
    apply(&state, service, change, who, |s, aliases| *s.rules.aliases == *aliases).await?;
    Ok(Json(types::Alias { service: service.name.to_string(), name, version }))
}

pub(super) async fn remove(
    State(state): State<AdminState>,
    Path((service, name)): Path<(String, String)>,
    ByWhom(who): ByWhom,
) -> Result<StatusCode, ApiError> {
    let routing = state.live.load();
    let service = find(&routing, &service)?;
    alias(service, &name)?;
    apply(&state, service, Change::Untag { name }, who, |s, aliases| *s.rules.aliases == *aliases).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn alias(service: &ServiceRouting, name: &str) -> Result<types::Alias, ApiError> {
    let mut aliases = view::aliases(service).aliases;
    match aliases.remove(name) {
        Some(version) => {
            Ok(types::Alias { service: service.name.to_string(), name: name.to_owned(), version })
        }
        None => {
            let names: Vec<String> = aliases.into_keys().collect();
            Err(ApiError::new(
                Kind::UnknownAlias,
                format!("no alias of service `{}` is called `{name}`", service.name),
            )
            .hint(format!("the aliases are: {}", names.join(", "))))
        }
    }
}
