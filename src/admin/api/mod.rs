//! Every path of the admin API, and what their handlers share.
//!
//! ```text
//! GET  /versions ?service= &all=1                     GET  /services
//! GET  /services/{s}/versions/{v}                     GET  /services/{s}/versions/{v}/logs ?follow=1
//! POST /services/{s}/versions/{v}/{start|stop|restart|drain|promote|scale} ?force=1
//! POST /restart                 POST /services/{s}/restart     (all that runs, a service's versions one by one)
//! POST /services/{s}/rollback ?force=1
//! GET  /services/{s}/aliases    GET|PUT|DELETE /services/{s}/aliases/{name}
//! GET|PUT /services/{s}/rules   POST /services/{s}/rules/{check|explain}
//! GET  /healthz /readyz
//! ```

use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, FromRequestParts};
use axum::http::request::Parts;
use axum::routing::{get, post};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::admin::AdminState;
use crate::admin::problem::{ApiError, Kind};
use crate::routing::{Live, Routing, ServiceRouting};
use crate::rules::publisher::Aliases;
use crate::rules::source::{Change, Who};

mod actions;
mod aliases;
mod explain;
mod health;
mod logs;
mod rules;
mod versions;

/// The largest body that is read: a rule document.
const BODY_MAX: usize = 10 * 1024 * 1024;
/// How long a change may take from "stored" to "in the published snapshot" before the answer goes out anyway.
const SHOWN_WITHIN: Duration = Duration::from_secs(2);
/// The header in which a client says who asks, for the history.
pub(super) const WHO_HEADER: &str = "x-switchman-who";
/// The most characters of it that are kept.
const WHO_MAX: usize = 100;

/// All paths.
pub(super) fn router(state: AdminState) -> Router {
    let version = |verb: &str| format!("/services/{{service}}/versions/{{version}}{verb}");
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/versions", get(versions::list))
        .route("/services", get(versions::services))
        .route(&version(""), get(versions::one))
        .route(&version("/logs"), get(logs::logs))
        .route(&version("/start"), post(actions::start))
        .route(&version("/stop"), post(actions::stop))
        .route(&version("/restart"), post(actions::restart))
        .route(&version("/drain"), post(actions::drain))
        .route(&version("/scale"), post(actions::scale))
        .route(&version("/promote"), post(actions::promote))
        .route("/restart", post(actions::restart_all))
        .route("/services/{service}/restart", post(actions::restart_service))
        .route("/services/{service}/rollback", post(actions::rollback))
        .route("/services/{service}/aliases", get(aliases::list))
        .route(
            "/services/{service}/aliases/{name}",
            get(aliases::one).put(aliases::set).delete(aliases::remove),
        )
        .route("/services/{service}/rules", get(rules::get).put(rules::put))
        .route("/services/{service}/rules/check", post(rules::check))
        .route("/services/{service}/rules/explain", post(rules::explain))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .with_state(state)
}

/// What may stand in the query of any path.
#[derive(Debug, Default, Deserialize)]
struct Flags {
    service: Option<String>,
    all: Option<String>,
    force: Option<String>,
    follow: Option<String>,
    name: Option<String>,
}

impl Flags {
    fn all(&self) -> bool {
        is_on(self.all.as_deref())
    }

    fn force(&self) -> bool {
        is_on(self.force.as_deref())
    }

    fn follow(&self) -> bool {
        is_on(self.follow.as_deref())
    }
}

/// `?all`, `?all=1`, `?all=true`.
fn is_on(flag: Option<&str>) -> bool {
    matches!(flag, Some("" | "1" | "true" | "yes"))
}

/// The service of that name.
fn find<'a>(routing: &'a Routing, name: &str) -> Result<&'a ServiceRouting, ApiError> {
    routing.service(name).ok_or_else(|| {
        let names: Vec<&str> = routing.services.iter().map(|s| s.name.as_str()).collect();
        ApiError::new(Kind::UnknownService, format!("no service is called `{name}`"))
            .hint(format!("the services are: {}", names.join(", ")))
    })
}

/// Reads a JSON body, whatever its content type says; `example` shows what was expected.
fn json<T: DeserializeOwned>(body: &Bytes, example: &str) -> Result<T, ApiError> {
    serde_json::from_slice(body).map_err(|error| {
        ApiError::new(Kind::BadRequest, format!("the body is not the JSON that is expected: {error}"))
            .hint(format!("send {example}"))
    })
}

/// Makes a change at its source and waits until the published snapshot shows it, so that the next request sees
/// it. `shows` is asked with the aliases as they are after the change.
async fn apply(
    state: &AdminState,
    service: &ServiceRouting,
    change: Change,
    who: Who,
    shows: impl Fn(&ServiceRouting, &Aliases) -> bool,
) -> Result<(), ApiError> {
    let source = state.sources.get(&service.name).ok_or_else(|| {
        ApiError::new(Kind::Unavailable, format!("the rules of service `{}` have no source", service.name))
    })?;
    let aliases = source.apply(change, who).await?;
    if !until(&state.live, &service.name, SHOWN_WITHIN, |s| shows(s, &aliases)).await {
        tracing::warn!(service = %service.name, "a change is stored and not in force after {SHOWN_WITHIN:?}");
    }
    Ok(())
}

/// Waits until the published snapshot of a service fulfils `condition`; false when `limit` ends first.
async fn until(
    live: &Live,
    service: &crate::version::ServiceName,
    limit: Duration,
    condition: impl Fn(&ServiceRouting) -> bool,
) -> bool {
    let mut changes = live.watch();
    let shown = async {
        while !live.load().service(service.as_str()).is_some_and(&condition) {
            if changes.changed().await.is_err() {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(limit, shown).await.unwrap_or(false)
}

/// Who asks, as the client says it in [`WHO_HEADER`]; control characters are left out, since it ends in logs.
struct ByWhom(Who);

impl<S: Sync> FromRequestParts<S> for ByWhom {
    type Rejection = std::convert::Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let said = parts.headers.get(WHO_HEADER).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let kept: String = said.chars().filter(|c| !c.is_control()).take(WHO_MAX).collect();
        Ok(Self(Who(if kept.is_empty() { "admin API".to_owned() } else { kept })))
    }
}
