//! A version that an earlier switchman has left processes of.

use proptest::prelude::*;

use super::*;

impl World {
    /// A version of which these workers' processes go on.
    fn adopting(workers: u32, was_ready: bool, left: &[(u32, u64, u32)]) -> Self {
        let mut world = Self::new();
        let adopted = |(worker, process, restarts): &(u32, u64, u32)| Adopted {
            process: ProcessId(*process),
            worker: WorkerId(*worker),
            restarts: *restarts,
        };
        let processes: Vec<Adopted> = left.iter().map(adopted).collect();
        world.live.extend(processes.iter().map(|a| (a.process, a.worker)));
        world.step(Event::Adopt { workers, was_ready, processes });
        world
    }

    fn restarts(&self) -> Vec<u32> {
        self.life.workers().map(|(_, _, restarts, _)| restarts).collect()
    }
}

#[test]
fn what_is_left_goes_on_with_its_numbers_and_what_is_missing_is_started() {
    let mut world = World::adopting(3, true, &[(0, 7, 2), (2, 9, 0)]);
    assert_eq!(world.life.state(), VersionState::Starting, "nothing was checked yet");
    assert_eq!(world.restarts(), [2, 0, 0]);
    let started: Vec<(ProcessId, WorkerId)> = world.live.iter().map(|(p, w)| (*p, *w)).collect();
    assert_eq!(
        started,
        [(ProcessId(7), WorkerId(0)), (ProcessId(9), WorkerId(2)), (ProcessId(10), WorkerId(1))],
        "no number is used twice"
    );
    world.step(Event::Passed(ProcessId(7)));
    assert_eq!(world.life.state(), VersionState::Ready, "it was ready: one that answers is enough");
    world.pass_all();
    assert_eq!(world.life.ready().count(), 3);
}

#[test]
fn one_that_does_not_answer_any_more_is_a_lost_worker_and_no_failed_version() {
    let mut world = World::adopting(2, true, &[(0, 1, 0), (1, 2, 0)]);
    world.step(Event::Passed(ProcessId(1)));
    world.step(Event::Late(ProcessId(2), "did not answer".into()));
    assert_eq!(world.life.state(), VersionState::Ready);
    world.settle();
    world.retry();
    world.pass_all();
    assert_eq!((world.life.ready().count(), world.restarts()), (2, vec![0, 1]));
}

#[test]
fn a_version_that_was_starting_fails_as_it_would_have() {
    let mut world = World::adopting(1, false, &[(0, 1, 0)]);
    world.step(Event::Late(ProcessId(1), "did not become ready".into()));
    assert_eq!(world.life.state(), VersionState::Failed);
}

#[test]
fn a_version_that_nothing_is_left_of_does_not_use_old_numbers() {
    let mut world = World::new();
    world.life.number_after(41);
    world.step(Event::Start { workers: 1 });
    assert_eq!(world.live.keys().copied().collect::<Vec<_>>(), [ProcessId(42)]);
}

proptest! {
    /// Whatever was left of it, and whatever becomes of that: it ends ready, or stopped when told to.
    #[test]
    fn a_version_comes_back_from_whatever_was_left(
        workers in 1_u32..5,
        was_ready in any::<bool>(),
        left in prop::collection::btree_map(0_u32..7, (0_u32..3, 0_u8..4), 0..6),
    ) {
        let processes: Vec<(u32, u64, u32)> =
            left.iter().map(|(worker, (restarts, _))| (*worker, u64::from(*worker) + 5, *restarts)).collect();
        let mut world = World::adopting(workers, was_ready, &processes);
        prop_assert!(world.live.len() >= workers as usize);
        for (worker, (_, fate)) in &left {
            let process = ProcessId(u64::from(*worker) + 5);
            match fate {
                0 => world.step(Event::Passed(process)),
                1 if world.live.contains_key(&process) => world.crash(process),
                2 => world.step(Event::Late(process, "late".into())),
                _ => {}
            }
        }
        world.settle();
        world.step(Event::Start { workers });
        for _ in 0..8 {
            world.retry();
            world.pass_all();
            world.settle();
        }
        prop_assert_eq!(world.life.state(), VersionState::Ready);
        prop_assert_eq!(world.life.ready().count(), workers as usize);
        world.step(Event::Stop);
        world.settle();
        prop_assert_eq!(world.life.state(), VersionState::Stopped);
        prop_assert!(world.live.is_empty());
    }
}
