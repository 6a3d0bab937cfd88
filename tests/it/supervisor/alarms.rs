//! Lines that are an alarm: counted, shown, written down, and where the service says so the worker is replaced.

use regex::bytes::RegexSet;
use switchman::config::Alarm;
use switchman::journal::{Event, What};

use super::*;

/// `FATAL` and `out of memory` are alarms.
fn alarm(restart: bool) -> Extra {
    let lines = RegexSet::new(["^FATAL", "out of memory"]).unwrap();
    Extra { alarm: Some(Arc::new(Alarm { lines, restart })), ..Extra::default() }
}

impl World {
    fn events(&self) -> Vec<Arc<Event>> {
        self.handle.journal().after(0).0
    }
}

/// Prints a line once the file `say` is there, and takes it away.
const PRINTS: &str = "(while sleep 0.02; do if [ -e say ]; then cat say >&2; rm say; fi; done) & ";

#[tokio::test]
async fn an_alarm_is_counted_shown_and_written_down() {
    let world = World::with(spec(), alarm(false));
    world.deploy("4f2a91c", &format!("{PRINTS} echo no FATAL here; {SERVE}")).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    assert_eq!((before.workers[0].alarms, &before.reason), (0, &None));
    std::fs::write(world.folder("4f2a91c").join("say"), "FATAL: one\nall is well\nan out of memory error\n")
        .unwrap();
    let marked = world.until("4f2a91c", "two alarms are counted", |v| v.workers[0].alarms == 2).await;
    assert_eq!(marked.state, VersionState::Ready);
    let reason = marked.reason.clone().unwrap();
    assert!(
        reason.starts_with("worker 0 raised an alarm (2 lines so far): an out of memory error"),
        "{reason}"
    );
    assert_eq!(pids(&marked), pids(&before), "nothing is restarted");
    let raised = world.events().into_iter().rfind(|event| matches!(event.what, What::Alarm { .. })).unwrap();
    let What::Alarm { pid, count, line, .. } = &raised.what else { panic!() };
    assert_eq!((*pid, *count, line.as_str()), (pids(&before)[0], 2, "an out of memory error"));

    // A new worker has raised none; the worker's number of them stays.
    world.ask("4f2a91c", Action::Restart).await.unwrap();
    let after =
        world.until("4f2a91c", "it is replaced", |v| pids(v) != pids(&before) && v.reason.is_none()).await;
    assert_eq!(after.workers[0].alarms, 2);
    world.end().await;
}

#[tokio::test]
async fn a_worker_that_raised_an_alarm_is_replaced_and_the_old_one_serves_until_then() {
    let mut two = spec();
    two.workers = 2;
    let world = World::with(two, alarm(true));
    let prints = "[ $SWITCHMAN_WORKER = 1 ] && (while sleep 0.02; do if [ -e say ]; then rm say; echo FATAL; fi; done) & ";
    world.deploy("4f2a91c", &format!("{prints} {SERVE}")).await;
    let before = world.until_state("4f2a91c", VersionState::Ready).await;
    let serving = {
        let registry = world.registry.clone();
        tokio::spawn(async move {
            let mut registry = registry;
            let mut least = 2;
            while registry.changed().await.is_ok() {
                let ready = registry.borrow().services[APP].versions["4f2a91c"].ready.len();
                least = least.min(ready);
                if least == 0 {
                    break;
                }
            }
            least
        })
    };
    std::fs::write(world.folder("4f2a91c").join("say"), "").unwrap();
    let after = world
        .until("4f2a91c", "worker 1 is replaced", |v| {
            v.ready.len() == 2 && v.workers.len() == 2 && v.workers[1].pid != before.workers[1].pid
        })
        .await;
    assert_eq!(after.workers[0].pid, before.workers[0].pid, "the other one is left alone");
    assert_eq!(after.workers[1].alarms, 1);
    assert!(!serving.is_finished(), "there was always one ready");
    serving.abort();
    world.end().await;
}

#[tokio::test]
async fn one_that_raises_an_alarm_at_every_start_is_left_alone_after_a_few() {
    let world = World::with(spec(), alarm(true));
    world.deploy("4f2a91c", &format!("echo FATAL: at every start; echo x >> starts; {SERVE}")).await;
    let reason = world
        .until("4f2a91c", "it is given up", |v| {
            v.reason.as_deref().is_some_and(|reason| reason.contains("is not replaced again"))
        })
        .await;
    assert_eq!(reason.state, VersionState::Ready, "it serves all the same");
    let starts = std::fs::read_to_string(world.folder("4f2a91c").join("starts")).unwrap();
    assert_eq!(starts.lines().count(), 5);
    world.end().await;
}

#[tokio::test]
async fn the_journal_tells_the_life_of_a_version() {
    let world = World::new(spec());
    world.deploy("4f2a91c", SERVE).await;
    let version = world.until_state("4f2a91c", VersionState::Ready).await;
    let pid = pids(&version)[0];
    kill(pid);
    let again = world.until("4f2a91c", "it runs again", |v| pids(v) != [pid] && v.ready.len() == 1).await;
    world.ask("4f2a91c", Action::Stop { force: true }).await.unwrap();
    world.until_state("4f2a91c", VersionState::Stopped).await;
    world.gone("4f2a91c").await;
    world.until_forgotten("4f2a91c").await;
    let told: Vec<String> = world.events().iter().map(|event| event.what.to_string()).collect();
    let second = pids(&again)[0];
    for (line, times) in [
        (format!("worker 0 is started, pid {pid}"), 1),
        (format!("worker 0 is ready, pid {pid}"), 1),
        (format!("worker 0 is started, pid {second}"), 1),
        ("asked for: stop --force".to_owned(), 1),
        (format!("worker 0 has ended, pid {second}"), 1),
        ("is ready".to_owned(), 2),
        ("is stopped".to_owned(), 1),
        ("is gone".to_owned(), 1),
    ] {
        assert_eq!(told.iter().filter(|told| **told == line).count(), times, "{line}: {told:#?}");
    }
    let killed = format!("worker 0 has ended by itself, pid {pid}: was ended by signal 9 (KILL");
    assert!(told.iter().any(|told| told.starts_with(&killed)), "{told:#?}");
    world.end().await;
}
