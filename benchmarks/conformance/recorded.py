"""A real Triton's answers as a file, for tests that run without one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from benchmarks.conformance import checks
from benchmarks.conformance.checks import SENTENCE, Json
from benchmarks.conformance.matrix import Observations

PATH: Final = Path(__file__).parents[2] / "tests" / "fakes" / "oracle" / "triton.json"


class FlavourError(RuntimeError):
    """Two flavours of a client saw different things of one Triton."""


def write(seen: Observations, versions: Mapping[str, str], path: Path = PATH) -> None:
    """Write what Triton answered, one line for each check, without sentences. Raises FlavourError."""
    answers = {name: single(name, by_flavour) for name, by_flavour in sorted(seen.items())}
    lines = [f"{json.dumps(name)}: {json.dumps(without_sentences(each))}" for name, each in answers.items()]
    body = ",\n".join(lines)
    path.write_text(f'{{"versions": {json.dumps(dict(versions))},\n"answers": {{\n{body}\n}}}}\n')


def read(path: Path = PATH) -> dict[str, Json]:
    """Return what Triton answered, by check."""
    answers: dict[str, Json] = json.loads(path.read_text())["answers"]
    return answers


def single(check: str, by_flavour: Mapping[str, Json]) -> Json:
    """Return the one observation of all flavours. Raises FlavourError. Pure."""
    first, *others = by_flavour.values()
    if not all(checks.same(first, other) for other in others):
        raise FlavourError(f"{check}: {dict(by_flavour)}")
    return first


def without_sentences(seen: Json) -> Json:
    """Return *seen* without words for people, which name request numbers and addresses. Pure."""
    if isinstance(seen, dict):
        kept: dict[str, Any] = {
            key: without_sentences(value) for key, value in seen.items() if key != SENTENCE
        }
        return kept
    return [without_sentences(item) for item in seen] if isinstance(seen, list) else seen
