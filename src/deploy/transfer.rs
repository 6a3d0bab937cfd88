//! The names that programs give to files and folders while they transfer them. Pure.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

/// Folders that rsync keeps while it works: `--delay-updates`, and the usual `--partial-dir`.
const FOLDERS: [&[u8]; 2] = [b".~tmp~", b".rsync-partial"];
/// How names end that a file has only until it is whole: WinSCP's, and what many clients of sftp, ftp and http use.
const SUFFIXES: [&[u8]; 2] = [b".filepart", b".part"];
/// How rclone ends names (`.1a2b3c4d.partial`): these are the letters and digits between the dots.
const RCLONE_RANDOM: usize = 8;

/// What lies at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A folder.
    Folder,
    /// A regular file with these permissions.
    File {
        /// As in `st_mode`.
        mode: u32,
    },
    /// A symlink, a socket, and the like.
    Other,
}

/// Whether an entry of this name is there only while a transfer goes on.
pub(crate) fn is_unfinished(name: &OsStr, kind: Kind) -> bool {
    let name = name.as_bytes();
    match kind {
        Kind::Folder => FOLDERS.contains(&name),
        Kind::File { mode } => {
            is_of_rsync(name, mode)
                || SUFFIXES.iter().any(|suffix| name.len() > suffix.len() && name.ends_with(suffix))
                || is_of_rclone(name)
                || is_of_lftp(name)
        }
        Kind::Other => false,
    }
}

/// Whether a file is one that rsync writes before it renames it: `.NAME.XXXXXX`, six random letters and digits.
///
/// `.env.sample` has that shape too. rsync opens its temporary files to nobody but their owner, so where the
/// six are a word (small letters only), the file must be private as well.
fn is_of_rsync(name: &[u8], mode: u32) -> bool {
    let Some((stem, random)) = name.split_last_chunk::<6>() else { return false };
    let shaped = matches!(stem, [b'.', _, .., b'.']) && random.iter().all(u8::is_ascii_alphanumeric);
    let word = random.iter().all(u8::is_ascii_lowercase);
    let private = mode & 0o077 == 0;
    shaped && (!word || private)
}

/// `NAME.1a2b3c4d.partial`. A Handlebars partial, `menu.partial`, is none.
fn is_of_rclone(name: &[u8]) -> bool {
    let Some(stem) = name.strip_suffix(b".partial") else { return false };
    let mut parts = stem.rsplitn(2, |b| *b == b'.');
    let (random, name) = (parts.next().unwrap_or_default(), parts.next());
    name.is_some() && random.len() == RCLONE_RANDOM && random.iter().all(u8::is_ascii_hexdigit)
}

/// `.in.NAME.`
fn is_of_lftp(name: &[u8]) -> bool {
    matches!(name.strip_prefix(b".in."), Some([_, .., b'.']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temporary_files_are_known_by_name_and_mode() {
        for (name, mode, expected) in [
            (".server.js.Xa81bQ", 0o600, true),
            (".server.js.Xa81bQ", 0o644, true),
            ("..env.0aB3dE", 0o600, true),
            (".a.123456", 0o700, true),
            (".server.js.qwerty", 0o600, true),
            (".env.sample", 0o644, false),
            (".eslintrc.config", 0o644, false),
            (".server.js.Xa81b", 0o600, false),
            (".server.js.Xa81bQ7", 0o600, false),
            (".server.js.Xa8-bQ", 0o600, false),
            ("server.js.Xa81bQ", 0o600, false),
            ("..Xa81bQ", 0o600, false),
            (".Xa81bQ", 0o600, false),
            ("Xa81bQ", 0o600, false),
            ("app.jar.filepart", 0o644, true),
            ("app.jar.part", 0o644, true),
            (".part", 0o644, false),
            ("part", 0o644, false),
            ("app.parts", 0o644, false),
            ("app.jar.1a2b3c4d.partial", 0o644, true),
            ("menu.partial", 0o644, false),
            ("deadbeef.partial", 0o644, false),
            ("menu.template.partial", 0o644, false),
            (".in.app.jar.", 0o644, true),
            (".in.", 0o644, false),
            (".in.app", 0o644, false),
            ("", 0o600, false),
        ] {
            assert_eq!(is_unfinished(OsStr::new(name), Kind::File { mode }), expected, "{name} {mode:o}");
        }
    }

    #[test]
    fn folders_are_known_by_name() {
        for (name, expected) in
            [(".~tmp~", true), (".rsync-partial", true), ("tmp", false), ("a.part", false)]
        {
            assert_eq!(is_unfinished(OsStr::new(name), Kind::Folder), expected, "{name}");
        }
        assert!(!is_unfinished(OsStr::new("current.part"), Kind::Other), "a link is whole");
    }
}
