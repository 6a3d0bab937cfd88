//! Aliases in a file under `<state>/<service>/`: what a service has that uses no etcd.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::hint::{Problem, Problems};
use crate::rules::publisher::Aliases;
use crate::rules::source::history::{self, Entry};
use crate::rules::source::plan::plan;
use crate::rules::source::{Change, ChangeError, Who, atomic};

/// State belongs to switchman alone.
const MODE: u32 = 0o600;

/// `aliases.json` of one service.
#[derive(Debug)]
pub(crate) struct AliasFiles {
    folder: PathBuf,
    aliases: Arc<Aliases>,
    /// Why `aliases` is not what the file holds.
    problems: Problems,
}

impl AliasFiles {
    /// Reads the aliases under `folder`. `last_good` stands in for a file that is not there (as after a move
    /// from etcd), and for one that cannot be read, which is reported.
    pub(crate) fn open(folder: PathBuf, last_good: Arc<Aliases>) -> Self {
        let mut files = Self { folder, aliases: last_good, problems: Problems::default() };
        files.reload();
        files
    }

    /// The aliases now.
    pub(crate) fn aliases(&self) -> &Arc<Aliases> {
        &self.aliases
    }

    /// What is wrong with the file, while something is.
    pub(crate) fn problems(&self) -> &Problems {
        &self.problems
    }

    /// Makes one change of the aliases; it is on the disk when this returns.
    pub(crate) fn apply(&mut self, change: &Change, who: &Who) -> Result<(), ChangeError> {
        // Read again: a person may have mended or restored the file while we ran.
        self.reload();
        let edit = plan(&self.aliases, change)?;
        if edit.is_empty() {
            return Ok(());
        }
        let entry = Entry::aliases(change, who, jiff::Timestamp::now(), &self.aliases, &edit);
        let after = edit.apply(&self.aliases);
        let path = self.path();
        serde_json::to_vec_pretty(&after)
            .map_err(io::Error::from)
            .and_then(|text| atomic::write(&path, &text, MODE))
            .map_err(|error| unwritable(&path, &error))?;
        self.aliases = Arc::new(after);
        self.problems = Problems::default();
        history::record(&self.folder, &entry);
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.folder.join("aliases.json")
    }

    fn reload(&mut self) {
        let path = self.path();
        match read(&path) {
            Ok(aliases) => {
                if let Some(aliases) = aliases.filter(|aliases| *self.aliases != *aliases) {
                    self.aliases = Arc::new(aliases);
                }
                self.problems = Problems::default();
            }
            Err(error) => {
                let problem = Problem::error("", format!("the aliases cannot be read: {error}"))
                    .hint("the last good aliases are in force; mend or delete the file, or promote again");
                self.problems =
                    Problems::from(Problem { file: Some(path.to_string_lossy().into()), ..problem });
            }
        }
    }
}

/// None where there is no file.
fn read(path: &Path) -> io::Result<Option<Aliases>> {
    match fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// What a person is told where a file cannot be written.
pub(crate) fn unwritable(path: &Path, error: &io::Error) -> ChangeError {
    ChangeError::Unavailable(format!("{} cannot be written: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn promote(version: &str) -> Change {
        Change::Promote { version: version.to_owned() }
    }

    #[test]
    fn changes_outlive_the_process_and_are_in_the_history() {
        let folder = tempfile::tempdir().unwrap();
        let who = Who("alice".to_owned());
        let mut files = AliasFiles::open(folder.path().to_owned(), Arc::default());
        files.apply(&promote("aaaaaaa"), &who).unwrap();
        files.apply(&promote("bbbbbbb"), &who).unwrap();
        files.apply(&promote("bbbbbbb"), &who).unwrap();

        let again = AliasFiles::open(folder.path().to_owned(), Arc::default());
        assert_eq!(again.aliases()["current"], "bbbbbbb");
        assert_eq!(again.aliases()["previous"], "aaaaaaa");
        let history = history::tests::read(folder.path());
        assert_eq!(history.len(), 2, "what changes nothing leaves no entry");
        assert_eq!(history[1].what, "promote bbbbbbb");
        assert_eq!(history[1].who, "alice");
        assert_eq!(history[1].from["current"], "aaaaaaa");
        assert!(history[1].from["previous"].is_null());
        assert_eq!(history[1].to["current"], "bbbbbbb");
    }

    #[test]
    fn a_file_that_is_gone_resets_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let who = Who("bob".to_owned());
        let good: Arc<Aliases> = Arc::new([("current".to_owned(), "aaaaaaa".to_owned())].into());
        let mut files = AliasFiles::open(folder.path().to_owned(), good);
        assert!(files.problems().is_empty());
        files.apply(&promote("bbbbbbb"), &who).unwrap();
        fs::remove_file(folder.path().join("aliases.json")).unwrap();
        files.apply(&promote("ccccccc"), &who).unwrap();
        assert_eq!(files.aliases()["previous"], "bbbbbbb");
        assert_eq!(read(&folder.path().join("aliases.json")).unwrap().as_ref(), Some(&**files.aliases()));
    }

    #[test]
    fn a_broken_file_is_reported_and_the_last_good_aliases_stand_in() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("aliases.json"), "{\"current\": ").unwrap();
        let good: Arc<Aliases> = Arc::new([("current".to_owned(), "aaaaaaa".to_owned())].into());
        let mut files = AliasFiles::open(folder.path().to_owned(), good.clone());
        assert_eq!(files.aliases(), &good);
        assert!(files.problems().to_string().contains("aliases.json"), "{}", files.problems());

        files.apply(&promote("bbbbbbb"), &Who("bob".to_owned())).unwrap();
        assert!(files.problems().is_empty());
        assert_eq!(files.aliases()["previous"], "aaaaaaa");
    }
}
