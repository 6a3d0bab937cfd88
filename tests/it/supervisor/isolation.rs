//! As whom workers run, within which limits, and in which control group; and what they do not find in their environment.

use std::os::unix::fs::PermissionsExt as _;

use switchman::config::{Account, Isolation, Person, Resource, Rlimit, UpstreamAt};

use super::*;
use crate::support::http;
use crate::support::switchman::{PROGRAM, end_processes_in, free_address, worker_program};

/// Tells what a test could not look at, and why.
#[allow(clippy::print_stderr, reason = "a test that cannot run says so")]
fn not_tested(what: &str) {
    eprintln!("NOT TESTED: {what}");
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// `nobody`, with a group of its own and another one.
fn nobody() -> Account {
    let person =
        Person { name: "nobody".to_owned(), home: "/nonexistent".into(), shell: "/bin/false".into() };
    Account { uid: 65_534, gid: 65_534, groups: vec![65_534, 4242], person: Some(person) }
}

/// A service whose workers run as nobody. Its folders are where nobody may look.
fn as_nobody(spec: RunSpec) -> World {
    let isolation = Isolation { account: Some(nobody()), no_new_privs: true, ..spec.isolation.clone() };
    let root = Root::new();
    std::fs::set_permissions(root.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let state = Arc::new(TempDir::new().unwrap());
    std::fs::set_permissions(state.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    World::over(root, state, RunSpec { isolation, ..spec })
}

/// The value of a line in `/proc/PID/status`.
fn status(pid: u32, name: &str) -> String {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).unwrap();
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[tokio::test]
async fn a_worker_runs_as_its_user_and_reaches_what_is_its_own() {
    if !is_root() {
        return not_tested("workers that run as somebody else: the tests do not run as root");
    }
    for upstream in [UpstreamAt::Port, UpstreamAt::Unix, UpstreamAt::Inherit] {
        let program = worker_program().display().to_string();
        let run = RunCommand::Shell(format!(
            "echo $$ > $PIDFILE.new && mv $PIDFILE.new $PIDFILE && umask && exec {program}"
        ));
        let mut spec = RunSpec { run: Some(run), upstream, ..spec() };
        spec.isolation.umask = Some(0o27);
        let world = as_nobody(spec);
        let folder =
            tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir().unwrap();
        // What the tests are built into may be out of nobody's reach.
        let copy = folder.path().join("worker");
        std::fs::copy(&program, &copy).unwrap();
        world.write("4f2a91c", "");
        let own = format!(
            "run: {:?}",
            format!("echo $$ > $PIDFILE.new && mv $PIDFILE.new $PIDFILE && umask && exec {}", copy.display())
        );
        std::fs::write(world.folder("4f2a91c").join("switchman.yaml"), own).unwrap();
        world.settle("4f2a91c").await;
        let version = world.until_state("4f2a91c", VersionState::Ready).await;
        let pid = pids(&version)[0];
        for (name, value) in [
            ("Uid", "65534 65534 65534 65534"),
            ("Gid", "65534 65534 65534 65534"),
            ("Groups", "4242 65534"),
            ("NoNewPrivs", "1"),
            ("CapEff", "0000000000000000"),
        ] {
            assert_eq!(status(pid, name), value, "{name}");
        }
        assert_eq!(world.lines("4f2a91c")[0], "0027");
        let environment: BTreeMap<String, String> = std::fs::read(format!("/proc/{pid}/environ"))
            .unwrap()
            .split(|byte| *byte == 0)
            .filter_map(|line| {
                String::from_utf8_lossy(line).split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()))
            })
            .collect();
        for (name, value) in
            [("HOME", "/nonexistent"), ("USER", "nobody"), ("LOGNAME", "nobody"), ("SHELL", "/bin/false")]
        {
            assert_eq!(environment[name], value);
        }
        assert!(get(&version.ready[0].address, "/").await.contains("version=4f2a91c"));
        let pidfile = Path::new(&environment["PIDFILE"]);
        assert_eq!(std::fs::read_to_string(pidfile).unwrap().trim(), pid.to_string());
        let run = pidfile.parent().unwrap();
        let mode = run.metadata().unwrap();
        assert_eq!((mode.uid(), mode.gid(), mode.mode() & 0o7777), (0, 65_534, 0o1730), "ours, and sticky");
        let state = world.state.path();
        assert_eq!(state.metadata().unwrap().mode() & 0o077, 0o011, "passed through, not listed");
        world.end().await;
        assert!(!pidfile.exists());
    }
}

#[tokio::test]
async fn a_worker_as_somebody_else_says_that_it_is_ready_and_is_checked_as_itself() {
    if !is_root() {
        return not_tested(
            "notifications of workers that run as somebody else: the tests do not run as root",
        );
    }
    let says = "import os, socket, time
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.sendto(b'READY=1', os.environ['NOTIFY_SOCKET'])
time.sleep(1000)";
    let mut spec = spec();
    spec.ready.check = ReadyCheck::Notify;
    let world = as_nobody(spec.clone());
    world.write("4f2a91c", "exec /usr/bin/env python3 says.py");
    std::fs::write(world.folder("4f2a91c").join("says.py"), says).unwrap();
    // A python of somebody's home may be out of reach.
    if Path::new("/usr/bin/python3").exists() {
        std::fs::write(world.folder("4f2a91c").join("run.sh"), "exec /usr/bin/python3 says.py").unwrap();
    }
    world.settle("4f2a91c").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.end().await;

    spec.ready.check = ReadyCheck::Command(RunCommand::Shell("test $(id -u) = 65534".to_owned()));
    spec.upstream = UpstreamAt::Inherit;
    let world = as_nobody(spec);
    world.deploy("4f2a91c", "exec sleep 1000").await;
    world.until_state("4f2a91c", VersionState::Ready).await;
    world.end().await;
}

#[tokio::test]
async fn limits_are_those_of_the_service_and_one_that_is_refused_is_named() {
    let limit = |resource, soft, hard| Rlimit { resource, soft: Some(soft), hard: Some(hard) };
    let mut limited = spec();
    limited.isolation.rlimits = vec![
        limit(Resource::Nofile, 333, 444),
        limit(Resource::Core, 0, 0),
        limit(Resource::Stack, 1 << 20, 1 << 23),
    ];
    limited.isolation.nice = Some(5);
    limited.isolation.oom_score_adj = Some(321);
    let world = World::new(limited.clone());
    world.deploy("4f2a91c", SERVE).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let pid = pids(&version)[0];
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    for (name, soft, hard) in [
        ("Max open files", "333", "444"),
        ("Max core file size", "0", "0"),
        ("Max stack size", "1048576", "8388608"),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        assert_eq!(line.split_whitespace().take(2).collect::<Vec<_>>(), [soft, hard], "{name}");
    }
    let process = procfs::process::Process::new(pid.cast_signed()).unwrap();
    assert_eq!(process.stat().unwrap().nice, 5);
    let score = std::fs::read_to_string(format!("/proc/{pid}/oom_score_adj")).unwrap();
    assert_eq!((score.trim(), status(pid, "NoNewPrivs").as_str()), ("321", "0"));
    world.end().await;

    // Beyond what the kernel lets anybody have (fs.nr_open).
    limited.isolation.rlimits = vec![limit(Resource::Nofile, 1 << 40, 1 << 40)];
    let world = World::new(limited);
    world.deploy("bad0bad", SERVE).await;
    let failed = world.until_state("bad0bad", VersionState::Failed).await;
    let reason = failed.reason.as_deref().unwrap();
    assert!(
        reason.contains("could not be started: `rlimits` cannot be set: Operation not permitted"),
        "{reason}"
    );
    world.end().await;
}

/// The group of a process in cgroup v2, as a folder.
fn cgroup(pid: u32) -> Option<PathBuf> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    let mount = mounts.lines().find(|line| line.split(' ').nth(2) == Some("cgroup2"))?;
    Some(Path::new(mount.split(' ').nth(1)?).join(path))
}

/// Whether groups can be made where the tests run.
fn cgroups_are_ours() -> bool {
    let probe =
        cgroup(std::process::id()).map(|own| own.join(format!("switchman-test-{}", std::process::id())));
    probe.is_some_and(|probe| std::fs::create_dir(&probe).and_then(|()| std::fs::remove_dir(&probe)).is_ok())
}

#[tokio::test]
async fn a_worker_has_a_control_group_in_which_nothing_escapes() {
    if !cgroups_are_ours() {
        return not_tested("control groups: there is no cgroup v2 here that may be written");
    }
    let world = World::new(spec());
    // It leaves the session, loses its parents, has an empty environment, ignores TERM and holds no file of the worker.
    let escapes = "(setsid sh -c 'trap \"\" TERM; exec env -i sh -c \"echo \\$\\$ > escaped.new; mv escaped.new escaped; \
                   while :; do sleep 1000; done\"' </dev/null >/dev/null 2>&1 &)";
    world.deploy("4f2a91c", &format!("{escapes}\n{SERVE}")).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let escaped: u32 = written(&world.folder("4f2a91c").join("escaped")).await.parse().unwrap();
    let group = cgroup(pids(&version)[0]).unwrap();
    assert!(group.parent().unwrap().ends_with("workers"), "{}", group.display());
    let name = group.file_name().unwrap().to_string_lossy().into_owned();
    assert!(name.starts_with("app-4f2a91c-0-"), "{name}");
    assert_eq!(cgroup(escaped), Some(group.clone()));
    world.ask("4f2a91c", Action::Stop { force: true }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    assert!(!exists(escaped) && !group.exists());
    world.end().await;
}

/// A switchman with this service, in this environment.
struct Started {
    folder: TempDir,
    admin: std::net::SocketAddr,
    process: tokio::process::Child,
}

impl Started {
    async fn new(service: &str, environment: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let (address, admin) = (free_address(), free_address());
        let build = folder.path().join("app/4f2a91c");
        std::fs::create_dir_all(&build).unwrap();
        std::fs::write(build.join("COMMIT"), "4f2a91c").unwrap();
        let config = format!(
            "listen: \"{address}\"\nadmin: {{listen: \"{admin}\"}}\nstate: state\nservices:\n  app:\n    root: app\n    \
             settle: 10ms\n    run: [{:?}]\n{service}",
            worker_program()
        );
        std::fs::write(folder.path().join("switchman.yaml"), config).unwrap();
        let log = std::fs::File::create(folder.path().join("log")).unwrap();
        let process = tokio::process::Command::new(PROGRAM)
            .args(["serve", "--config", "switchman.yaml"])
            .envs(environment.iter().copied())
            .current_dir(folder.path())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let started = Self { folder, admin, process };
        eventually("the version is ready", async || {
            let versions = http::get(&format!("http://{admin}/versions")).await.ok()?.json();
            (versions["versions"][0]["state"] == "ready").then_some(())
        })
        .await;
        started
    }

    async fn worker(&self) -> u32 {
        let versions = http::get(&format!("http://{}/versions", self.admin)).await.unwrap().json();
        u32::try_from(versions["versions"][0]["workers"][0]["pid"].as_u64().unwrap()).unwrap()
    }

    fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap()
    }
}

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.process.start_kill();
        end_processes_in(self.folder.path());
    }
}

#[tokio::test]
async fn what_is_meant_for_switchman_is_not_in_the_environment_of_a_worker() {
    let ours = [
        ("NOTIFY_SOCKET", "/nowhere/notify"),
        ("LISTEN_FDS", "1"),
        ("LISTEN_PID", "1"),
        ("LISTEN_FDNAMES", "public"),
        ("SWITCHMAN_TOKEN", "secret"),
        ("ETCDCTL_PASSWORD", "secret"),
        ("CREDENTIALS_DIRECTORY", "/nowhere"),
        ("INVOCATION_ID", "7"),
    ];
    let theirs = ("TZ", "Europe/Madrid");
    let mut environment = ours.to_vec();
    environment.push(theirs);
    let started = Started::new("", &environment).await;
    let given = std::fs::read(format!("/proc/{}/environ", started.worker().await)).unwrap();
    let given: Vec<String> =
        given.split(|byte| *byte == 0).map(|line| String::from_utf8_lossy(line).into_owned()).collect();
    for (name, _) in ours {
        assert!(!given.iter().any(|line| line.starts_with(&format!("{name}="))), "{name} in {given:?}");
    }
    assert!(given.contains(&"TZ=Europe/Madrid".to_owned()) && given.iter().any(|l| l.starts_with("PORT=")));
}

#[tokio::test]
async fn a_limit_without_its_controller_is_said_loudly_and_stops_nobody() {
    let started = Started::new("    cgroup: {memory_max: 1GiB, cpu_max: 1.5, pids_max: 500}\n", &[]).await;
    let log = started.log();
    let pid = started.worker().await;
    let group = cgroup(pid).filter(|group| group.to_string_lossy().contains("/workers/app-4f2a91c-0-"));
    for (controller, key, file, value) in [
        ("memory", "memory_max", "memory.max", "1073741824"),
        ("cpu", "cpu_max", "cpu.max", "150000 100000"),
        ("pids", "pids_max", "pids.max", "500"),
    ] {
        let said = format!("services.app.cgroup.{key} is not in force");
        match group.as_ref().map(|group| std::fs::read_to_string(group.join(file))) {
            Some(Ok(text)) => {
                assert_eq!(text.trim(), value);
                assert!(!log.contains(&said), "{log}");
            }
            Some(Err(_)) | None => {
                assert!(log.contains(&said) && log.contains("Delegate=yes"), "{log}");
                not_tested(&format!(
                    "cgroup.{key}: this machine has no cgroup v2 with the controller {controller}"
                ));
            }
        }
    }
}
