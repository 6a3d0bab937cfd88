//! `switchman restart --all`: every version that runs, watched one after the other.

use http::Method;

use super::{Goal, Waiting, finish};
use crate::admin::client::Call;
use crate::admin::types::{Restarting, Versions};
use crate::cli::failure::Failure;
use crate::cli::output;

/// Asks for it, and waits for each version in turn. One that keeps its old workers does not hold up the next, and makes
/// the whole a failure.
pub(super) async fn restart(waiting: Waiting) -> Result<(), Failure> {
    let client = waiting.reach.client()?;
    let before: Versions = client.json(Call::new(Method::GET, &["versions"])).await?;
    let call = match &waiting.reach.service {
        Some(service) => Call::new(Method::POST, &["services", service, "restart"]),
        None => Call::new(Method::POST, &["restart"]),
    };
    let restarting: Restarting = client.json(call).await?;
    let mut failures = Vec::new();
    for named in restarting.restarting.iter().filter(|_| !waiting.no_wait) {
        let is_it =
            |v: &&crate::admin::types::Version| (&v.service, &v.version) == (&named.service, &named.version);
        // One that came between the two calls runs on what it was started with just now.
        let Some(before) = before.versions.iter().find(is_it) else { continue };
        let done = finish(&client, Goal::Restarted, before, &mut before.clone(), waiting.timeout).await;
        if let Err(failure) = done {
            output::note(failure.message());
            failures.push(named.version.as_str());
        }
    }
    if waiting.reach.json {
        output::data(&serde_json::to_string(&restarting).map_err(|e| Failure::failed(e.to_string()))?)?;
    }
    match failures.as_slice() {
        [] => Ok(()),
        some => Err(Failure::failed(format!("not restarted: {}", some.join(", ")))
            .hint("the others are; see why: switchman versions")),
    }
}
