//! switchman: watches a deploy folder, runs every version dark, routes each request to a version by rules.
//!
//! ```text
//! config ----> app (builds and wires what is below)
//! deploy root -> deploy::watcher --VersionChange--> supervisor --spawn, check, signals--> worker processes
//!                                                       | publishes versions and ready workers     ^
//!                                                       v                                          | HTTP
//!                                                   registry --+                                   |
//! YAML file, etcd -> rules::source -> rules::publisher --------+-> routing (one snapshot)          |
//!                                                                   v lock-free                    |
//! client --request------------------------------------------------> proxy -------------------------+
//! cli -> admin::client -> admin --Command--> supervisor, --Change--> rules::source
//! ```
//!
//! The modules in reading order; `docs/architecture.md` says what is where and what is deliberately absent.

// The ground: values and small tools that every row above uses.
// Names and states: services, versions, workers, aliases.
pub mod version;
// What is wrong with something a person wrote, and what to type next.
pub mod hint;
// YAML with places and raw scalars.
pub mod yaml;
// Growing, jittered delays between tries.
pub mod backoff;
// When what is to stop may, and when its streams end.
pub mod drain;
// What changes in a directory.
pub mod fs_watch;
// One switchman for one state folder.
pub mod state_lock;
// What goes to the log, and how.
pub mod telemetry;
// Per-thread counters of the data plane.
pub mod metrics;

// State and pure parts.
// The certificates of the public side.
pub mod certificates;
// The configuration.
pub mod config;
// etcd: the connection, and work that all nodes together do once.
pub mod etcd;
// What exists now.
pub mod registry;
// Rule documents to decisions.
pub mod rules;
// Rules, aliases and registry joined into what a request needs.
pub mod routing;

// Tasks.
// Deploy roots to version changes.
pub mod deploy;
// Version changes to running workers.
pub mod supervisor;
// The two cases in which `current` moves by itself.
pub mod promoter;

// Faces.
// Requests to workers: the data plane.
pub mod proxy;
// The admin API.
pub mod admin;

// The whole.
// Configuration to a running switchman.
pub mod app;
// The command line.
pub mod cli;
// What fuzzing calls.
#[cfg(any(test, fuzzing))]
#[doc(hidden)]
pub mod fuzzing;
