"""Files Envoy follows: written whole under another name, made durable, then renamed into place.

A change counts only when Envoy confirms it: its `version_text` statistic then shows the version of the file.
A change it refuses is taken back by renaming the last confirmed file into place.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from control_plane.config import Settings
from control_plane.errors import UnavailableError
from control_plane.gateway import envoy_config
from control_plane.gateway.envoy_admin import EnvoyAdmin
from control_plane.gateway.envoy_bootstrap import ROUTE_CONFIG

Json = dict[str, Any]

CONFIRM_TIMEOUT_S: Final = 10.0
"""Envoy answers nothing while it takes in thousands of new clusters."""
LONGEST_REASON: Final = 300
"""Characters of Envoy's reason that are repeated to people."""
_FIRST_POLL_S: Final = 0.002
_LONGEST_POLL_S: Final = 0.05


@dataclass(frozen=True, slots=True)
class GatewayFiles:
    """Where the gateway's files are."""

    folder: Path
    admin_socket: Path
    log: Path

    @property
    def boot(self) -> Path:
        """Envoy's bootstrap."""
        return self.folder / "boot.json"

    @property
    def lds(self) -> Path:
        """The listener."""
        return self.folder / "lds.json"

    @property
    def cds(self) -> Path:
        """Clusters with their members."""
        return self.folder / "cds.json"

    @property
    def rds(self) -> Path:
        """The route configuration."""
        return self.folder / "rds" / f"{ROUTE_CONFIG}.json"

    @property
    def units(self) -> Path:
        """Lines of requests that count by their session; `telemetry.unit_log` reads and rotates it."""
        return self.folder / "units.log"

    @property
    def lock(self) -> Path:
        """Held by whoever publishes."""
        return self.folder / "publish.lock"


def gateway_files(settings: Settings) -> GatewayFiles:
    """Return the places of the gateway's files for *settings*."""
    return GatewayFiles(
        folder=settings.gateway_dir,
        admin_socket=settings.run_dir / "envoy-admin.sock",
        log=settings.logs_dir / "envoy.log",
    )


def read_discovery(path: Path) -> Json | None:
    """Return the discovery response in *path*; None when there is none or it is not whole."""
    try:
        document = orjson.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return document if isinstance(document, dict) and isinstance(document.get("resources"), list) else None


def version_of(path: Path) -> str:
    """Return the version of the discovery response in *path*, "" when there is none.

    Only its beginning is read, where `envoy_config.resource_file` puts the version.
    """
    try:
        with path.open("rb") as file:
            found = _VERSION.match(file.read(_LONGEST_VERSION))
    except OSError:
        return ""
    return found[1].decode() if found else ""


_LONGEST_VERSION: Final = 200
_VERSION: Final = re.compile(rb'\{"version_info": ?"([^"]*)"')


def resources_of(document: Json | None) -> list[Json]:
    """Return the resources of a discovery response."""
    return document["resources"] if document else []


def write_atomically(path: Path, content: bytes) -> None:
    """Replace *path* by *content* in one step, durable before it is visible."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def next_counter(*versions: str) -> int:
    """Return a number above the counters of *versions* (`<counter>-<digest>`; others count as 0)."""
    counters = (version.partition("-")[0] for version in versions)
    return 1 + max((int(counter) for counter in counters if counter.isdecimal()), default=0)


@contextmanager
def publishing(files: GatewayFiles) -> Iterator[None]:
    """Keep every other publisher out, in this process and in others."""
    with files.lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class DiscoveryFile:
    """One watched file and the statistics by which Envoy says what it made of it."""

    def __init__(self, path: Path, stat_prefix: str, admin: EnvoyAdmin, log: Path) -> None:
        self.path = path
        self._good = path.with_name(f"{path.name}.good")
        self._stat_prefix = stat_prefix
        self._admin = admin
        self._log = log

    @property
    def version_stat(self) -> str:
        """Name of the statistic that holds the version in force."""
        return f"{self._stat_prefix}.version_text"

    def version(self) -> str:
        """Return the version of the file, "" when it is missing."""
        return version_of(self.path)

    def resources(self) -> list[Json]:
        """Return the resources of the file, none when it is missing."""
        return resources_of(read_discovery(self.path))

    def in_force(self) -> list[Json]:
        """Return the resources of the file if Envoy has confirmed it, else none."""
        written = self.version()
        return self.resources() if written and written == self._version_in_force() else []

    def publish(self, resources: Sequence[Json], check: Callable[[Sequence[Json]], None]) -> None:
        """Make *resources* the ones in force, and return when Envoy says so; nothing to do is quick.

        check: raises when the resources cannot be right; called only when they are new. Raises
        UnavailableError when Envoy is down, refuses them or stays silent; the old ones are then in force.
        """
        in_force = self._version_in_force()
        written = self.version()
        confirmed = in_force == written
        if confirmed and written.endswith(f"-{envoy_config.content_digest(resources)}"):
            return
        check(resources)
        if confirmed:
            self._keep_good()
        self._put(envoy_config.resource_file(resources, next_counter(written, in_force)))

    def _put(self, document: Json) -> None:
        refused = self._refused()
        log_offset = self._log.stat().st_size if self._log.exists() else 0
        write_atomically(self.path, orjson.dumps(document))
        try:
            self._confirm(document["version_info"], refused, log_offset)
        except UnavailableError:
            self._restore_good()
            raise

    def _confirm(self, version: str, refused_before: int, log_offset: int) -> None:
        deadline = time.monotonic() + CONFIRM_TIMEOUT_S
        pause_s = _FIRST_POLL_S
        while not self._holds(version):
            if pause_s >= _LONGEST_POLL_S and self._refused_since(refused_before):
                raise UnavailableError(f"Envoy refused the change: {self._reason(log_offset)}")
            if time.monotonic() > deadline:
                raise UnavailableError(f"Envoy did not confirm the change within {CONFIRM_TIMEOUT_S:g} s")
            time.sleep(pause_s)
            pause_s = min(pause_s * 1.5, _LONGEST_POLL_S)

    def _holds(self, version: str) -> bool:
        """False, too, when Envoy is too busy with the change to say."""
        try:
            return self._version_in_force() == version
        except UnavailableError:
            return False

    def _refused_since(self, refused_before: int) -> bool:
        try:
            return self._refused() > refused_before
        except UnavailableError:
            return False

    def _version_in_force(self) -> str:
        return self._admin.stats(re.escape(self.version_stat), "TextReadouts").get(self.version_stat, "")

    def _refused(self) -> int:
        names = rf"{re.escape(self._stat_prefix)}\.update_(rejected|failure)"
        return sum(int(count) for count in self._admin.stats(names, "Counters").values())

    def _keep_good(self) -> None:
        temporary = self._good.with_name(f".{self._good.name}")
        temporary.unlink(missing_ok=True)
        os.link(self.path, temporary)
        temporary.replace(self._good)

    def _restore_good(self) -> None:
        if self._good.exists():
            write_atomically(self.path, self._good.read_bytes())

    def _reason(self, log_offset: int) -> str:
        try:
            with self._log.open("rb") as file:
                file.seek(log_offset)
                return rejection_reason(file.read().decode(errors="replace"))
        except OSError:
            return rejection_reason("")


def rejection_reason(log: str) -> str:
    """Return why Envoy refused a file, from what it logged: the last sentence of the last rejection."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    marked = [line for line in lines if line.startswith(": ") or "rejected: " in line or "Unable to" in line]
    if not marked:
        return "its log does not say why"
    line = marked[-1]
    reason = line.removeprefix(": ") if line.startswith(": ") else line.rpartition("rejected: ")[2]
    return reason[:LONGEST_REASON]
