//! Versions that do not work: what is said of them, and that nobody else suffers.

use switchman::supervisor::output::Query;

use super::*;

/// Waits until a version has failed; its reason.
async fn failure(world: &World, version: &str) -> String {
    let failed = world.until_state(version, VersionState::Failed).await;
    world.until(version, "its processes are ended", |v| pids(v).is_empty()).await;
    assert!(failed.ready.is_empty());
    failed.reason.clone().unwrap()
}

#[tokio::test]
async fn a_version_that_exits_at_once_fails_with_its_last_lines_and_changes_nothing_for_others() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let well = world.until_state("4f2a91c", VersionState::Ready).await;
    world.deploy("bad0bad", "echo starting; echo 'cannot find module express' >&2; exit 3").await;
    let reason = failure(&world, "bad0bad").await;
    assert!(reason.starts_with("5 failures within 60s; worker 0 exited with status 3"), "{reason}");
    assert!(reason.contains("\n  starting") && reason.contains("\n  cannot find module express"), "{reason}");
    let after = world.version("4f2a91c").unwrap();
    assert_eq!((after.state, pids(&after), after.workers[0].restarts), (VersionState::Ready, pids(&well), 0));

    world.write("bad0bad", SERVE);
    world.ask("bad0bad", Action::Start).await.unwrap();
    world.until_state("bad0bad", VersionState::Ready).await;
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_does_not_become_ready_says_why() {
    let world = World::new(deadline(6_000));
    let versions = [
        ("bad0001", "exec sleep 1000", "did not become ready within 6s: nothing listens on 127.0.0.1:"),
        ("bad0002", "exec python3 server.py 0", "not on the port it was given (PORT="),
        (
            "bad0003",
            "exec python3 server.py $PORT 500",
            "did not become ready within 6s: GET /healthz answered 500",
        ),
    ];
    for (version, run, _) in versions {
        world.deploy(version, run).await;
    }
    for (version, _, words) in versions {
        let reason = failure(&world, version).await;
        assert!(reason.contains(words), "{reason}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_listens_elsewhere_is_told_before_the_deadline() {
    let world = World::new(deadline(60_000));
    world.deploy("bad0bad", "exec python3 server.py 0").await;
    let version = world.until("bad0bad", "it is noted", |v| v.reason.is_some()).await;
    let reason = version.reason.as_deref().unwrap();
    assert!(
        reason.starts_with("the worker listens on 127.0.0.1:")
            && reason.contains("hint: make it listen on $PORT")
    );
    assert_eq!(version.state, VersionState::Starting);
    world.end().await;
}

#[tokio::test]
async fn a_command_that_is_missing_is_named() {
    let exec = |words: &[&str]| Some(RunCommand::Exec(words.iter().map(|w| (*w).to_owned()).collect()));
    let shell = |text: &str| Some(RunCommand::Shell(text.to_owned()));
    for (run, words) in [
        (exec(&["nodee", "server.js"]), "`nodee` was not found in PATH; hint: install it"),
        (exec(&["./run.sh"]), "`./run.sh` may not be executed; hint: chmod +x ./run.sh"),
        (exec(&["./missing"]), "`./missing` was not found in"),
        (shell("nodee server.js"), "exited with status 127: the shell did not find a command of `run`"),
        (shell("./run.sh"), "exited with status 126"),
        (None, "nothing says how to run the version in"),
    ] {
        let world = World::new(RunSpec { run, ..spec() });
        world.deploy("bad0bad", "exit 0").await;
        let reason = failure(&world, "bad0bad").await;
        assert!(reason.contains(words), "{reason}");
        world.end().await;
    }
}

/// The first process tells its port and waits for `go`; by then somebody else listens there. Later ones just serve.
fn robbed(then: &str) -> String {
    format!(
        "if mkdir robbed 2>/dev/null; then echo $PORT > port.new; mv port.new port
         while [ ! -e go ]; do sleep 0.02; done
         {then}; fi
         {SERVE}"
    )
}

#[tokio::test]
async fn a_port_that_somebody_else_took_is_replaced_without_counting_as_a_crash() {
    // The worker either notices and exits, or waits for ever while somebody else answers on its port.
    for then in [SERVE, "exec sleep 1000"] {
        let world = World::new(spec());
        world.deploy("4f2a91c", &robbed(then)).await;
        let port: u16 = written(&world.folder("4f2a91c").join("port")).await.parse().unwrap();
        let thief = tokio::net::TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let robber = tokio::spawn(async move {
            loop {
                let (mut stream, _) = thief.accept().await.unwrap();
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        });
        std::fs::write(world.folder("4f2a91c").join("go"), "").unwrap();
        let version = world.until_state("4f2a91c", VersionState::Ready).await;
        let Address::Tcp(address) = &version.ready[0].address else { panic!() };
        assert_ne!(address.port(), port);
        assert_eq!((version.workers[0].restarts, &version.reason), (0, &None));
        robber.abort();
        world.end().await;
    }
}

#[tokio::test]
async fn rubbish_and_a_line_of_200_megabytes_do_no_harm() {
    let world =
        World::new(RunSpec { ready: Ready { deadline: Duration::from_secs(60), ..spec().ready }, ..spec() });
    let noisy = "head -c 100000 /dev/urandom; echo
                 head -c 200000000 /dev/zero | tr '\\0' x; echo
                 echo still here; exec python3 server.py";
    world.deploy("4f2a91c", noisy).await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    let lines = world.lines("4f2a91c");
    assert_eq!(lines.last().map(String::as_str), Some("still here"));
    let bytes: usize = lines.iter().map(String::len).sum();
    assert!(bytes <= 256 * 1024, "{} lines, {bytes} bytes in memory", lines.len());
    let query = Query { lines: Some(100), ..Query::default() };
    let mut kept = world.handle.logs().read(&APP.into(), &"4f2a91c".into(), query, false);
    let mut read = 0;
    while let Some(lines) = kept.recv().await {
        assert!(lines.iter().all(|line| line.text.len() <= 64 * 1024));
        read += lines.len();
    }
    assert_eq!(read, 100, "more is in the file");
    world.end().await;
}

#[tokio::test]
async fn lines_are_kept_with_their_stream_and_can_be_followed() {
    let world = World::new(spec());
    let mut follower = world.handle.logs().follow();
    world.deploy("4f2a91c", "echo out; echo err >&2; exec python3 server.py").await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..2 {
        let line = follower.recv().await.unwrap();
        assert_eq!((line.version.as_str(), line.worker.0, line.pid), ("4f2a91c", 0, pids(&version)[0]));
        seen.insert(format!("{} {}", line.stream.as_str(), line.text));
    }
    assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["stderr err", "stdout out"]);
    assert_eq!(world.lines("4f2a91c").len(), 2);
    world.end().await;
}
