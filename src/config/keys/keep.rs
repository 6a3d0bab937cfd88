//! The keys of what switchman does with versions over time: hooks, retention, sleep, and workers that follow the load.

use super::KeyDefault::{Required, Value, Words};
use super::{Key, Section, key};

/// `services.NAME:`, what becomes of versions over time.
pub(in crate::config) const KEEP: Section = Section {
    title: "Versions over time",
    path: "services.NAME",
    doc: "What is run when a version starts and stops, how many versions are kept, and which of them sleep.",
    keys: &[
        key(
            "hooks",
            "map",
            Words("none"),
            "{before_start: ./migrate}",
            "Commands that are run at points of a version's life.",
        ),
        key(
            "keep",
            "1 to 10000",
            Words("all of them"),
            "10",
            "How many versions run, the newest by arrival. An older one is drained and stopped, unless it carries \
             traffic, has an alias, is named by a rule (also with a share of 0 %), or a person has started it.",
        ),
        key(
            "prune",
            "`disk` or `off`",
            Value("off"),
            "disk",
            "`disk`: the folder of a version that `keep` has stopped is deleted; where it is a symbolic link, the link. \
             Needs `keep`.",
        ),
        key(
            "idle",
            "duration, from 1s",
            Words("never; 15m where `workers` has `min: 0`"),
            "15m",
            "A version that no request has come for this long, and that has none open, is put to sleep: its workers are \
             stopped until the next request for it. This holds for `current` too.",
        ),
        key(
            "wake",
            "duration, from 100ms",
            Value("30s"),
            "10s",
            "The longest that requests wait for a version that is being woken. If it cannot start they wait no longer.",
        ),
    ],
};

/// `services.NAME.hooks:`.
pub(in crate::config) const HOOKS: Section = Section {
    title: "Hooks",
    path: "services.NAME.hooks",
    doc: "Each is a command as in `run`, or a map of the keys below. It is run in the version's folder with the \
          version's environment and without PORT, as the user of the workers; what it prints is in the version's logs. \
          When its time is over, it is ended with everything it has started.",
    keys: &[
        key(
            "before_start",
            "command, or map",
            Words("none"),
            r#""npm run migrate""#,
            "Run once for each version, before its first worker is started; with etcd once for all nodes. If it fails, the \
             version fails.",
        ),
        key(
            "after_ready",
            "command, or map",
            Words("none"),
            "[./warm-caches]",
            "Run when the version is ready for the first time. If it fails, that is said, and the version goes on.",
        ),
        key(
            "before_stop",
            "command, or map",
            Words("none"),
            "./say-goodbye",
            "Run when the version is stopped, before its workers are told to end; they take no new requests meanwhile. \
             Not when it is put to sleep or its folder is gone.",
        ),
    ],
};

/// `services.NAME.hooks.before_start:` and its like, where they are maps.
pub(in crate::config) const HOOK: Section = Section {
    title: "One hook",
    path: "services.NAME.hooks.before_start",
    doc: "The same for each hook.",
    keys: &[
        key("run", "text, or list of texts", Required, "./migrate", "The command."),
        key(
            "timeout",
            "duration, from 100ms",
            Words("5m; 30s for `before_stop`"),
            "10m",
            "The longest it may take.",
        ),
    ],
};

/// `services.NAME.workers:`, where it is a map.
pub(in crate::config) const WORKERS: Section = Section {
    title: "Workers that follow the load",
    path: "services.NAME.workers",
    doc: "The number of workers follows the requests in flight, which are looked at each second: up within three seconds, \
          down when a minute has not needed more. A version folder may say this too.",
    keys: &[
        key(
            "min",
            "0 to 1000",
            Value("1"),
            "2",
            "The fewest while the version is awake, and never less than one. `0`: it sleeps after `idle`.",
        ),
        key("max", "1 to 1000", Required, "4", "The most."),
        key(
            "target_in_flight",
            "1 to 1000000",
            Required,
            "20",
            "Requests in flight, open streams among them, that one worker is to have.",
        ),
    ],
};

/// The key under which [`WORKERS`] or a number stands.
pub(super) const WORKERS_KEY: Key = key(
    "workers",
    "1 to 1000, or map",
    Value("1"),
    "2",
    "Workers of a version. A map as in `{min: 0, max: 4, target_in_flight: 20}` lets their number follow the load.",
);
