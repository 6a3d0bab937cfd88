//! Whole uploads only: the real rsync in the ways in which people use it, markers and checksums, who writes still.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use switchman::deploy::watcher::WatchSpec;

use super::TICK;
use super::root::{Deploy, SETTLE, Told, arriving, build, contents, goes_on, run, settled, start, waits};
use super::slack;
use crate::support::eventually;

/// How late a settled folder may be told where nothing else keeps the machine busy.
const LATE: Duration = Duration::from_millis(50);

/// A watched root whose versions are complete with this marker.
fn with_marker(marker: &str) -> Deploy {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("app")).unwrap();
    Deploy::watch_as(folder, |spec| WatchSpec { complete_when: Some(marker.into()), ..spec })
}

/// rsync in a process group of its own.
fn rsync(arguments: &[&str], from: &Path, to: &Path) -> Child {
    let mut rsync = Command::new("rsync");
    rsync.args(arguments).args([from, to]).process_group(0).stderr(Stdio::null());
    rsync.spawn().expect("apt-get install rsync")
}

#[tokio::test]
async fn ten_thousand_small_files_settle_after_the_last_and_soon() {
    let mut deploy = Deploy::new();
    let source = deploy.elsewhere("build");
    build(&source, 10_000, 100);
    let (mut soonest, mut versions) = (Duration::MAX, ["4f2a91c", "b001bee", "cafe123", "deadbee"].iter());
    let mut late = LATE;
    while soonest > SETTLE + late {
        let version = versions.next().unwrap_or_else(|| {
            panic!("told {soonest:?} after the last change at the soonest, {late:?} late would do")
        });
        let target = deploy.root().join(version);
        run("rsync", &["-a"], &[&contents(&source), &target]);
        let quiet = deploy.settles(version).await;
        assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the last change");
        // Each file was asked twice for its times: what `find` takes for the same says how busy the machine is, and
        // this is no optimised build.
        let begun = Instant::now();
        let found = Command::new("find").arg(&target).args(["-printf", "%C@ "]).output().unwrap();
        assert!(found.stdout.len() > 100_000);
        (soonest, late) = (soonest.min(quiet), LATE + begun.elapsed() * 10);
        run("diff", &["-r"], &[&source, &target]);
    }
}

#[tokio::test]
async fn a_small_upload_settles_within_fifty_milliseconds_of_its_time() {
    let mut deploy = Deploy::new();
    let source = deploy.elsewhere("build");
    build(&source, 50, 1_000);
    let (mut soonest, mut number) = (Duration::MAX, 0);
    while soonest > SETTLE + LATE {
        assert!(number < 10, "told {soonest:?} after the last change at the soonest");
        let version = format!("abcdef{number}");
        run("rsync", &["-a"], &[&contents(&source), &deploy.root().join(&version)]);
        let quiet = deploy.settles(&version).await;
        assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the last change");
        (soonest, number) = (soonest.min(quiet), number + 1);
    }
}

/// The file has 500 MB. What stands still in its midst has a temporary name; what stands still after its end has not,
/// and only the marker tells that it is not the end.
#[tokio::test]
async fn a_huge_file_that_stands_still_waits_for_its_marker() {
    let mut deploy = with_marker(".ready");
    let source = deploy.elsewhere("build");
    fs::create_dir(&source).unwrap();
    // Sparse where it comes from; where it goes the bytes are written, once.
    File::create(source.join("app.jar")).unwrap().set_len(500_000_000).unwrap();
    let target = deploy.root().join("4f2a91c");
    let mut upload = rsync(&["-a", "--bwlimit=100m"], &contents(&source), &target);
    let signal = |signal| run("kill", &[signal, "--", &format!("-{}", upload.id())], &[]);
    deploy.expect(&[arriving("4f2a91c")]).await;
    for _ in 0..2 {
        signal("-STOP");
        let told = deploy.next().await;
        assert!(
            matches!(&told, Told::Waits(_, Some(why)) if why.starts_with("a transfer is not done")),
            "{told:?}"
        );
        deploy.silence(SETTLE * 2).await;
        signal("-CONT");
        deploy.expect(&[goes_on("4f2a91c")]).await;
    }
    assert!(upload.wait().unwrap().success());
    deploy.expect(&[waits("4f2a91c", "waits for .ready")]).await;
    deploy.silence(SETTLE * 3).await;
    fs::write(target.join(".ready"), "").unwrap();
    let quiet = deploy.settles("4f2a91c").await;
    assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the marker");
    assert_eq!(target.join("app.jar").metadata().unwrap().len(), 500_000_000);
}

#[tokio::test]
async fn an_inplace_upload_waits_for_who_has_the_file_open() {
    let mut deploy = Deploy::new();
    let source = deploy.elsewhere("build");
    build(&source, 1, 4 << 20);
    let target = deploy.root().join("4f2a91c");
    let upload = rsync(&["-a", "--inplace", "--bwlimit=2m"], &contents(&source), &target);
    deploy.expect(&[arriving("4f2a91c")]).await;
    let file = target.join("lib/part0/file0.js");
    let begun = async || file.metadata().is_ok_and(|found| found.len() > 0).then_some(());
    eventually("rsync writes the file itself", begun).await;
    // It stands still, as on a line that stalls: no temporary name gives it away.
    run("kill", &["-STOP", "--", &format!("-{}", upload.id())], &[]);
    let why = match deploy.next().await {
        Told::Waits(_, Some(why)) => why,
        other => panic!("{other:?}"),
    };
    let pid =
        why.strip_prefix("lib/part0/file0.js is open for writing by pid ").unwrap_or_else(|| panic!("{why}"));
    assert!(pid.ends_with(" (rsync)"), "{why}");
    deploy.silence(SETTLE * 4).await;
    run("kill", &["-CONT", "--", &format!("-{}", upload.id())], &[]);
    let mut upload = upload;
    let quiet = deploy.settles("4f2a91c").await;
    assert!(upload.wait().unwrap().success());
    assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the last change");
    run("diff", &["-r"], &[&source, &target]);
}

#[tokio::test]
async fn what_is_cut_off_in_a_partial_folder_or_with_delayed_updates_waits_for_its_end() {
    for (arguments, left) in [
        (&["-a", "--partial-dir=.rsync-partial", "--bwlimit=4m"][..], ".rsync-partial"),
        (&["-a", "--delay-updates", "--bwlimit=4m"], ".~tmp~"),
    ] {
        let mut deploy = Deploy::new();
        let source = deploy.elsewhere("build");
        build(&source, 3, 2 << 20);
        let target = deploy.root().join("4f2a91c");
        let mut upload = rsync(arguments, &contents(&source), &target);
        deploy.expect(&[arriving("4f2a91c")]).await;
        let second = async || {
            // With the second file the first one is done, or lies in the folder of those that wait.
            let entries = target.join("lib/part1").read_dir().ok()?.flatten();
            entries.filter(|entry| entry.metadata().is_ok_and(|m| m.is_file())).map(|_| ()).next()
        };
        eventually("rsync is at its second file", second).await;
        // TERM: rsync keeps what it has in its folder for partial files.
        run("kill", &["-TERM", "--", &format!("-{}", upload.id())], &[]);
        upload.wait().unwrap();
        let why = match deploy.next().await {
            Told::Waits(_, Some(why)) => why,
            other => panic!("{other:?}"),
        };
        assert!(why.starts_with("a transfer is not done, or was cut off: `lib/part"), "{why}");
        let kept = async || {
            let mut parts = [0, 1].iter().map(|part| target.join(format!("lib/part{part}/{left}")));
            parts.any(|folder| folder.is_dir()).then_some(())
        };
        eventually("rsync keeps what it has in its folder", kept).await;
        // What rsync leaves behind of itself may still move its files.
        deploy.only_waits(SETTLE * 3).await;

        let again: Vec<&str> = arguments[..2].to_vec();
        run("rsync", &again, &[&contents(&source), &target]);
        let quiet = deploy.settles("4f2a91c").await;
        assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "{arguments:?}: told after {quiet:?}");
        run("diff", &["-r"], &[&source, &target]);
    }
}

#[tokio::test]
async fn two_uploads_at_once_each_settle_after_their_own_end() {
    let mut deploy = Deploy::new();
    let source = deploy.elsewhere("build");
    build(&source, 20, 100_000);
    let (slow, fast) = (deploy.root().join("4f2a91c"), deploy.root().join("b001bee"));
    let mut upload = rsync(&["-a", "--bwlimit=1m"], &contents(&source), &slow);
    deploy.expect(&[arriving("4f2a91c")]).await;
    run("rsync", &["-a"], &[&contents(&source), &fast]);
    deploy.expect(&[arriving("b001bee"), settled("b001bee")]).await;
    assert!(upload.try_wait().unwrap().is_none(), "the slow one was too fast to prove anything");
    let quiet = deploy.settles("4f2a91c").await;
    assert!(upload.wait().unwrap().success());
    assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the last change");
    run("diff", &["-r"], &[&source, &slow]);
}

#[tokio::test]
async fn two_uploads_into_one_folder_settle_after_the_second() {
    let mut deploy = Deploy::new();
    let (one, two) = (deploy.elsewhere("one"), deploy.elsewhere("two"));
    build(&one, 20, 50_000);
    fs::create_dir(&two).unwrap();
    fs::write(two.join("assets.bin"), vec![b'x'; 2_000_000]).unwrap();
    let target = deploy.root().join("4f2a91c");
    let mut slow = rsync(&["-a", "--bwlimit=1m"], &contents(&two), &target);
    let mut fast = rsync(&["-a", "--bwlimit=2m"], &contents(&one), &target);
    let quiet = deploy.settles("4f2a91c").await;
    assert!(fast.wait().unwrap().success() && slow.wait().unwrap().success());
    assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the last change");
    run("diff", &["-r", "--exclude=assets.bin"], &[&one, &target]);
    run("cmp", &[], &[&two.join("assets.bin"), &target.join("assets.bin")]);
}

/// `manifest.sha256` as people make it, in the folder `build`.
fn write_sums(build: &Path) {
    let script = "find . -type f ! -name manifest.sha256 -exec sha256sum {} + > manifest.sha256";
    let done = Command::new("sh").args(["-c", script]).current_dir(build).status().unwrap();
    assert!(done.success());
}

#[tokio::test]
async fn checksums_that_do_not_hold_fail_the_version_until_they_do() {
    let mut deploy = with_marker("manifest.sha256");
    let source = deploy.elsewhere("build");
    build(&source, 20, 1_000);
    write_sums(&source);
    let target = deploy.root().join("4f2a91c");
    run("rsync", &["-a", "--exclude=manifest.sha256"], &[&contents(&source), &target]);
    deploy.expect(&[arriving("4f2a91c"), waits("4f2a91c", "waits for manifest.sha256")]).await;

    fs::write(target.join("lib/part3/file3.js"), "another build's").unwrap();
    fs::remove_file(target.join("lib/part4/file4.js")).unwrap();
    run("rsync", &["-a"], &[&source.join("manifest.sha256"), &target]);
    let why = loop {
        match deploy.next().await {
            Told::Broken(_, why) => break why,
            Told::Waits(..) => {}
            other => panic!("{other:?}"),
        }
    };
    assert!(why.starts_with("manifest.sha256: "), "{why}");
    assert!(why.contains("lib/part3/file3.js is not what it says"), "{why}");
    assert!(why.contains("lib/part4/file4.js is missing"), "{why}");
    deploy.silence(SETTLE * 4).await;

    run("rsync", &["-a", "--checksum"], &[&contents(&source), &target]);
    let quiet = deploy.settles("4f2a91c").await;
    assert!(quiet + TICK > SETTLE && quiet < SETTLE + slack(), "told {quiet:?} after the last change");
}

#[tokio::test]
async fn a_folder_renamed_into_place_needs_its_marker_too() {
    let mut deploy = with_marker(".ready");
    deploy.in_force().await;
    let staged = deploy.elsewhere("staged");
    build(&staged, 3, 10);
    run("mv", &[], &[&staged, &deploy.root().join("4f2a91c")]);
    deploy.expect(&[arriving("4f2a91c"), waits("4f2a91c", "waits for .ready")]).await;
    run("touch", &[], &[&deploy.root().join("4f2a91c/.ready")]);
    deploy.expect(&[goes_on("4f2a91c"), settled("4f2a91c")]).await;

    build(&staged, 3, 10);
    fs::write(staged.join(".ready"), "").unwrap();
    run("mv", &[], &[&staged, &deploy.root().join("b001bee")]);
    deploy.expect(&[arriving("b001bee"), settled("b001bee")]).await;
}

#[tokio::test]
async fn a_part_file_of_sftp_is_waited_for() {
    let mut deploy = Deploy::new();
    let target = deploy.root().join("4f2a91c");
    build(&target, 3, 10);
    let part: PathBuf = target.join("app.jar.filepart");
    fs::write(&part, "half").unwrap();
    deploy.expect(&[arriving("4f2a91c")]).await;
    let why = "a transfer is not done, or was cut off: `app.jar.filepart` is left";
    deploy.expect(&[waits("4f2a91c", why)]).await;
    fs::rename(&part, target.join("app.jar")).unwrap();
    deploy.expect(&[goes_on("4f2a91c"), settled("4f2a91c")]).await;
}

#[tokio::test]
async fn a_copy_that_stands_still_is_waited_for() {
    let mut deploy = Deploy::new();
    let target = deploy.root().join("4f2a91c");
    build(&target, 3, 10);
    deploy.expect(&[arriving("4f2a91c")]).await;
    let source = deploy.elsewhere("pipe");
    run("mkfifo", &[], &[&source]);
    let mut copy =
        start("sh", &["-c", "exec cat < \"$1\" > \"$2\"", "sh"], &[&source, &target.join("app.jar")]);
    let mut pipe = File::options().write(true).open(&source).unwrap();
    std::io::Write::write_all(&mut pipe, b"half").unwrap();
    deploy
        .expect(&[waits("4f2a91c", &format!("app.jar is open for writing by pid {} (cat)", copy.id()))])
        .await;
    deploy.silence(SETTLE * 3).await;
    std::io::Write::write_all(&mut pipe, b" and whole").unwrap();
    drop(pipe);
    assert!(copy.wait().unwrap().success());
    deploy.settles("4f2a91c").await;
}
