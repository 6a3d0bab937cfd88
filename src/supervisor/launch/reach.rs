//! The way of workers that run as somebody else to what is theirs below the state folder.
//!
//! ```text
//! <state>                     0711  they pass through it; what else lies there is for our user alone
//! <state>/run/app/4f2a91c     1730  ours, their group's to make files in: the pid file
//! <state>/run/@sockets/1000   1730  likewise: sockets
//! ```
//!
//! Those folders stay ours and are sticky: a worker makes and removes files of its own there, and can neither remove nor
//! replace ours.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _, chown};
use std::path::Path;

use crate::config::Account;

/// What others may do with a folder that they pass through.
const PASS: u32 = 0o011;
/// A folder that a group may make files in, and that others of it cannot remove them from.
const SHARED: u32 = 0o1730;

/// Lets others pass through the state folder to its part `run`. What lies beside that was protected by the folder, and
/// is now for our user alone itself; so are the folders `private`, which are made if they are not there.
pub(crate) fn open<'a>(state: &Path, run: &str, private: impl Iterator<Item = &'a str>) -> io::Result<()> {
    let mode = fs::metadata(state)?.permissions().mode();
    if mode & PASS != PASS {
        for name in private {
            match DirBuilder::new().mode(0o700).create(state.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        for entry in fs::read_dir(state)?.flatten().filter(|entry| entry.file_name() != run) {
            let kind = entry.file_type()?;
            if !kind.is_symlink() {
                let mode = entry.metadata()?.permissions().mode();
                fs::set_permissions(entry.path(), Permissions::from_mode(mode & 0o7700))?;
            }
        }
        fs::set_permissions(state, Permissions::from_mode(mode | PASS))?;
    }
    let run = state.join(run);
    fs::create_dir_all(&run)?;
    pass(&run)?;
    // A state folder deep in somebody's home is out of reach, whatever its own mode.
    let closed = state
        .ancestors()
        .skip(1)
        .find(|above| fs::metadata(above).is_ok_and(|folder| folder.permissions().mode() & 0o001 == 0));
    if let Some(above) = closed {
        tracing::warn!(
            "workers with `user` or `group` cannot reach their files in {}: others may not pass through {}; \
             hint: set `state: /var/lib/switchman`, or: chmod o+x {}",
            state.display(),
            above.display(),
            above.display()
        );
    }
    Ok(())
}

/// Lets others pass through one of our folders.
pub(crate) fn pass(folder: &Path) -> io::Result<()> {
    let mode = fs::metadata(folder)?.permissions().mode();
    if mode & PASS != PASS {
        fs::set_permissions(folder, Permissions::from_mode(mode | PASS))
    } else {
        Ok(())
    }
}

/// Lets the account's group make files in one of our folders.
pub(crate) fn share(folder: &Path, account: &Account) -> io::Result<()> {
    chown(folder, None, Some(account.gid))?;
    fs::set_permissions(folder, Permissions::from_mode(SHARED))
}

/// Lets the account's group read and write one of our files.
pub(crate) fn give(file: &Path, account: &Account) -> io::Result<()> {
    chown(file, None, Some(account.gid))?;
    fs::set_permissions(file, Permissions::from_mode(0o660))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn what_the_state_folder_protected_protects_itself_once_others_pass_through() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().join("state");
        DirBuilder::new().mode(0o700).create(&state).unwrap();
        fs::create_dir(state.join("app")).unwrap();
        fs::write(state.join("secret"), "").unwrap();
        open(&state, "run", ["app", "logs"].into_iter()).unwrap();
        let modes = ["", "run", "app", "logs", "secret"].map(|name| mode(&state.join(name)) & 0o077);
        assert_eq!(modes, [0o011, mode(&state.join("run")) & 0o077, 0, 0, 0]);
        assert_eq!(mode(&state.join("run")) & PASS, PASS);

        // A second time nothing is touched: a person may have opened it for others.
        fs::set_permissions(state.join("logs"), Permissions::from_mode(0o750)).unwrap();
        open(&state, "run", ["app", "logs"].into_iter()).unwrap();
        assert_eq!(mode(&state.join("logs")), 0o750);
    }
}
