//! The machine on which the comparison runs.

use std::fmt;
use std::fs;

use serde::Serialize;

/// What decides how fast a server is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Machine {
    /// The processor's name for itself.
    pub cpu: String,
    /// The cores that this process may use.
    pub cores: usize,
    /// Whether the machine is a guest of a hypervisor that says so.
    pub is_virtual: bool,
    /// The system's name and release.
    pub kernel: String,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Whether this program was built without optimisation, so that its figures mean little.
    pub debug_build: bool,
}

impl Machine {
    /// The machine as /proc describes it.
    pub fn here() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let cpuinfo = read("/proc/cpuinfo");
        Self {
            cpu: value_of(&cpuinfo, "model name")
                .unwrap_or(std::env::consts::ARCH)
                .into(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            is_virtual: value_of(&cpuinfo, "flags")
                .is_some_and(|flags| flags.split(' ').any(|flag| flag == "hypervisor")),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            memory_mib: value_of(&read("/proc/meminfo"), "MemTotal")
                .and_then(|total| total.strip_suffix(" kB")?.trim().parse::<u64>().ok())
                .unwrap_or(0)
                / 1024,
            debug_build: cfg!(debug_assertions),
        }
    }
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let guest = if self.is_virtual { " (virtual)" } else { "" };
        let plural = if self.cores == 1 { "" } else { "s" };
        write!(
            f,
            "{}{guest}, {} core{plural}, {}, {} MiB",
            self.cpu, self.cores, self.kernel, self.memory_mib
        )
    }
}

/// The first value of a key in `key : value` lines.
fn value_of<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_by_its_whole_key() {
        let text = "model\t\t: 17\nmodel name\t: Some CPU @ 2 GHz: fast\n";
        assert_eq!(value_of(text, "model name"), Some("Some CPU @ 2 GHz: fast"));
        assert_eq!(value_of(text, "name"), None);
    }

    #[test]
    fn this_machine_has_a_core_and_memory() {
        let machine = Machine::here();
        assert!(machine.cores > 0 && machine.memory_mib > 0, "{machine:?}");
    }
}
