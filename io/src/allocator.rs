//! The allocator of the process, and how much of it is in use.
//!
//! What the system has given to a process says little about what it needs: an allocator keeps
//! what was freed. Whoever decides what to give up has to know what is held, so every
//! allocation is counted: by thread, told to the whole in steps.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::sync::atomic::{AtomicIsize, Ordering};

use mimalloc::MiMalloc;

/// Bytes that a thread counts by itself before it tells: a whole that a hundred threads add to is
/// right to a few megabytes, and no two of them write to one cache line at each allocation.
const STEP: isize = 64 << 10;

static IN_USE: AtomicIsize = AtomicIsize::new(0);

thread_local! {
    static UNTOLD: Cell<isize> = const { Cell::new(0) };
}

/// mimalloc, counting.
pub struct Counting(MiMalloc);

impl Counting {
    /// For `#[global_allocator]`.
    pub const fn new() -> Counting {
        Counting(MiMalloc)
    }
}

impl Default for Counting {
    fn default() -> Self {
        Counting::new()
    }
}

/// Bytes that are allocated at the moment and not freed, in the whole process; 0 where the process
/// has another allocator. Without what the allocator itself needs, and without SQLite's.
pub fn in_use() -> usize {
    IN_USE.load(Ordering::Relaxed).max(0) as usize
}

fn count(change: isize) {
    // A thread that is ending has nothing to count with: it is a few bytes.
    let _ = UNTOLD.try_with(|untold| {
        let sum = untold.get() + change;
        if sum.abs() < STEP {
            return untold.set(sum);
        }
        IN_USE.fetch_add(sum, Ordering::Relaxed);
        untold.set(0);
    });
}

// SAFETY: every call goes to mimalloc unchanged, which keeps the contract. Counting touches a number
// of the thread, which needs no allocation and no destructor, and an atomic.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise about `layout` is passed on.
        unsafe { self.0.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as above.
        unsafe { self.0.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: `ptr` came from this allocator, hence from mimalloc, with this layout.
        unsafe { self.0.dealloc(ptr, layout) }
    }

    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        count(new_size as isize - layout.size() as isize);
        // SAFETY: as above.
        unsafe { self.0.realloc(ptr, layout, new_size) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[global_allocator]
    static ALLOCATOR: Counting = Counting::new();

    #[test]
    fn what_is_held_is_counted_and_what_was_freed_is_not() {
        const SIZE: usize = 32 << 20;
        let before = in_use();
        let held = vec![1u8; SIZE];
        let with = in_use();
        drop(held);
        let after = in_use();
        // Other tests of the process run beside this one.
        let slack = 8 << 20;
        assert!(with >= before + SIZE - slack, "{before} {with}");
        assert!(after <= with - SIZE + slack, "{with} {after}");
    }
}
