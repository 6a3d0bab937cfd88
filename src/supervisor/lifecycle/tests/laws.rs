//! The laws, whatever happens in whatever order.

use proptest::prelude::*;

use super::*;

/// What chance may do to a version; numbers choose among the processes that are there.
#[derive(Debug, Clone)]
enum Chance {
    Start(u32),
    Stop,
    Retire,
    Arrive,
    Restart(u32),
    Scale(u32),
    Shutdown,
    Pass(usize),
    Late(usize),
    PortTaken(usize),
    Crash(usize),
    Alarm(usize),
    EndOfTold,
    EndOfDrain,
    Retry,
    Time(u64),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        3 => (1_u32..4).prop_map(Chance::Start),
        1 => Just(Chance::Stop),
        1 => Just(Chance::Retire),
        1 => Just(Chance::Arrive),
        2 => (1_u32..4).prop_map(Chance::Restart),
        2 => (1_u32..4).prop_map(Chance::Scale),
        1 => Just(Chance::Shutdown),
        8 => (0_usize..8).prop_map(Chance::Pass),
        1 => (0_usize..8).prop_map(Chance::Late),
        1 => (0_usize..8).prop_map(Chance::PortTaken),
        3 => (0_usize..8).prop_map(Chance::Crash),
        2 => (0_usize..8).prop_map(Chance::Alarm),
        6 => Just(Chance::EndOfTold),
        4 => Just(Chance::EndOfDrain),
        4 => Just(Chance::Retry),
        1 => (1_u64..90).prop_map(Chance::Time),
    ]
}

impl World {
    fn pick(&self, n: usize) -> Option<ProcessId> {
        self.live.keys().copied().nth(n % self.live.len().max(1))
    }

    fn play(&mut self, chance: Chance) {
        let was = self.life.state();
        let had_ready = self.life.ready().count();
        match chance {
            Chance::Start(workers) => self.step(Event::Start { workers }),
            Chance::Stop => self.step(Event::Stop),
            Chance::Retire => self.step(Event::Retire),
            Chance::Arrive => self.step(Event::Arrive),
            Chance::Restart(workers) => self.step(Event::Restart { workers }),
            Chance::Scale(workers) => self.step(Event::Scale(workers)),
            Chance::Shutdown => self.step(Event::Shutdown),
            Chance::Pass(n) => {
                // Only a process that is starting is checked; a verdict may also come too late.
                if let Some(process) = self.pick(n).filter(|p| !self.passed.contains(p)) {
                    self.step(Event::Passed(process));
                }
            }
            Chance::Late(n) => {
                self.pick(n).into_iter().for_each(|p| self.step(Event::Late(p, "late".into())));
            }
            Chance::PortTaken(n) => self.pick(n).into_iter().for_each(|p| self.step(Event::PortTaken(p))),
            Chance::Crash(n) => self.pick(n).into_iter().for_each(|p| self.crash(p)),
            Chance::Alarm(n) => self.pick(n).into_iter().for_each(|p| self.step(Event::Alarmed(p))),
            Chance::EndOfTold => {
                let told = self.told.iter().copied().find(|p| self.live.contains_key(p));
                told.into_iter().for_each(|p| self.step(Event::Ended(p, End::Told)));
            }
            Chance::EndOfDrain => {
                self.drains.pop_first().into_iter().for_each(|p| self.step(Event::Drained(p)));
            }
            Chance::Retry => self.retry(),
            Chance::Time(seconds) => self.now += Duration::from_secs(seconds),
        }
        if was == VersionState::Ready && self.life.state() == VersionState::Failed {
            assert!(had_ready <= 1, "failed with {had_ready} ready workers");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn the_laws_hold_whatever_happens(chances in prop::collection::vec(chance(), 0..120)) {
        let mut world = World::new();
        chances.into_iter().for_each(|chance| world.play(chance));

        // From wherever chance has led: stop leads to stopped, and start to ready.
        let retiring = world.life.is_retiring();
        world.step(Event::Stop);
        world.settle();
        let end = if retiring { VersionState::Gone } else { VersionState::Stopped };
        prop_assert_eq!(world.life.state(), end);
        prop_assert!(world.live.is_empty());

        world.step(Event::Start { workers: 2 });
        world.pass_all();
        prop_assert_eq!(world.life.state(), VersionState::Ready);
        prop_assert_eq!(world.life.ready().count(), 2);
    }

    #[test]
    fn a_restart_ends_with_new_workers_only(workers in 1_u32..5, lost in 0_usize..3) {
        let mut world = World::ready(workers);
        let old: Vec<ProcessId> = world.live.keys().copied().collect();
        world.step(Event::Restart { workers });
        for _ in 0..lost {
            // The port of a new worker is taken: it is tried again, and the restart goes on.
            world.started().into_iter().for_each(|p| world.step(Event::PortTaken(p)));
            world.settle();
        }
        while !world.started().is_empty() {
            prop_assert!(world.life.ready().count() >= workers as usize, "never fewer than before");
            world.pass_all();
            world.settle();
        }
        prop_assert_eq!(world.live.len(), workers as usize);
        prop_assert!(old.iter().all(|old| !world.live.contains_key(old)));
    }
}
