//! One service: its deploy root, its hosts, its rules; `run` reads how its versions run.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use regex::Regex;

use super::bodies;
use super::isolation;
use super::keep;
use super::keys::bodies::BODIES;
use super::keys::isolation::ISOLATION;
use super::keys::keep::KEEP;
use super::keys::limits::BALANCE;
use super::keys::{RULES, RUN, SERVICE, names};
use super::life;
use super::limits;
use super::read::{duration, path};
use super::run::run_spec;
use super::{Delivery, Promote, RulesAt, RunSpec, Service};
use super::{settle, streams, value};
use crate::version::ServiceName;
use crate::yaml::{Entry, Fields, Reader};

/// What the rest of the file says that a service needs.
pub(super) struct Context<'a> {
    /// What relative paths begin at.
    pub folder: &'a Path,
    /// The state folder.
    pub state: &'a Path,
    /// The prefix of all etcd keys; none without a (good) `etcd:`.
    pub etcd: Option<&'a str>,
    /// Whether there is an `etcd:`, good or not.
    pub etcd_written: bool,
    /// Whether switchman runs as root.
    pub is_root: bool,
}

/// A service as read, with the map it was read from: what is wrong between two services is reported there.
pub(super) struct Draft<'a> {
    pub name: ServiceName,
    pub service: Service,
    pub fields: Fields<'a>,
}

const SETTLE: Duration = Duration::from_secs(1);
const VERSIONS: &str = "^[0-9a-f]{7,64}$";

const PROMOTE: [(&str, Promote); 2] = [("manual", Promote::Manual), ("auto", Promote::Auto)];

/// Reads the service that stands under `services:` as `entry`.
pub(super) fn read<'a>(entry: &Entry, reader: Reader<'a>, context: &Context<'_>) -> Option<Draft<'a>> {
    let name = value::name(&entry.key)
        .map_err(|problem| reader.report(problem.at(entry.place.line, entry.place.column)))
        .ok();
    let fields = reader.fields(&names(&[&SERVICE, &BALANCE, &BODIES, &KEEP, &RUN, &ISOLATION]))?;
    let root = fields.require("root", "/srv/app").and_then(|r| path(&r, context.folder));
    let hosts = fields.get("hosts").map(|r| hosts(&r)).unwrap_or_default();
    let versions = match fields.get("versions") {
        Some(reader) => versions(&reader),
        None => Regex::new(VERSIONS).ok(),
    };
    let quiet = fields.get("settle").and_then(|r| duration(&r, Duration::ZERO)).unwrap_or(SETTLE);
    let promote = fields
        .get("promote")
        .and_then(|r| r.value(|text| value::one_of(text, &PROMOTE)))
        .unwrap_or(Promote::Manual);
    let rules = name.as_deref().and_then(|name| rules(&fields, name, context));
    let isolation = isolation::read(&fields, context.is_root);
    let run = run_spec(&fields, RunSpec { isolation, life: life::read(&fields), ..RunSpec::default() });
    let mut delivery = Delivery::default();
    bodies::of_service(&fields, context.folder, &mut delivery);
    limits::of_service(&fields, &mut delivery);
    streams::read(&fields, &mut delivery);
    let upkeep = keep::upkeep(&fields, delivery.max_in_flight);
    let delivery = Arc::new(delivery);
    let service = Service {
        root: root?,
        hosts,
        versions: versions?,
        settle: quiet,
        upload: settle::read(&fields),
        promote,
        rules: rules?,
        delivery,
        upkeep,
        run,
    };
    Some(Draft { name: ServiceName::from(name?), service, fields })
}

fn hosts(reader: &Reader<'_>) -> Vec<String> {
    let hosts = reader.one_or_more();
    if hosts.is_empty() {
        let message = "the list is empty, so the service would answer nobody";
        reader.error(message, "name a host, or remove `hosts` to answer every host");
    }
    hosts.iter().filter_map(|r| r.value(value::host)).collect()
}

fn versions(reader: &Reader<'_>) -> Option<Regex> {
    let versions = reader.value(value::regex)?;
    if !(versions.as_str().starts_with('^') && versions.as_str().ends_with('$')) {
        let message = format!("`{versions}` matches any name that has such a part in it");
        let hint = format!("write '^{}$'", versions.as_str().trim_start_matches('^').trim_end_matches('$'));
        reader.warning(message, hint);
    }
    Some(versions)
}

fn rules(service: &Fields<'_>, name: &str, context: &Context<'_>) -> Option<RulesAt> {
    let Some(reader) = service.get("rules") else {
        return match context.etcd {
            Some(prefix) => Some(RulesAt::Etcd(format!("{prefix}/{name}/rules"))),
            None => Some(RulesAt::File(context.state.join(name).join("rules.yaml"))),
        };
    };
    if reader.node().map().is_none() {
        return path(&reader, context.folder).map(RulesAt::File);
    }
    if !context.etcd_written {
        let hint = "add at the top: `etcd: {endpoints: [\"http://127.0.0.1:2379\"]}`";
        reader.error("the rules are to come from etcd, and no etcd is configured", hint);
    }
    let key = reader.fields(&names(&[&RULES]))?.require("etcd", "/switchman/app/rules")?;
    key.text().map(|key| RulesAt::Etcd(key.to_owned()))
}

/// A folder without `.` parts, links resolved where it is there: two spellings of one folder compare equal.
pub(super) fn identity(folder: &Path) -> PathBuf {
    folder.canonicalize().unwrap_or_else(|_| folder.to_path_buf())
}
