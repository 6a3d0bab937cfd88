//! One log file, read from any time on or from its end. What is no line of switchman in it is left out, and so is
//! what cannot be read: a file may be deleted at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use jiff::Timestamp;

use super::Entry;
use crate::supervisor::output::record::Record;
use crate::supervisor::output::{LINE_MAX, files};
use crate::version::WorkerId;

/// What is read at once from the end of a file; and how exactly a time is looked up in it.
const BLOCK: u64 = LINE_MAX as u64;
/// A longer line is none of ours.
const RECORD_MAX: u64 = 2 * LINE_MAX as u64;

/// A file of a worker, as long as it was when it was opened.
#[derive(Debug)]
pub(super) struct Opened {
    worker: WorkerId,
    file: File,
    size: u64,
}

/// Opens the files of a version, each worker's oldest first.
pub(super) fn open(folder: &Path) -> BTreeMap<WorkerId, Vec<Opened>> {
    // The files that are written now may be set aside at any moment. Who has one open has its lines all the same, and
    // finds it under its new name if it was set aside before.
    let listed = files::list(folder);
    let workers: BTreeSet<WorkerId> = listed.iter().map(|file| file.worker).collect();
    let current: Vec<Opened> =
        workers.iter().filter_map(|id| Opened::new(*id, &files::current(folder, *id)).ok()).collect();
    let held: Vec<(u64, u64)> = current.iter().filter_map(|opened| opened.identity().ok()).collect();
    let aside =
        files::list(folder).into_iter().filter(|file| !file.current && !held.contains(&file.identity));
    let aside = aside.filter_map(|file| Opened::new(file.worker, &file.path).ok());
    let mut opened: BTreeMap<WorkerId, Vec<Opened>> = BTreeMap::new();
    for file in aside.collect::<Vec<_>>().into_iter().chain(current) {
        opened.entry(file.worker).or_default().push(file);
    }
    opened
}

impl Opened {
    fn new(worker: WorkerId, path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        Ok(Self { worker, file, size })
    }

    fn identity(&self) -> io::Result<(u64, u64)> {
        self.file.metadata().map(|metadata| (metadata.dev(), metadata.ino()))
    }

    fn entry(&self, line: &[u8]) -> Option<Entry> {
        let Record { at, stream, pid, text } = Record::read(line)?;
        Some(Entry { at, worker: self.worker, pid, stream, text: text.to_vec() })
    }

    /// The lines from `from` on, in order; a few older ones may come before.
    pub(super) fn forward(&self, from: Timestamp) -> impl Iterator<Item = Entry> {
        self.lines_from(self.position(from)).filter_map(|line| self.entry(&line))
    }

    /// The lines, the last one first.
    pub(super) fn backward(&self) -> impl Iterator<Item = Entry> {
        let mut lines = Backward { file: &self.file, at: self.size, buffer: Vec::new() };
        std::iter::from_fn(move || lines.next()).filter_map(|line| self.entry(&line))
    }

    /// A position before the first line from `from` on, and less than a block and a line before it.
    fn position(&self, from: Timestamp) -> u64 {
        let (mut low, mut high) = (0, self.size);
        while high - low > BLOCK {
            let middle = low + (high - low) / 2;
            match self.lines_from(middle).next().as_deref().and_then(Record::read) {
                Some(record) if record.at < from => low = middle,
                _ => high = middle,
            }
        }
        low
    }

    /// The lines that begin after `position`, or at the beginning.
    fn lines_from(&self, position: u64) -> impl Iterator<Item = Vec<u8>> {
        let from = At { file: &self.file, position };
        let mut reader = BufReader::new(from).take(self.size.saturating_sub(position));
        let mut next = move || {
            let mut line = Vec::new();
            reader.by_ref().take(RECORD_MAX).read_until(b'\n', &mut line).ok().filter(|read| *read > 0)?;
            Some(line)
        };
        if position > 0 {
            // The rest of the line that the position is in.
            next();
        }
        std::iter::from_fn(next)
    }
}

/// Reads on from a position, whoever else reads the same file.
#[derive(Debug)]
struct At<'a> {
    file: &'a File,
    position: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read_at(buffer, self.position)?;
        self.position += read as u64;
        Ok(read)
    }
}

/// Lines from the end of a file.
#[derive(Debug)]
struct Backward<'a> {
    file: &'a File,
    /// What is before this is not read yet.
    at: u64,
    /// What is after it and not handed out yet: ends with the end of a line.
    buffer: Vec<u8>,
}

impl Backward<'_> {
    fn next(&mut self) -> Option<Vec<u8>> {
        loop {
            let before_end = self.buffer.len().saturating_sub(1);
            if let Some(end) = self.buffer[..before_end].iter().rposition(|byte| *byte == b'\n') {
                return Some(self.buffer.split_off(end + 1));
            }
            if self.at == 0 {
                return Some(std::mem::take(&mut self.buffer)).filter(|line| !line.is_empty());
            }
            if self.buffer.len() as u64 > RECORD_MAX {
                // None of ours, and whatever it is it need not be kept.
                self.buffer.clear();
            }
            self.more().ok()?;
        }
    }

    fn more(&mut self) -> io::Result<()> {
        let length = self.at.min(BLOCK);
        let mut block = vec![0; length as usize];
        self.file.read_exact_at(&mut block, self.at - length)?;
        self.at -= length;
        block.append(&mut self.buffer);
        self.buffer = block;
        Ok(())
    }
}
