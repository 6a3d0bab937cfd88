//! Reads small text files with a limit, so that nothing that lies where a configuration is expected (a device,
//! a pipe, a huge upload, a link to somewhere else) can hang, fill or mislead switchman.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{Mode, OFlags};

use crate::hint::Problem;

/// The longest file that is read, in bytes.
pub(super) const SIZE_MAX: u64 = 1024 * 1024;

/// Whether a symbolic link is read through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// For files that the operator names.
    Follow,
    /// For files that come with a deploy.
    Refuse,
}

/// The text of a regular file; none where there is no such file.
pub(super) fn read_if_there(path: &Path, links: Links) -> Result<Option<String>, Box<Problem>> {
    match read_io(path, links) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path, &error)),
    }
}

/// The text of a regular file.
pub(super) fn read(path: &Path, links: Links) -> Result<String, Box<Problem>> {
    read_io(path, links).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> Box<Problem> {
    let hint = match error.kind() {
        io::ErrorKind::NotFound => "look at the path; it must be there before it is read",
        io::ErrorKind::PermissionDenied => "let the user that runs switchman read it",
        io::ErrorKind::InvalidData => "write it as UTF-8 text",
        _ => "put a regular file of at most 1 MiB there",
    };
    let problem = Problem::error("", format!("the file cannot be read: {}", reason(error))).hint(hint);
    Box::new(Problem { file: Some(Arc::from(path.display().to_string())), ..problem })
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "it is not there".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::InvalidData => "it is not UTF-8 text".to_owned(),
        _ if error.raw_os_error() == Some(rustix::io::Errno::LOOP.raw_os_error()) => {
            "it is a symbolic link, which is not followed here".to_owned()
        }
        _ => error.to_string(),
    }
}

fn read_io(path: &Path, links: Links) -> io::Result<String> {
    // NONBLOCK: opening a pipe must not wait for somebody to write to it.
    let mut flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    if links == Links::Refuse {
        flags |= OFlags::NOFOLLOW;
    }
    let file = File::from(rustix::fs::open(path, flags, Mode::empty())?);
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::Error::other("it is a folder"));
    }
    if !kind.is_file() {
        return Err(io::Error::other("it is not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(SIZE_MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > SIZE_MAX {
        return Err(io::Error::other("it is larger than 1 MiB"));
    }
    String::from_utf8(bytes).map_err(|_| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_small_regular_text_files_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("text"), "a: 1\n").unwrap();
        std::fs::write(at("binary"), [0xff, 0xfe]).unwrap();
        std::fs::write(at("large"), vec![b' '; SIZE_MAX as usize + 1]).unwrap();
        std::fs::write(at("full"), vec![b' '; SIZE_MAX as usize]).unwrap();
        std::os::unix::fs::symlink("text", at("link")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, Mode::RUSR, 0).unwrap();

        assert_eq!(read(&at("text"), Links::Refuse).unwrap(), "a: 1\n");
        assert_eq!(read(&at("link"), Links::Follow).unwrap(), "a: 1\n");
        assert!(read(&at("full"), Links::Refuse).is_ok());
        for (name, links, message) in [
            ("link", Links::Refuse, "symbolic link"),
            ("binary", Links::Follow, "not UTF-8 text"),
            ("large", Links::Follow, "larger than 1 MiB"),
            ("pipe", Links::Follow, "not a regular file"),
            (".", Links::Follow, "it is a folder"),
            ("none", Links::Follow, "it is not there"),
        ] {
            let problem = read(&at(name), links).unwrap_err();
            assert!(problem.message.contains(message), "{name}: {problem}");
            assert_eq!(problem.file.as_deref(), at(name).to_str());
        }
        assert_eq!(read_if_there(&at("none"), Links::Refuse), Ok(None));
        assert!(read_if_there(&at("link"), Links::Refuse).is_err());
    }
}
