//! Runs the workers of every version: starts, checks, restarts, drains and stops them, and writes the registry.

pub mod command;
