//! The laws, whatever happens in whatever order.

use proptest::prelude::*;

use super::*;

/// What chance may do to a version; numbers choose among the processes that are there.
#[derive(Debug, Clone)]
enum Chance {
    Start(u32),
    Prepare,
    Sleep,
    Wake(u32),
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
    Unwell(usize, bool),
    Well(usize),
    EndOfTold,
    EndOfDrain,
    Retry,
    Time(u64),
}

fn chance() -> impl Strategy<Value = Chance> {
    prop_oneof![
        3 => (1_u32..4).prop_map(Chance::Start),
        1 => Just(Chance::Prepare),
        1 => Just(Chance::Sleep),
        2 => (1_u32..4).prop_map(Chance::Wake),
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
        3 => (0_usize..8, any::<bool>()).prop_map(|(n, answers)| Chance::Unwell(n, answers)),
        2 => (0_usize..8).prop_map(Chance::Well),
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
            Chance::Prepare => self.step(Event::Prepare),
            Chance::Sleep => self.step(Event::Sleep),
            Chance::Wake(workers) => self.step(Event::Wake { workers }),
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
            // A check may have begun before what has happened since.
            Chance::Unwell(n, answers) => self.pick(n).into_iter().for_each(|p| self.unwell(p, answers)),
            Chance::Well(n) => self.pick(n).into_iter().for_each(|p| self.step(Event::Well(p))),
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

fn order() -> impl Strategy<Value = RestartOrder> {
    prop_oneof![Just(RestartOrder::StartFirst), Just(RestartOrder::StopFirst)]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_laws_hold_whatever_happens(order in order(), chances in prop::collection::vec(chance(), 0..80)) {
        let mut world = World::new();
        world.set_order(order);
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

}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn a_restart_ends_with_new_workers_only(order in order(), workers in 1_u32..5, lost in 0_usize..3) {
        let mut world = World::ready_with(order, workers);
        let old: Vec<ProcessId> = world.live.keys().copied().collect();
        world.step(Event::Restart { workers });
        let gap = u32::from(order == RestartOrder::StopFirst);
        // With `stop-first` the first one is to end before there is a new one.
        world.settle();
        for _ in 0..lost {
            // The port of a new worker is taken: it is tried again, and the restart goes on.
            world.started().into_iter().for_each(|p| world.step(Event::PortTaken(p)));
            world.settle();
        }
        while !world.started().is_empty() {
            prop_assert_eq!(world.started().len(), 1, "one at a time");
            prop_assert!(world.life.ready().count() >= (workers - gap) as usize, "never fewer than that");
            prop_assert!(world.life.is_moving());
            world.pass_all();
            world.settle();
        }
        prop_assert!(!world.life.is_moving());
        prop_assert_eq!(world.live.len(), workers as usize);
        prop_assert!(old.iter().all(|old| !world.live.contains_key(old)));
    }

    /// The new worker never becomes ready: whichever it is, what is left of the old ones stays.
    #[test]
    fn a_restart_that_fails_is_given_up(order in order(), workers in 2_u32..5, good in 0_u32..4) {
        let good = good % workers;
        let mut world = World::ready_with(order, workers);
        let old: Vec<ProcessId> = world.live.keys().copied().collect();
        world.step(Event::Restart { workers });
        world.settle();
        for _ in 0..good {
            world.pass_all();
            world.settle();
        }
        let fails = world.started()[0];
        world.crash(fails);
        world.settle();
        let gap = usize::from(order == RestartOrder::StopFirst);
        let stay = old.iter().filter(|old| world.life.phase(**old) == Some(Phase::Ready)).count();
        let only_one_was_left = good + 1 == workers && gap == 1;
        prop_assert_eq!(stay, (workers - good) as usize - gap);
        prop_assert_eq!(world.life.reason().unwrap().contains("given up"), !only_one_was_left);
        // What is tried again is that one worker, and no other is touched.
        for _ in 0..3 {
            world.retry();
            prop_assert!(world.started().len() <= gap);
            world.started().into_iter().for_each(|p| world.crash(p));
        }
        prop_assert_eq!(world.life.ready().count(), workers as usize - gap);
        prop_assert_eq!(world.life.state(), VersionState::Ready);
    }
}
