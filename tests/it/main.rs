//! Every integration test, in one binary: real sockets, real processes, real etcd, real rsync.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod support;

mod admin;
mod deploy;
mod e2e;
mod fixtures;
mod install;
mod proxy;
mod sources;
mod supervisor;
