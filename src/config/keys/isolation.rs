//! The keys that say as whom and within which limits workers run.

use super::KeyDefault::{Value, Words};
use super::{Key, Section, key};

/// In `services.NAME:` only.
pub(in crate::config) const ISOLATION: Section = Section {
    title: "As whom a worker runs, and within which limits",
    path: "services.NAME",
    doc: "These keys stand in a service only, never in a version's folder: who may upload must not become somebody \
          else. Where the system refuses one of them, the worker is not started, and the reason is shown.",
    keys: &[
        key(
            "user",
            "name or number",
            Words("switchman's own"),
            "nobody",
            "The user that workers run as, with its supplementary groups, and with its `HOME`, `USER`, `LOGNAME` and \
             `SHELL`. switchman must run as root. The version's folder must be readable for this user.",
        ),
        key(
            "group",
            "name or number",
            Words("the user's own"),
            "daemon",
            "The group that workers run as, in place of the user's own. Without `user`, they have no other groups.",
        ),
        key(
            "umask",
            "octal digits",
            Words("switchman's own"),
            "027",
            "The mode bits that new files do not get.",
        ),
        key("rlimits", "map", Value("{}"), "{nofile: 65536}", "Resource limits of each process."),
        key(
            "nice",
            "-20 to 19",
            Words("switchman's own"),
            "5",
            "The priority; lower goes first and wants root.",
        ),
        key(
            "oom_score_adj",
            "-1000 to 1000",
            Words("switchman's own"),
            "500",
            "How readily the kernel ends a worker when memory is short: -1000 is never.",
        ),
        key(
            "no_new_privs",
            "`true` or `false`",
            Words("`true` with `user`, else `false`"),
            "true",
            "No program that a worker starts gets more rights than it has: `sudo`, `ping` and other set-uid programs \
             do not work then.",
        ),
        key(
            "cgroup",
            "map",
            Words("no limits"),
            "{memory_max: 1GiB}",
            "Limits of all processes of a worker together.",
        ),
    ],
};

/// `services.NAME.rlimits:`.
pub(in crate::config) const RLIMITS: Section = Section {
    title: "Resource limits",
    path: "services.NAME.rlimits",
    doc: "The limits of setrlimit(2), for each process of a worker. A limit is a number, a size where it counts bytes, \
          or `unlimited`; `SOFT:HARD` says both.",
    keys: &[
        limit("as", "size", "4GiB", "Address space."),
        limit("core", "size", "0", "A core dump."),
        limit("cpu", "seconds", "3600", "Processor time."),
        limit("data", "size", "2GiB", "Data segment and heap."),
        limit("fsize", "size", "1GiB", "A file that is written."),
        limit("locks", "number", "100", "File locks."),
        limit("memlock", "size", "64KiB", "Memory that is kept out of swap."),
        limit("msgqueue", "size", "800KiB", "POSIX message queues of the user."),
        limit("nice", "number", "20", "How far `nice` may be lowered: 20 less the nice value."),
        limit("nofile", "number", "\"1024:65536\"", "Open files."),
        limit("nproc", "number", "512", "Processes and threads of the user."),
        limit("rss", "size", "1GiB", "Resident memory; the kernel takes no notice of it."),
        limit("rtprio", "number", "0", "Real-time priority."),
        limit("rttime", "microseconds", "200000", "Real-time processor time without a pause."),
        limit("sigpending", "number", "1000", "Signals that wait, of the user."),
        limit("stack", "size", "\"8MiB:64MiB\"", "Stack of the main thread."),
    ],
};

/// `services.NAME.cgroup:`.
pub(in crate::config) const CGROUP: Section = Section {
    title: "Limits of a worker's control group",
    path: "services.NAME.cgroup",
    doc: "Limits of all processes of one worker together. They want cgroup v2, with the controller of each; under \
          systemd, `Delegate=yes` in switchman's unit. Where the controller is missing, switchman says so loudly when \
          it starts, and runs the workers without that limit.",
    keys: &[
        key(
            "memory_max",
            "size, from 1MiB",
            Words("none"),
            "1GiB",
            "Memory. A worker that needs more is ended with all its processes, and started again.",
        ),
        key("cpu_max", "number, from 0.01", Words("none"), "1.5", "Processors."),
        key("pids_max", "number", Words("none"), "200", "Processes and threads."),
    ],
};

const fn limit(name: &'static str, takes: &'static str, example: &'static str, doc: &'static str) -> Key {
    key(name, takes, Words("switchman's own"), example, doc)
}
