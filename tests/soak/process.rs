//! What the kernel says of a running process: files, connections, memory, children.

use std::time::Duration;

use procfs::net::TcpState;
use procfs::process::{FDTarget, Process, Stat};

fn process(pid: u32) -> Process {
    Process::new(pid.cast_signed()).unwrap()
}

/// Its open files, but for the logs of workers: those stay open for a minute after the last line.
pub(crate) fn open_files(pid: u32) -> usize {
    let is_log = |target: &FDTarget| matches!(target, FDTarget::Path(path) if path.components().any(|part| part.as_os_str() == "logs"));
    process(pid).fd().unwrap().filter_map(Result::ok).filter(|fd| !is_log(&fd.target)).count()
}

/// Its TCP connections that are not in the kernel's own care alone, as `local -> remote state`.
pub(crate) fn connections(pid: u32) -> Vec<String> {
    let process = process(pid);
    let own: Vec<u64> = process
        .fd()
        .unwrap()
        .filter_map(Result::ok)
        .filter_map(|fd| match fd.target {
            FDTarget::Socket(inode) => Some(inode),
            _ => None,
        })
        .collect();
    let all = process.tcp().unwrap().into_iter().chain(process.tcp6().unwrap_or_default());
    all.filter(|entry| entry.state != TcpState::Listen && own.contains(&entry.inode))
        .map(|entry| format!("{} -> {} {:?}", entry.local_address, entry.remote_address, entry.state))
        .collect()
}

/// Its children that have ended and were not waited for.
pub(crate) fn zombies(pid: u32) -> Vec<Stat> {
    let all = procfs::process::all_processes().unwrap().filter_map(|process| process.ok()?.stat().ok());
    all.filter(|stat| stat.ppid == pid.cast_signed() && stat.state == 'Z').collect()
}

/// Bytes of memory that it has, noted twice a second for as long as this runs.
pub(crate) async fn watch_memory(pid: u32, samples: &std::sync::Mutex<Vec<u64>>) {
    let page = procfs::page_size();
    loop {
        let pages = process(pid).statm().unwrap().resident;
        samples.lock().unwrap().push(pages * page);
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// The middle one.
pub(crate) fn median(samples: &[u64]) -> u64 {
    let mut sorted = samples.to_vec();
    sorted.sort_unstable();
    sorted[sorted.len() / 2]
}
