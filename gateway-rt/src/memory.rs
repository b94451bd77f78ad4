//! Memory of the whole process: the system's allocator, which releases long blocks in steps.
//! In: requests for memory, on any thread. Out: memory. The kernel frees a block of tens of megabytes in one go. A kernel
//! that is not built to be preempted lets no other thread onto that CPU meanwhile: ten milliseconds for the entries of a
//! long revocation list, in which a worker on the same CPU would stand still.

use std::alloc::{GlobalAlloc, Layout, System};

use gateway_core::limits::{self, RELEASED_BYTES};

/// The system's allocator. To be named as the program's `#[global_allocator]`.
#[derive(Debug)]
pub struct Memory;

impl Memory {
    /// Lets blocks of `limits::MAPPED_BYTES` and more come from the kernel and go back to it by themselves. glibc raises that bound to
    /// the size of each such block that is freed, so that I/O buffers would soon be cut from a heap, which shrinks only from its
    /// end: after a thousand clients had stalled their memory stayed. To be called once, at the start.
    pub fn map_large_blocks() {
        #[cfg(target_env = "gnu")]
        for (parameter, bytes) in [
            (libc::M_MMAP_THRESHOLD, limits::MAPPED_BYTES),
            (libc::M_TRIM_THRESHOLD, limits::UNTRIMMED_BYTES),
        ] {
            // SAFETY: sets a number of the allocator's own, under its own lock. It refuses what it cannot do.
            unsafe { libc::mallopt(parameter, bytes) };
        }
    }
}

// SAFETY: every call is the system allocator's own with what the caller promises; `dealloc` says why its calls may be made.
unsafe impl GlobalAlloc for Memory {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller promises.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: what the caller promises.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_bytes: usize) -> *mut u8 {
        // SAFETY: what the caller promises.
        unsafe { System.realloc(block, layout, new_bytes) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let (mut block, mut layout) = (block, layout);
        // A block of a larger alignment would be copied with each step.
        let in_place = layout.align() <= 2 * size_of::<usize>();
        while in_place && layout.size() > 2 * RELEASED_BYTES {
            let Ok(smaller) =
                Layout::from_size_align(layout.size() - RELEASED_BYTES, layout.align())
            else {
                break;
            };
            // SAFETY: the caller gives up a block of this allocator that has `layout`, or the step before has made it so; the new
            // size is neither zero nor larger.
            let shrunk = unsafe { System.realloc(block, layout, smaller.size()) };
            if shrunk.is_null() {
                break;
            }
            (block, layout) = (shrunk, smaller);
        }
        // SAFETY: as above; what has not been released yet is one block of `layout`.
        unsafe { System.dealloc(block, layout) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes of this process that are resident, from its status in /proc.
    fn resident_bytes() -> usize {
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let kib: usize = line
            .unwrap()
            .split_whitespace()
            .nth(1)
            .unwrap()
            .parse()
            .unwrap();
        kib << 10
    }

    #[test]
    fn a_long_block_is_released_whole_whatever_its_size_and_alignment() {
        for bytes in [
            1,
            RELEASED_BYTES,
            2 * RELEASED_BYTES + 1,
            100 * RELEASED_BYTES + 3,
        ] {
            for align in [1, 16, 64, 4096] {
                let layout = Layout::from_size_align(bytes, align).unwrap();
                // SAFETY: the layout is not empty; the block is written within its size and given up once.
                unsafe {
                    let block = Memory.alloc(layout);
                    assert!(!block.is_null());
                    assert_eq!(block.align_offset(align), 0);
                    block.write_bytes(7, bytes);
                    let with_block = resident_bytes();
                    Memory.dealloc(block, layout);
                    if bytes > 64 * RELEASED_BYTES {
                        assert!(resident_bytes() + bytes / 2 < with_block, "{bytes} bytes");
                    }
                }
            }
        }
    }
}
