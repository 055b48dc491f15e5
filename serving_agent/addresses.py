"""Where an agent listens: `unix:/path` or `127.0.0.1:port`, bound before anything slow begins."""

from __future__ import annotations

import socket
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from serving_agent.errors import StartError

BACKLOG: Final = 2048
LONGEST_UNIX_PATH: Final = 103
"""Bytes of `sun_path` on the platforms we run on, less its closing zero: 104 on macOS, 108 on Linux."""
PRIVATE: Final = 0o600


@dataclass(frozen=True, slots=True)
class UnixAddress:
    """A socket file."""

    path: Path

    @property
    def grpc(self) -> str:
        """The address in gRPC's notation."""
        return f"unix:{self.path}"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """A loopback port."""

    host: str
    port: int

    @property
    def grpc(self) -> str:
        """The address in gRPC's notation."""
        return f"{self.host}:{self.port}"


Address = UnixAddress | TcpAddress


def parse(text: str) -> Address:
    """Return the address in *text*. Raises StartError. Pure."""
    kind, _, rest = text.rpartition(":")
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/") or len(path.encode()) > LONGEST_UNIX_PATH:
            raise StartError(f"a unix address needs an absolute path of at most {LONGEST_UNIX_PATH} bytes")
        return UnixAddress(Path(path))
    if kind == "127.0.0.1" and rest.isascii() and rest.isdigit() and 0 < int(rest) < 65536:
        return TcpAddress(kind, int(rest))
    raise StartError(f"the address {text!r} is neither unix:/path nor 127.0.0.1:port")


def bind(address: Address) -> socket.socket:
    """Return a listening socket on *address*; a socket file left by a dead process is replaced.

    Raises StartError where somebody else listens there.
    """
    try:
        if isinstance(address, UnixAddress):
            return _bind_unix(address)
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((address.host, address.port))
    except OSError as error:
        raise StartError(f"cannot listen: {error.strerror}") from error
    listener.listen(BACKLOG)
    return listener


def prepare(address: Address) -> None:
    """Remove a stale socket file, for servers that bind by themselves. Raises StartError where it lives."""
    if not isinstance(address, UnixAddress) or not _is_socket(address.path):
        return
    if _is_alive(address.path):
        raise StartError("another process listens on the agent's socket")
    address.path.unlink()


def make_private(address: Address) -> None:
    """Let only the owner connect to a socket file."""
    if isinstance(address, UnixAddress):
        address.path.chmod(PRIVATE)


def remove(address: Address) -> None:
    """Remove the socket file of a listener that has ended."""
    if isinstance(address, UnixAddress):
        address.path.unlink(missing_ok=True)


def _bind_unix(address: UnixAddress) -> socket.socket:
    prepare(address)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(address.path))
    make_private(address)
    listener.listen(BACKLOG)
    return listener


def _is_socket(path: Path) -> bool:
    try:
        return stat.S_ISSOCK(path.stat().st_mode)
    except FileNotFoundError:
        return False


def _is_alive(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            return False
    return True
