//! The main job, end to end: the real program as a process, with a real rsync, real workers, real requests.

mod adopt;
mod applications;
mod apps;
mod bad_input;
mod browser;
mod demo;
mod docs;
mod deploy;
mod faults;
mod grpc;
mod keep;
mod life;
mod logs;
mod promote;
mod reload;
mod rules;
mod streams;
mod systemd;
mod tls;
mod unix;
mod upgrade;
mod uploads;
mod versions_json;
