//! The names and states that every other module speaks of: services, versions, workers, aliases.
//!
//! This is the lowest layer: plain values, no I/O. A name is cheap to clone (it is shared), compares by its
//! text, and is never empty.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The alias that carries traffic where no rule says otherwise.
pub const CURRENT: &str = "current";
/// The alias that `promote` leaves behind and `rollback` returns to.
pub const PREVIOUS: &str = "previous";
/// The alias that always names the version that arrived last; it is derived and cannot be set.
pub const LATEST: &str = "latest";
/// The fewest characters by which a version may be named.
pub const PREFIX_MIN: usize = 7;

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// The name as it is written.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(Arc::from(text))
            }
        }

        impl From<String> for $name {
            fn from(text: String) -> Self {
                Self(Arc::from(text))
            }
        }

        // `Arc<str>` hashes and compares as `str`, so a map keyed by the name can be asked with a `&str`.
        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

name_type! {
    /// One application: a deploy root, how to run a version, its rules. The key under `services:`.
    ServiceName
}
name_type! {
    /// One folder under a deploy root, named by a git hash: the folder's name, whole.
    VersionId
}

/// The number of a worker within its version, from 0; a restarted worker keeps its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct WorkerId(pub u32);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a version stands in its life; `docs/architecture.md` draws the arrows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum VersionState {
    /// Its folder is there and may still be growing.
    Arriving,
    /// Its workers are being started or have not all passed their first check.
    Starting,
    /// At least one worker answers; traffic may be sent to it.
    Ready,
    /// It takes no new requests; the running ones end.
    Draining,
    /// Its folder is there and no process runs, because somebody asked for that.
    Stopped,
    /// It could not be started or kept alive; `reason` says why.
    Failed,
    /// Stopped for want of requests; the next one wakes it.
    Asleep,
    /// Its folder is gone and no process runs; it is listed no more.
    Gone,
}

/// Where a worker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// The process runs and has not passed its first check.
    Starting,
    /// It passed its check and takes requests.
    Ready,
    /// It no longer answers and takes no requests; another process is started in its place.
    Hung,
    /// It takes no new requests; the running ones end.
    Draining,
    /// It was told to end (TERM) and has not ended.
    Stopping,
    /// It ended and waits for its back-off before it is started again.
    Waiting,
    /// It ended and is not started again.
    Stopped,
}

macro_rules! lowercase_display {
    ($type:ident { $($variant:ident => $text:literal),+ $(,)? }) => {
        impl $type {
            /// The word used in JSON, logs and tables.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text),+ }
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }
    };
}

lowercase_display!(VersionState {
    Arriving => "arriving", Starting => "starting", Ready => "ready", Draining => "draining",
    Stopped => "stopped", Failed => "failed", Asleep => "asleep", Gone => "gone",
});
lowercase_display!(WorkerState {
    Starting => "starting", Ready => "ready", Hung => "hung", Draining => "draining", Stopping => "stopping",
    Waiting => "waiting", Stopped => "stopped",
});

/// Why a written name does not lead to exactly one version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// Nothing is called that.
    #[error("no version or alias is called `{0}`")]
    Unknown(String),
    /// It begins the names of several versions.
    #[error("`{name}` begins the names of several versions: {}", .versions.join(", "))]
    Ambiguous {
        /// What was written.
        name: String,
        /// The versions that it could mean.
        versions: Vec<String>,
    },
}

/// Finds the one version that `name` means among `versions`: its whole name, or a prefix of at least
/// [`PREFIX_MIN`] characters that no other version shares. Aliases are looked up before this is asked.
pub fn resolve_name<'a>(
    name: &str,
    versions: impl Iterator<Item = &'a VersionId>,
) -> Result<&'a VersionId, NameError> {
    let mut found: Vec<&VersionId> = Vec::new();
    for version in versions {
        if version.as_str() == name {
            return Ok(version);
        }
        if name.len() >= PREFIX_MIN && version.as_str().starts_with(name) {
            found.push(version);
        }
    }
    match found.as_slice() {
        [one] => Ok(one),
        [] => Err(NameError::Unknown(name.to_owned())),
        many => Err(NameError::Ambiguous {
            name: name.to_owned(),
            versions: many.iter().map(|v| v.to_string()).collect(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_named_by_its_whole_name_or_an_unambiguous_prefix() {
        let versions: Vec<VersionId> =
            ["4f2a91c", "4f2a91cdd0", "b001bee77", "b001beef1"].map(VersionId::from).into();
        let find = |name: &str| resolve_name(name, versions.iter()).map(|v| v.as_str().to_owned());
        assert_eq!(find("4f2a91c").as_deref(), Ok("4f2a91c"), "a whole name wins over longer ones");
        assert_eq!(find("4f2a91cd").as_deref(), Ok("4f2a91cdd0"));
        assert_eq!(find("b001bee7").as_deref(), Ok("b001bee77"));
        assert!(matches!(find("b001bee"), Err(NameError::Ambiguous { versions, .. }) if versions.len() == 2));
        assert_eq!(find("4f2a91"), Err(NameError::Unknown("4f2a91".into())), "six characters are too few");
    }
}
