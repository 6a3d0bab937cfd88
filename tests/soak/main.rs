//! Faults under load: the real program with two versions of four workers each, clients of every kind, and at random
//! workers that are killed and stopped while rules are edited, versions promoted, restarted, deployed and taken away.
//!
//! A binary of its own, so that it has the machine for itself. `SOAK_SECONDS` is how long it lasts (120), `SOAK_SEED`
//! repeats the choices of a run. What must hold is in [`ledger`] (every single request) and here (what is left
//! afterwards: no connection, no file, no memory, no process).
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test fails by panicking, its helpers too")]

mod client;
mod ledger;
mod process;
#[allow(dead_code, unused_imports, reason = "shared with the other tests, which use all of it")]
#[path = "../it/support/mod.rs"]
mod support;
mod trouble;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use client::Client;
use ledger::{Kind, Ledger};
use support::eventually;
use support::switchman::{Setup, Switchman, processes_in};
use tokio::task::JoinSet;
use trouble::Trouble;

/// The versions that carry traffic.
pub(crate) const VERSIONS: [&str; 2] = ["4f2a91c", "b001bee"];
/// Workers of each.
pub(crate) const WORKERS: usize = 4;

/// How many clients of each kind.
const CLIENTS: [(Kind, usize); 10] = [
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
];

/// Memory may grow by so many bytes between the second and the last quarter: buffers of a peak that came late.
const GROWTH_MAX: u64 = 6 * 1024 * 1024;

fn number(variable: &str) -> Option<u64> {
    std::env::var(variable).ok().and_then(|text| text.parse().ok())
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_that_fail_under_load_cost_no_request_that_could_be_answered() {
    let seconds = number("SOAK_SECONDS").unwrap_or(120);
    let seed = number("SOAK_SEED").unwrap_or_else(|| fastrand::u64(..));
    println!("SOAK_SEED={seed} SOAK_SECONDS={seconds}");
    let mut random = fastrand::Rng::with_seed(seed);

    let notes = tempfile::tempdir().unwrap();
    let journal = notes.path().join("journal");
    let service = format!(
        "    workers: {WORKERS}\n    env: {{JOURNAL: {journal:?}}}\n    stop: {{drain: 5s, grace: 5s}}\n"
    );
    let rules = trouble::rules(30);
    let top = format!("limits: {{first_byte_timeout: {}}}\n", trouble::FIRST_BYTE);
    let setup = Setup { top: &top, service: &service, rules: Some(&rules), ..Setup::default() };
    let mut switchman = Arc::new(Switchman::start(setup).await);
    for version in VERSIONS {
        switchman.deploy_ready(version).await;
    }
    Trouble::over(&switchman).await;
    let pid = switchman.pid();
    let files_before = process::open_files(pid);

    // The load, the trouble, and a watch over memory.
    let (ledger, stop): (Arc<Ledger>, Arc<AtomicBool>) = Default::default();
    let mut clients = JoinSet::new();
    for (kind, count) in CLIENTS {
        for number in 0..count {
            let client = Client {
                address: switchman.address,
                ledger: ledger.clone(),
                stop: stop.clone(),
                random: random.fork(),
            };
            clients.spawn(client.run(kind, number));
        }
    }
    let mut trouble = JoinSet::new();
    let mut make_trouble = || Trouble {
        switchman: switchman.clone(),
        ledger: ledger.clone(),
        stop: stop.clone(),
        random: random.fork(),
    };
    trouble.spawn(make_trouble().faults());
    trouble.spawn(make_trouble().edits());
    let memory = Mutex::new(Vec::new());
    tokio::select! {
        () = process::watch_memory(pid, &memory) => {}
        () = tokio::time::sleep(Duration::from_secs(seconds)) => {}
        ended = trouble.join_next() => { ended.unwrap().unwrap(); }
    }
    stop.store(true, Relaxed);
    while let Some(ended) = clients.join_next().await {
        ended.unwrap();
    }
    while let Some(ended) = trouble.join_next().await {
        ended.unwrap();
    }
    println!("{}", ledger.summary());

    // Every request got what it could get.
    let problems = ledger.verdict(&std::fs::read_to_string(&journal).unwrap());
    assert!(problems.is_empty(), "SOAK_SEED={seed}: {} problems:\n{}", problems.len(), problems.join("\n"));
    let counts = ledger.counts();
    for (kind, _) in CLIENTS {
        assert!(counts.get(&kind).is_some_and(|n| *n > seconds / 4), "too few of {kind:?}: {counts:?}");
    }

    // Nothing of it is left. A last restart closes the idle connections to workers, which are kept on purpose.
    Trouble::over(&switchman).await;
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
    eventually("no file is left open", || async { (process::open_files(pid) <= files_before).then_some(()) })
        .await;
    eventually("no ended process waits to be noticed", || async {
        process::zombies(pid).is_empty().then_some(())
    })
    .await;
    let memory = memory.into_inner().unwrap();
    let quarter = memory.len() / 4;
    let (early, late) =
        (process::median(&memory[quarter..2 * quarter]), process::median(&memory[3 * quarter..]));
    println!("memory: {} KiB in the second quarter, {} KiB in the last", early / 1024, late / 1024);
    assert!(late <= early + GROWTH_MAX, "memory grew from {early} to {late} bytes: {memory:?}");

    Arc::get_mut(&mut switchman).unwrap().terminate().await;
    assert_eq!(processes_in(&switchman.root()), Vec::<String>::new(), "no process is left");
}
