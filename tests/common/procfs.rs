//! Processes as /proc shows them.

use std::fs;

use nix::unistd::Pid;

/// A process in /proc/PID/stat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stat {
    /// `Z` is a zombie, `T` a process that was stopped.
    pub state: char,
    pub parent: Pid,
    /// Processor time, in ticks of 10 ms.
    pub ticks: u64,
    /// As wait(2) would tell it; of a zombie.
    pub exit: i32,
}

/// What is known of a process, where there is one.
pub fn stat(pid: Pid) -> Option<Stat> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before the last bracket may hold anything.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    Some(Stat {
        state: fields[0].chars().next()?,
        parent: Pid::from_raw(fields[1].parse().ok()?),
        ticks: fields[11].parse::<u64>().ok()? + fields[12].parse::<u64>().ok()?,
        exit: fields[49].parse().ok()?,
    })
}

/// A number in /proc/PID/status, such as `VmRSS` in KiB.
pub fn status(pid: Pid, field: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with(field))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// The signals that a process catches, as a bit set.
pub fn caught(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find(|line| line.starts_with("SigCgt"))?;
    u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok()
}

/// How many entries one of its directories has: `fd`, `task`.
pub fn count(pid: Pid, what: &str) -> usize {
    fs::read_dir(format!("/proc/{pid}/{what}")).map_or(0, Iterator::count)
}

/// All processes.
pub fn all() -> impl Iterator<Item = Pid> {
    fs::read_dir("/proc")
        .expect("/proc is mounted")
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .map(Pid::from_raw)
}

/// The children of a process, zombies among them.
pub fn children(parent: Pid) -> Vec<Pid> {
    all()
        .filter(|pid| stat(*pid).is_some_and(|stat| stat.parent == parent))
        .collect()
}

/// Children of these processes that ended and were not waited for.
pub fn zombies(of: impl IntoIterator<Item = Pid>) -> Vec<Pid> {
    let parents: Vec<Pid> = of.into_iter().collect();
    let is_ours = |pid: &Pid| {
        stat(*pid).is_some_and(|stat| stat.state == 'Z' && parents.contains(&stat.parent))
    };
    all().filter(is_ours).collect()
}

/// How many bytes a connection has received, for IPv4, that were not read yet: its own port, and that at its other end.
pub fn unread([own, other]: [u16; 2]) -> Option<u64> {
    let sockets = fs::read_to_string("/proc/net/tcp").ok()?;
    let [own, other] = [own, other].map(|port| format!(":{port:04X}"));
    sockets.lines().skip(1).find_map(|line| {
        let words: Vec<&str> = line.split_whitespace().collect();
        let is_it = words[1].ends_with(&own) && words[2].ends_with(&other);
        let (_, received) = words.get(4).filter(|_| is_it)?.split_once(':')?;
        u64::from_str_radix(received, 16).ok()
    })
}

/// Whether anybody listens at this port, for IPv4: nobody has to connect to find out.
pub fn is_listened_at(port: u16) -> bool {
    const LISTEN: &str = "0A";
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let port = format!(":{port:04X}");
    sockets.lines().any(|line| {
        let mut words = line.split_whitespace().skip(1);
        let ours = words.next().is_some_and(|local| local.ends_with(&port));
        ours && words.nth(1) == Some(LISTEN)
    })
}
