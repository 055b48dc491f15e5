"""seccomp: a process gives up system calls that reading and writing files never needs; they answer EPERM.

https://www.kernel.org/doc/html/latest/userspace-api/seccomp_filter.html; the filter is classic BPF over
`struct seccomp_data` {nr, arch, instruction pointer, args[6]}. Numbers of calls: the kernel's
arch/x86/entry/syscalls/syscall_64.tbl and include/uapi/asm-generic/unistd.h (aarch64).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

PR_SET_SECCOMP: Final = 22
MODE_FILTER: Final = 2
ALLOW: Final = 0x7FFF0000
DENY: Final = 0x00050000 | errno.EPERM
ABSENT: Final = 0x00050000 | errno.ENOSYS
KILL: Final = 0x80000000
LOAD, MASK, EQUAL, AT_LEAST, RETURN = 0x20, 0x54, 0x15, 0x35, 0x06
"""BPF: load a word, keep some of its bits, jump if equal, jump if at least, end."""
NUMBER_AT, ARCH_AT, FIRST_ARGUMENT_AT, FOURTH_ARGUMENT_AT = 0, 4, 16, 40
FOREIGN_NUMBERS: Final = 0x40000000
"""On x86-64, numbers from here on mean the x32 table."""


@dataclass(frozen=True, slots=True)
class Machine:
    """How system calls are numbered on one kind of machine."""

    arch: int
    """The kernel's AUDIT_ARCH_ value."""
    column: int
    """Place in `CALLS`' values."""


MACHINES: Final = {"x86_64": Machine(0xC000003E, 0), "aarch64": Machine(0xC00000B7, 1)}

CALLS: Final[dict[str, tuple[int | None, int | None]]] = {
    # network
    "socket": (41, 198), "socketpair": (53, 199), "connect": (42, 203), "bind": (49, 200),
    "listen": (50, 201), "accept": (43, 202), "accept4": (288, 242), "sendto": (44, 206),
    "sendmsg": (46, 211), "sendmmsg": (307, 269),
    # other programs and their memory
    "execve": (59, 221), "execveat": (322, 281), "ptrace": (101, 117), "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271), "process_madvise": (440, 440), "kcmp": (312, 272),
    "pidfd_open": (434, 434), "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424),
    "tkill": (200, 130), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "move_pages": (279, 239), "migrate_pages": (256, 238),
    # memory and messages that outlive the process
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "shmctl": (31, 195), "msgget": (68, 186), "msgsnd": (69, 189), "msgrcv": (70, 188), "msgctl": (71, 187),
    "semget": (64, 190), "semop": (65, 193), "semctl": (66, 191), "semtimedop": (220, 192),
    "mq_open": (240, 180),
    # how fast processes run, others' too
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    # namespaces, mounts, modules
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39),
    "pivot_root": (155, 41), "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429),
    "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "init_module": (175, 105), "finit_module": (313, 273),
    "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "mknod": (133, None),
    "mknodat": (259, 33),
    # the kernel's wide doors
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282), "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426), "io_uring_register": (427, 427), "keyctl": (250, 219),
    "add_key": (248, 217), "request_key": (249, 218), "personality": (135, 92),
    # the machine
    "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "acct": (163, 89),
    "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "clock_adjtime": (305, 266), "adjtimex": (159, 171), "quotactl": (179, 60),
    "iopl": (172, None), "ioperm": (173, None), "sethostname": (170, 161),
    # owners, rights and times of files, which Landlock does not guard
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "fchown": (93, 55), "lchown": (94, None), "fchownat": (260, 54),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "removexattr": (197, 14),
    "lremovexattr": (198, 15), "fremovexattr": (199, 16), "setxattrat": (463, 463),
    "removexattrat": (466, 466), "utime": (132, None), "utimes": (235, None), "futimesat": (261, None),
    "utimensat": (280, 88),
}  # fmt: skip
"""Denied calls by name: their numbers on x86-64 and aarch64."""
STARTS: Final[dict[str, tuple[int | None, int | None]]] = {
    "fork": (57, None), "vfork": (58, None), "clone": (56, 220), "clone3": (435, 435),
}  # fmt: skip
"""Calls that start processes and threads."""
CLONE_THREAD: Final = 0x00010000
CLONE_JUDGED: Final = CLONE_THREAD | 0x7E020000
"""The flags of clone(2) that make a thread, and those that make namespaces."""
OWN_ALONE: Final[dict[str, tuple[int, int]]] = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "prlimit64": (302, 261),
}
"""Calls whose first argument names a process: allowed for this one."""
MMAP: Final = (9, 222)
SHARED_ANONYMOUS: Final = 0x21
"""MAP_SHARED and MAP_ANONYMOUS: memory that no resource limit but the address space counts."""


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort), ("if_true", ctypes.c_ubyte), ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint32),
    )  # fmt: skip


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


Instruction = tuple[int, int, int, int]
"""Code, instructions to skip if true, if false, value."""


def restrict(libc: ctypes.CDLL, *, threads: bool) -> bool:
    """Apply the filter to this process; whether the kernel has seccomp and we know its numbers.

    Needs NO_NEW_PRIVS.
    """
    machine = MACHINES.get(platform.machine())
    if machine is None or sys.platform != "linux":
        return False
    instructions = program(machine, os.getpid(), threads=threads)
    held = (_Instruction * len(instructions))(*(_Instruction(*each) for each in instructions))
    given = _Program(len(instructions), held)
    return bool(libc.prctl(PR_SET_SECCOMP, MODE_FILTER, ctypes.byref(given), 0, 0) == 0)


def program(machine: Machine, own_pid: int, *, threads: bool) -> list[Instruction]:
    """Return the filter: every number that is not listed is allowed, and with *threads* to start those."""
    return [
        (LOAD, 0, 0, ARCH_AT),
        (EQUAL, 1, 0, machine.arch),
        (RETURN, 0, 0, KILL),
        (LOAD, 0, 0, NUMBER_AT),
        (AT_LEAST, 0, 1, FOREIGN_NUMBERS),
        (RETURN, 0, 0, DENY),
        *(_threads_alone(machine) if threads else ()),
        *_denied(machine),
        *_own_alone(machine, own_pid),
        *_no_shared_memory(machine),
        (RETURN, 0, 0, ALLOW),
    ]


def _threads_alone(machine: Machine) -> Iterator[Instruction]:
    yield (EQUAL, 0, 5, STARTS["clone"][machine.column] or 0)
    yield (LOAD, 0, 0, FIRST_ARGUMENT_AT)
    yield (MASK, 0, 0, CLONE_JUDGED)
    yield (EQUAL, 0, 1, CLONE_THREAD)
    yield (RETURN, 0, 0, ALLOW)
    yield (RETURN, 0, 0, DENY)


def _denied(machine: Machine) -> Iterator[Instruction]:
    for name, numbers in {**CALLS, **STARTS}.items():
        number = numbers[machine.column]
        if number is None:
            continue
        yield (EQUAL, 0, 1, number)
        yield (RETURN, 0, 0, ABSENT if name == "clone3" else DENY)  # libc then tries clone, which is judged


def _own_alone(machine: Machine, own_pid: int) -> Iterator[Instruction]:
    """Yield checks of the first argument's low word, as `pid_t` has no more: this process, or 0 for it."""
    for numbers in OWN_ALONE.values():
        yield (EQUAL, 0, 5, numbers[machine.column])
        yield (LOAD, 0, 0, FIRST_ARGUMENT_AT)
        yield (EQUAL, 1, 0, own_pid)
        yield (EQUAL, 0, 1, 0)
        yield (RETURN, 0, 0, ALLOW)
        yield (RETURN, 0, 0, DENY)


def _no_shared_memory(machine: Machine) -> Iterator[Instruction]:
    yield (EQUAL, 0, 4, MMAP[machine.column])
    yield (LOAD, 0, 0, FOURTH_ARGUMENT_AT)
    yield (MASK, 0, 0, SHARED_ANONYMOUS)
    yield (EQUAL, 0, 1, SHARED_ANONYMOUS)
    yield (RETURN, 0, 0, DENY)
