//! The public side before a request: doors, and the certificates behind them.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::BuildError;
use crate::certificates::{self, Spec};
use crate::config::{self, Config};
use crate::proxy::{Door, Front, Inside, Pages, Tls};
use crate::version::ServiceName;

/// TLS with these certificates, which are kept true to their files.
#[derive(Clone)]
pub(super) struct Certificates {
    specs: Vec<Spec>,
    tls: Tls,
    /// Until the last of them is dropped.
    _following: Arc<AbortOnDropHandle<()>>,
}

impl Certificates {
    /// Those that the configuration names, or `before` where it names the same: who has a session resumes it.
    /// Call within a tokio runtime.
    ///
    /// # Errors
    /// The first pair that cannot be used, or there is no randomness.
    pub(super) fn of(config: &Config, before: Option<&Self>) -> Result<Option<Self>, BuildError> {
        let Some(tls) = &config.front.tls else { return Ok(None) };
        if let Some(before) = before.filter(|before| before.specs == tls.certificates) {
            return Ok(Some(before.clone()));
        }
        let (store, following) = certificates::follow(&tls.certificates)?;
        let tls_of_store = Tls::new(store)?;
        let _following = Arc::new(AbortOnDropHandle::new(tokio::spawn(following)));
        Ok(Some(Self { specs: tls.certificates.clone(), tls: tls_of_store, _following }))
    }
}

/// What stands before a request.
pub(super) fn front(config: &Config, certificates: Option<&Certificates>) -> Front {
    let front = &config.front;
    let door =
        |address, inside| Door { address, proxy_protocol: front.proxy_protocol.contains(&address), inside };
    let redirects = front.tls.as_ref().is_some_and(|tls| tls.redirect);
    let plain = if redirects { Inside::Redirect } else { Inside::Http };
    let mut doors: Vec<Door> = config.listen.iter().map(|address| door(*address, plain.clone())).collect();
    if let (Some(tls), Some(certificates)) = (&front.tls, certificates) {
        let inside = Inside::Tls(certificates.tls.clone());
        doors.extend(tls.listen.iter().map(|address| door(*address, inside.clone())));
    }
    Front { doors, trusted_proxies: front.trusted_proxies.clone(), request_ids: front.request_ids }
}

/// Follows the folders of error pages: each service's own, and the one of all.
pub(super) fn pages(config: &Config) -> Pages {
    let own = |(name, service): (&ServiceName, &config::Service)| {
        Some((Some(name.clone()), service.delivery.errors.clone()?))
    };
    let of_all = config.errors.clone().map(|folder| (None, folder));
    Pages::follow(config.services.iter().filter_map(own).chain(of_all).collect())
}
