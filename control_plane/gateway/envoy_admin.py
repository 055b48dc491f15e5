"""Reads Envoy's admin interface over its Unix socket."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from control_plane import socket_http
from control_plane.errors import UnavailableError

TIMEOUT_S: Final = 2.0


class EnvoyAdmin:
    """Envoy's admin interface at one socket; every method raises UnavailableError when Envoy is silent."""

    def __init__(self, socket_path: Path, timeout_s: float = TIMEOUT_S) -> None:
        self._address = f"unix:{socket_path}"
        self._timeout_s = timeout_s

    def stats(self, pattern: str) -> dict[str, str]:
        """Return statistics whose whole name matches the regular expression *pattern*, as text by name."""
        body = self._get(f"/stats?filter={quote(f'^({pattern})$')}").decode()
        lines = (line.partition(": ") for line in body.splitlines())
        return {name: value.strip('"') for name, _, value in lines}

    def prometheus(self, pattern: str) -> str:
        """Return statistics whose name matches *pattern* anywhere, in Prometheus' text format."""
        return self._get(f"/stats/prometheus?filter={quote(pattern)}").decode()

    def clusters(self) -> list[dict[str, Any]]:
        """Return the state of all clusters and their members, as `/clusters?format=json` has it."""
        document = json.loads(self._get("/clusters?format=json"))
        statuses: list[dict[str, Any]] = document.get("cluster_statuses", [])
        return statuses

    def route_configs(self) -> list[dict[str, Any]]:
        """Return the route configurations in force."""
        document = json.loads(self._get("/config_dump?resource=dynamic_route_configs"))
        return [entry["route_config"] for entry in document.get("configs", [])]

    def _get(self, target: str) -> bytes:
        try:
            return socket_http.get(self._address, target, self._timeout_s)
        except socket_http.NoAnswerError as error:
            raise UnavailableError(
                "the gateway (Envoy) does not answer", next_step="It is restarted by itself; try again."
            ) from error
