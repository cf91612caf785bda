//! How much memory the process may have, and has; and how it gives back what it does not need.
//!
//! Hydrating a thousand views at once, or the first copy of the data, needs memory for seconds
//! that nobody needs for hours afterwards; allocators keep it unless they are told.

use std::path::Path;

/// Returns what this thread's heap holds and does not use, and what SQLite's allocator
/// does. Takes milliseconds after a large peak: call it when the core has nothing to do.
pub fn give_back() {
    // SAFETY: both functions only touch the allocators' own free memory, and may be called
    // from any thread at any time.
    unsafe {
        libmimalloc_sys::mi_collect(true);
        libc::malloc_trim(0);
    }
}

/// Takes back what other threads have freed of this one's memory. Takes some microseconds: for a
/// thread that is about to wait, and hands most of what it allocates to others.
pub fn tidy() {
    // SAFETY: as above; it only looks at this thread's own heap.
    unsafe { libmimalloc_sys::mi_collect(false) };
}

/// Has the kernel give memory out in small pages only. To clear a huge one takes up to six
/// milliseconds, within whichever access comes first, and nobody else is served meanwhile; most
/// of it is then not used. That it cannot be turned off is no reason not to run.
pub fn only_small_pages() {
    // SAFETY: the call changes how later pages are given out, and reads no memory of ours.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}

/// The allocator's number of "collect every so many slow allocations", its default, and its most.
const COLLECT_EVERY: libmimalloc_sys::mi_option_t = 34;
const COLLECT_DEFAULT: std::ffi::c_long = 10_000;
const COLLECT_SELDOM: std::ffi::c_long = 1_000_000;

/// Has the allocator seldom look through all of a heap by itself: it does so within whichever allocation
/// is due, and takes milliseconds once the heap has held a large view. [`tidy`] and [`give_back`] do it when
/// nobody waits. Returns whether it does: an allocator that numbers its options otherwise is left alone.
pub fn collect_seldom() -> bool {
    // SAFETY: both calls take numbers, and one that stands for no option is ignored.
    unsafe {
        if libmimalloc_sys::mi_option_get(COLLECT_EVERY) == COLLECT_DEFAULT {
            libmimalloc_sys::mi_option_set(COLLECT_EVERY, COLLECT_SELDOM);
        }
        libmimalloc_sys::mi_option_get(COLLECT_EVERY) == COLLECT_SELDOM
    }
}

/// The allocator's number of "milliseconds after which the system gets back what is free", its
/// default, and one that is never reached.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;
const PURGE_DEFAULT: std::ffi::c_long = 1_000;
const PURGE_NEVER: std::ffi::c_long = 1 << 30;

/// Has the allocator give nothing back to the system by itself: it does so within whichever
/// allocation is due, and to give back what a large view had takes up to twenty milliseconds. Somebody has to
/// call [`purge`] from a thread that nobody waits for. Returns whether it does.
pub fn purge_elsewhere() -> bool {
    // SAFETY: as in `collect_seldom`.
    unsafe {
        if libmimalloc_sys::mi_option_get(PURGE_DELAY) == PURGE_DEFAULT {
            libmimalloc_sys::mi_option_set(PURGE_DELAY, PURGE_NEVER);
        }
        libmimalloc_sys::mi_option_get(PURGE_DELAY) == PURGE_NEVER
    }
}

/// Gives back to the system what is free in the whole process.
pub fn purge() {
    // SAFETY: as in `give_back`. Of this thread's own heap nothing is left afterwards that is free.
    unsafe { libmimalloc_sys::mi_collect(true) };
}

/// Memory of the process that the system cannot take back without ending it, in bytes: what is
/// in memory and not backed by a file. 0 where the system does not say.
pub fn held() -> usize {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let mut pages = text.split_ascii_whitespace().skip(1).map_while(|field| field.parse::<usize>().ok());
    let (resident, shared) = (pages.next().unwrap_or(0), pages.next().unwrap_or(0));
    resident.saturating_sub(shared) * page_size()
}

/// The most memory that the process can have, in bytes: what the machine has, or less where a
/// control group or a limit of the process says so. `None`: nothing says.
pub fn limit() -> Option<usize> {
    let limits = [machine(), control_group(Path::new("/sys/fs/cgroup")), resource_limit(libc::RLIMIT_DATA)];
    limits.into_iter().flatten().min()
}

fn page_size() -> usize {
    // SAFETY: the call reads a constant of the system.
    usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(4_096)
}

fn machine() -> Option<usize> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: usize = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib << 10)
}

/// The smallest limit of the process's control group and those above it, in either version of the
/// interface.
fn control_group(root: &Path) -> Option<usize> {
    let text = std::fs::read_to_string("/proc/self/cgroup").ok()?;
    control_group_of(root, &text)
}

fn control_group_of(root: &Path, memberships: &str) -> Option<usize> {
    let mut smallest: Option<usize> = None;
    for line in memberships.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let (base, file) = match controllers {
            "" => (root.to_owned(), "memory.max"),
            _ if controllers.split(',').any(|c| c == "memory") => {
                (root.join("memory"), "memory.limit_in_bytes")
            }
            _ => continue,
        };
        // Within a container the path may be the host's: then only the top is there.
        let own = base.join(path.trim_start_matches('/'));
        for directory in own.ancestors().take_while(|d| d.starts_with(&base)).chain([base.as_path()]) {
            let text = std::fs::read_to_string(directory.join(file)).unwrap_or_default();
            if let Ok(limit) = text.trim().parse::<usize>() {
                smallest = Some(smallest.map_or(limit, |s| s.min(limit)));
            }
        }
    }
    smallest
}

fn resource_limit(which: libc::__rlimit_resource_t) -> Option<usize> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer.
    let result = unsafe { libc::getrlimit(which, &mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as usize)
}

/// Lets the process have as many open files as it may, and returns how many these are. Each
/// connection is one.
pub fn raise_open_files() -> usize {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for the answer, and then a valid argument; a refusal
    // changes nothing.
    unsafe {
        if libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) != 0 {
            return 0;
        }
        let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raised) == 0 {
            limit = raised;
        }
    }
    usize::try_from(limit.rlim_cur).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_process_touches_is_held() {
        let before = held();
        let touched = vec![7u8; 64 << 20];
        assert!(held() >= before + (48 << 20), "{before} {}", held());
        drop(touched);
    }

    #[test]
    fn the_allocator_has_the_options_that_are_set() {
        assert!(collect_seldom());
        assert!(purge_elsewhere());
    }

    #[test]
    fn the_smallest_limit_on_the_way_up_counts() {
        let root = std::env::temp_dir().join(format!("kelvin-cgroup-{}", std::process::id()));
        let own = root.join("a/b");
        std::fs::create_dir_all(&own).unwrap();
        std::fs::write(own.join("memory.max"), "max\n").unwrap();
        std::fs::write(root.join("a/memory.max"), "1073741824\n").unwrap();
        assert_eq!(control_group_of(&root, "0::/a/b\n"), Some(1 << 30));
        assert_eq!(control_group_of(&root, "0::/elsewhere\n"), None);
        std::fs::create_dir_all(root.join("memory/c")).unwrap();
        std::fs::write(root.join("memory/c/memory.limit_in_bytes"), "4096\n").unwrap();
        assert_eq!(control_group_of(&root, "5:cpu,memory:/c\n4:pids:/c\n0::/a/b\n"), Some(4_096));
        std::fs::remove_dir_all(&root).unwrap();
    }

    #[test]
    fn the_machine_has_some_memory() {
        assert!(limit().is_some_and(|bytes| bytes > 64 << 20));
    }
}
