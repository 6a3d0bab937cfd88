//! The admin API and the command line: a real server on a socket and a port, real rule sources, real workers.

mod api;
mod cli;
mod world;
