//! Who is served, and how fast: by the blocks that were sent. Pure.

use std::collections::{HashMap, HashSet, VecDeque};
use std::net::IpAddr;
use std::time::{Duration, Instant};

/// Hosts that are remembered.
const MOST_HOSTS: usize = 4096;
/// The rate is that of this time.
const WINDOW: Duration = Duration::from_secs(5);
/// What is sent within this time is counted together.
const SLOT: Duration = Duration::from_millis(200);
/// A host that got nothing for this long is connected no more.
const IDLE: Duration = Duration::from_secs(10);

/// What was sent so far.
#[derive(Debug)]
pub struct Traffic {
    started: Instant,
    /// When something was sent last.
    last: Instant,
    sent: u64,
    hosts: HashSet<IpAddr>,
    /// Who is served now, and when something was sent there last.
    connected: HashMap<IpAddr, Instant>,
    /// What was sent within the window.
    recent: VecDeque<(Instant, u64)>,
}

impl Traffic {
    /// Nothing was sent yet.
    pub fn new(now: Instant) -> Self {
        Self {
            started: now,
            last: now,
            sent: 0,
            hosts: HashSet::new(),
            connected: HashMap::new(),
            recent: VecDeque::new(),
        }
    }

    /// So many bytes were sent to this host.
    pub fn add(&mut self, now: Instant, to: IpAddr, bytes: u64) {
        self.last = now;
        self.sent += bytes;
        if self.hosts.len() < MOST_HOSTS {
            self.hosts.insert(to);
        }
        if self.connected.len() < MOST_HOSTS || self.connected.contains_key(&to) {
            self.connected.insert(to, now);
        }
        match self.recent.back_mut() {
            Some((at, slot)) if now - *at < SLOT => *slot += bytes,
            _ => self.recent.push_back((now, bytes)),
        }
    }

    /// This host has everything, and will ask for nothing more.
    pub fn is_complete(&mut self, host: IpAddr) {
        self.connected.remove(&host);
    }

    /// From now on somebody may come: the wait for that begins.
    pub fn begin(&mut self, now: Instant) {
        (self.started, self.last) = (now, now);
    }

    /// How long nothing was sent.
    pub fn idle(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last)
    }

    /// How long it has gone on.
    pub fn lasted(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.started)
    }

    /// Bytes that were sent in all.
    pub fn sent(&self) -> u64 {
        self.sent
    }

    /// How many hosts got something.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }

    /// How many hosts are being served.
    pub fn connected(&mut self, now: Instant) -> usize {
        self.connected.retain(|_, last| now - *last < IDLE);
        self.connected.len()
    }

    /// Bytes per second, lately.
    pub fn rate(&mut self, now: Instant) -> u64 {
        while self
            .recent
            .front()
            .is_some_and(|(at, _)| now - *at > WINDOW)
        {
            self.recent.pop_front();
        }
        let sum: u64 = self.recent.iter().map(|(_, bytes)| bytes).sum();
        let over = self.lasted(now).clamp(Duration::from_secs(1), WINDOW);
        (sum as f64 / over.as_secs_f64()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(n: u8) -> IpAddr {
        [192, 0, 2, n].into()
    }

    #[test]
    fn the_rate_is_that_of_the_last_seconds() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut traffic = Traffic::new(start);
        (0..20).for_each(|second| traffic.add(at(second), ip(1), 1000));
        assert_eq!(traffic.rate(at(19)), 1200);
        assert_eq!(traffic.rate(at(30)), 0);
        assert_eq!((traffic.sent(), traffic.hosts()), (20_000, 1));
        assert_eq!(traffic.idle(at(29)), Duration::from_secs(10));
    }

    #[test]
    fn a_host_is_connected_until_it_has_all_or_is_silent() {
        let start = Instant::now();
        let mut traffic = Traffic::new(start);
        (1..4).for_each(|n| traffic.add(start, ip(n), 1));
        assert_eq!(traffic.connected(start), 3);
        traffic.is_complete(ip(1));
        assert_eq!(traffic.connected(start), 2);
        traffic.add(start + IDLE / 2, ip(2), 1);
        assert_eq!(traffic.connected(start + IDLE), 1);
        assert_eq!(traffic.hosts(), 3);
    }

    #[test]
    fn of_strangers_without_number_only_so_many_are_remembered() {
        let now = Instant::now();
        let mut traffic = Traffic::new(now);
        for n in 0..MOST_HOSTS as u32 + 5 {
            traffic.add(now, IpAddr::from(n.to_be_bytes()), 1);
        }
        assert_eq!(traffic.hosts(), MOST_HOSTS);
        assert_eq!(traffic.connected(now), MOST_HOSTS);
    }
}
