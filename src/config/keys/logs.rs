//! The keys for what workers print: files, alarms, and readiness by a line.

use super::KeyDefault::{Value, Words};
use super::{Key, Section, key};

/// `services.NAME.logs`.
pub(in crate::config) const LOGS_KEY: Key =
    key("logs", "map", Words("as below"), "{max_total: 4GiB}", "What is kept on disk of what workers print.");

/// `services.NAME.alarm`.
pub(in crate::config) const ALARM: Key = key(
    "alarm",
    "regular expression, or list of them",
    Words("none"),
    "['^FATAL', 'out of memory']",
    "Lines that show that a worker is in trouble. One that prints such a line is marked in `versions` and `events`.",
);

/// `services.NAME.restart_on_alarm`.
pub(in crate::config) const RESTART_ON_ALARM: Key = key(
    "restart_on_alarm",
    "`true` or `false`",
    Value("false"),
    "true",
    "Whether a worker that raised an alarm is replaced, new before old. After five alarms within a minute none is.",
);

/// `services.NAME.ready.log`.
pub(in crate::config) const READY_LOG: Key = key(
    "log",
    "regular expression",
    Words("none"),
    "'listening on'",
    "It must print a line that this matches, to stdout or stderr.",
);

/// `services.NAME.logs:`.
pub(in crate::config) const LOGS: Section = Section {
    title: "Logs of workers",
    path: "services.NAME.logs",
    doc: "What is kept on disk of what workers print: `logs/SERVICE/VERSION/worker-N.log` in `state`, a line each with \
          time, output and pid.",
    keys: &[
        key(
            "file",
            "`true` or `false`",
            Value("true"),
            "false",
            "`false`: the lines go into switchman's own log instead, as a container wants it.",
        ),
        key(
            "max_file",
            "size, from 64KiB",
            Value("64MiB"),
            "16MiB",
            "A file that would become larger is set aside, and the next one begins.",
        ),
        key("max_age", "duration, from 1s", Value("1d"), "1h", "A file that began this long ago is, too."),
        key(
            "max_total",
            "size, from 1MiB",
            Value("1GiB"),
            "4GiB",
            "The most that all files of the service take together. The oldest are deleted, whatever version they are of. \
             With many workers their files become smaller than `max_file`, so that this holds.",
        ),
        key(
            "keep",
            "duration, from 1s, to 3650d",
            Value("30d"),
            "90d",
            "A file that nobody wrote to for so long is deleted.",
        ),
    ],
};
