//! What Linux says of processes and cores, under `/proc`.

use std::collections::HashMap;
use std::fs;

/// CPU seconds and memory of a process and everything below it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TreeUsage {
    /// User and system time, also of children that have ended and been waited for.
    pub cpu_s: f64,
    /// `Pss_Anon`: memory of its own, a share counted where it is shared. In KiB.
    pub pss_anon_kib: u64,
    /// `Pss_Shmem`, in KiB.
    pub pss_shmem_kib: u64,
    /// `Rss`, in KiB; shared pages count once per process.
    pub rss_kib: u64,
    /// Processes found.
    pub processes: usize,
}

/// Parent and CPU ticks of a process, from `/proc/PID/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    parent: u32,
    ticks: u64,
}

fn parse_stat(text: &str) -> Option<Stat> {
    // The name in parentheses may hold spaces and parentheses.
    let fields: Vec<&str> = text[text.rfind(')')? + 1..].split_whitespace().collect();
    let number = |i: usize| fields.get(i)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)? + number(13)? + number(14)?,
    })
}

fn field_kib(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// All the processes below `root`, itself included.
fn tree(parents: &HashMap<u32, u32>, root: u32) -> Vec<u32> {
    let mut out = vec![root];
    let mut next = 0;
    while let Some(&parent) = out.get(next) {
        out.extend(parents.iter().filter(|(pid, p)| **p == parent && **pid != parent).map(|(pid, _)| *pid));
        next += 1;
    }
    out
}

/// Every process there is.
fn stats() -> HashMap<u32, Stat> {
    let mut stats = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        // A process may end while it is looked at.
        if let Some(stat) = fs::read_to_string(entry.path().join("stat")).ok().and_then(|t| parse_stat(&t)) {
            stats.insert(pid, stat);
        }
    }
    stats
}

fn below(stats: &HashMap<u32, Stat>, root: u32) -> Vec<u32> {
    tree(&stats.iter().map(|(pid, s)| (*pid, s.parent)).collect(), root)
}

/// A process and everything below it; none when it is gone.
pub fn processes(root: u32) -> Vec<u32> {
    let stats = stats();
    if stats.contains_key(&root) { below(&stats, root) } else { Vec::new() }
}

/// Whether a process is there and has not ended. One that has ended stays until its parent waits for it.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rfind(") ").and_then(|at| stat.as_bytes().get(at + 2).copied());
    state.is_some_and(|state| !matches!(state, b'Z' | b'X'))
}

/// Memory of one process that is not a file's, in KiB; 0 when it is gone.
pub fn anonymous_kib(pid: u32) -> u64 {
    field_kib(&fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default(), "RssAnon")
}

/// What a process tree has used so far; `None` when the process is gone.
pub fn usage(root: u32) -> Option<TreeUsage> {
    let stats = stats();
    stats.get(&root)?;
    let mut sum = TreeUsage::default();
    for pid in below(&stats, root) {
        let Some(stat) = stats.get(&pid) else { continue };
        let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
        sum.cpu_s += stat.ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        sum.pss_anon_kib += field_kib(&rollup, "Pss_Anon");
        sum.pss_shmem_kib += field_kib(&rollup, "Pss_Shmem");
        sum.rss_kib += field_kib(&rollup, "Rss");
        sum.processes += 1;
    }
    Some(sum)
}

/// Busy and all ticks of each core so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores(Vec<(u64, u64)>);

impl Cores {
    /// The counters now.
    pub fn now() -> Cores {
        Cores::parse(&fs::read_to_string("/proc/stat").unwrap_or_default())
    }

    fn parse(text: &str) -> Cores {
        let cores = text.lines().filter_map(|line| {
            let (name, rest) = line.split_once(' ')?;
            name.strip_prefix("cpu")?.parse::<u32>().ok()?;
            // user nice system idle iowait irq softirq steal; guest is inside user.
            let ticks: Vec<u64> = rest.split_whitespace().take(8).filter_map(|t| t.parse().ok()).collect();
            let all: u64 = ticks.iter().sum();
            let idle = ticks.get(3)? + ticks.get(4)?;
            Some((all - idle, all))
        });
        Cores(cores.collect())
    }

    /// How busy each core was since `before`, from 0 to 1. Time stolen by the host counts:
    /// nobody could use it.
    pub fn busy_since(&self, before: &Cores) -> Vec<f64> {
        let share = |(now, then): (&(u64, u64), &(u64, u64))| {
            let all = now.1.saturating_sub(then.1);
            if all == 0 { 0.0 } else { now.0.saturating_sub(then.0) as f64 / all as f64 }
        };
        self.0.iter().zip(&before.0).map(share).collect()
    }
}

/// The load average over one minute.
pub fn load_average() -> f64 {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_parentheses() {
        let stat = "42 (a) b (c) S 7 1 1 0 -1 4 0 0 0 0 100 20 3 4 20 0 1 0 99";
        assert_eq!(parse_stat(stat), Some(Stat { parent: 7, ticks: 127 }));
        assert_eq!(parse_stat("42 (x"), None);
    }

    #[test]
    fn memory_fields_are_told_apart_by_their_whole_name() {
        let text = "Rss:                 300 kB\nPss:   200 kB\nPss_Anon:  120 kB\nPss_Shmem:  8 kB\n";
        assert_eq!(field_kib(text, "Pss"), 200);
        assert_eq!(field_kib(text, "Pss_Anon"), 120);
        assert_eq!(field_kib(text, "Pss_Shmem"), 8);
        assert_eq!(field_kib(text, "Swap"), 0);
    }

    #[test]
    fn a_tree_holds_grandchildren_and_nobody_else() {
        let parents = HashMap::from([(1, 0), (5, 1), (6, 5), (7, 6), (8, 1)]);
        let mut found = tree(&parents, 5);
        found.sort_unstable();
        assert_eq!(found, [5, 6, 7]);
    }

    #[test]
    fn cores_are_busy_when_they_are_not_idle() {
        let a = Cores::parse("cpu  9 9 9 9\ncpu0 10 0 10 70 10 0 0 0 0 0\ncpu1 0 0 0 100 0 0 0 0\nintr 5\n");
        let b = Cores::parse("cpu  9 9 9 9\ncpu0 60 0 20 100 10 0 5 5 0 0\ncpu1 0 0 0 200 0 0 0 0\nintr 5\n");
        assert_eq!(b.busy_since(&a), [0.7, 0.0]);
    }

    #[test]
    fn this_process_is_there() {
        let me = usage(std::process::id()).unwrap();
        assert!(me.processes >= 1 && me.rss_kib > 0);
        assert_eq!(usage(u32::MAX), None);
    }
}
