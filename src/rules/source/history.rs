//! Who changed what, when, from what to what: one entry for each change that was made.
//!
//! Files keep one JSON object a line (`record`), etcd one a key; both are this [`Entry`].

use std::fs;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::rules::publisher::Aliases;
use crate::rules::source::plan::AliasEdit;
use crate::rules::source::{Change, Who};

/// A file beyond this is set aside once as `history.1.jsonl`, so that it never fills a disk.
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The largest document whose text stands in its entry.
const TEXT_BYTES_MAX: usize = 128 << 10;

/// One change that was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When it was asked for.
    pub when: Timestamp,
    /// Who asked.
    pub who: String,
    /// What was asked, as it is typed: `promote 4f2a91c`.
    pub what: String,
    /// Before: aliases to versions (null: not set), or the document's text (of a large one size and hash).
    pub from: Value,
    /// After, in the same form.
    pub to: Value,
}

impl Entry {
    /// The entry of an edit of the aliases.
    pub(crate) fn aliases(
        change: &Change,
        who: &Who,
        when: Timestamp,
        before: &Aliases,
        edit: &AliasEdit,
    ) -> Self {
        Self {
            when,
            who: who.0.clone(),
            what: what(change),
            from: json!(edit.before(before)),
            to: json!(edit.set),
        }
    }

    /// The entry of a new document.
    pub(crate) fn document(who: &Who, when: Timestamp, before: Option<&str>, after: &str) -> Self {
        Self {
            when,
            who: who.0.clone(),
            what: "rules set".to_owned(),
            from: before.map_or(Value::Null, text),
            to: text(after),
        }
    }
}

/// A document's text; of a large one only what tells it from others, since etcd takes 1.5 MiB in one transaction.
fn text(document: &str) -> Value {
    if document.len() <= TEXT_BYTES_MAX {
        return json!(document);
    }
    let hash = xxhash_rust::xxh3::xxh3_64(document.as_bytes());
    json!({"bytes": document.len(), "xxh3": format!("{hash:016x}")})
}

/// A change in the words of the command line.
fn what(change: &Change) -> String {
    match change {
        Change::Promote { version } => format!("promote {version}"),
        Change::First { version } => format!("promote {version} (the first version)"),
        Change::Rollback => "rollback".to_owned(),
        Change::Tag { name, version } => format!("tag {name} {version}"),
        Change::Untag { name } => format!("untag {name}"),
        Change::Document { .. } => "rules set".to_owned(),
    }
}

/// Adds an entry to `history.jsonl` in a service's state folder. The change itself stands whether this succeeds
/// or not.
pub(crate) fn record(folder: &Path, entry: &Entry) {
    let path = folder.join("history.jsonl");
    if let Err(error) = append(&path, entry) {
        tracing::error!(file = %path.display(), %error, what = entry.what, "the history could not be written");
    }
}

/// One line at the end. What a crash cut short is closed first, so that it spoils no other line.
fn append(path: &Path, entry: &Entry) -> io::Result<()> {
    if fs::metadata(path).is_ok_and(|m| m.len() > FILE_BYTES_MAX) {
        fs::rename(path, path.with_file_name("history.1.jsonl"))?;
    }
    let mut line = serde_json::to_vec(entry)?;
    line.push(b'\n');
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = fs::OpenOptions::new().create(true).append(true).read(true).mode(0o600).open(path)?;
    if ends_within_a_line(&mut file)? {
        line.insert(0, b'\n');
    }
    file.write_all(&line)?;
    file.sync_all()
}

fn ends_within_a_line(file: &mut fs::File) -> io::Result<bool> {
    if file.metadata()?.len() == 0 {
        return Ok(false);
    }
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last != [b'\n'])
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The entries that can be read.
    pub(crate) fn read(folder: &Path) -> Vec<Entry> {
        let text = fs::read_to_string(folder.join("history.jsonl")).unwrap();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    #[test]
    fn a_line_cut_by_a_crash_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("history.jsonl"), "{\"when\": \"2026").unwrap();
        let entry = Entry::document(&Who("bob".to_owned()), Timestamp::UNIX_EPOCH, None, "routes: []");
        record(folder.path(), &entry);
        record(folder.path(), &entry);
        assert_eq!(read(folder.path()), [entry.clone(), entry]);
    }

    #[test]
    fn a_large_document_is_named_by_its_size_and_hash() {
        let large = "#".repeat(TEXT_BYTES_MAX + 1);
        let entry =
            Entry::document(&Who("bob".to_owned()), Timestamp::UNIX_EPOCH, Some("routes: []"), &large);
        assert_eq!(entry.from, "routes: []");
        assert_eq!(entry.to["bytes"], large.len());
    }
}
