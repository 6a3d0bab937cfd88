//! Whether switchman lives, and whether it can serve.

use axum::extract::State;

use crate::admin::AdminState;
use crate::admin::problem::{ApiError, Kind};
use crate::rules::publisher::Published;

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}

/// The data plane listens, and every service has rules in force (be they the last good ones).
pub(super) async fn readyz(State(state): State<AdminState>) -> Result<&'static str, ApiError> {
    let routing = state.live.load();
    let mut missing: Vec<String> = state
        .sources
        .borrow()
        .keys()
        .filter(|name| routing.service(name.as_str()).is_none_or(|s| knows_nothing(&s.rules)))
        .map(|name| format!("service `{name}` has not loaded its rules"))
        .collect();
    if !*state.listening.borrow() {
        missing.push("the public port is not open yet".to_owned());
    }
    if missing.is_empty() {
        return Ok("ok\n");
    }
    Err(ApiError::new(Kind::NotReady, missing.join("; ")))
}

/// The source was never reached, and no earlier run left anything: not even `current` is known.
fn knows_nothing(rules: &Published) -> bool {
    rules.stale_since.is_some() && rules.aliases.is_empty() && rules.document.is_empty()
}
