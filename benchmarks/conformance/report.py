"""From what three targets answered to a table, a file, and whether all is well. Pure but for `write`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from benchmarks.conformance import differences
from benchmarks.conformance.checks import Json
from benchmarks.conformance.differences import Verdict
from benchmarks.conformance.matrix import Observations

RESULTS: Final = Path(__file__).parents[1] / "results"
ORACLE: Final = "triton"
MARKS: Final = {"same": "ok", "intended": "intended", "wrong": "WRONG"}


@dataclass(frozen=True, slots=True)
class Run:
    """All that was seen: by target, check and flavour. expected: the right values, by check, if known."""

    versions: Mapping[str, str]
    expected: Mapping[str, Json]
    seen: Mapping[str, Observations]

    def verdict(self, target: str, check: str, flavour: str) -> Verdict:
        """Return how one answer stands to Triton's, or Triton's own to the right value."""
        answer, right = self.seen[target][check][flavour], self.expected[check]
        if target == ORACLE:
            return differences.judge_oracle(answer, right)
        return differences.judge(check, target, answer, self.seen[ORACLE][check][flavour], right)

    def worst(self, target: str, check: str) -> Verdict:
        """Return the verdict over all flavours."""
        verdicts = [self.verdict(target, check, flavour) for flavour in self.seen[target][check]]
        return max(verdicts, key=lambda verdict: list(MARKS).index(verdict.word))

    def faults(self) -> list[tuple[str, str]]:
        """Return target and check of everything that is wrong."""
        return [
            (target, check)
            for target, checks in self.seen.items()
            for check in checks
            if self.worst(target, check).is_fault
        ]


def table(run: Run) -> str:
    """Return checks as lines and targets as columns; under it why answers differ, and what is wrong."""
    names = list(run.seen[ORACLE])
    width = max(map(len, names))
    head = f"{'check':{width}}" + "".join(f"  {target:9}" for target in run.seen)
    rows = [
        f"{name:{width}}" + "".join(f"  {MARKS[run.worst(target, name).word]:9}" for target in run.seen)
        for name in names
    ]
    return "\n".join([head, *rows, "", *_intended(run), "", *_wrong(run), _total(run)])


def _intended(run: Run) -> list[str]:
    """Return each reason and the checks it is given for."""
    by_reason: dict[str, set[str]] = {}
    for target, seen in run.seen.items():
        for name in seen:
            if (verdict := run.worst(target, name)).word == "intended":
                by_reason.setdefault(verdict.why, set()).add(name)
    return [f"intended: {why}: {', '.join(sorted(names))}" for why, names in by_reason.items()]


def _wrong(run: Run) -> list[str]:
    return [
        f"WRONG at {target}, {check}: {run.worst(target, check).why}\n"
        f"    here    {_short(run.seen[target][check])}\n"
        f"    triton  {_short(run.seen[ORACLE][check])}"
        for target, check in run.faults()
    ]


def _short(seen: Json) -> str:
    text = json.dumps(seen)
    return text if len(text) <= 400 else text[:400] + "…"


def _total(run: Run) -> str:
    answers = sum(len(by_flavour) for checks in run.seen.values() for by_flavour in checks.values())
    return f"{len(run.seen[ORACLE])} checks, {answers} answers, {len(run.faults())} faults"


def write(run: Run, today: date, folder: Path = RESULTS) -> Path:
    """Write everything that was seen as JSON, one line for each check; returns the file."""
    answers = {
        name: {target: _folded(seen[name]) for target, seen in run.seen.items()} for name in run.seen[ORACLE]
    }
    lines = [f"{json.dumps(name)}: {json.dumps(each)}" for name, each in answers.items()]
    faults = json.dumps([f"{target}: {check}" for target, check in run.faults()])
    body = ",\n".join(lines)
    path = folder / f"conformance-{today.isoformat()}.json"
    path.write_text(
        f'{{"versions": {json.dumps(dict(run.versions))},\n"faults": {faults},\n"answers": {{\n{body}\n}}}}\n'
    )
    return path


def _folded(by_flavour: Mapping[str, Json]) -> Mapping[str, Json]:
    """Return one answer under `*` where all flavours of the client saw the very same."""
    first, *others = by_flavour.values()
    return {"*": first} if others and all(other == first for other in others) else by_flavour
