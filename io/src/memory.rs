//! How the process takes memory from the system, and gives it back after a peak.
//!
//! Hydrating a thousand views at once, or the first copy of the data, needs memory for seconds
//! that nobody needs for hours afterwards; allocators keep it unless they are told.

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

/// Has the kernel give memory out in small pages only. To clear a huge one takes up to six
/// milliseconds, within whichever access comes first, and nobody else is served meanwhile; most
/// of it is then not used. That it cannot be turned off is no reason not to run.
pub fn only_small_pages() {
    // SAFETY: the call changes how later pages are given out, and reads no memory of ours.
    let _ = unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) };
}
