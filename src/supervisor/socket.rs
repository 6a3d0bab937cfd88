//! The socket files that workers were given: one number each, never used twice, in a folder for our user alone, or for
//! the group that the worker runs as.
//!
//! ```text
//! <state>/run/@sockets/7.sock        the usual place; `@` because no service can be called so
//! <state>/run/@sockets/1000/8.sock   for a worker with the group 1000
//! /tmp/switchman-Xa81bQ/7.sock       where that is too long for a socket; <state>/run/@sockets then links to it
//! ```
//!
//! The kernel takes at most [`PATH_MAX`] bytes, and a state folder may lie deep. The link tells the next switchman what
//! one that was killed has left.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

use super::launch::reach;
use crate::config::Account;

/// The longest path of a socket, in bytes: `sun_path` in unix(7), without the NUL at its end.
const PATH_MAX: usize = 107;
/// The longest name of a socket in its folder, with the group's and the slashes before them.
const NAME_MAX: usize = "/4294967295/18446744073709551615.sock".len();
/// The folder of sockets, in the folder of pid files; or the link to it.
const FOLDER: &str = "@sockets";
/// What the name of a folder elsewhere begins with.
const PREFIX: &str = "switchman-";

/// Hands out socket files; clonable.
#[derive(Debug, Clone)]
pub(crate) struct SocketTable(Arc<Sockets>);

#[derive(Debug)]
struct Sockets {
    /// `<state>/run`.
    run: PathBuf,
    last: AtomicU64,
    /// Made when the first socket is wanted.
    folder: Mutex<Option<PathBuf>>,
}

/// One path that a worker may listen on; what lies there is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct SocketGuard {
    path: PathBuf,
    /// The folder outlives its sockets.
    _table: SocketTable,
}

/// No folder for sockets could be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoSocket {
    /// The system does not let us.
    #[error("the folder for sockets {} cannot be made: {source}; hint: make it writable, or use `upstream: port`", folder.display())]
    Unusable { folder: PathBuf, source: io::Error },
    /// Both the state folder and the runtime folder have too long a path.
    #[error("a socket in {} would have more than {PATH_MAX} bytes in its path; hint: set a shorter TMPDIR or `state`, or use `upstream: port`", folder.display())]
    TooLong { folder: PathBuf },
}

impl SocketTable {
    /// For the sockets below `run`, the folder of pid files. Makes nothing yet.
    pub(crate) fn new(run: PathBuf) -> Self {
        Self(Arc::new(Sockets { run, last: AtomicU64::new(0), folder: Mutex::default() }))
    }

    /// A path that no worker was ever given by this switchman, with nothing there.
    /// A process that runs as `account` can make it.
    pub(crate) fn pick(&self, account: Option<&Account>) -> Result<SocketGuard, NoSocket> {
        let number = self.0.last.fetch_add(1, Relaxed) + 1;
        let folder = self.0.folder()?;
        let folder = match account {
            None => folder,
            Some(account) => of_group(&folder, account)
                .map_err(|source| NoSocket::Unusable { folder: folder.clone(), source })?,
        };
        let path = folder.join(format!("{number}.sock"));
        // One that an earlier switchman left, where its workers would not end.
        let _ = fs::remove_file(&path);
        Ok(SocketGuard { path, _table: self.clone() })
    }

    /// This path, for a worker that listens there already. Others go into the same folder, under later numbers.
    pub(crate) fn claim(&self, path: &Path) -> SocketGuard {
        let number = path.file_stem().and_then(|name| name.to_str()?.parse().ok());
        self.0.last.fetch_max(number.unwrap_or(0), Relaxed);
        let mut folder = self.0.folder.lock().unwrap_or_else(PoisonError::into_inner);
        // Those of a group lie one deeper.
        let of_group = |folder: &&Path| folder.file_name().is_some_and(is_group);
        let parent = path.parent().map(|part| part.parent().filter(|_| of_group(&part)).unwrap_or(part));
        *folder = folder.take().or_else(|| parent.map(Path::to_owned));
        SocketGuard { path: path.to_owned(), _table: self.clone() }
    }
}

impl Sockets {
    /// The folder, made if it is not there (any more).
    fn folder(&self) -> Result<PathBuf, NoSocket> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(folder) = folder.as_ref().filter(|folder| folder.is_dir()) {
            return Ok(folder.clone());
        }
        let usual = self.run.join(FOLDER);
        let unusable = |source| NoSocket::Unusable { folder: usual.clone(), source };
        let made = if has_room(&usual) {
            DirBuilder::new().recursive(true).mode(0o700).create(&usual).map_err(unusable)?;
            usual
        } else {
            let made = elsewhere()?;
            let _ = fs::remove_file(&usual);
            fs::create_dir_all(&self.run).and_then(|()| symlink(&made, &usual)).map_err(unusable)?;
            made
        };
        Ok(folder.insert(made).clone())
    }
}

/// The part of the folder that a group may make sockets in.
fn of_group(folder: &Path, account: &Account) -> io::Result<PathBuf> {
    reach::pass(folder)?;
    let part = folder.join(account.gid.to_string());
    match DirBuilder::new().mode(0o700).create(&part) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    reach::share(&part, account)?;
    Ok(part)
}

/// Whether a folder is a part that [`of_group`] has made.
fn is_group(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| name.parse::<u32>().is_ok())
}

/// A new folder with a short path, 0700.
fn elsewhere() -> Result<PathBuf, NoSocket> {
    let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let runtime = runtime.filter(|folder| folder.is_absolute() && folder.is_dir());
    let parent = runtime.unwrap_or_else(std::env::temp_dir);
    let made = tempfile::Builder::new()
        .prefix(PREFIX)
        .permissions(fs::Permissions::from_mode(0o700))
        .tempdir_in(&parent)
        .map_err(|source| NoSocket::Unusable { folder: parent.clone(), source })?;
    match has_room(made.path()) {
        true => Ok(made.keep()),
        false => Err(NoSocket::TooLong { folder: parent }),
    }
}

fn has_room(folder: &Path) -> bool {
    folder.as_os_str().as_bytes().len() + NAME_MAX <= PATH_MAX
}

impl Drop for Sockets {
    /// The folder goes with its last socket; one that is not empty is left for the next start to remove.
    fn drop(&mut self) {
        let folder = self.folder.get_mut().unwrap_or_else(PoisonError::into_inner);
        for part in folder.iter().filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten() {
            // Of a group; a socket is no folder, and stays.
            let _ = fs::remove_dir(part.path());
        }
        if folder.as_ref().is_some_and(|folder| fs::remove_dir(folder).is_ok()) {
            let _ = fs::remove_file(self.run.join(FOLDER));
        }
    }
}

impl SocketGuard {
    /// Where a worker with this socket listens.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for SocketGuard {
    fn drop(&mut self) {
        // The worker may have removed it, or never made it.
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes the sockets of an earlier switchman, which was killed, but for those `kept` by workers that go on; with the last
/// one also their folder, which may lie elsewhere.
pub(crate) fn remove_left(run: &Path, kept: &HashSet<PathBuf>) {
    let usual = run.join(FOLDER);
    let elsewhere = fs::read_link(&usual).ok();
    let folder = elsewhere.as_ref().unwrap_or(&usual);
    let name = folder.file_name().and_then(|name| name.to_str());
    if elsewhere.is_some() && !name.is_some_and(|name| name.starts_with(PREFIX)) {
        // A link that we have not made.
        return;
    }
    // It may be somebody else's by now; then the system says no, here and below.
    let entries =
        |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let parts: Vec<PathBuf> = entries(folder).filter(|path| path.file_name().is_some_and(is_group)).collect();
    for path in parts.iter().flat_map(|part| entries(part)).chain(entries(folder)) {
        if !kept.contains(&path) {
            let _ = fs::remove_file(path);
        }
    }
    for part in parts {
        // A link in its place is no folder.
        let _ = fs::remove_dir(part);
    }
    if fs::remove_dir(folder).is_ok() && elsewhere.is_some() {
        let _ = fs::remove_file(&usual);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn mode(folder: &Path) -> u32 {
        fs::metadata(folder).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn each_worker_gets_a_path_of_its_own_that_is_gone_with_it() {
        let state = tempfile::tempdir().unwrap();
        let table = SocketTable::new(state.path().join("run"));
        assert!(!state.path().join("run").exists(), "nothing is made before it is wanted");
        let (one, two) = (table.pick(None).unwrap(), table.pick(None).unwrap());
        assert_ne!(one.path(), two.path());
        let folder = one.path().parent().unwrap().to_owned();
        assert_eq!((folder.parent(), mode(&folder)), (Some(&*state.path().join("run")), 0o700));

        let _listener = UnixListener::bind(one.path()).unwrap();
        let before = one.path().to_owned();
        drop(one);
        assert!(!before.exists());
        assert_ne!(table.pick(None).unwrap().path(), before, "no path is given twice");
        drop(table);
        assert!(folder.exists(), "a worker still holds its socket");
        drop(two);
        assert!(!folder.exists());
    }

    #[test]
    fn what_lies_in_the_way_is_removed() {
        let state = tempfile::tempdir().unwrap();
        let folder = state.path().join(FOLDER);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("1.sock"), "").unwrap();
        let guard = SocketTable::new(state.path().to_owned()).pick(None).unwrap();
        assert!(!guard.path().exists() && guard.path().starts_with(&folder));
    }

    #[test]
    fn a_state_folder_with_a_long_path_has_its_sockets_elsewhere() {
        let state = tempfile::tempdir().unwrap();
        let run = state.path().join("x".repeat(100)).join("run");
        let table = SocketTable::new(run.clone());
        let guard = table.pick(None).unwrap();
        let folder = guard.path().parent().unwrap().to_owned();
        assert!(guard.path().as_os_str().len() <= PATH_MAX && !folder.starts_with(&run), "{guard:?}");
        assert_eq!((fs::read_link(run.join(FOLDER)).unwrap(), mode(&folder)), (folder.clone(), 0o700));
        UnixListener::bind(guard.path()).unwrap();

        // As if it had been killed.
        std::mem::forget(guard);
        std::mem::forget(table);
        remove_left(&run, &HashSet::new());
        assert!(!folder.exists());

        // The link leads nowhere; the next one makes another.
        let table = SocketTable::new(run.clone());
        let folder = table.pick(None).unwrap().path().parent().unwrap().to_owned();
        assert!(folder.is_dir());
        drop(table);
        assert!(
            !folder.exists() && fs::symlink_metadata(run.join(FOLDER)).is_err(),
            "both are gone at the end"
        );
    }

    #[test]
    fn a_link_to_what_is_not_ours_is_not_followed() {
        let state = tempfile::tempdir().unwrap();
        let precious = state.path().join("precious");
        fs::create_dir(&precious).unwrap();
        symlink(&precious, state.path().join(FOLDER)).unwrap();
        remove_left(state.path(), &HashSet::new());
        assert!(precious.is_dir());
    }
}
