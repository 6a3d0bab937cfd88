//! The service's keys of uploads: when one is complete, and what follows from a later one.

use super::KeyDefault::{Value, Words};
use super::{Key, key};

/// The file that comes last.
pub(super) const COMPLETE_WHEN: Key = key(
    "complete_when",
    "path below the version's folder",
    Words("none: a quiet folder is complete"),
    "manifest.sha256",
    "A folder without this file is not complete, however long nothing changes in it. Upload it last. If it is a list \
     as `sha256sum` writes it (by its name or its first line), every file in it is checked; one that is missing or \
     different fails the version until that is put right.",
);

/// Whether changed files restart a version.
pub(super) const RESTART_ON_CHANGE: Key = key(
    "restart_on_change",
    "`true` or `false`",
    Value("false"),
    "true",
    "`true`: a version whose files have changed is restarted, one worker at a time, once its folder is complete again. \
     Not for applications that write to files that came with the upload.",
);
