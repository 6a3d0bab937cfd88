//! Workers that fork away: the process that `PIDFILE` names is the worker.

use super::*;

/// Becomes a daemon as the books say (two forks, a session of its own, no standard streams), then serves.
const DAEMON: &str = r#"
import os, sys, time
late = float(sys.argv[1]) if len(sys.argv) > 1 else 0
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
null = os.open("/dev/null", os.O_RDWR)
for stream in (0, 1, 2): os.dup2(null, stream)
time.sleep(late)
with open(os.environ["PIDFILE"] + ".new", "w") as file: file.write(f"{os.getpid()}\n")
os.rename(os.environ["PIDFILE"] + ".new", os.environ["PIDFILE"])
sys.argv = [""]
exec(open("server.py").read())
"#;

/// nginx as it comes: it goes into the background and writes its number.
const NGINX: &str = r#"
PATH=$PATH:/usr/sbin
cat > nginx.conf <<END
pid $PIDFILE;
error_log $PWD/error.log;
worker_processes 2;
events {}
http {
    access_log off;
    server { listen 127.0.0.1:$PORT; location / { return 200 "nginx $COMMIT"; } }
}
END
nginx -p $PWD -c $PWD/nginx.conf
"#;

async fn deploy(world: &World, run: &str) -> Arc<registry::Version> {
    world.write("4f2a91c", run);
    std::fs::write(world.folder("4f2a91c").join("daemon.py"), DAEMON).unwrap();
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Ready).await
}

async fn main_process(world: &World) -> u32 {
    let pidfile = world.state.path().join("run/app/4f2a91c/0-1.pid");
    let pid: u32 = written(&pidfile).await.parse().unwrap();
    let what = format!("the worker is process {pid}");
    world.until("4f2a91c", &what, |v| v.state == VersionState::Ready && pids(v) == [pid]).await;
    pid
}

#[tokio::test]
async fn a_daemon_is_followed_by_its_pid_file_adopted_seen_to_end_and_stopped() {
    for run in ["exec python3 daemon.py", NGINX] {
        let world = World::new(spec());
        let version = deploy(&world, run).await;
        let pid = main_process(&world).await;
        assert_eq!(version.reason, None);
        assert!(get(&version.ready[0].address, "/").await.contains("200 OK"));
        assert_eq!(version.workers[0].restarts, 0);

        // The next supervisor goes on with it, though it may have overwritten its environment.
        let world = world.succeeded().await;
        world.handle.returned().await;
        let adopted = world.until_state("4f2a91c", VersionState::Ready).await;
        assert_eq!((pids(&adopted), adopted.workers[0].restarts), (vec![pid], 0));

        kill(pid);
        let again = world
            .until("4f2a91c", "it was started again", |v| {
                v.state == VersionState::Ready && v.workers[0].restarts == 1 && pids(v) != [pid]
            })
            .await;
        let pid = written(&world.state.path().join("run/app/4f2a91c/0-2.pid")).await.parse().unwrap();
        world.until("4f2a91c", "the new daemon is the worker", |v| pids(v) == [pid]).await;
        assert!(get(&again.ready[0].address, "/").await.contains("200 OK"));

        world.ask("4f2a91c", Action::Stop { force: false }).await.unwrap();
        world.until_state("4f2a91c", VersionState::Stopped).await;
        assert!(!exists(pid), "{run}");
        assert!(!processes_of(&world).any(|_| true), "{:?}", processes_of(&world).collect::<Vec<_>>());
        world.end().await;
    }
}

#[tokio::test]
async fn a_daemon_may_write_its_pid_file_a_little_late_and_its_end_is_seen() {
    let world = World::new(spec());
    deploy(&world, "exec python3 daemon.py 0.5").await;
    let pid = main_process(&world).await;
    kill(pid);
    world
        .until("4f2a91c", "it was started again", |v| v.workers[0].restarts == 1 && v.ready.len() == 1)
        .await;
    world.end().await;
}

#[tokio::test]
async fn what_goes_into_the_background_without_a_pid_file_is_told_how_to_do_it() {
    let world = World::new(spec());
    world.deploy("4f2a91c", "python3 server.py & sleep 0.1").await;
    let failed = world.until("4f2a91c", "it is said", |v| v.reason.is_some()).await;
    let reason = failed.reason.as_deref().unwrap();
    for words in
        ["exited with status 0", "must stay in the foreground", "write its number to the file $PIDFILE"]
    {
        assert!(reason.contains(words), "{reason}");
    }
    world.end().await;
    assert!(!processes_of(&world).any(|_| true));
}

/// What runs in the version's folder.
fn processes_of(world: &World) -> impl Iterator<Item = String> {
    crate::support::switchman::processes_in(&world.folder("4f2a91c")).into_iter()
}
