//! Lines on a real disk: none lost, none twice, never too many, and what happens when the disk does not take them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::*;
use crate::config::{Logs, Pattern};
use crate::journal::Journal;

/// A store on a real folder, with one service.
struct World {
    state: TempDir,
    store: LogStore,
}

const VERSION: &str = "4f2a91c";

impl World {
    fn new(settings: Logs) -> Self {
        let state = tempfile::tempdir().unwrap();
        let store = open(state.path(), settings);
        Self { state, store }
    }

    /// As after a restart of switchman.
    async fn again(self, settings: Logs) -> Self {
        self.store.flush().await;
        let store = open(self.state.path(), settings);
        Self { state: self.state, store }
    }

    async fn print(&self, version: &str, worker: u32, bytes: &[u8]) {
        let printer = Printer {
            service: "app".into(),
            version: version.into(),
            worker: WorkerId(worker),
            pid: 4711,
            stream: Stream::Stdout,
            ears: Ears::default(),
        };
        printer.read(bytes, self.store.clone()).await;
    }

    async fn print_lines(&self, worker: u32, numbers: std::ops::Range<u32>) {
        let lines: String = numbers.map(|n| format!("line {n}\n")).collect();
        self.print(VERSION, worker, lines.as_bytes()).await;
    }

    fn folder(&self) -> PathBuf {
        self.state.path().join("logs/app")
    }

    fn file(&self, version: &str, name: &str) -> PathBuf {
        self.folder().join(version).join(name)
    }

    /// The names and sizes of the files of a version, in the order of `ls`.
    async fn files(&self, version: &str) -> Vec<(String, u64)> {
        self.store.flush().await;
        let files = files::list(&self.folder().join(version));
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        files.into_iter().map(|file| (name(&file.path), file.size)).collect()
    }

    async fn read(&self, query: Query) -> Vec<Entry> {
        let mut lines = Vec::new();
        let mut portions = self.store.read(&"app".into(), &VERSION.into(), query, false);
        while let Some(portion) = portions.recv().await {
            lines.extend(portion);
        }
        lines
    }

    /// The numbers of the lines that are read.
    async fn numbers(&self, query: Query) -> Vec<u32> {
        self.read(query).await.iter().map(number).collect()
    }
}

fn open(state: &Path, settings: Logs) -> LogStore {
    let store = LogStore::open(state, &Journal::default());
    store.configure(&"app".into(), settings);
    store
}

fn number(line: &Entry) -> u32 {
    String::from_utf8_lossy(&line.text).strip_prefix("line ").unwrap().parse().unwrap()
}

fn small(max_file: u64) -> Logs {
    Logs { max_file, ..Logs::default() }
}

fn last(lines: usize) -> Query {
    Query { lines: Some(lines), ..Query::default() }
}

async fn eventually(what: &str, is_so: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_so().await {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn no_line_is_lost_over_rotations_and_restarts_of_switchman() {
    let world = World::new(small(64 << 10));
    world.print_lines(0, 0..20_000).await;
    let world = world.again(small(64 << 10)).await;
    world.print_lines(0, 20_000..30_000).await;
    let files = world.files(VERSION).await;
    assert!(files.len() > 15, "{files:?}");
    assert!(files.iter().all(|(_, size)| *size <= 64 << 10), "{files:?}");
    assert_eq!(files.last().unwrap().0, "worker-0.log");
    let text: String =
        files.iter().map(|(name, _)| fs::read_to_string(world.file(VERSION, name)).unwrap()).collect();
    let numbers =
        text.lines().map(|line| line.rsplit_once("out 4711 line ").unwrap().1.parse::<u32>().unwrap());
    assert!(numbers.eq(0..30_000), "in the files, in order");
    assert_eq!(world.numbers(Query::default()).await, (0..30_000).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_last_lines_and_those_since_a_time_are_read() {
    let world = World::new(small(64 << 10));
    world.print_lines(0, 0..5_000).await;
    world.print_lines(1, 5_000..6_000).await;
    world.print_lines(0, 6_000..9_000).await;
    let all = world.read(Query::default()).await;
    assert_eq!(all.iter().map(number).collect::<Vec<_>>(), (0..9_000).collect::<Vec<_>>());
    assert!(all.is_sorted_by(|a, b| a.at < b.at));
    for count in [0, 1, 400, 500, 501, 3_000, 3_001, 4_500, 8_999, 9_000, 20_000] {
        let expected: Vec<u32> = (9_000_u32.saturating_sub(count)..9_000).collect();
        assert_eq!(world.numbers(last(count as usize)).await, expected, "{count}");
    }
    for first in [0, 1, 3_333, 5_000, 8_999] {
        let query = Query { since: Some(all[first].at), ..Query::default() };
        assert_eq!(world.numbers(query.clone()).await, (first as u32..9_000).collect::<Vec<_>>());
        let query = Query { lines: Some(7), ..query };
        assert_eq!(world.numbers(query).await, (first.max(8_993) as u32..9_000).collect::<Vec<_>>());
    }
    let query = Query { worker: Some(WorkerId(1)), lines: Some(2), ..Query::default() };
    assert_eq!(world.numbers(query).await, [5_998, 5_999]);
    let query = Query { grep: Pattern::parse("line (17|87|5500)$").ok(), ..Query::default() };
    assert_eq!(world.numbers(query.clone()).await, [17, 87, 5_500]);
    assert_eq!(world.numbers(Query { lines: Some(2), ..query }).await, [87, 5_500]);
    assert_eq!(world.store.on_disk(&"app".into()), [VersionId::from(VERSION)]);
}

#[tokio::test]
async fn what_is_no_line_of_ours_is_left_out_and_half_a_line_does_no_harm() {
    let world = World::new(Logs::default());
    world.print(VERSION, 0, b"line 1\nline \xff2\n").await;
    let world = world.again(Logs::default()).await;
    let file = world.file(VERSION, "worker-0.log");
    let mut bytes = fs::read(&file).unwrap();
    assert!(bytes.ends_with(b"out 4711 line \xff2\n"), "bytes stay as they are");
    bytes.extend([b'x'; 300_000]);
    bytes.extend(b"\n2026-11-21T18:05:10.12");
    fs::write(&file, bytes).unwrap();
    world.print(VERSION, 0, b"line 3\n").await;
    for query in [Query::default(), last(10)] {
        let lines = world.read(query).await;
        let texts: Vec<&[u8]> = lines.iter().map(|line| &line.text[..]).collect();
        assert_eq!(texts, [&b"line 1"[..], b"line \xff2", b"line 3"]);
    }
}

#[tokio::test]
async fn an_old_file_is_set_aside_and_one_that_was_deleted_begins_again() {
    let world = World::new(Logs { max_age: Duration::from_millis(300), ..Logs::default() });
    world.print_lines(0, 0..1).await;
    // Nothing more is printed: it becomes old all the same.
    eventually("it is set aside", async || world.files(VERSION).await.iter().all(|f| f.0 != "worker-0.log"))
        .await;
    world.print_lines(0, 1..2).await;
    assert_eq!(world.files(VERSION).await.len(), 2);
    assert_eq!(world.numbers(Query::default()).await, [0, 1]);

    let world = World::new(Logs::default());
    world.print_lines(0, 0..1).await;
    world.store.flush().await;
    fs::remove_file(world.file(VERSION, "worker-0.log")).unwrap();
    eventually("it is there again", async || {
        world.print_lines(0, 1..2).await;
        world.files(VERSION).await.len() == 1
    })
    .await;
}

#[tokio::test]
async fn all_files_together_stay_below_the_cap_and_versions_that_are_gone_go_first() {
    const TOTAL: u64 = 2 << 20;
    let settings = || Logs { max_file: 256 << 10, max_total: TOTAL, ..Logs::default() };
    let world = World::new(settings());
    for version in ["aaaaaaa", "bbbbbbb"] {
        world.print(version, 0, "a line of a version that is gone by now\n".repeat(6_000).as_bytes()).await;
    }
    // These two are written no more.
    let world = world.again(settings()).await;
    let total = async || {
        let mut total = 0;
        for version in world.store.on_disk(&"app".into()) {
            total += world.files(version.as_str()).await.iter().map(|file| file.1).sum::<u64>();
        }
        total
    };
    for round in 0..40_u32 {
        for worker in 0..4 {
            world.print_lines(worker, round * 1_000..(round + 1) * 1_000).await;
        }
        assert!(total().await <= TOTAL, "{} after round {round}", total().await);
    }
    assert_eq!(world.store.on_disk(&"app".into()), [VersionId::from(VERSION)], "no empty folder is left");
    let kept: BTreeSet<u32> = world.read(Query::default()).await.iter().map(|line| line.worker.0).collect();
    assert_eq!(kept.into_iter().collect::<Vec<_>>(), [0, 1, 2, 3]);
    assert!(total().await > TOTAL / 2, "and not far below it: {}", total().await);

    // What nobody wrote to for long goes too, however little it is.
    let world = world.again(Logs { keep: Duration::from_millis(1), ..settings() }).await;
    eventually("everything is gone", async || world.store.on_disk(&"app".into()).is_empty()).await;
}

#[tokio::test]
async fn a_full_disk_costs_lines_and_says_how_many() {
    let world = World::new(Logs::default());
    let file = world.file(VERSION, "worker-0.log");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::os::unix::fs::symlink("/dev/full", &file).unwrap();
    world.print_lines(0, 0..100).await;
    world.store.flush().await;
    assert_eq!(world.numbers(last(10)).await, (90..100).collect::<Vec<_>>(), "the last ones are in memory");
    fs::remove_file(&file).unwrap();
    eventually("it is written again", async || {
        world.print_lines(0, 100..101).await;
        world.store.flush().await;
        file.exists()
    })
    .await;
    let text = fs::read_to_string(&file).unwrap();
    let note = regex::Regex::new(r"^\S+Z sys 4711 (\d+) lines were lost here: the disk was full").unwrap();
    let lost: usize = note.captures(&text).unwrap_or_else(|| panic!("{text}"))[1].parse().unwrap();
    assert!(lost >= 100 && text.ends_with("out 4711 line 100\n"), "{lost}: {text}");
}

#[tokio::test]
async fn a_disk_that_stands_still_holds_up_a_worker_for_a_second_and_no_longer() {
    const LINES: u32 = 800_000;
    let world = World::new(Logs::default());
    // Nobody reads this pipe: who writes to it stands still.
    let file = world.file(VERSION, "worker-0.log");
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &file, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let begun = Instant::now();
    world.print_lines(0, 0..LINES).await;
    let took = begun.elapsed();
    assert!(took >= printer::WAIT_MAX && took < Duration::from_secs(15), "{took:?}");
    assert_eq!(world.store.logs(&"app".into(), &VERSION.into()).last().unwrap().text.as_ref(), "line 799999");

    // It moves again: what waited is written, and a line says how many did not.
    let reader = std::thread::spawn(move || {
        use std::io::BufRead;
        let pipe = fs::File::open(file).unwrap();
        let (mut written, mut lost) = (0, 0);
        for line in std::io::BufReader::new(pipe).lines() {
            let line = line.unwrap();
            if let Some((_, note)) = line.split_once(" sys 4711 ") {
                lost += note.split(' ').next().unwrap().parse::<u32>().unwrap();
            } else if line.ends_with("the end") {
                return (written, lost);
            } else {
                written += 1;
            }
        }
        panic!("the end is not written");
    });
    eventually("the reader has read what waited", async || {
        world.print(VERSION, 0, b"the end\n").await;
        reader.is_finished()
    })
    .await;
    let (written, lost) = reader.join().unwrap();
    assert!(written > 50_000, "what fits into the queue is not lost: {written}");
    assert_eq!(written + lost, LINES);
}

#[tokio::test]
async fn who_follows_sees_each_line_once_also_one_who_is_slow() {
    let world = World::new(small(256 << 10));
    world.print_lines(0, 0..1_000).await;
    let mut follow = world.store.read(&"app".into(), &VERSION.into(), last(10), true);
    let mut seen: Vec<u32> = follow.recv().await.unwrap().iter().map(number).collect();
    assert_eq!(seen, (990..1_000).collect::<Vec<_>>());
    // Far more than a follower may lag behind.
    for begin in (1_000..41_000).step_by(4_000) {
        world.print_lines(begin / 4_000 % 2, begin..begin + 4_000).await;
    }
    while seen.last() != Some(&40_999) {
        seen.extend(follow.recv().await.unwrap().iter().map(number));
    }
    assert_eq!(seen, (990..41_000).collect::<Vec<_>>());
    drop(follow);
    assert_eq!(world.store.follow().len(), 0);
}
