//! From a request's bytes to its version: parse, look at the snapshot, ask the rules, write the head that the
//! worker gets. All in one go without a wait, so that nothing of the head is copied to be kept.

use std::cell::OnceCell;
use std::net::IpAddr;
use std::sync::Arc;

use crate::proxy::client::{Client, Weighed};
use crate::proxy::error::{Cause, Refusal};
use crate::proxy::grpc;
use crate::proxy::h1::body::Body;
use crate::proxy::h1::field::Positions;
use crate::proxy::h1::request::{self, RequestHead};
use crate::proxy::h1::target;
use crate::proxy::headers;
use crate::proxy::stamp::Stamp;
use crate::proxy::thread::Thread;
use crate::registry::Version;
use crate::routing::{Chosen, NoVersion, Routing, choose};
use crate::rules::request::RequestView;
use crate::rules::table::Unavailable;

/// What of a request is needed after its head was written.
#[derive(Debug)]
pub(crate) struct Request {
    /// Bytes of the head.
    pub(crate) length: usize,
    pub(crate) is_head: bool,
    pub(crate) idempotent: bool,
    pub(crate) http11: bool,
    pub(crate) keep_alive: bool,
    /// The protocol that the connection may become: its place in [`crate::config::Delivery::upgrade`].
    pub(crate) upgrade: Option<usize>,
    pub(crate) body: Body,
    /// It is gRPC; for how many ticks it may stand still.
    pub(crate) grpc: Option<u32>,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// To this version.
    To {
        version: Arc<Version>,
        /// The value of a `Set-Cookie` for the answer, where an id was assigned.
        cookie: Option<String>,
    },
    /// To a version that is worth waiting for, as its rule says.
    Wait(NoVersion),
    /// To this version, which sleeps or is being woken.
    Asleep(Arc<Version>),
    /// Nowhere.
    Nowhere(Refusal),
}

/// Plans the request at the start of `bytes`; its rewritten head replaces what `out` held. `None`: the head is
/// not whole yet. `without_length` is the body of a request that says none. A request that is not `patient` waits for no
/// version that sleeps.
pub(crate) fn plan(
    thread: &Thread,
    client: &Client,
    bytes: &[u8],
    without_length: Body,
    out: &mut Vec<u8>,
    stamp: &mut Stamp,
    patient: bool,
) -> Result<Option<(Request, Route)>, Refusal> {
    let planned = request::parse_with(bytes, &thread.settings, without_length, |head| {
        let weighed = client.weigh(head);
        stamp.client = weighed.client;
        if client.wants_ids() {
            stamp.identify(&thread.ids, weighed.id);
        }
        let view = View::new(head, &weighed);
        let route = match client.redirect(&weighed) {
            Some(port) => Route::Nowhere(redirect(&view, port)),
            None => thread.with_routing(|routing| route(routing, &view, patient)),
        };
        out.clear();
        let (upgrade, protocol) = allowed_upgrade(head, &route).unzip();
        headers::write_request(head, client, &weighed, stamp, protocol, out);
        let request = Request {
            length: 0,
            is_head: head.method == "HEAD",
            idempotent: head.is_idempotent(),
            http11: head.http11,
            keep_alive: head.keep_alive,
            upgrade,
            body: head.body,
            grpc: head.grpc.then(|| grpc::silence_max(head.headers, thread.timeouts.tunnel)),
        };
        (request, route)
    })?;
    Ok(planned.map(|(length, (request, route))| (Request { length, ..request }, route)))
}

/// The protocol that the client asks for and that its service allows, with its place in the configured list.
fn allowed_upgrade<'a>(head: &RequestHead<'_, '_>, route: &'a Route) -> Option<(usize, &'a str)> {
    let asked = head.upgrade?;
    let Route::To { version, .. } = route else { return None };
    let mut allowed = version.delivery.upgrade.iter().map(String::as_str).enumerate();
    allowed.find(|(_, protocol)| protocol.eq_ignore_ascii_case(asked))
}

/// Decides for one request, and wakes the version that it is for if that sleeps.
fn route(routing: &Routing, view: &View<'_, '_, '_>, patient: bool) -> Route {
    let Some(service) = routing.service_for_host(view.host()) else {
        return Route::Nowhere(Refusal::new(
            Cause::UnknownHost,
            format!("no service answers the host `{}`", view.host()),
        ));
    };
    let decision = service.rules.table.decide(view);
    match choose(service, &decision, patient) {
        Ok(Chosen::Ready(version)) => Route::To {
            version: version.clone(),
            cookie: decision
                .assign
                .map(|name| format!("{name}={}; Path=/; HttpOnly; SameSite=Lax", view.new_id())),
        },
        Ok(Chosen::Asleep(version, wake)) => {
            wake.ring();
            Route::Asleep(version.clone())
        }
        Err(reason) if decision.unavailable == Unavailable::Wait => Route::Wait(reason),
        Err(reason) => Route::Nowhere(no_version(reason, service.name.as_str())),
    }
}

/// The answer to a request that is to come by https; its detail is the address to come to.
fn redirect(view: &View<'_, '_, '_>, port: u16) -> Refusal {
    let (host, target) = (view.host(), view.head.target);
    if host.is_empty() {
        return Refusal::bad("the Host header is missing, so there is no address to redirect to");
    }
    let port = if port == 443 { String::new() } else { format!(":{port}") };
    let slash = if target.starts_with('/') { "" } else { "/" };
    let target = if target == "*" { "" } else { target };
    Refusal::new(Cause::HttpsRequired, format!("https://{host}{port}{slash}{target}"))
}

/// The answer where no version can be chosen.
pub(crate) fn no_version(reason: NoVersion, service: &str) -> Refusal {
    let detail = match reason {
        NoVersion::NoCurrent => format!("`current` of the service `{service}` is not set"),
        NoVersion::Unknown => {
            format!("the version that this request is for is not there (service `{service}`)")
        }
        NoVersion::NotReady => {
            format!("the version that this request is for has no ready worker (service `{service}`)")
        }
    };
    Refusal::new(reason.into(), detail)
}

/// The answer where a version that was to be woken cannot be; `now` is what it is instead.
pub(crate) fn wake_failed(version: &Version, now: Option<&Version>) -> Refusal {
    let why = match now {
        None => "it is gone".to_owned(),
        // The lines after the first are what it printed: not for everybody.
        Some(now) => match now.reason.as_deref().and_then(|reason| reason.lines().next()) {
            Some(reason) => format!("it is {}: {}", now.state, reason.trim_end_matches("; it printed last:")),
            None => format!("it is {}", now.state),
        },
    };
    Refusal::new(Cause::WakeFailed, format!("version {} slept and could not be woken: {why}", version.id))
}

/// The answer where waking a version has taken too long.
pub(crate) fn wake_timeout(version: &Version) -> Refusal {
    let within = version.wake.as_ref().map(|wake| wake.within).unwrap_or_default();
    Refusal::new(
        Cause::WakeTimeout,
        format!("waited {within:?} for version {}, which is being woken", version.id),
    )
}

/// A parsed head as rules see it.
pub(crate) struct View<'a, 'h, 'b> {
    head: &'a RequestHead<'h, 'b>,
    client: IpAddr,
    /// Headers that are not what they seem.
    hidden: Positions,
    id: OnceCell<String>,
}

impl<'a, 'h, 'b> View<'a, 'h, 'b> {
    pub(crate) fn new(head: &'a RequestHead<'h, 'b>, weighed: &Weighed<'_>) -> Self {
        Self { head, client: weighed.client, hidden: weighed.hidden, id: OnceCell::new() }
    }
}

impl RequestView for View<'_, '_, '_> {
    fn method(&self) -> &str {
        self.head.method
    }

    fn path(&self) -> &str {
        let target = self.head.target;
        match target.split_once('?').map_or(target, |(path, _)| path) {
            "" => "/",
            path => path,
        }
    }

    fn query(&self) -> Option<&str> {
        self.head.target.split_once('?').map(|(_, query)| query)
    }

    fn host(&self) -> &str {
        target::host(self.head.authority)
    }

    fn client_ip(&self) -> Option<IpAddr> {
        Some(self.client)
    }

    fn headers<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let headers = self.head.headers.iter().enumerate();
        let named = headers.filter(move |(_, header)| header.name.eq_ignore_ascii_case(name));
        let honest = named.filter(|(index, _)| !self.hidden.contains(*index));
        honest.filter_map(|(_, header)| std::str::from_utf8(header.value).ok())
    }

    fn new_id(&self) -> &str {
        self.id.get_or_init(new_id)
    }
}

/// 128 random bits in hex.
fn new_id() -> String {
    let mut bytes = [0u8; 16];
    // The kernel's generator does not fail once the machine is up; a zero id would only make buckets uneven.
    let _ = getrandom::fill(&mut bytes);
    format!("{:032x}", u128::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::*;
    use crate::proxy::limits::Settings;

    fn seen(text: &str) -> String {
        let look = |head: &RequestHead<'_, '_>| {
            let client = Client::new("192.0.2.1".parse().unwrap(), &Rc::default());
            let view = View::new(head, &client.weigh(head));
            assert_eq!(view.new_id(), view.new_id());
            let cookies: Vec<&str> = view.headers("cookie").collect();
            format!("{} {} {:?} {} {cookies:?}", view.method(), view.path(), view.query(), view.host())
        };
        request::parse(text.as_bytes(), &Settings::default(), look).unwrap().unwrap().1
    }

    #[test]
    fn rules_see_the_request_as_it_was_sent() {
        for (text, expected) in [
            (
                "GET /a%20b?x=1?y HTTP/1.1\r\nHost: H.x:80\r\nCookie: a=1\r\n\r\n",
                "GET /a%20b Some(\"x=1?y\") H.x [\"a=1\"]",
            ),
            ("GET http://[::1]:80 HTTP/1.1\r\nHost: a\r\n\r\n", "GET / None [::1] []"),
            ("GET / HTTP/1.1\r\nHost: [::1]\r\n\r\n", "GET / None [::1] []"),
            ("PUT http://h?q HTTP/1.1\r\nHost: a\r\n\r\n", "PUT / Some(\"q\") h []"),
        ] {
            assert_eq!(seen(text), expected, "{text:?}");
        }
    }

    #[test]
    fn ids_differ() {
        let ids: std::collections::HashSet<String> = (0..100).map(|_| new_id()).collect();
        assert_eq!(ids.len(), 100);
        assert!(ids.iter().all(|id| id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit())));
    }
}
