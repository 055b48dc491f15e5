"""`python -m tests.corpus.make OUT [--check 'CMD {path}']`: writes every case, and has a command judge each.

OUT/CASE holds a case's upload: one file, or several. The command's last word on standard output is its
verdict: accept, convert, sandbox or refuse. OUT/corpus.json says what is right. A payload that runs creates
OUT/MARKER.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.corpus import hostile, malicious
from tests.corpus.case import Case, Tensors

MARKER = "MARKER"
LIMIT_S = 10.0


def cases(out: Path) -> Iterator[Case]:
    """Every case; payloads create OUT/MARKER."""
    yield from malicious.cases(out / MARKER)
    yield from hostile.cases()
    from tests.corpus import benign  # with torch and transformers, which take seconds

    yield from benign.cases()


def make(out: Path) -> Mapping[str, tuple[Case, Tensors | None]]:
    """Write every case below *out*, which must be empty, and return each with the weights it holds."""
    made: dict[str, tuple[Case, Tensors | None]] = {}
    for case in cases(out):
        if case.name in made:
            raise ValueError(f"two cases are called {case.name}")
        (out / case.name).mkdir(parents=True)
        made[case.name] = (case, case.write(out / case.name))
    told = [
        {"name": case.name, "kind": case.kind, "verdicts": case.verdicts, "codes": case.codes}
        for case, _ in made.values()
    ]
    (out / "corpus.json").write_text(json.dumps(told, indent=1))
    return made


def upload(folder: Path) -> Path:
    """What is judged: the folder's one file, or the folder."""
    held = list(folder.iterdir())
    return held[0] if len(held) == 1 and held[0].is_file() and not held[0].is_symlink() else folder


def check(out: Path, made: Mapping[str, tuple[Case, Tensors | None]], command: str) -> list[str]:
    """Run *command* on every case and return what is wrong."""
    wrong = []
    for case, _ in made.values():
        words = [word.replace("{path}", str(upload(out / case.name))) for word in shlex.split(command)]
        started = time.monotonic()
        try:
            done = subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)
            verdict = (done.stdout.split() or ["nothing"])[-1]
        except subprocess.TimeoutExpired:
            verdict = f"no answer within {LIMIT_S} s"
        if (out / MARKER).exists():
            (out / MARKER).unlink()
            verdict += " and ran the payload"
        took = time.monotonic() - started
        if verdict not in case.verdicts:
            wrong.append(f"{case.name}: {verdict} instead of {' or '.join(case.verdicts)} ({took:.1f} s)")
    return wrong


def main() -> int:
    """Make the corpus and check it where a command is given."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus.make", description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--check", metavar="CMD", help="command with {path}, such as 'signalbox gate {path}'")
    given = parser.parse_args()
    made = make(given.out.resolve())
    counts = {
        kind: sum(case.kind == kind for case, _ in made.values())
        for kind in ("malicious", "hostile", "benign")
    }
    print(f"{len(made)} cases: {counts}")
    wrong = check(given.out.resolve(), made, given.check) if given.check else []
    for line in wrong:
        print(line)
    print(f"{len(wrong)} wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
