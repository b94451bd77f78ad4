"""Runs a program under a seccomp filter that forbids io_uring_enter alone and allows everything else.

In: a program with its arguments. Out: that program, in this process. The filter is that of some container runtimes: a ring
can be made, and nothing can be sent through it.
"""

import ctypes
import os
import struct
import sys

PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
# The same number on every architecture.
IO_URING_ENTER = 426
LOAD_NUMBER = (0x20, 0, 0, 0)  # BPF_LD | BPF_W | BPF_ABS, seccomp_data.nr
IF_IT_IS = (0x15, 0, 1, IO_URING_ENTER)  # BPF_JMP | BPF_JEQ | BPF_K
REFUSE = (0x06, 0, 0, 0x00050000 | 1)  # BPF_RET, SECCOMP_RET_ERRNO with EPERM
ALLOW = (0x06, 0, 0, 0x7FFF0000)  # BPF_RET, SECCOMP_RET_ALLOW

instructions = [LOAD_NUMBER, IF_IT_IS, REFUSE, ALLOW]
code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *each) for each in instructions))
# struct sock_fprog: a count, padding, and the address of the instructions.
program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(instructions), ctypes.addressof(code)))
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program):
    sys.exit(f"cannot set the filter: {os.strerror(ctypes.get_errno())}")
os.execv(sys.argv[1], sys.argv[1:])
