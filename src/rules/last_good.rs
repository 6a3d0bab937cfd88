//! What was in force, kept on disk: `<state>/<service>/last-good.json`.
//!
//! Read once at the start, so that a restart with etcd away, or with a rule file that is broken or gone, routes
//! as before. It is a copy, never the truth: a source that can be read always wins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::hint::Problem;
use crate::rules::publisher::{Aliases, Routes};
use crate::rules::source::atomic;

/// A document that compiled, and what stood beside it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// Where the document came from.
    pub origin: Arc<str>,
    /// Its revision there.
    pub revision: u64,
    /// Its text.
    pub document: Arc<str>,
    /// Routes with a key each.
    pub routes: Arc<Routes>,
    /// The aliases.
    pub aliases: Arc<Aliases>,
    /// The revision of the whole etcd when this was read from it; 0 without etcd.
    pub store_revision: i64,
}

impl LastGood {
    /// Whether there is nothing in it that a restart would miss.
    pub fn is_empty(&self) -> bool {
        self.document.is_empty() && self.routes.is_empty() && self.aliases.is_empty()
    }
}

/// The file's place under a service's state folder.
pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("last-good.json")
}

/// Reads it back. None where there is none; the problem where it cannot be used.
pub(crate) fn read(folder: &Path) -> Result<Option<LastGood>, Box<Problem>> {
    let path = path(folder);
    match fs::read(&path) {
        Ok(text) => serde_json::from_slice(&text).map(Some).map_err(|error| unusable(&path, &error)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unusable(&path, &error)),
    }
}

fn unusable(path: &Path, error: &dyn std::error::Error) -> Box<Problem> {
    let problem = Problem::warning("", format!("the copy of the last good rules cannot be used: {error}"))
        .hint("it is ignored, and written again with the next change");
    Box::new(Problem { file: Some(path.to_string_lossy().into()), ..problem })
}

/// Keeps it.
pub(crate) fn write(folder: &Path, good: &LastGood) -> io::Result<()> {
    atomic::write(&path(folder), &serde_json::to_vec(good)?, 0o600)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_a_corrupt_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()), Ok(None));
        let good = LastGood {
            origin: "rules.yaml".into(),
            revision: 7,
            document: "routes: []\n".into(),
            routes: Arc::new(vec![("qa".to_owned(), "to: beta".to_owned())]),
            aliases: Arc::new([("current".to_owned(), "4f2a91c".to_owned())].into()),
            store_revision: 12,
        };
        write(folder.path(), &good).unwrap();
        assert_eq!(read(folder.path()), Ok(Some(good)));

        fs::write(path(folder.path()), b"{\"origin\":").unwrap();
        let problem = read(folder.path()).unwrap_err();
        assert!(problem.to_string().contains("last-good.json"), "{problem}");
    }
}
