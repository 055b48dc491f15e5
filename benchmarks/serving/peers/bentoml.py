"""BentoML."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from benchmarks.serving import environments, processes
from benchmarks.serving.peers import python_app
from benchmarks.serving.peers.base import Start, Target, Variant, Wire

TUNING: Final = """\
services:
  metrics: {enabled: false}
  logging: {access: {enabled: false}}
  monitoring: {enabled: false}
"""


class BentoML:
    """One worker. Tuned: no metrics, no access log, no monitoring; uvloop and httptools installed."""

    name = "bentoml"
    title = "BentoML"
    wires: frozenset[Wire] = frozenset({"own_json"})
    variants = (Variant(), Variant(tuned=True), Variant(tuned=True, batching=True))

    def prepare(self, environment: Path) -> None:  # noqa: ARG002 - of the protocol
        """Put aside what the tuned variant adds to the installation."""
        environments.install_aside(self.name)

    @contextlib.contextmanager
    def start(self, start: Start) -> Iterator[Target]:
        (port,) = processes.free_ports(1)
        python = environments.python(self.name)
        command = [
            *(python, "-m", "bentoml", "serve", "bentoml_app:Torch", "--working-dir", python_app.APPS),
            *("--host", "127.0.0.1", "--port", port),
        ]
        settings = python_app.settings(start, port, 0) | self._settings(start)
        with processes.running(
            [str(word) for word in command], folder=start.folder, core=start.core, environment=settings
        ) as server:
            server.wait_until(lambda: processes.answers(f"http://127.0.0.1:{port}/readyz"))
            yield Target(rest=f"127.0.0.1:{port}", rest_path="/predict", json_key="[")

    def _settings(self, start: Start) -> dict[str, str]:
        always = {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(start.folder / "bentoml")}
        if not start.variant.tuned:
            return always
        tuning = start.folder / "tuning.yaml"
        tuning.write_text(TUNING)
        return always | {
            "BENTOML_CONFIG": str(tuning),
            "PYTHONPATH": f"{python_app.APPS}:{environments.aside(self.name)}",
        }
