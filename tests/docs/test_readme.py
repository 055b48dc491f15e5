"""The README's commands do what it says: the two that start everything exist, the others are run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.fakes import models
from tests.fakes.stack import Stack

ROOT = Path(__file__).parents[2]
BLOCKS = re.findall(r"^```sh\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_first_blocks_are_the_two_commands() -> None:
    assert BLOCKS[:2] == ["make run\n", "make test\n"]
    for target in ("run", "test"):
        asked = ["make", "--no-print-directory", "--dry-run", "--always-make", target]
        plan = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=True)
        last = plan.stdout.strip().splitlines()[-1]
        assert {"run": "signalbox up", "test": "python -m pytest"}[target] in last


@pytest.mark.timeout(180)
@pytest.mark.parametrize("block", BLOCKS[2:], ids=range(2, len(BLOCKS)))
def test_the_other_blocks_run(stack: Stack, block: str, tmp_path: Path, digits: list[dict[str, Any]]) -> None:
    models.save_exported(models.digits_model(), tmp_path, torch.zeros(2, 1, 8, 8))
    (tmp_path / "request.json").write_text(json.dumps({"input": [digits[0]["inputs"]["image"]]}))
    path = f"{Path(sys.executable).parent}:{stack.environment['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block],
        cwd=tmp_path,
        env={**stack.environment, "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr + done.stdout
    assert "digits@" in done.stdout
