//! What becomes of the files of a version after it settled: changes, restarts that are asked for, and what is neither.

use std::fs;
use std::time::Duration;

use switchman::deploy::watcher::WatchSpec;

use super::root::{Deploy, SETTLE, Told, arriving, build, run, settled};
use super::slack;

/// More than the time between two checks of a small folder.
const CHECKED: Duration = Duration::from_millis(2_500);

fn modified(files: &str) -> Told {
    Told::Modified("4f2a91c".to_owned(), files.to_owned())
}

fn to_restart(why: &str) -> Told {
    Told::RestartAsked("4f2a91c".to_owned(), why.to_owned())
}

/// A version that has settled, with twelve files.
async fn deployed(restart_on_change: bool) -> Deploy {
    let folder = tempfile::tempdir().unwrap();
    build(&folder.path().join("app/4f2a91c"), 12, 10);
    let mut deploy = Deploy::watch_as(folder, |spec| WatchSpec { restart_on_change, ..spec });
    deploy.expect(&[arriving("4f2a91c"), settled("4f2a91c")]).await;
    deploy
}

#[tokio::test]
async fn changed_files_are_told_and_new_ones_are_not() {
    let mut deploy = deployed(false).await;
    let target = deploy.root().join("4f2a91c");
    fs::write(target.join("app.pid"), "4711").unwrap();
    fs::create_dir_all(target.join("tmp/cache")).unwrap();
    fs::write(target.join("tmp/cache/x"), "").unwrap();
    deploy.silence(CHECKED).await;

    fs::write(target.join("lib/part0/file0.js"), "hot fix").unwrap();
    deploy.expect(&[modified("lib/part0/file0.js")]).await;
    fs::remove_file(target.join("lib/part1/file1.js")).unwrap();
    // As an editor saves: a new file over the old one.
    fs::write(target.join("new"), "hot fix").unwrap();
    fs::rename(target.join("new"), target.join("lib/part2/file2.js")).unwrap();
    let Told::Modified(_, files) = deploy.next().await else { panic!() };
    let mut files: Vec<&str> = files.split(", ").collect();
    files.sort_unstable();
    assert_eq!(files, ["lib/part1/file1.js (gone)", "lib/part2/file2.js"]);
    fs::write(target.join("app.pid"), "4712").unwrap();
    deploy.silence(CHECKED).await;
}

#[tokio::test]
async fn hard_links_of_another_version_are_no_change() {
    let mut deploy = deployed(false).await;
    let (target, other) = (deploy.root().join("4f2a91c"), deploy.elsewhere("b001bee"));
    // What `--link-dest` does: the unchanged files of the next version are links to those of this one.
    run("rsync", &["-a", &format!("--link-dest={}", target.display())], &[&target.join(""), &other]);
    deploy.silence(CHECKED).await;
    run("rm", &["-r"], &[&other]);
    deploy.silence(CHECKED).await;
}

#[tokio::test]
async fn what_the_application_wrote_before_switchman_was_started_again_is_no_part_of_the_version() {
    let deploy = deployed(false).await;
    let target = deploy.root().join("4f2a91c");
    fs::write(target.join("app.log"), "one\n").unwrap();
    let folder = deploy.ends();
    let mut deploy = Deploy::watch(folder, SETTLE);
    deploy.expect(&[arriving("4f2a91c"), settled("4f2a91c")]).await;
    fs::write(target.join("app.log"), "one\ntwo\n").unwrap();
    deploy.silence(CHECKED).await;

    // What changed meanwhile is told: workers that lived on do not run it.
    fs::write(target.join("lib/part0/file0.js"), "hot fix").unwrap();
    let folder = deploy.ends();
    let mut deploy = Deploy::watch(folder, SETTLE);
    deploy.expect(&[arriving("4f2a91c"), settled("4f2a91c"), modified("lib/part0/file0.js")]).await;
}

#[tokio::test]
async fn with_restart_on_change_a_change_restarts_once_it_is_complete() {
    let mut deploy = deployed(true).await;
    let (target, again) = (deploy.root().join("4f2a91c"), deploy.elsewhere("again"));
    fs::write(target.join("app.log"), "one\n").unwrap();
    deploy.silence(CHECKED).await;

    build(&again, 12, 200_000);
    let mut upload = super::root::start("rsync", &["-a", "--bwlimit=1m"], &[&again.join(""), &target]);
    assert!(matches!(deploy.next().await, Told::Modified(..)));
    let restart = loop {
        match deploy.next().await {
            Told::Modified(..) | Told::Waits(..) => {}
            other => break other,
        }
    };
    assert!(upload.try_wait().unwrap().is_some_and(|status| status.success()), "it was restarted too early");
    assert!(
        matches!(&restart, Told::RestartAsked(_, why) if why.starts_with("its files have changed: ")),
        "{restart:?}"
    );
    run("diff", &["-r", "--exclude=app.log"], &[&again, &target]);
    fs::write(target.join("app.log"), "one\ntwo\n").unwrap();
    deploy.silence(CHECKED).await;
}

#[tokio::test]
async fn a_touched_restart_file_asks_for_a_restart_and_one_that_was_there_does_not() {
    let folder = tempfile::tempdir().unwrap();
    for version in ["4f2a91c", "b001bee"] {
        let target = folder.path().join("app").join(version);
        build(&target, 3, 10);
        fs::create_dir(target.join("tmp")).unwrap();
    }
    let file = folder.path().join("app/4f2a91c/tmp/restart.txt");
    fs::write(&file, "").unwrap();
    run("touch", &["-d", "tomorrow"], &[&file]);
    let mut deploy = Deploy::watch(folder, SETTLE);
    deploy.expect(&[arriving("4f2a91c"), arriving("b001bee")]).await;
    deploy.settles_all(2).await;
    deploy.silence(CHECKED).await;

    let touched = std::time::Instant::now();
    run("touch", &[], &[&file]);
    deploy.expect(&[to_restart("tmp/restart.txt was touched")]).await;
    assert!(touched.elapsed() < Duration::from_secs(1) + slack(), "{:?}", touched.elapsed());
    run("touch", &["-d", "last week"], &[&file]);
    fs::remove_file(&file).unwrap();
    deploy.silence(CHECKED).await;
    fs::write(&file, "").unwrap();
    deploy.expect(&[to_restart("tmp/restart.txt was touched")]).await;
}
