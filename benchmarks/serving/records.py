"""The raw results: what was measured when, as one JSON file that everything else is computed from."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

METRICS = ("rps", "p50_us", "p90_us", "p99_us")


@dataclass(frozen=True, slots=True)
class Record:
    """One measurement of one round. figures: see `load.Figures`; empty where `void` says why it counts not.

    wire: see `peers.base.Wire`, or `none` for the torch loop, whose concurrency is rows per call and whose
    rps are rows per second. load_average: of the machine, over one minute, just before.
    """

    round: int
    server: str
    tuned: bool
    batching: bool
    workload: str
    wire: str
    concurrency: int
    load_average: float
    figures: Mapping[str, float] = field(default_factory=dict)
    void: str | None = None


@dataclass(slots=True)
class Results:
    """All of a run. settings: of the run; machine: what it ran on; versions: package versions by server;
    agent: `agent_costs.measure`, where it was asked for."""

    started_at: str
    settings: dict[str, Any]
    machine: dict[str, Any]
    versions: dict[str, dict[str, str]]
    records: list[Record]
    agent: dict[str, Any] | None = None

    def write(self, path: Path) -> None:
        """Write everything to *path*, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.part")
        temporary.write_text(_text(asdict(self)))
        temporary.replace(path)


def read(path: Path) -> Results:
    """Read what `Results.write` wrote."""
    document = json.loads(path.read_text())
    document["records"] = [Record(**record) for record in document["records"]]
    return Results(**document)


def _text(document: dict[str, Any]) -> str:
    """One line for each record, so that a later run's difference can be read."""
    records = ",\n  ".join(json.dumps(record) for record in document.pop("records"))
    head = json.dumps(document, indent=1)
    return f'{head[:-2]},\n "records": [\n  {records}\n ]\n}}\n'
