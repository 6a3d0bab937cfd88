//! Three hundred workers that start while somebody else takes every port that he can get.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use switchman::config::UpstreamAt;
use tokio::net::TcpListener;

use super::*;
use crate::support::switchman::worker_program;

const VERSIONS: u32 = 30;
const WORKERS: u32 = 10;
/// Ports that the adversary holds at a time, of the ten thousand that switchman picks from; and as many of those that
/// the kernel picks from.
const HELD: usize = 1_000;

/// Binds random ports, answers whoever comes as a good server does, and moves on.
#[derive(Default)]
struct Adversary {
    ends: AtomicBool,
    bound: AtomicU64,
    answered: AtomicU64,
}

impl Adversary {
    async fn run(self: Arc<Self>) {
        let mut held = std::collections::VecDeque::new();
        while !self.ends.load(Relaxed) {
            for range in [15_000..25_000, 32_768..60_999] {
                if let Ok(listener) = TcpListener::bind(("127.0.0.1", fastrand::u16(range))).await {
                    self.bound.fetch_add(1, Relaxed);
                    let adversary = self.clone();
                    held.push_back(tokio_util::task::AbortOnDropHandle::new(tokio::spawn(async move {
                        while let Ok((mut stream, _)) = listener.accept().await {
                            adversary.answered.fetch_add(1, Relaxed);
                            let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nthief";
                            let _ = stream.write_all(answer.as_bytes()).await;
                        }
                    })));
                }
            }
            while held.len() > 2 * HELD {
                held.pop_front();
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

async fn no_worker_is_given_anothers_traffic(upstream: UpstreamAt) {
    let mut many = RunSpec { upstream, workers: WORKERS, ..spec() };
    many.run = Some(RunCommand::Exec(vec![worker_program().display().to_string()]));
    // Two cores start them all.
    many.ready.deadline = Duration::from_secs(60);
    let world = World::new(many);
    let adversary = Arc::new(Adversary::default());
    let robbing = tokio::spawn(adversary.clone().run());
    let names: Vec<String> = (0..VERSIONS).map(|n| format!("{n:07x}")).collect();
    for name in &names {
        world.deploy(name, "").await;
    }
    let mut addresses = HashSet::new();
    for name in &names {
        let version =
            world.until(name, "all its workers are ready", |v| v.ready.len() == WORKERS as usize).await;
        assert_eq!(version.state, VersionState::Ready);
        for upstream in &version.ready {
            assert!(addresses.insert(upstream.address.clone()), "{} is given twice", upstream.address);
            let pid = version.workers[upstream.worker.0 as usize].pid.unwrap();
            let answer = get(&upstream.address, "/").await;
            let own = format!("version={name} worker={} pid={pid}\n", upstream.worker);
            assert!(answer.ends_with(&own), "{own}: {answer}");
        }
    }
    assert_eq!(addresses.len(), (VERSIONS * WORKERS) as usize);
    adversary.ends.store(true, Relaxed);
    robbing.await.unwrap();
    assert!(adversary.bound.load(Relaxed) > 100, "somebody did take ports");
    world.end().await;
}

#[tokio::test]
async fn three_hundred_workers_start_on_picked_ports_among_thieves() {
    no_worker_is_given_anothers_traffic(UpstreamAt::Port).await;
}

#[tokio::test]
async fn three_hundred_workers_start_on_inherited_sockets_among_thieves() {
    no_worker_is_given_anothers_traffic(UpstreamAt::Inherit).await;
}
