//! What /proc tells of a server and of all its descendants.

use std::collections::BTreeMap;
use std::fs;
use std::io;

use nix::unistd::{Pid, SysconfVar, sysconf};

/// A process and its descendants, at one moment.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub struct Usage {
    /// How many processes there are.
    pub processes: usize,
    /// Processor time that they and their children that were reaped have used, in seconds.
    pub cpu: f64,
}

/// The fields of /proc/PID/stat that count here; see proc_pid_stat(5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stat {
    parent: i32,
    /// User and system time of the process, in ticks.
    own: u64,
    /// Those of its children that ended and were waited for, in ticks.
    reaped: u64,
}

/// What `root` and its descendants have used so far.
///
/// # Errors
/// Where /proc cannot be read.
pub fn usage(root: Pid) -> io::Result<Usage> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.unwrap_or(100).max(1) as f64;
    let mut usage = Usage::default();
    for (pid, stat) in tree(root)? {
        usage.processes += 1;
        // The scheduler counts in nanoseconds, but only the threads that live; a tick is 10 ms, which hides all that
        // a child of a few requests did. Neither exceeds the truth by more than a tick.
        let own = (stat.own as f64 / ticks).max(scheduled(pid));
        usage.cpu += own + stat.reaped as f64 / ticks;
    }
    Ok(usage)
}

/// Proportional shares of memory, in KiB: a page that n processes share counts 1/n for each of them.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Pss {
    /// Everything.
    pub total: u64,
    /// Without the pages of files: the program itself, which the generator shares, and so makes smaller while it
    /// runs. Differences are taken of this.
    pub own: u64,
}

/// The memory of `root` and its descendants.
///
/// # Errors
/// Where /proc cannot be read; a process that ends meanwhile counts nothing.
pub fn pss(root: Pid) -> io::Result<Pss> {
    let mut sum = Pss::default();
    for pid in tree(root)?.keys() {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        if let Some(pss) = parse_pss(&text) {
            sum.total += pss.total;
            sum.own += pss.own;
        }
    }
    Ok(sum)
}

fn tree(root: Pid) -> io::Result<BTreeMap<i32, Stat>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir("/proc")? {
        let Some(pid) = entry?
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        if let Some(stat) = fs::read_to_string(format!("/proc/{pid}/stat"))
            .ok()
            .and_then(|text| parse_stat(&text))
        {
            all.insert(pid, stat);
        }
    }
    let descends = |mut pid: i32| {
        // A chain of parents ends at 0; the bound is for one that changes while it is read.
        for _ in 0..64 {
            if pid == root.as_raw() {
                return true;
            }
            match all.get(&pid) {
                Some(stat) => pid = stat.parent,
                None => return false,
            }
        }
        false
    };
    Ok(all
        .iter()
        .filter(|(pid, _)| descends(**pid))
        .map(|(pid, stat)| (*pid, *stat))
        .collect())
}

/// Seconds that the living threads of a process have run.
fn scheduled(pid: i32) -> f64 {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return 0.0;
    };
    let nanoseconds: u64 = tasks
        .filter_map(|task| fs::read_to_string(task.ok()?.path().join("schedstat")).ok())
        .filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok())
        .sum();
    nanoseconds as f64 / 1e9
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name may hold anything, a parenthesis too; the last one ends it.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |field: usize| -> Option<u64> { fields.get(field - 3)?.parse().ok() };
    Some(Stat {
        parent: i32::try_from(number(4)?).ok()?,
        own: number(14)? + number(15)?,
        reaped: number(16)? + number(17)?,
    })
}

fn parse_pss(text: &str) -> Option<Pss> {
    let field = |name: &str| -> Option<u64> {
        let value = text.lines().find_map(|line| line.strip_prefix(name))?;
        value.trim().strip_suffix("kB")?.trim().parse().ok()
    };
    let total = field("Pss:")?;
    // Kernels before 5.9 do not tell files apart.
    let files = field("Pss_File:").unwrap_or(0);
    Some(Pss {
        total,
        own: total.saturating_sub(files),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = "17 (a) b) (c) S 4 17 17 0 -1 4194560 1 2 3 4 50 6 700 80 20 0 1 0 99";
        let stat = Stat {
            parent: 4,
            own: 56,
            reaped: 780,
        };
        assert_eq!(parse_stat(text), Some(stat));
        assert_eq!(parse_stat("17 (x) S"), None);
    }

    #[test]
    fn the_share_of_memory_is_found() {
        let text = "00400000-7ff [rollup]\nRss: 12 kB\nPss:       345 kB\nPss_Dirty: 1 kB\nPss_File:   45 kB\n";
        let pss = |total, own| Some(Pss { total, own });
        assert_eq!(parse_pss(text), pss(345, 300));
        assert_eq!(parse_pss("Pss: 7 kB\n"), pss(7, 7));
        assert_eq!(parse_pss("Rss: 1 kB\n"), None);
    }

    #[test]
    fn this_process_is_there_and_has_used_something() {
        let usage = usage(nix::unistd::getpid()).expect("/proc");
        assert!(usage.processes >= 1 && usage.cpu > 0.0, "{usage:?}");
        let pss = pss(nix::unistd::getpid()).expect("/proc");
        assert!(pss.total > pss.own && pss.own > 0, "{pss:?}");
    }
}
