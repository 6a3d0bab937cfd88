//! The limits of setrlimit(2), with the names that systemd and `ulimit` have for them.

use super::{Resource, Rlimit, wrong};
use crate::config::keys::isolation::RLIMITS;
use crate::config::keys::names;
use crate::config::size;
use crate::hint::{Problem, nearest};
use crate::yaml::{Entry, Reader};

/// Names as in systemd and `ulimit`; sizes are those that count bytes.
const RESOURCES: [(&str, Resource, Counts); 16] = [
    ("as", Resource::As, Counts::Bytes),
    ("core", Resource::Core, Counts::Bytes),
    ("cpu", Resource::Cpu, Counts::Things),
    ("data", Resource::Data, Counts::Bytes),
    ("fsize", Resource::Fsize, Counts::Bytes),
    ("locks", Resource::Locks, Counts::Things),
    ("memlock", Resource::Memlock, Counts::Bytes),
    ("msgqueue", Resource::Msgqueue, Counts::Bytes),
    ("nice", Resource::Nice, Counts::Things),
    ("nofile", Resource::Nofile, Counts::Things),
    ("nproc", Resource::Nproc, Counts::Things),
    ("rss", Resource::Rss, Counts::Bytes),
    ("rtprio", Resource::Rtprio, Counts::Things),
    ("rttime", Resource::Rttime, Counts::Things),
    ("sigpending", Resource::Sigpending, Counts::Things),
    ("stack", Resource::Stack, Counts::Bytes),
];

/// What a limit counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Counts {
    Bytes,
    Things,
}

impl Resource {
    /// Its name, as it is written in the configuration.
    pub fn name(self) -> &'static str {
        RESOURCES.iter().find(|(_, resource, _)| *resource == self).map_or("", |(name, ..)| name)
    }
}

/// The limits of a map.
pub(super) fn rlimits(reader: Reader<'_>) -> Vec<Rlimit> {
    let limit = |(entry, reader): (&Entry, Reader<'_>)| {
        let Some((_, resource, counts)) = RESOURCES.iter().find(|(name, ..)| *name == entry.key) else {
            let known = names(&[&RLIMITS]);
            let hint = match nearest(&entry.key, known.iter().copied()) {
                Some(word) => format!("did you mean `{word}`?"),
                None => format!("the limits are {}", known.join(", ")),
            };
            let problem = Problem::error("", format!("the limit `{}` is not known", entry.key)).hint(hint);
            reader.report(problem.at(entry.place.line, entry.place.column));
            return None;
        };
        let (soft, hard) = reader.value(|text| soft_and_hard(text, *counts))?;
        Some(Rlimit { resource: *resource, soft, hard })
    };
    reader.entries().into_iter().flatten().filter_map(limit).collect()
}

type SoftAndHard = (Option<u64>, Option<u64>);

/// `LIMIT` for both, or `SOFT:HARD`.
fn soft_and_hard(text: &str, counts: Counts) -> Result<SoftAndHard, Box<Problem>> {
    let one = |text: &str| match (text, counts) {
        ("unlimited" | "infinity", _) => Ok(None),
        (text, Counts::Bytes) => size::size(text, 0..=i64::MAX as u64).map(Some),
        (text, Counts::Things) => text.parse().map(Some).map_err(|_| {
            let hint = "write a number, `unlimited`, or two of them for soft and hard, as in `1024:65536`";
            wrong(format!("`{text}` is not a limit"), hint)
        }),
    };
    let (soft, hard) = text.split_once(':').unwrap_or((text, text));
    let (soft, hard) = (one(soft)?, one(hard)?);
    if soft.unwrap_or(u64::MAX) > hard.unwrap_or(u64::MAX) {
        let message = format!("`{text}`: the soft limit is beyond the hard one");
        return Err(wrong(message, "write the smaller one first, as in `1024:65536`"));
    }
    Ok((soft, hard))
}
