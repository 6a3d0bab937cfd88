//! The keys of readiness that a worker, or a command beside it, says itself.

use super::KeyDefault::Words;
use super::{Key, key};

/// `ready: {notify: true}`.
pub(super) const NOTIFY: Key = key(
    "notify",
    "`true`",
    Words("none"),
    "true",
    "It must say so itself, with `READY=1` to the socket in `NOTIFY_SOCKET`, as sd_notify(3) does. What it says with \
     `STATUS=` until then is shown as the version's reason. Nobody but the worker and what it has started is believed.",
);

/// `ready: {command: COMMAND}`.
pub(super) const COMMAND: Key = key(
    "command",
    "text, or list of texts",
    Words("none"),
    "./check.sh",
    "This command must exit with 0. It runs in the version's folder with the worker's environment and rights, and is \
     ended with all it has started after `timeout`.",
);
