//! Faults under load: the real program with two versions of four workers each, clients of every kind, and one fault
//! after the other, then several at once. At the end a table says what each of them did.
//!
//! A binary of its own, so that it has the machine for itself. `SOAK_SECONDS` is about how long it lasts (60; `make
//! soak` says 600), `SOAK_SEED` repeats the choices of a run. What must hold is in [`ledger`] (every single request)
//! and here (what is left afterwards: no connection, no file, no memory, no process).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod client;
mod hands;
mod ledger;
mod process;
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;
mod table;
mod trouble;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::Client;
use ledger::{Kind, Ledger, Reach};
use support::eventually;
use support::switchman::{Setup, Switchman, processes_in};
use tokio::task::JoinSet;
use trouble::Trouble;

/// The versions that carry traffic.
pub(crate) const VERSIONS: [&str; 2] = ["4f2a91c", "b001bee"];
/// Workers of each.
pub(crate) const WORKERS: usize = 4;

/// How many clients of each kind.
const CLIENTS: [(Kind, usize); 11] = [
    (Kind::Get, 8),
    (Kind::Put, 2),
    (Kind::Post, 4),
    (Kind::Upload, 2),
    (Kind::Download, 2),
    (Kind::DroppedGet, 1),
    (Kind::DroppedPost, 1),
    (Kind::Cut, 1),
    (Kind::Events, 3),
    (Kind::Socket, 3),
    (Kind::Open, 8),
];

/// Memory may grow by so many bytes between the second and the last quarter: buffers of a peak that came late.
const GROWTH_MAX: u64 = 6 * 1024 * 1024;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_under_load_cost_no_request_that_could_be_answered() {
    let time = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(60));
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SOAK_SEED={seed} SOAK_SECONDS={}", time.as_secs());
    let mut random = fastrand::Rng::with_seed(seed);

    let notes = tempfile::tempdir().unwrap();
    let journal = notes.path().join("journal");
    let switchman = start(&journal).await;
    let files_before = process::open_files(switchman.pid());
    let begun = Instant::now();

    let (ledger, stop): (Arc<Ledger>, Arc<AtomicBool>) = Default::default();
    let mut clients = JoinSet::new();
    for (kind, count) in CLIENTS {
        for number in 0..count {
            let (ledger, stop) = (ledger.clone(), stop.clone());
            let (address, random) = (switchman.address, random.fork());
            let client = Client { address, ledger, stop, random, reach: Reach::Refused };
            clients.spawn(client.run(kind, number));
        }
    }
    let mut trouble = Trouble { switchman, ledger: ledger.clone(), random, kills: Default::default() };
    trouble.one_by_one(begun + time * 2 / 3).await;
    let pid = trouble.switchman.pid();
    let memory = Mutex::new(Vec::new());
    tokio::select! {
        () = process::watch_memory(pid, &memory) => {}
        // However long the rounds took: there is always some of it.
        () = trouble.at_once(Instant::now().max(begun + time * 5 / 6) + time / 6) => {}
    }
    stop.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }

    // Every request got what it could get.
    let journal = std::fs::read_to_string(&journal).unwrap();
    let counts = ledger.counts();
    println!("{}\nanswered {counts:?}", table::of(&ledger.table(&journal)));
    let problems = ledger.verdict(&journal);
    assert!(problems.is_empty(), "SOAK_SEED={seed}: {} problems:\n{}", problems.len(), problems.join("\n"));
    for (kind, _) in CLIENTS {
        let enough = time.as_secs() / 4;
        assert!(counts.get(&kind).is_some_and(|n| *n > enough), "too few of {kind:?}: {counts:?}");
    }
    let memory = memory.into_inner().unwrap();
    let quarter = memory.len() / 4;
    let (early, late) =
        (process::median(&memory[quarter..2 * quarter]), process::median(&memory[3 * quarter..]));
    println!("memory: {} KiB in the second quarter, {} KiB in the last", early / 1024, late / 1024);
    assert!(late <= early + GROWTH_MAX, "memory grew from {early} to {late} bytes: {memory:?}");

    nothing_is_left(trouble.switchman, files_before).await;
}

/// The program with both versions ready, and rules that send requests to both.
async fn start(journal: &std::path::Path) -> Switchman {
    let service = format!(
        "    workers: {WORKERS}\n    env: {{JOURNAL: {journal:?}}}\n    stop: {{drain: 5s, grace: 5s}}\n    \
         drain: {{streams: 1s}}\n    live: {}\n",
        hands::LIVE
    );
    let rules = hands::rules(30);
    // An upgrade leaves the old process with its open WebSockets, and they are not what it is to end.
    let top =
        format!("drain: 1h\nlimits: {{first_byte_timeout: {}, idle_timeout: 60s}}\n", hands::FIRST_BYTE);
    let setup = Setup { top: &top, service: &service, rules: Some(&rules), held: true, ..Setup::default() };
    let switchman = Switchman::start(setup).await;
    for version in VERSIONS {
        switchman.deploy_ready(version).await;
        // So that there is one to roll back to.
        switchman.done(&["promote", version]).await;
    }
    for version in VERSIONS {
        switchman
            .wait_version(version, "has all its workers", |v| {
                v["workers"].as_array().unwrap().iter().all(|worker| worker["state"] == "ready")
            })
            .await;
    }
    switchman
}

/// Of all that was done nothing is left: no request in flight, no connection, no file, no process.
async fn nothing_is_left(mut switchman: Switchman, files_before: usize) {
    let pid = switchman.pid();
    // A last restart closes the idle connections to workers, which are kept on purpose.
    for version in VERSIONS {
        eventually("no request is in flight", || async {
            let version = switchman.version(version).await.unwrap();
            let workers = version["workers"].as_array().unwrap();
            let idle = workers.iter().chain([&version["traffic"]]).all(|count| count["in_flight"] == 0);
            idle.then_some(())
        })
        .await;
        switchman.done(&["restart", version]).await;
    }
    let address = switchman.address.to_string();
    eventually("no connection of a client is left", || async {
        (!process::connections(pid).iter().any(|connection| connection.starts_with(&address))).then_some(())
    })
    .await;
    eventually("no connection at all is left", || async {
        process::connections(pid).is_empty().then_some(())
    })
    .await;
    eventually("no ended process waits to be noticed", || async {
        process::zombies(pid).is_empty().then_some(())
    })
    .await;
    eventually("no file is left open", || async { (process::open_files(pid) <= files_before).then_some(()) })
        .await;
    switchman.terminate().await;
    assert_eq!(processes_in(&switchman.root()), Vec::<String>::new(), "no process is left");
}
