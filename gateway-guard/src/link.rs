//! Attachments to a cgroup, made by the kernel's own call: aya 0.14 makes them too, and then keeps those of setsockopt
//! programs to itself, so that they could not be pinned. In: a loaded program, a cgroup, a path. Out: a descriptor that
//! holds the attachment. Before the workers start, on the thread that has the privileges.
#![allow(
    unsafe_code,
    reason = "bpf(2) has no wrapper in any library here that would give us the descriptor"
)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Where a program is attached to a cgroup: `enum bpf_attach_type` of linux/bpf.h.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum CgroupHook {
    /// `BPF_CGROUP_SOCK_OPS`
    SockOps = 3,
    /// `BPF_CGROUP_SETSOCKOPT`
    SetSockOpt = 22,
}

// `enum bpf_cmd` of linux/bpf.h.
const OBJ_PIN: libc::c_long = 6;
const LINK_CREATE: libc::c_long = 28;

/// The part of `union bpf_attr` that `BPF_LINK_CREATE` reads.
#[repr(C)]
struct LinkCreate {
    program: u32,
    target: u32,
    attach_type: u32,
    flags: u32,
}

/// The part of `union bpf_attr` that `BPF_OBJ_PIN` reads.
#[repr(C)]
struct ObjectPin {
    path: u64,
    descriptor: u32,
    flags: u32,
}

/// Attaches a program to a cgroup, as long as the descriptor or a pin of it lives.
pub(super) fn attach(
    program: impl AsFd,
    cgroup: impl AsFd,
    hook: CgroupHook,
) -> io::Result<OwnedFd> {
    let attributes = LinkCreate {
        program: number(program.as_fd()),
        target: number(cgroup.as_fd()),
        attach_type: hook as u32,
        flags: 0,
    };
    // SAFETY: the attributes are a local, of the size that is said, and the kernel only reads them.
    let descriptor = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            LINK_CREATE,
            &raw const attributes,
            size_of::<LinkCreate>(),
        )
    };
    let descriptor = i32::try_from(descriptor).map_err(io::Error::other)?;
    if descriptor < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made it, for us.
    Ok(unsafe { OwnedFd::from_raw_fd(descriptor) })
}

/// Pins an attachment on a bpffs.
pub(super) fn pin(link: impl AsFd, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let attributes = ObjectPin {
        path: path.as_ptr() as u64,
        descriptor: number(link.as_fd()),
        flags: 0,
    };
    // SAFETY: the attributes are a local, of the size that is said; the path lives and ends with a zero byte; the kernel
    // only reads them.
    let status = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            OBJ_PIN,
            &raw const attributes,
            size_of::<ObjectPin>(),
        )
    };
    match status {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// A descriptor as bpf(2) wants it: they are never negative.
fn number(descriptor: impl AsRawFd) -> u32 {
    descriptor.as_raw_fd() as u32
}
