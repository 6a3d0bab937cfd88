//! Deploy roots with real rsync, cp, mv and ln: what the watcher tells, and when.

mod changes;
mod root;
mod uploads;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use switchman::deploy::{ChangeKind, manifest, watcher};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use self::root::{
    Deploy, SETTLE, Told, arriving, build, contents, goes_on, gone, run, settled, spec, start, waits,
};
use crate::support::{eventually, patience};

/// The kernel stamps changes with the time of its last tick.
const TICK: Duration = Duration::from_millis(20);

/// How late a settled folder may be told on a busy machine; a bound, nothing waits for it.
fn slack() -> Duration {
    patience() / 10
}

#[tokio::test]
async fn a_slow_rsync_settles_after_its_end_and_soon() {
    let mut deploy = Deploy::new();
    let source = deploy.elsewhere("build");
    build(&source, 12, 1 << 20);
    let target = deploy.root().join("4f2a91c");

    let mut rsync = start("rsync", &["-a", "--bwlimit=6m"], &[&contents(&source), &target]);
    deploy.expect(&[arriving("4f2a91c")]).await;
    let arrived = SystemTime::now();
    deploy.expect(&[settled("4f2a91c")]).await;
    let told = SystemTime::now();

    run("diff", &["-r"], &[&source, &target]);
    assert!(rsync.wait().unwrap().success());
    let last_change = manifest::look(&target).manifest.newest;
    assert!(last_change > arrived + SETTLE * 2, "the upload was too fast to prove anything");
    let quiet = told.duration_since(last_change).unwrap();
    assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the last change");
}

#[tokio::test]
async fn an_rsync_that_is_killed_leaves_a_version_that_never_settles_and_a_second_one_completes_it() {
    let mut deploy = Deploy::new();
    let source = deploy.elsewhere("build");
    build(&source, 1, 8 << 20);
    let target = deploy.root().join("4f2a91c");

    let mut rsync = Command::new("rsync")
        .args(["-a", "--bwlimit=2m"])
        .args([&contents(&source), &target])
        .process_group(0)
        .stderr(Stdio::null())
        .spawn()
        .expect("apt-get install rsync");
    deploy.expect(&[arriving("4f2a91c")]).await;
    let temporary_file = async || {
        let name = target.join("lib/part0").read_dir().ok()?.flatten().next()?.file_name();
        name.to_str()?.starts_with(".file0.js.").then_some(())
    };
    eventually("rsync writes its temporary file", temporary_file).await;
    // All its processes at once, and with KILL: TERM would let it tidy up.
    run("kill", &["-KILL", "--", &format!("-{}", rsync.id())], &[]);
    rsync.wait().unwrap();
    match deploy.next().await {
        Told::Waits(_, Some(why)) => assert!(why.contains("`lib/part0/.file0.js."), "{why}"),
        other => panic!("{other:?}"),
    }
    deploy.silence(SETTLE * 4).await;
    temporary_file().await.expect("nothing of the upload is left, so this proves nothing");

    run("rsync", &["-a", "--delete"], &[&contents(&source), &target]);
    deploy.settles("4f2a91c").await;
}

#[tokio::test]
async fn a_folder_that_is_filled_by_hand_settles_once_it_is_quiet() {
    let mut deploy = Deploy::new();
    let target = deploy.root().join("4f2a91c");
    fs::create_dir(&target).unwrap();
    deploy.expect(&[arriving("4f2a91c"), waits("4f2a91c", "there is no file in it")]).await;
    deploy.silence(SETTLE * 3).await;
    // Two writes, less than `settle` apart: the second one counts.
    fs::write(target.join("a"), "1").unwrap();
    tokio::time::sleep(SETTLE / 2).await;
    fs::write(target.join("b"), "2").unwrap();
    let last = Instant::now();
    deploy.expect(&[goes_on("4f2a91c")]).await;
    deploy.expect(&[settled("4f2a91c")]).await;
    assert!(
        last.elapsed() + Duration::from_millis(20) > SETTLE,
        "told {:?} after the last write",
        last.elapsed()
    );
}

#[tokio::test]
async fn a_folder_renamed_into_place_settles_at_once() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("app")).unwrap();
    // So long that waiting for it would fail the test.
    let mut deploy = Deploy::watch(folder, Duration::from_secs(600));
    deploy.in_force().await;
    build(&deploy.elsewhere("staged"), 20, 10);
    run("mv", &[], &[&deploy.elsewhere("staged"), &deploy.root().join("4f2a91c")]);
    deploy.expect(&[arriving("4f2a91c"), settled("4f2a91c")]).await;

    // The common way: uploaded beside, under a name that is no version.
    let beside = deploy.root().join("b001bee.tmp");
    build(&beside, 20, 10);
    assert!(matches!(deploy.next().await, Told::Ignored(_)));
    run("mv", &[], &[&beside, &deploy.root().join("b001bee")]);
    deploy.expect(&[arriving("b001bee"), Told::Ignored(vec![])]).await;
    deploy.expect(&[settled("b001bee")]).await;

    run("mv", &[], &[&deploy.root().join("b001bee"), &deploy.root().join("cafe123")]);
    deploy.expect(&[gone("b001bee"), settled("cafe123")]).await;
}

#[tokio::test]
async fn at_the_start_what_is_old_is_settled_and_what_is_removed_goes() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("app");
    build(&root.join("4f2a91c"), 3, 10);
    build(&root.join("b001bee"), 3, 10);
    let built = Instant::now();
    let mut deploy = Deploy::watch(folder, SETTLE);
    deploy.expect(&[arriving("4f2a91c"), arriving("b001bee")]).await;
    let both = BTreeSet::from([deploy.next().await, deploy.next().await]);
    assert_eq!(both, BTreeSet::from([settled("4f2a91c"), settled("b001bee")]));
    assert!(built.elapsed() < SETTLE + slack());
    run("rm", &["-rf"], &[&root.join("4f2a91c")]);
    deploy.expect(&[gone("4f2a91c")]).await;
}

#[tokio::test]
async fn twenty_folders_at_once() {
    let mut deploy = Deploy::new();
    let source = deploy.elsewhere("build");
    build(&source, 50, 1_000);
    let versions: Vec<String> = (0..20).map(|n| format!("abcdef{n:02}")).collect();
    let copies: Vec<Child> = versions
        .iter()
        .map(|version| start("cp", &["-r"], &[&source, &deploy.root().join(version)]))
        .collect();
    for mut copy in copies {
        assert!(copy.wait().unwrap().success());
    }
    let copied = Instant::now();
    let mut told: BTreeMap<Told, usize> = BTreeMap::new();
    while told.keys().filter(|told| matches!(told, Told::Settled(_))).count() < versions.len() {
        *told.entry(deploy.next().await).or_default() += 1;
    }
    assert!(copied.elapsed() < SETTLE + slack() * 2, "{:?}", copied.elapsed());
    let expected =
        versions.iter().flat_map(|version| [(arriving(version), 1), (settled(version), 1)]).collect();
    assert_eq!(told, expected);
}

#[tokio::test]
async fn a_folder_that_is_replaced_comes_again_with_another_identity() {
    let mut deploy = Deploy::new();
    let target = deploy.root().join("4f2a91c");
    build(&target, 3, 10);
    deploy.expect(&[arriving("4f2a91c")]).await;
    let ChangeKind::Settled { identity: first, .. } = deploy.next_change().await else { panic!() };

    run("rm", &["-rf"], &[&target]);
    build(&target, 3, 10);
    deploy.expect(&[gone("4f2a91c"), arriving("4f2a91c")]).await;
    let ChangeKind::Settled { identity: second, .. } = deploy.next_change().await else { panic!() };
    assert_ne!(first, second);
}

#[tokio::test]
async fn a_symlink_is_a_version_and_follows_where_it_points() {
    let mut deploy = Deploy::new();
    let (one, two) = (deploy.elsewhere("one"), deploy.elsewhere("two"));
    build(&one, 3, 10);
    build(&two, 3, 10);
    let link = deploy.root().join("4f2a91c");
    run("ln", &["-s"], &[&one, &link]);
    deploy.expect(&[arriving("4f2a91c")]).await;
    let ChangeKind::Settled { identity: first, .. } = deploy.next_change().await else { panic!() };

    // As deploy tools do it: a link beside, renamed over the old one.
    symlink(&two, deploy.root().join(".next")).unwrap();
    run("mv", &["-T"], &[&deploy.root().join(".next"), &link]);
    let second = loop {
        match deploy.next_change().await {
            ChangeKind::Settled { identity, .. } => break identity,
            ChangeKind::Gone { .. } | ChangeKind::Arriving { .. } | ChangeKind::Ignored(_) => {}
            other => panic!("{other:?}"),
        }
    };
    assert_ne!(first, second);

    run("rm", &["-rf"], &[&two]);
    loop {
        match deploy.next().await {
            Told::Gone(_) => break,
            Told::Ignored(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn what_is_no_version_is_told_with_the_reason() {
    let mut deploy = Deploy::new();
    deploy.in_force().await;
    fs::create_dir(deploy.root().join("node_modules")).unwrap();
    let reason = "its name does not match `^[0-9a-f]{7,64}$`".to_owned();
    let expected = vec![("node_modules".to_owned(), reason.clone())];
    deploy.expect(&[Told::Ignored(expected)]).await;
    fs::write(deploy.root().join("4f2a91c"), "").unwrap();
    let expected =
        vec![("4f2a91c".to_owned(), "not a folder".to_owned()), ("node_modules".to_owned(), reason)];
    deploy.expect(&[Told::Ignored(expected)]).await;
}

#[tokio::test]
async fn a_root_may_come_late_go_and_come_back() {
    let mut deploy = Deploy::watch(tempfile::tempdir().unwrap(), SETTLE);
    let root = deploy.root();
    let problem = format!("deploy root `{0}` does not exist (hint: mkdir -p {0})", root.display());
    deploy.expect(&[Told::Root(Some(problem.clone()))]).await;

    build(&root.join("4f2a91c"), 3, 10);
    deploy.expect(&[Told::Root(None), arriving("4f2a91c"), settled("4f2a91c")]).await;
    run("mv", &[], &[&root, &deploy.elsewhere("away")]);
    deploy.expect(&[Told::Root(Some(problem)), gone("4f2a91c")]).await;
    run("mv", &[], &[&deploy.elsewhere("away"), &root]);
    deploy.expect(&[Told::Root(None), arriving("4f2a91c"), settled("4f2a91c")]).await;

    // It is watched again: this is told long before a rescan is due.
    build(&root.join("b001bee"), 3, 10);
    let built = Instant::now();
    deploy.expect(&[arriving("b001bee"), settled("b001bee")]).await;
    assert!(built.elapsed() < SETTLE + slack());
}

#[tokio::test]
async fn the_watcher_ends_when_it_is_told_to_and_when_nobody_listens() {
    let folder = tempfile::tempdir().unwrap();
    let spec = spec(folder.path().to_owned(), SETTLE);
    let (sender, changes) = mpsc::channel(1);
    let cancel = CancellationToken::new();
    let watcher = watcher::spawn(spec.clone(), sender, cancel.clone());
    cancel.cancel();
    tokio::time::timeout(patience(), watcher).await.expect("it goes on").unwrap();
    drop(changes);

    let (sender, changes) = mpsc::channel(1);
    let watcher = watcher::spawn(spec, sender, CancellationToken::new());
    drop(changes);
    build(&folder.path().join("4f2a91c"), 1, 1);
    tokio::time::timeout(patience(), watcher).await.expect("it goes on").unwrap();
}
