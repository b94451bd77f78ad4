//! Where the kernel's file systems are mounted. In: /proc/self/mounts. Out: mount points, by type. Reads only.

use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Mount points of file systems of the type `kind`, in the order in which they were mounted.
pub(super) fn mounts_of(kind: &str) -> io::Result<Vec<PathBuf>> {
    Ok(of_kind(&fs::read("/proc/self/mounts")?, kind))
}

fn of_kind(table: &[u8], kind: &str) -> Vec<PathBuf> {
    let of_line = |line: &[u8]| {
        let mut fields = line.split(|byte| *byte == b' ');
        let point = fields.nth(1)?;
        (fields.next()? == kind.as_bytes()).then(|| PathBuf::from(OsString::from_vec(plain(point))))
    };
    table
        .split(|byte| *byte == b'\n')
        .filter_map(of_line)
        .collect()
}

/// Undoes the octal escapes of spaces, tabs, line breaks and backslashes, proc_pid_mounts(5).
fn plain(mut escaped: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(escaped.len());
    while let Some((first, rest)) = escaped.split_first() {
        let byte = match rest.get(..3) {
            Some(digits) if *first == b'\\' => std::str::from_utf8(digits)
                .ok()
                .and_then(|digits| u8::from_str_radix(digits, 8).ok()),
            _ => None,
        };
        plain.push(byte.unwrap_or(*first));
        escaped = if byte.is_some() { &rest[3..] } else { rest };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_found_by_type_with_their_escapes_undone() {
        let table = b"cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\nbpf /sys/fs/bpf bpf rw,mode=700 0 0\n\
                      bpf /run/with\\040space\\134 bpf rw 0 0\nnone /bpf tmpfs rw 0 0\n\n";
        assert_eq!(
            of_kind(table, "bpf"),
            [
                PathBuf::from("/sys/fs/bpf"),
                PathBuf::from("/run/with space\\")
            ]
        );
        assert_eq!(of_kind(table, "cgroup2"), [PathBuf::from("/sys/fs/cgroup")]);
        assert!(of_kind(table, "xfs").is_empty());
    }
}
