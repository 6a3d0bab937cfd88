//! The last look at a folder that would count as complete: what speaks against it.
//!
//! Asked in this order, the cheapest first: is the marker there, does anybody still write, are the checksums right,
//! and has nothing changed meanwhile. Checksums that were right are not asked for again while the files are the same:
//! a start of switchman must not have to read every version.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::inventory::Inventory;
use super::manifest::{self, Manifest, Unfinished};
use super::restart_file::RestartFile;
use super::sums;
use super::writers::{Who, writer};

/// What is asked of a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// What the look saw that found it quiet.
    pub seen: Manifest,
    /// Where the version runs already: the files that it was started from. What its workers do beside them
    /// does not count.
    pub runs: Option<Arc<Inventory>>,
}

/// What came out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// Nothing speaks against it.
    Complete {
        /// The files as they were then.
        files: Arc<Inventory>,
        /// The file that asks for a restart, as it was then.
        restart_file: RestartFile,
    },
    /// It has changed since the look.
    Changed,
    /// More is to come.
    Unfinished(Unfinished),
    /// It is not what its list of checksums says; in words.
    Broken(String),
}

/// A proof, and what it cost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proven {
    /// When it was done.
    pub at: Instant,
    /// How long it took.
    pub took: Duration,
    /// What came out.
    pub proof: Proof,
}

/// Proves or refutes that `folder` is complete; `marker` is the file that comes last, `before` are the files as they
/// were when it was complete once. Blocks for as long as it takes to read all files, where there are checksums.
pub(crate) fn prove(
    folder: &Path,
    marker: Option<&PathBuf>,
    before: Option<&Inventory>,
    claim: &Claim,
) -> Proven {
    let begun = Instant::now();
    let proof = refute(folder, marker, before, claim).unwrap_or_else(|| again(folder, claim));
    let at = Instant::now();
    Proven { at, took: at - begun, proof }
}

fn refute(
    folder: &Path,
    marker: Option<&PathBuf>,
    before: Option<&Inventory>,
    claim: &Claim,
) -> Option<Proof> {
    if let Some(marker) = marker
        && !folder.join(marker).is_file()
    {
        return Some(Proof::Unfinished(Unfinished::Awaits(marker.clone())));
    }
    let who = if claim.runs.is_some() { Who::Strangers } else { Who::Anybody };
    if let Some(writer) = writer(folder, who) {
        return Some(Proof::Unfinished(Unfinished::Open(writer)));
    }
    let same = before.is_some_and(|before| before.compare(&claim.seen.inventory).0.is_empty());
    let marker = marker.filter(|_| !same)?;
    sums::check(folder, marker).err().map(Proof::Broken)
}

/// A writer that was done before `/proc` was read may have written after the look.
fn again(folder: &Path, claim: &Claim) -> Proof {
    let now = manifest::look(folder).manifest;
    let same = match &claim.runs {
        None => now == claim.seen,
        Some(files) => files.compare(&now.inventory).1 == files.compare(&claim.seen.inventory).1,
    };
    if !same {
        return Proof::Changed;
    }
    Proof::Complete { restart_file: RestartFile::read(folder, now.newest), files: now.inventory }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn claim(folder: &Path) -> Claim {
        Claim { seen: manifest::look(folder).manifest, runs: None }
    }

    #[test]
    fn what_speaks_against_a_folder_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let marker = PathBuf::from("manifest.sha256");
        let prove = |claim: &Claim| prove(folder, Some(&marker), None, claim).proof;
        fs::write(folder.join("a"), "").unwrap();
        assert_eq!(prove(&claim(folder)), Proof::Unfinished(Unfinished::Awaits(marker.clone())));

        fs::create_dir(folder.join(&marker)).unwrap();
        assert!(matches!(prove(&claim(folder)), Proof::Unfinished(_)), "a folder is no marker");
        fs::remove_dir(folder.join(&marker)).unwrap();

        let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        fs::write(folder.join(&marker), format!("{sum}  b\n")).unwrap();
        assert_eq!(prove(&claim(folder)), Proof::Broken("manifest.sha256: b is missing".to_owned()));

        let before = claim(folder);
        fs::write(folder.join(&marker), format!("{sum}  a\n")).unwrap();
        assert_eq!(prove(&before), Proof::Changed);
        let Proof::Complete { files, .. } = prove(&claim(folder)) else { panic!("it is complete") };

        let after =
            |before: &Inventory| super::prove(folder, Some(&marker), Some(before), &claim(folder)).proof;
        assert!(matches!(after(&files), Proof::Complete { .. }));
        fs::write(folder.join("a"), "x").unwrap();
        assert!(matches!(after(&files), Proof::Broken(_)), "it changed while nobody looked");
        let kept = manifest::look(folder).manifest.inventory;
        assert!(matches!(after(&kept), Proof::Complete { .. }), "the same files are not read again");
        fs::write(folder.join("a"), "").unwrap();
        let Proof::Complete { files, .. } = prove(&claim(folder)) else { panic!("it is complete again") };

        // Once it runs, what comes beside its files does not count; what becomes of them does.
        let runs = Some(files);
        let running = Claim { runs: runs.clone(), ..claim(folder) };
        fs::write(folder.join("app.log"), "started").unwrap();
        assert!(matches!(prove(&running), Proof::Complete { .. }));
        fs::remove_file(folder.join("a")).unwrap();
        fs::write(folder.join("a"), "").unwrap();
        assert_eq!(prove(&running), Proof::Changed);
    }
}
