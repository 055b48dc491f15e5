"""Reads Envoy's admin interface over its Unix socket."""

from __future__ import annotations

import http
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import quote

import orjson

from control_plane import socket_http
from control_plane.errors import UnavailableError

StatKind = Literal["TextReadouts", "Counters"]
TIMEOUT_S: Final = 5.0
"""Envoy writes what it knows of 4,000 clusters in 0.3 s, and on a busy machine in several times that."""


class EnvoyAdmin:
    """Envoy's admin interface at one socket; every method raises UnavailableError when Envoy is silent."""

    def __init__(self, socket_path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._address = f"unix:{socket_path}"
        self._timeout_s = timeout_s

    def stats(self, pattern: str, kind: StatKind | None = None) -> dict[str, str]:
        """Return statistics whose whole name matches the regular expression *pattern*, as text by name.

        Envoy tries the pattern on every statistic it has; with *kind* only on those of one kind.
        """
        only = f"type={kind}&" if kind else ""
        body = self._get(f"/stats?{only}filter={quote(f'^({pattern})$')}").decode()
        lines = (line.partition(": ") for line in body.splitlines())
        return {name: value.strip('"') for name, _, value in lines}

    def prometheus(self, pattern: str) -> str:
        """Return statistics whose name matches *pattern* anywhere, in Prometheus' text format."""
        return self._get(f"/stats/prometheus?filter={quote(pattern)}").decode()

    def clusters(self) -> list[dict[str, Any]]:
        """Return the state of all clusters and their members, as `/clusters?format=json` has it."""
        document = orjson.loads(self._get("/clusters?format=json"))
        statuses: list[dict[str, Any]] = document.get("cluster_statuses", [])
        return statuses

    def route_configs(self) -> list[dict[str, Any]]:
        """Return name and metadata of the route configurations in force: all else can be very long."""
        mask = "route_config.name,route_config.metadata"
        document = orjson.loads(self._get(f"/config_dump?resource=dynamic_route_configs&mask={mask}"))
        return [entry["route_config"] for entry in document.get("configs", [])]

    def reopen_logs(self) -> None:
        """Make Envoy open its access logs anew, by name, after one was renamed."""
        try:
            answer = socket_http.post(self._address, "/reopen_logs", b"", self._timeout_s)
        except socket_http.NoAnswerError as error:
            raise _silent() from error
        if answer.status != http.HTTPStatus.OK:
            raise UnavailableError(f"the gateway (Envoy) answered {answer.status} to /reopen_logs")

    def _get(self, target: str) -> bytes:
        try:
            return socket_http.get(self._address, target, self._timeout_s)
        except socket_http.NoAnswerError as error:
            raise _silent() from error


def _silent() -> UnavailableError:
    return UnavailableError(
        "the gateway (Envoy) does not answer", next_step="It is restarted by itself; try again."
    )
