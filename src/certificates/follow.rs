//! Keeps the certificates in force true to their files.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::select_all;
use tokio::time::{MissedTickBehavior, timeout};

use super::pair::Files;
use super::{Pair, PairError, Spec, Store};
use crate::fs_watch::{self, Watch};

/// Certificate and key are two files: they are read when nothing has changed for this long.
const QUIET: Duration = Duration::from_millis(200);
/// How often the files are looked at all the same: a link may lead to where nobody watches.
const LOOK_EVERY: Duration = Duration::from_secs(60);

/// What was last found in the files of a pair.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Digest((u64, u64)),
    Unreadable(PairError),
}

/// One pair, and how far it was followed.
struct Followed {
    spec: Spec,
    /// In force.
    pair: Arc<Pair>,
    found: Option<Found>,
}

/// Reads the pairs of `specs`, and the future that keeps the store true to the files for as long as it is polled.
///
/// # Errors
/// The first pair that cannot be used.
pub fn follow(specs: &[Spec]) -> Result<(Arc<Store>, impl Future<Output = ()> + Send + use<>), PairError> {
    let mut followed = Vec::new();
    for spec in specs {
        let files = Files::read(spec)?;
        let pair = Arc::new(Pair::new(spec, &files)?);
        warn(&pair);
        followed.push(Followed { spec: spec.clone(), pair, found: Some(Found::Digest(files.digest())) });
    }
    let store = Arc::new(Store::new(&in_force(&followed)));
    Ok((store.clone(), run(store, followed)))
}

async fn run(store: Arc<Store>, mut followed: Vec<Followed>) {
    let mut watches: Vec<Watch> = folders(&followed).into_iter().map(fs_watch::watch).collect();
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = look.tick() => {}
            () = changed(&mut watches) => while timeout(QUIET, changed(&mut watches)).await.is_ok() {},
        }
        // Each pair is looked at, whatever becomes of the others.
        let news = followed.iter_mut().map(Followed::look).filter(|new| *new).count();
        if news > 0 {
            store.replace(&in_force(&followed));
        }
    }
}

/// Waits until something has changed in one of the folders.
async fn changed(watches: &mut [Watch]) {
    if watches.is_empty() {
        return std::future::pending().await;
    }
    select_all(watches.iter_mut().map(|watch| Box::pin(watch.next()))).await;
}

/// The folders of all files, and of what they are links to.
fn folders(followed: &[Followed]) -> BTreeSet<std::path::PathBuf> {
    let files = followed.iter().flat_map(|f| [&f.spec.certificate, &f.spec.key]);
    let real = files.clone().filter_map(|file| file.canonicalize().ok());
    files.cloned().chain(real).filter_map(|file| file.parent().map(Path::to_owned)).collect()
}

fn in_force(followed: &[Followed]) -> Vec<Arc<Pair>> {
    followed.iter().map(|followed| followed.pair.clone()).collect()
}

fn warn(pair: &Pair) {
    for warning in &pair.warnings {
        tracing::warn!("{warning}");
    }
}

impl Followed {
    /// Whether the files hold another pair that can be used; from then on it is in force. What is broken is said
    /// once.
    fn look(&mut self) -> bool {
        let read = Files::read(&self.spec);
        let found = match &read {
            Ok(files) => Found::Digest(files.digest()),
            Err(error) => Found::Unreadable(error.clone()),
        };
        if self.found.as_ref() == Some(&found) {
            return false;
        }
        self.found = Some(found);
        match read.and_then(|files| Pair::new(&self.spec, &files)) {
            Ok(pair) => {
                let file = self.spec.certificate.display();
                tracing::info!(certificate = %file, hosts = ?pair.hosts, "a new certificate is in force");
                warn(&pair);
                self.pair = Arc::new(pair);
                true
            }
            Err(error) => {
                let (file, reason, hint) = (error.file.display(), error.reason, error.hint);
                tracing::error!(%file, reason, hint, "a new certificate cannot be used; the old one stays in force");
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificates::pair::tests::write;

    #[test]
    fn a_new_pair_replaces_the_old_one_and_a_broken_one_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let spec = write(folder.path(), "a", &["a.example"]);
        let pair = Arc::new(Pair::load(&spec).unwrap());
        let mut followed = Followed { spec: spec.clone(), pair: pair.clone(), found: None };
        assert!(followed.look(), "nothing is known of it");
        assert!(!followed.look(), "nothing has changed");
        let old = followed.pair.clone();

        let other = write(folder.path(), "b", &["b.example"]);
        std::fs::copy(&other.certificate, &spec.certificate).unwrap();
        assert!(!followed.look(), "half of a pair");
        assert!(Arc::ptr_eq(&followed.pair, &old));
        std::fs::remove_file(&spec.key).unwrap();
        assert!(!followed.look(), "its key is gone");
        std::fs::copy(&other.key, &spec.key).unwrap();
        assert!(followed.look());
        assert_eq!(followed.pair.hosts, ["b.example"]);
    }
}
