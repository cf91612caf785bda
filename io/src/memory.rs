//! Giving memory back to the system after a peak.
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
