//! What the admin API says, field for field: the only structs of this crate that are serialised outward.
//!
//! The order of the fields is the order in the JSON. The client reads the same structs, so that the two ends
//! cannot drift. Timestamps are RFC 3339 in whole seconds, in UTC.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::hint;
use crate::version::{VersionState, WorkerState};

/// The answer of `GET /versions`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Versions {
    /// This machine's name in the fleet.
    pub node: String,
    /// The snapshot that this was read from; goes up by one with each change.
    pub generation: u64,
    /// The versions: by service, the last arrived first.
    pub versions: Vec<Version>,
    /// What else lies under the deploy roots; only with `?all=1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignored: Option<Vec<Ignored>>,
    /// What is wrong with deploy roots and rules; only with `?all=1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problems: Option<Vec<ServiceProblem>>,
}

/// One version of one service.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Version {
    /// Its service.
    pub service: String,
    /// Its folder's name.
    pub version: String,
    /// Where it stands.
    pub state: VersionState,
    /// Ready, and no route or alias in use sends traffic to it.
    pub dark: bool,
    /// The aliases that name it, by name.
    pub aliases: Vec<String>,
    /// The routes that send traffic to it, in the document's order.
    pub routes: Vec<String>,
    /// Its folder.
    pub path: String,
    /// Since when it stands there.
    pub since: Timestamp,
    /// Why, where that needs saying.
    pub reason: Option<String>,
    /// Files that it runs from have changed since its workers were started; left out while they have not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub modified: bool,
    /// Its workers, by number.
    pub workers: Vec<Worker>,
    /// What it was asked.
    pub traffic: Traffic,
}

/// One worker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Worker {
    /// Its number within its version.
    pub id: u32,
    /// The process, while there is one.
    pub pid: Option<u32>,
    /// Where it listens.
    pub address: Option<String>,
    /// Where it stands.
    pub state: WorkerState,
    /// Requests that it is answering.
    pub in_flight: u64,
    /// How often it was started again because it had ended by itself, or hung.
    pub restarts: u32,
}

/// The answer of `POST /restart` and `POST /services/{service}/restart`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restarting {
    /// The versions whose workers are replaced: by service, in their order.
    pub restarting: Vec<Named>,
}

/// The name of a version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Named {
    /// Its service.
    pub service: String,
    /// Its folder's name.
    pub version: String,
}

/// The traffic of one version since switchman started.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests ended.
    pub requests: u64,
    /// Requests running: the sum over the workers.
    pub in_flight: u64,
    /// Requests a second over the last ten seconds.
    pub rps: f64,
    /// Requests that ended in a 5xx.
    pub errors: u64,
    /// Median latency over the last minute, in milliseconds.
    pub p50_ms: Option<f64>,
    /// 99th percentile, likewise.
    pub p99_ms: Option<f64>,
    /// When the last request was counted.
    pub last_hit: Option<Timestamp>,
}

/// Something under a deploy root that is no version.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ignored {
    /// The service whose root it lies in.
    pub service: String,
    /// Its name.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Why it is no version.
    pub reason: String,
}

/// A problem of one service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceProblem {
    /// The service.
    pub service: String,
    /// What is wrong.
    #[serde(flatten)]
    pub problem: hint::Problem,
}

/// The answer of `GET /services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Services {
    /// The configured services, by name.
    pub services: Vec<Service>,
}

/// One configured service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub service: String,
    /// Its deploy root.
    pub root: String,
    /// How many versions it has.
    pub versions: usize,
    /// The version that `current` names, if it is there.
    pub current: Option<String>,
}

/// The answer of `GET /services/{service}/aliases`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aliases {
    /// The service.
    pub service: String,
    /// Name to version; a version that is not there now is listed as it was stored.
    pub aliases: BTreeMap<String, String>,
}

/// One alias.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alias {
    /// The service.
    pub service: String,
    /// Its name.
    pub name: String,
    /// The version that it names.
    pub version: String,
}

/// The body of `PUT /services/{service}/aliases/{name}`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetAlias {
    /// The version: its name, a prefix of it or another alias.
    pub version: String,
}

/// The body of `POST .../scale`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scale {
    /// How many workers the version shall have, from 1.
    pub workers: u32,
}

/// The answer of `GET /services/{service}/rules`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rules {
    /// The text of the document in force.
    pub document: String,
    /// The file or etcd key that it came from.
    pub origin: String,
    /// What a guarded write is compared with; also the ETag.
    pub revision: u64,
    /// Goes up by one with each change of rules or aliases.
    pub generation: u64,
    /// Since when this table is in force.
    pub since: Timestamp,
    /// Whether the source holds a newer document that was refused.
    pub rejected: bool,
    /// Why, or what is likely not meant in the document in force.
    pub problems: Vec<hint::Problem>,
    /// Since when the source cannot be reached.
    pub stale_since: Option<Timestamp>,
}

/// The answer of `POST .../rules/check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checked {
    /// Whether the document could be taken.
    pub ok: bool,
    /// Everything that is wrong or doubtful, in the document's order.
    pub problems: Vec<hint::Problem>,
}

/// An error: RFC 9457 `application/problem+json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Stable name of the kind: `urn:switchman:problem:...`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The kind in words; the same for every problem of the kind.
    pub title: String,
    /// The HTTP status.
    pub status: u16,
    /// What was wrong this time.
    pub detail: String,
    /// What to do next.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<String>,
    /// Every single problem, for a rule document that was refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<hint::Problem>,
}

/// The body of `POST .../rules/explain`: a request, written down. What is left out is empty; the method is GET.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Explain {
    /// The method.
    pub method: Option<String>,
    /// The path, with the query.
    pub path: Option<String>,
    /// The host; else that of the `host` header.
    pub host: Option<String>,
    /// Name to value, or to several values.
    pub headers: BTreeMap<String, OneOrMany>,
    /// Name to value.
    pub cookies: BTreeMap<String, String>,
    /// The client's address.
    pub client_ip: Option<std::net::IpAddr>,
}

/// `"value"` or `["value", "value"]`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum OneOrMany {
    /// One.
    One(String),
    /// Several, in order.
    Many(Vec<String>),
}

impl OneOrMany {
    /// All of them, in order.
    pub fn into_vec(self) -> Vec<String> {
        match self {
            Self::One(value) => vec![value],
            Self::Many(values) => values,
        }
    }
}

/// The answer of `POST .../rules/explain`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explanation {
    /// The service.
    pub service: String,
    /// The version that would answer now; none: 503, or the request waits.
    pub version: Option<String>,
    /// The worker that would answer now: the ready one with the least in flight.
    pub worker: Option<u32>,
    /// All of this in one sentence.
    pub why: String,
    /// What the rules chose, as the document or the request names it.
    pub to: String,
    /// The route that decided; none for the default.
    pub route: Option<String>,
    /// What happens while that version is not ready: `current`, `error` or `wait`.
    pub unavailable: String,
    /// The bucket (0..10000) where a percentage decided.
    pub bucket: Option<u16>,
    /// The cookie that would be set, because the request has no id.
    pub assign: Option<String>,
    /// Every route in order, also those after the one that decides.
    pub routes: Vec<RouteExplanation>,
}

/// What one route makes of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteExplanation {
    /// The route.
    pub route: String,
    /// Whether it would take the request, if no route before it did.
    pub matched: bool,
    /// Whether it is the one that decides.
    pub decides: bool,
    /// Where it would send the request.
    pub to: Option<String>,
    /// The first condition that did not hold.
    pub failed: Option<FailedCondition>,
    /// What its percentages say.
    pub split: Option<SplitExplanation>,
}

/// A condition that did not hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FailedCondition {
    /// The condition, as the document has it.
    pub condition: String,
    /// What the request has there; none: nothing.
    pub seen: Option<String>,
}

/// What a split makes of the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SplitExplanation {
    /// The input that holds the id.
    pub by: String,
    /// The id; none: the request has none.
    pub id: Option<String>,
    /// The id's bucket, 0..10000.
    pub bucket: Option<u16>,
    /// The arms in order.
    pub arms: Vec<Arm>,
}

/// One arm of a split: the buckets `from..until`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Arm {
    /// The version or alias.
    pub to: String,
    /// Its first bucket.
    pub from: u16,
    /// The bucket after its last.
    pub until: u16,
}
