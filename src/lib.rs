//! switchman: watches a deploy folder, runs every version dark, routes each request to a version by rules.
//!
//! # Layout, in reading order

/// The admin API.
pub mod admin;
/// Growing, jittered delays between tries.
pub mod backoff;
/// The command line.
pub mod cli;
/// The configuration.
pub mod config;
/// Deploy roots to version changes.
pub mod deploy;
/// What changes in a directory.
pub mod fs_watch;
/// What is wrong with something a person wrote, and what to type next.
pub mod hint;
/// Per-thread counters of the data plane.
pub mod metrics;
/// Requests to workers: the data plane.
pub mod proxy;
/// What exists now.
pub mod registry;
/// Rules, aliases and registry joined into what a request needs.
pub mod routing;
/// Rule documents to decisions.
pub mod rules;
/// Version changes to running workers.
pub mod supervisor;
/// What goes to the log, and how.
pub mod telemetry;
/// Names and states: services, versions, workers, aliases.
pub mod version;
/// YAML with places and raw scalars.
pub mod yaml;
