//! A look at a folder whose version runs: which of the files that it was started from are not what they were.

use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use super::Modification;
use super::inventory::{Difference, Inventory, changed};
use super::manifest::{Look, Manifest, Unfinished, look};

/// What a check saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// The whole folder.
    pub all: Look,
    /// The files that were there before, as they are now.
    pub known: Look,
    /// What has changed; none if nothing has.
    pub modification: Option<Modification>,
}

/// Compares `folder` with what its files were. Blocks.
pub(crate) fn check(folder: &Path, files: &Arc<Inventory>) -> Checked {
    let wall = SystemTime::now();
    let all = look(folder);
    if let Some(Unfinished::Unreadable(_)) = all.manifest.unfinished {
        // What cannot be read is not known to be gone.
        let manifest = Manifest { inventory: files.clone(), ..all.manifest.clone() };
        return Checked { known: Look { manifest, ..all.clone() }, all, modification: None };
    }
    let (differences, renewed) = files.compare(&all.manifest.inventory);
    let at = |difference: &Difference<'_>| difference.at.unwrap_or_else(|| went(folder, difference.path));
    let newest = differences.iter().map(at).max();
    let modification = newest.map(|at| Modification::new(&differences, at));
    let newest = newest.max(renewed.newest()).unwrap_or(all.manifest.newest);
    let manifest = Manifest { newest, inventory: Arc::new(renewed), ..all.manifest.clone() };
    let known = Look { quiet: wall.duration_since(newest).unwrap_or_default(), manifest, ..all.clone() };
    Checked { all, known, modification }
}

/// When a file that is gone went at the latest: the last change of the nearest folder that is there.
fn went(folder: &Path, file: &Path) -> SystemTime {
    let parents = file.ancestors().skip(1).map(|parent| folder.join(parent));
    let there = parents.filter_map(|parent| parent.symlink_metadata().ok()).next();
    there.map_or_else(SystemTime::now, |parent| changed(&parent))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_change_is_told_once_with_its_time() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        fs::create_dir(folder.join("lib")).unwrap();
        for name in ["a", "lib/b"] {
            fs::write(folder.join(name), "").unwrap();
        }
        let files = look(folder).manifest.inventory;
        fs::write(folder.join("cache"), "").unwrap();
        assert_eq!(check(folder, &files).modification, None);

        fs::remove_dir_all(folder.join("lib")).unwrap();
        fs::write(folder.join("a"), "changed").unwrap();
        let checked = check(folder, &files);
        let modification = checked.modification.unwrap();
        assert_eq!(modification.to_string(), "a, lib/b (gone)");
        assert_eq!(modification.at, look(folder).manifest.newest);
        assert_eq!(check(folder, &checked.known.manifest.inventory).modification, None);
    }

    #[test]
    fn a_folder_that_is_gone_is_not_modified() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a"), "").unwrap();
        let files = look(folder.path()).manifest.inventory;
        assert_eq!(check(&folder.path().join("gone"), &files).modification, None);
    }
}
