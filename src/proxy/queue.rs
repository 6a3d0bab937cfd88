//! The line of requests that wait for a worker of one version, while every one of them has as many requests as
//! it takes (`max_in_flight`).
//!
//! One [`Gate`] a version, shared by all threads and locked for a moment by each of its requests: so the limit
//! is exact and the order is that of arrival, whichever thread a request came in on. Versions without a limit
//! have no gate and pay nothing. [`Line`] is the pure part: who is next, and how much room there is.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};

use crate::metrics::VersionCounters;
use crate::proxy::balance::Choice;
use crate::registry::Upstream;

/// The line before the workers of one version.
#[derive(Debug)]
pub(crate) struct Gate {
    line: Mutex<Line>,
    /// Keeps the object alive whose address the gate is found by.
    _of: Arc<VersionCounters>,
}

/// Who waits, and how much each worker is doing. Pure.
#[derive(Debug, Default)]
struct Line {
    /// Requests by [`Upstream::serial`]; no entry is none.
    running: Vec<(u64, u32)>,
    /// In the order of their tickets, the first is next.
    waiting: VecDeque<Waiting>,
    tickets: u64,
}

#[derive(Debug)]
struct Waiting {
    ticket: u64,
    waker: Option<Waker>,
}

impl Line {
    fn has_room(&self, serial: u64, most: u32) -> bool {
        self.running.iter().find(|(worker, _)| *worker == serial).is_none_or(|(_, running)| *running < most)
    }

    fn begin(&mut self, serial: u64) {
        match self.running.iter_mut().find(|(worker, _)| *worker == serial) {
            Some((_, running)) => *running += 1,
            None => self.running.push((serial, 1)),
        }
    }

    fn end(&mut self, serial: u64) {
        if let Some(at) = self.running.iter().position(|(worker, _)| *worker == serial) {
            self.running[at].1 -= 1;
            if self.running[at].1 == 0 {
                self.running.swap_remove(at);
            }
        }
    }

    /// Takes a place at the end; none if `size` wait already.
    fn join(&mut self, size: u32) -> Option<u64> {
        if self.waiting.len() >= size as usize {
            return None;
        }
        self.tickets += 1;
        self.waiting.push_back(Waiting { ticket: self.tickets, waker: None });
        Some(self.tickets)
    }

    fn leave(&mut self, ticket: u64) {
        self.waiting.retain(|waiting| waiting.ticket != ticket);
    }

    /// Whether it is the turn of this ticket; of a request without one, if nobody waits.
    fn is_next(&self, ticket: Option<u64>) -> bool {
        self.waiting.front().map(|waiting| waiting.ticket) == ticket
    }

    /// What wakes the next one, once.
    fn next(&mut self) -> Option<Waker> {
        self.waiting.front_mut().and_then(|waiting| waiting.waker.take())
    }
}

impl Gate {
    pub(crate) fn new(of: Arc<VersionCounters>) -> Self {
        Self { line: Mutex::default(), _of: of }
    }

    /// Takes a worker that `choose` finds among those with fewer than `most` requests, if it is this request's
    /// turn. Otherwise it is woken when there may be room, if it has a ticket.
    pub(crate) fn take<'a>(
        self: &Arc<Self>,
        cx: &Context<'_>,
        ticket: Option<&Ticket>,
        most: u32,
        choose: impl FnOnce(&dyn Fn(&Upstream) -> bool) -> Choice<'a>,
    ) -> (Choice<'a>, Option<Place>) {
        let mut line = self.line();
        let choice = match line.is_next(ticket.map(|ticket| ticket.number)) {
            true => choose(&|upstream| line.has_room(upstream.serial, most)),
            false => Choice::Busy,
        };
        if let Choice::Worker(worker) = choice {
            line.begin(worker.serial);
            return (choice, Some(Place { gate: self.clone(), serial: worker.serial }));
        }
        let waiting = ticket.and_then(|own| line.waiting.iter_mut().find(|w| w.ticket == own.number));
        if let Some(waiting) = waiting {
            waiting.waker = Some(cx.waker().clone());
        }
        (choice, None)
    }

    /// Takes a place at the end of the line; none if `size` wait already.
    pub(crate) fn join(self: &Arc<Self>, size: u32) -> Option<Ticket> {
        let number = self.line().join(size)?;
        Some(Ticket { gate: self.clone(), number })
    }

    /// Has the next request look again.
    pub(crate) fn wake(&self) {
        let waker = self.line().next();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn line(&self) -> MutexGuard<'_, Line> {
        // What is in it is right after every single step.
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that is counted at its worker for as long as this lives.
#[derive(Debug)]
pub(crate) struct Place {
    gate: Arc<Gate>,
    serial: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.gate.line().end(self.serial);
        self.gate.wake();
    }
}

/// A place in the line; dropped, it is given up, and the next request looks whether there is room.
#[derive(Debug)]
pub(crate) struct Ticket {
    gate: Arc<Gate>,
    number: u64,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.gate.line().leave(self.number);
        self.gate.wake();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn first_come_first_served() {
        let mut line = Line::default();
        assert!(line.is_next(None) && line.has_room(1, 1));
        line.begin(1);
        assert!(!line.has_room(1, 1) && line.has_room(1, 2) && line.has_room(2, 1));
        let (first, second) = (line.join(2), line.join(2));
        assert_eq!(line.join(2), None, "it is full");
        assert!(line.is_next(first) && !line.is_next(second) && !line.is_next(None));
        line.end(1);
        assert!(line.has_room(1, 1));
        line.leave(first.unwrap());
        assert!(line.is_next(second));
        line.leave(second.unwrap());
        assert!(line.is_next(None) && line.running.is_empty());
    }

    proptest! {
        /// Requests that come, are given a worker, leave and end in any order: never more than the limit at a
        /// worker, never out of order, and nobody waits while there is room once those that are woken look.
        #[test]
        fn it_is_exact_and_in_order(
            most in 1..4_u32, size in 0..6_u32, events in prop::collection::vec((0..4_u8, any::<prop::sample::Index>()), 0..200)
        ) {
            let workers = [7_u64, 8];
            let (mut line, mut running, mut waiting) = (Line::default(), Vec::new(), VecDeque::new());
            let free = |line: &Line| workers.into_iter().find(|worker| line.has_room(*worker, most));
            for (event, index) in events {
                match event {
                    0 if line.is_next(None) && free(&line).is_some() => {
                        let worker = free(&line).unwrap();
                        line.begin(worker);
                        running.push(worker);
                    }
                    0 => match line.join(size) {
                        Some(ticket) => waiting.push_back(ticket),
                        None => prop_assert_eq!(waiting.len(), size as usize),
                    },
                    1 if !waiting.is_empty() => {
                        let ticket = waiting.remove(index.index(waiting.len())).unwrap();
                        line.leave(ticket);
                    }
                    2 if !running.is_empty() => line.end(running.swap_remove(index.index(running.len()))),
                    _ => {}
                }
                while let (Some(worker), Some(ticket)) = (free(&line), waiting.front().copied()) {
                    prop_assert!(line.is_next(Some(ticket)));
                    line.begin(worker);
                    line.leave(ticket);
                    running.push(worker);
                    waiting.pop_front();
                }
                for worker in workers {
                    prop_assert!(running.iter().filter(|w| **w == worker).count() <= most as usize);
                }
                prop_assert!(waiting.is_empty() || running.len() == workers.len() * most as usize);
            }
        }
    }
}
