//! A list of checksums as `sha256sum` writes it, and whether the files of a folder are what it says.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Component, Path, PathBuf};

use rustix::fs::OFlags;
use sha2::{Digest, Sha256};

/// The longest list that is read, in bytes: some hundred thousand files.
const LIST_MAX: u64 = 64 << 20;
/// Read at a time while a file is hashed, in bytes.
const CHUNK: usize = 256 << 10;
/// Files that are named where many are wrong.
const NAMED_MAX: usize = 5;

type Sum = [u8; 32];

/// One line of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    sum: Sum,
    file: PathBuf,
}

/// Checks every file that `list`, a file below `folder`, names, if it is such a list at all: by its name
/// (`manifest.sha256`, `SHA256SUMS`) or by its first line. Blocks for as long as it takes to read the files.
///
/// # Errors
/// What is wrong, in words, with the names of the files.
pub(crate) fn check(folder: &Path, list: &Path) -> Result<Checked, String> {
    let wrong = |what: String| format!("{}: {what}", list.display());
    let text = read_list(&folder.join(list)).map_err(|error| wrong(format!("it cannot be read: {error}")))?;
    if !is_list(list, &text) {
        return Ok(Checked::NoList);
    }
    let entries = parse(&text).map_err(wrong)?;
    let entries: Vec<Entry> = entries.into_iter().filter(|entry| entry.file != list).collect();
    if entries.is_empty() {
        return Err(wrong("it lists no file".to_owned()));
    }
    let top = folder.canonicalize().map_err(|error| wrong(error.to_string()))?;
    let mut wrongs = entries.iter().filter_map(|entry| check_file(&top, entry).err());
    let named: Vec<String> = wrongs.by_ref().take(NAMED_MAX).collect();
    match (named.is_empty(), wrongs.next().is_some()) {
        (true, _) => Ok(Checked::Good),
        (false, more) => Err(wrong(named.join(", ") + if more { ", and others" } else { "" })),
    }
}

/// What became of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Checked {
    /// The file is no list of checksums.
    NoList,
    /// All files are what it says.
    Good,
}

fn read_list(path: &Path) -> io::Result<Vec<u8>> {
    let mut text = Vec::new();
    open(path)?.take(LIST_MAX + 1).read_to_end(&mut text)?;
    if text.len() as u64 > LIST_MAX {
        return Err(io::Error::other("it is longer than 64 MiB"));
    }
    Ok(text)
}

/// Opens a regular file; nothing else can be opened for want of a writer, or read without end.
fn open(path: &Path) -> io::Result<File> {
    let file = File::options().read(true).custom_flags(OFlags::NONBLOCK.bits().cast_signed()).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    Ok(file)
}

fn is_list(list: &Path, text: &[u8]) -> bool {
    let name = list.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    name.contains("sha256") || lines(text).next().is_some_and(|(_, line)| parse_line(line).is_some())
}

/// The lines that say something, with their numbers.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let lines = text.split(|b| *b == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    (1..).zip(lines).filter(|(_, line)| !line.is_empty() && !line.starts_with(b"#"))
}

fn parse(text: &[u8]) -> Result<Vec<Entry>, String> {
    let entry = |(number, line): (usize, &[u8])| {
        let Some((sum, name)) = parse_line(line) else {
            let shown: String = String::from_utf8_lossy(line).chars().take(80).collect();
            return Err(format!("line {number} is not as `sha256sum` writes it: `{shown}`"));
        };
        let path = Path::new(&name);
        let inside = path.components().all(|c| matches!(c, Component::Normal(_) | Component::CurDir));
        if !inside {
            return Err(format!("line {number} names `{}`, which is not below the folder", path.display()));
        }
        let normal = |c| if let Component::Normal(part) = c { Some(part) } else { None };
        Ok(Entry { sum, file: path.components().filter_map(normal).collect() })
    };
    lines(text).map(entry).collect()
}

/// `SUM  NAME`, `SUM *NAME`, or with `--tag`: `SHA256 (NAME) = SUM`. A backslash at the beginning says that line
/// breaks and backslashes in the name are escaped.
fn parse_line(line: &[u8]) -> Option<(Sum, OsString)> {
    let (escaped, line) = line.strip_prefix(b"\\").map_or((false, line), |line| (true, line));
    let (sum, name) = match line.strip_prefix(b"SHA256 (") {
        Some(tagged) => {
            let (name, sum) = tagged.split_at_checked(tagged.len().checked_sub(64)?)?;
            (sum, name.strip_suffix(b") = ")?)
        }
        None => {
            let (sum, name) = line.split_at_checked(64)?;
            (sum, name.strip_prefix(b"  ").or_else(|| name.strip_prefix(b" *"))?)
        }
    };
    let name = if escaped { unescape(name)? } else { name.to_owned() };
    (!name.is_empty()).then_some((hex(sum)?, OsString::from_vec(name)))
}

fn unescape(name: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = name.iter();
    let mut plain = Vec::with_capacity(name.len());
    while let Some(byte) = bytes.next() {
        plain.push(match (byte, byte == &b'\\') {
            (byte, false) => *byte,
            (_, true) => match bytes.next()? {
                b'\\' => b'\\',
                b'n' => b'\n',
                b'r' => b'\r',
                _ => return None,
            },
        });
    }
    Some(plain)
}

fn hex(text: &[u8]) -> Option<Sum> {
    let mut sum = Sum::default();
    for (byte, digits) in sum.iter_mut().zip(text.chunks_exact(2)) {
        if !digits.iter().all(u8::is_ascii_hexdigit) {
            return None;
        }
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    Some(sum)
}

/// What is wrong with one file below `top`, a path without symlinks.
fn check_file(top: &Path, entry: &Entry) -> Result<(), String> {
    let name = entry.file.display();
    let unreadable = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => format!("{name} is missing"),
        _ => format!("{name} cannot be read: {error}"),
    };
    let path = top.join(&entry.file).canonicalize().map_err(unreadable)?;
    if !path.starts_with(top) {
        return Err(format!("{name} is a symlink that leads out of the folder"));
    }
    let sum = hash(open(&path).map_err(unreadable)?).map_err(unreadable)?;
    if sum == entry.sum { Ok(()) } else { Err(format!("{name} is not what it says (another checksum)")) }
}

fn hash(mut file: File) -> io::Result<Sum> {
    let mut hasher = Sha256::new();
    let mut chunk = vec![0; CHUNK];
    loop {
        match file.read(&mut chunk) {
            Ok(0) => return Ok(hasher.finalize().into()),
            Ok(count) => hasher.update(&chunk[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use proptest::prelude::*;

    use super::*;

    const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn name_of(line: &str) -> Option<String> {
        parse_line(line.as_bytes()).map(|(_, name)| name.into_string().unwrap())
    }

    #[test]
    fn lines_are_read_as_sha256sum_writes_them() {
        for (line, name) in [
            (format!("{EMPTY}  a b.js"), Some("a b.js")),
            (format!("{EMPTY} *a"), Some("a")),
            (format!("{}  a", EMPTY.to_uppercase()), Some("a")),
            (format!("SHA256 (a (1).js) = {EMPTY}"), Some("a (1).js")),
            (format!("\\{EMPTY}  a\\nb\\\\c"), Some("a\nb\\c")),
            (format!("\\SHA256 (a\\nb) = {EMPTY}"), Some("a\nb")),
            (format!("{EMPTY}  "), None),
            (format!("{EMPTY} a"), None),
            (EMPTY.to_owned(), None),
            (format!("{}  a", &EMPTY[1..]), None),
            (format!("+{}  a", &EMPTY[1..]), None),
            (format!("\\{EMPTY}  a\\x"), None),
            (format!("SHA256 () = {EMPTY}"), None),
            ("SHA256 (a) = 12".to_owned(), None),
            ("done".to_owned(), None),
            (String::new(), None),
        ] {
            assert_eq!(name_of(&line).as_deref(), name, "{line}");
        }
    }

    /// A folder with these files, and a list of them that the real program wrote.
    fn folder(files: &[(&str, &str)], tag: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let names = files.iter().map(|(name, _)| name);
        let sums = Command::new("sha256sum").args(tag).args(names).current_dir(&folder).output().unwrap();
        fs::write(folder.path().join("manifest.sha256"), sums.stdout).unwrap();
        folder
    }

    const FILES: [(&str, &str); 3] =
        [("server.js", "serve()"), ("./lib/a b.js", ""), ("lib/odd\\\nname", "x")];

    fn checked(folder: &tempfile::TempDir) -> Result<Checked, String> {
        check(folder.path(), Path::new("manifest.sha256"))
    }

    #[test]
    fn the_real_programs_lists_are_checked() {
        for tag in [&["--tag"][..], &["--binary"], &[]] {
            assert_eq!(checked(&folder(&FILES, tag)), Ok(Checked::Good), "{tag:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let broken = folder(&FILES, &[]);
        fs::write(broken.path().join("server.js"), "serve() ").unwrap();
        fs::remove_file(broken.path().join("lib/a b.js")).unwrap();
        let expected =
            "manifest.sha256: server.js is not what it says (another checksum), lib/a b.js is missing";
        assert_eq!(checked(&broken), Err(expected.to_owned()));

        let many: Vec<String> = (0..7).map(|n| format!("{EMPTY}  f{n}\n")).collect();
        fs::write(broken.path().join("manifest.sha256"), many.concat()).unwrap();
        let told = checked(&broken).unwrap_err();
        assert!(told.contains("f4 is missing, and others") && !told.contains("f5"), "{told}");
    }

    #[test]
    fn a_list_that_is_none_or_leads_elsewhere_is_refused() {
        let folder = folder(&FILES, &[]);
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("x"), "").unwrap();
        std::os::unix::fs::symlink(outside.path().join("x"), folder.path().join("link")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            folder.path().join("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for (list, expected) in [
            (String::new(), "it lists no file"),
            (format!("{EMPTY}  manifest.sha256\n"), "it lists no file"),
            ("done\n".to_owned(), "line 1 is not as `sha256sum` writes it: `done`"),
            (format!("# x\n{EMPTY}  server.js\n{}", &EMPTY[..9]), "line 3 is not as"),
            (format!("{EMPTY}  /etc/passwd\n"), "line 1 names `/etc/passwd`, which is not below the folder"),
            (format!("{EMPTY}  lib/../../x\n"), "which is not below the folder"),
            (format!("{EMPTY}  link\n"), "link is a symlink that leads out of the folder"),
            (format!("{EMPTY}  pipe\n"), "pipe cannot be read: it is no regular file"),
            (format!("{EMPTY}  lib\n"), "lib cannot be read"),
        ] {
            fs::write(folder.path().join("manifest.sha256"), &list).unwrap();
            let told = checked(&folder).unwrap_err();
            assert!(told.contains(expected), "{list:?}: {told}");
        }
    }

    #[test]
    fn a_marker_is_a_list_by_its_name_or_by_its_content() {
        let folder = folder(&FILES, &[]);
        let list = fs::read(folder.path().join("manifest.sha256")).unwrap();
        for (name, text, expected) in [
            (".ready", &b""[..], Ok(Checked::NoList)),
            (".ready", b"built by ci\n", Ok(Checked::NoList)),
            (".ready", &list, Ok(Checked::Good)),
            ("SHA256SUMS", &list, Ok(Checked::Good)),
        ] {
            fs::write(folder.path().join(name), text).unwrap();
            assert_eq!(check(folder.path(), Path::new(name)), expected, "{name}");
        }
        fs::write(folder.path().join("SHA256SUMS"), "built by ci").unwrap();
        assert!(check(folder.path(), Path::new("SHA256SUMS")).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = parse(&text);
            let _ = parse_line(&text);
        }
    }
}
