//! As whom and within which limits workers run: `user`, `group`, `umask`, `rlimits`, `nice`, `oom_score_adj`,
//! `no_new_privs` and `cgroup` of a service.
//!
//! A version's folder cannot say any of this: who may upload must not become somebody else.

mod account;
mod limits;

use std::path::PathBuf;

use super::keys::isolation::CGROUP;
use super::keys::names;
use super::size;
use crate::hint::Problem;
use crate::yaml::{Fields, Reader};

/// As whom and within which limits the workers of a service run. The default changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Isolation {
    /// Whose rights they have; none for switchman's own.
    pub account: Option<Account>,
    /// The mode bits that files they make do not get; none for switchman's own.
    pub umask: Option<u32>,
    /// Resource limits, in the order in which they were written.
    pub rlimits: Vec<Rlimit>,
    /// The priority: -20 goes first, 19 last; none for switchman's own.
    pub nice: Option<i32>,
    /// How readily the kernel ends them when memory is short: from -1000 (never) to 1000; none for switchman's own.
    pub oom_score_adj: Option<i32>,
    /// No program that they start gets more rights than they have.
    pub no_new_privs: bool,
    /// Limits of all processes of a worker together.
    pub cgroup: CgroupLimits,
}

/// Whose rights a process has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The user's number.
    pub uid: u32,
    /// The group's number.
    pub gid: u32,
    /// All its groups, the supplementary ones too.
    pub groups: Vec<u32>,
    /// What the user database says of the user; none for a number that it does not know.
    pub person: Option<Person>,
}

/// What the user database says of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Person {
    /// `USER` and `LOGNAME`.
    pub name: String,
    /// `HOME`.
    pub home: PathBuf,
    /// `SHELL`.
    pub shell: PathBuf,
}

/// One resource limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rlimit {
    /// What is limited.
    pub resource: Resource,
    /// What holds; none for no limit.
    pub soft: Option<u64>,
    /// Up to which the process may raise it itself; none for no limit.
    pub hard: Option<u64>,
}

/// What can be limited for a process: setrlimit(2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "the names of setrlimit(2), which says what each of them is")]
pub enum Resource {
    As,
    Core,
    Cpu,
    Data,
    Fsize,
    Locks,
    Memlock,
    Msgqueue,
    Nice,
    Nofile,
    Nproc,
    Rss,
    Rtprio,
    Rttime,
    Sigpending,
    Stack,
}

/// Limits of all processes of a worker together (cgroup v2).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CgroupLimits {
    /// Bytes of memory; beyond them the whole worker is ended.
    pub memory_max: Option<u64>,
    /// Thousandths of a processor.
    pub cpu_max: Option<u64>,
    /// Processes and threads.
    pub pids_max: Option<u64>,
}

impl CgroupLimits {
    /// The controllers that the limits need, each with the key that needs it.
    pub fn controllers(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let needs = |limit: Option<u64>, controller, key| limit.map(|_| (controller, key));
        [
            needs(self.memory_max, "memory", "cgroup.memory_max"),
            needs(self.cpu_max, "cpu", "cgroup.cpu_max"),
            needs(self.pids_max, "pids", "cgroup.pids_max"),
        ]
        .into_iter()
        .flatten()
    }
}

/// What the `fields` of a service say; `is_root`: whether switchman runs as root.
pub(super) fn read(fields: &Fields<'_>, is_root: bool) -> Isolation {
    let account = account::account(fields, is_root);
    let umask = fields.get("umask").and_then(|r| r.value(umask));
    let no_new_privs = fields.get("no_new_privs").and_then(|r| r.boolean());
    Isolation {
        umask,
        rlimits: fields.get("rlimits").map(limits::rlimits).unwrap_or_default(),
        nice: fields.get("nice").and_then(|r| integer(&r, -20, 19)),
        oom_score_adj: fields.get("oom_score_adj").and_then(|r| integer(&r, -1000, 1000)),
        no_new_privs: no_new_privs.unwrap_or(account.is_some()),
        account,
        cgroup: fields.get("cgroup").map(cgroup).unwrap_or_default(),
    }
}

/// Octal digits, as umask(1) takes them.
fn umask(text: &str) -> Result<u32, Box<Problem>> {
    let octal = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| (b'0'..=b'7').contains(&b));
    let mask = if octal { u32::from_str_radix(text, 8).ok() } else { None };
    mask.filter(|mask| *mask <= 0o777)
        .ok_or_else(|| wrong(format!("`{text}` is not a umask"), "write three octal digits, as in `027`"))
}

fn integer(reader: &Reader<'_>, low: i32, high: i32) -> Option<i32> {
    reader.value(|text| match text.parse() {
        Ok(number) if (low..=high).contains(&number) => Ok(number),
        _ => {
            let message = format!("`{text}` is not a whole number from {low} to {high}");
            Err(wrong(message, format!("write a number from {low} to {high}")))
        }
    })
}

fn cgroup(reader: Reader<'_>) -> CgroupLimits {
    /// The least that lets a process start at all.
    const MEMORY_MIN: u64 = 1 << 20;
    let Some(fields) = reader.fields(&names(&[&CGROUP])) else { return CgroupLimits::default() };
    let memory = |text: &str| size::size(text, MEMORY_MIN..=i64::MAX as u64);
    CgroupLimits {
        memory_max: fields.get("memory_max").and_then(|r| r.value(memory)),
        cpu_max: fields.get("cpu_max").and_then(|r| r.value(processors)),
        pids_max: fields.get("pids_max").and_then(|r| r.number(1..=4_194_304)),
    }
}

/// Processors as a number with up to three decimals, in thousandths: `0.5`, `2`.
fn processors(text: &str) -> Result<u64, Box<Problem>> {
    let number = text.parse::<f64>().ok().filter(|number| (0.01..=4096.0).contains(number));
    let hint = "write how many processors it may use at most, from 0.01 to 4096, as in `1.5`";
    number
        .map(|number| (number * 1000.0).round() as u64)
        .ok_or_else(|| wrong(format!("`{text}` is not a number of processors"), hint))
}

fn wrong(message: String, hint: impl Into<String>) -> Box<Problem> {
    Problem::error("", message).hint(hint).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{Collector, parse};

    /// What the keys say, and every problem as `key: message | hint`.
    fn check(text: &str, is_root: bool) -> (Isolation, Vec<String>) {
        let node = parse(text).unwrap();
        let problems = Collector::default();
        let known = names(&[&crate::config::keys::isolation::ISOLATION]);
        let isolation = read(&Reader::new(&node, &problems).fields(&known).unwrap(), is_root);
        let show =
            |p: Problem| format!("{}: {} | {}", p.key, p.message, p.hint.as_deref().unwrap_or_default());
        (isolation, problems.into_inner().0.into_iter().map(show).collect())
    }

    fn good(text: &str) -> Isolation {
        let (isolation, problems) = check(text, true);
        assert_eq!(problems, [""; 0]);
        isolation
    }

    #[test]
    fn nothing_said_changes_nothing() {
        assert_eq!(good("{}"), Isolation::default());
    }

    #[test]
    fn a_user_is_a_name_or_a_number_and_brings_its_groups() {
        let nobody = good("user: nobody");
        let account = nobody.account.clone().unwrap();
        assert_eq!(good(&format!("user: {}", account.uid)), nobody, "its number means the same");
        assert!(account.groups.contains(&account.gid) && nobody.no_new_privs);
        let person = account.person.unwrap();
        assert_eq!(person.name, "nobody");
        assert!(person.home.is_absolute() && person.shell.is_absolute());

        let other = good("{user: nobody, group: 1, no_new_privs: false}");
        assert!(!other.no_new_privs);
        assert_eq!(other.account.map(|a| (a.gid, a.groups.contains(&1))), Some((1, true)));
        let stranger = Account { uid: 4_000_001, gid: 7, groups: vec![7], person: None };
        assert_eq!(good("{user: 4000001, group: 7}").account, Some(stranger));
    }

    #[test]
    fn limits_are_numbers_sizes_or_pairs() {
        let limits = good("rlimits: {nofile: '1024:65536', core: unlimited, as: 2GiB, nproc: 100}").rlimits;
        let limit = |resource, soft, hard| Rlimit { resource, soft, hard };
        let expected = [
            limit(Resource::Nofile, Some(1024), Some(65_536)),
            limit(Resource::Core, None, None),
            limit(Resource::As, Some(2 << 30), Some(2 << 30)),
            limit(Resource::Nproc, Some(100), Some(100)),
        ];
        assert_eq!(limits, expected);
        assert_eq!(limits[0].resource.name(), "nofile");
    }

    #[test]
    fn the_rest() {
        let all = good(
            "{umask: 027, nice: -5, oom_score_adj: 500, cgroup: {memory_max: 1GiB, cpu_max: 1.5, pids_max: 64}}",
        );
        assert_eq!((all.umask, all.nice, all.oom_score_adj), (Some(0o27), Some(-5), Some(500)));
        let limits = CgroupLimits { memory_max: Some(1 << 30), cpu_max: Some(1500), pids_max: Some(64) };
        assert_eq!(all.cgroup, limits);
        let controllers: Vec<_> = limits.controllers().map(|(controller, _)| controller).collect();
        assert_eq!(controllers, ["memory", "cpu", "pids"]);
    }

    #[test]
    fn what_is_wrong_says_what_to_write() {
        for (text, part) in [
            (
                "user: no-such-user",
                "user: there is no user `no-such-user` on this machine | make it: useradd",
            ),
            ("group: no-such-group", "group: there is no group `no-such-group` on this machine | make it"),
            ("user: 4000001", "user: no user has the number 4000001"),
            ("umask: 888", "umask: `888` is not a umask | write three octal digits"),
            ("umask: u=rwx", "is not a umask"),
            ("nice: 20", "nice: `20` is not a whole number from -20 to 19"),
            ("oom_score_adj: no", "from -1000 to 1000"),
            ("rlimits: {nofiles: 7}", "the limit `nofiles` is not known | did you mean `nofile`?"),
            ("rlimits: {nofile: many}", "rlimits.nofile: `many` is not a limit | write a number"),
            ("rlimits: {nofile: '7:5'}", "the soft limit is beyond the hard one"),
            ("rlimits: {as: 100}", "`100` has no unit"),
            ("no_new_privs: yes", "neither true nor false"),
            ("cgroup: {memory_max: 1}", "cgroup.memory_max: `1` has no unit"),
            ("cgroup: {memory: 1GiB}", "did you mean `memory_max`?"),
            ("cgroup: {cpu_max: 0}", "is not a number of processors | write how many"),
            ("cgroup: {cpu_max: 50%}", "is not a number of processors"),
            ("cgroup: {pids_max: 0}", "0 is not from 1 to"),
        ] {
            let problems = check(text, true).1;
            assert!(problems.len() == 1 && problems[0].contains(part), "{text}: {problems:?}");
        }
    }

    #[test]
    fn only_root_may_become_somebody_else() {
        let (isolation, problems) = check("{user: nobody, nice: 5}", false);
        assert_eq!((isolation.account, isolation.nice), (None, Some(5)));
        assert!(
            problems[0].starts_with("user: only root may start workers as somebody else"),
            "{problems:?}"
        );
    }
}
