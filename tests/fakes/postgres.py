"""A real Postgres from the system's binaries, in a folder of its own, reached through a Unix socket."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

USER = "signalbox"


def binaries() -> Path | None:
    """Folder of initdb and pg_ctl, the newest version; None when Postgres is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@contextmanager
def running() -> Iterator[str]:
    """SQLAlchemy URL of a fresh, empty database; the server ends with the block."""
    folder = binaries()
    assert folder is not None
    with tempfile.TemporaryDirectory(prefix="sb-pg-") as home:
        _give_away(Path(home))
        data = f"{home}/data"
        _run(f"{folder}/initdb", "-D", data, "-U", USER, "-A", "trust", "-E", "UTF8", "--no-sync")
        options = f"-c listen_addresses='' -c unix_socket_directories={home} -c fsync=off"
        _run(f"{folder}/pg_ctl", "-D", data, "-o", options, "-l", f"{home}/log", "-w", "start")
        try:
            yield f"postgresql+psycopg://{USER}@/postgres?host={quote(home)}"
        finally:
            _run(f"{folder}/pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")


def _run(*command: str) -> None:
    """Run as somebody whom Postgres accepts: it refuses to run as root."""
    done = subprocess.run([*_drop_root(), *command], capture_output=True, text=True, check=False, cwd="/")
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"


def _drop_root() -> list[str]:
    return ["runuser", "-u", _owner().pw_name, "--"] if os.geteuid() == 0 else []


def _owner() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam("postgres")
    except KeyError:
        return pwd.getpwnam("nobody")


def _give_away(home: Path) -> None:
    if os.geteuid() == 0:
        os.chown(home, _owner().pw_uid, _owner().pw_gid)
