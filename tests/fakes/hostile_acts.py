"""What hostile code would try from inside a process of ours; each act says whether it succeeded.

`python -m tests.fakes.hostile_acts ACT READABLE WRITABLE` confines itself like a check of an upload, does one
act and prints `blocked` or `succeeded`, with what it met. `free` as a
fourth argument leaves the confinement out.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from control_plane.admission import isolation

MEMORY_BYTES = 256 * 1024**2
FILE_BYTES = 1024**2
CLONE_NEWUSER = 0x10000000
X32_GETPID = 0x40000000 + 39


def _connect(kind: socket.SocketKind, port: int) -> None:
    with socket.socket(socket.AF_INET, kind) as client:
        client.connect(("127.0.0.1", port))


def _abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("\0signalbox-hostile-act")


def _forks() -> None:
    children = []
    for _ in range(200):
        child = os.fork()
        if child == 0:
            os._exit(0)
        children.append(child)
    for child in children:
        os.waitpid(child, 0)


def _thread() -> None:
    thread = threading.Thread(target=lambda: None)
    thread.start()
    thread.join()


def _exec() -> None:
    os.execv(sys.executable, [sys.executable, "-c", "print('succeeded')"])


def _system_call(number: int, *arguments: int) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    result = int(libc.syscall(number, *arguments))
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def _attach_shared_memory() -> None:
    """Attach a segment that this process asks for; that there is none would be EINVAL, not a filter."""
    try:
        _system_call({"x86_64": 30}.get(os.uname().machine, 196), -1, 0, 0)
    except OSError as error:
        if error.errno == errno.EPERM:
            raise


def _new_user() -> None:
    _system_call({"x86_64": 272}.get(os.uname().machine, 97), CLONE_NEWUSER)


def _trace_parent() -> None:
    _system_call({"x86_64": 101}.get(os.uname().machine, 117), 16, os.getppid(), 0, 0)


def _large_file(folder: Path) -> None:
    with (folder / "large").open("wb") as file:
        for _ in range(400):
            file.write(bytes(FILE_BYTES))
            file.flush()


def _burn() -> None:
    while True:
        pass


def _shared_memory() -> None:
    mmap.mmap(-1, 12 * 1024**3).close()


def _memory_file() -> None:
    os.close(os.memfd_create("held"))


def acts(readable: Path, writable: Path) -> dict[str, Callable[[], object]]:
    """All acts by name."""
    outside = readable.parent / "outside"
    return {
        "read own file": lambda: (readable / "file").read_bytes(),
        "write own file": lambda: (writable / "new").write_bytes(b"x"),
        "make own folder": lambda: (writable / "folder").mkdir(),
        "read passwords": lambda: Path("/etc/passwd").read_bytes(),
        "list the root": lambda: os.listdir("/"),  # noqa: PTH208  the plainest way
        "read another's environment": lambda: Path(f"/proc/{os.getppid()}/environ").read_bytes(),
        "read outside": lambda: (outside / "file").read_bytes(),
        "write outside": lambda: (outside / "new").write_bytes(b"x"),
        "write what it reads": lambda: (readable / "file").write_bytes(b"x"),
        "truncate what it reads": lambda: os.truncate(readable / "file", 0),
        "remove what it reads": lambda: (readable / "file").unlink(),
        "link outside": lambda: (writable / "link").symlink_to("/etc/passwd"),
        "hard link of what it reads": lambda: (writable / "link").hardlink_to(readable / "file"),
        "change rights": lambda: (readable / "file").chmod(0o777),
        "change the owner": lambda: os.chown(readable / "file", os.getuid(), os.getgid()),
        "change the times": lambda: os.utime(outside / "file", (1, 1)),
        "slow its parent down": lambda: os.setpriority(os.PRIO_PROCESS, os.getppid(), 19),
        "tie its parent to a processor": lambda: os.sched_setaffinity(os.getppid(), os.sched_getaffinity(0)),
        "attach shared memory": _attach_shared_memory,
        "hold secret memory": lambda: os.close(_system_call(447, 0)),
        "make a pipe": lambda: os.mkfifo(writable / "pipe"),
        "connect by TCP": lambda: _connect(socket.SOCK_STREAM, int((readable / "port").read_text())),
        "connect by UDP": lambda: _connect(socket.SOCK_DGRAM, 9),
        "bind an abstract socket": _abstract_socket,
        "spawn a shell": lambda: subprocess.run(["/bin/sh", "-c", "true"], check=True),
        "become another program": _exec,
        "fork 200 times": _forks,
        "start a thread": _thread,
        "signal its parent": lambda: os.kill(os.getppid(), signal.SIGURG),
        "signal everybody": lambda: os.kill(-1, 0),
        "make a user namespace": _new_user,
        "trace its parent": _trace_parent,
        "raise its parent's limits": lambda: resource.prlimit(
            os.getppid(), resource.RLIMIT_CORE, resource.prlimit(os.getppid(), resource.RLIMIT_CORE)
        ),
        "call by foreign numbers": lambda: _system_call(X32_GETPID),
        "take 12 GiB": lambda: mmap.mmap(-1, 12 * 1024**3, flags=mmap.MAP_PRIVATE).close(),
        "take 12 GiB of shared memory": _shared_memory,
        "hold memory as a file": _memory_file,
        "fill its memory": lambda: bytearray(2 * MEMORY_BYTES),
        "write a large file": lambda: _large_file(writable),
        "burn processor time": _burn,
    }


def main() -> None:
    """Do one act."""
    name, readable, writable = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    act = acts(readable, writable)[name]
    level = "free"
    if "free" not in sys.argv[4:]:
        reached = isolation.confine(
            readable=[readable],
            writable=[writable],
            memory_bytes=MEMORY_BYTES,
            cpu_s=1,
            file_bytes=FILE_BYTES,
        )
        level = reached.level
    try:
        act()
    except (OSError, MemoryError, RuntimeError, subprocess.SubprocessError) as error:
        print(level, "blocked", repr(error), flush=True)
    else:
        print(level, "succeeded", flush=True)


if __name__ == "__main__":
    main()
