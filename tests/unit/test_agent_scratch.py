"""Folders of one process: private, where they were asked for, and gone at its end."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
MAKES_ONE = """
import sys
from pathlib import Path
from serving_agent import scratch
scratch.keep_in(Path(sys.argv[1]))
made = scratch.folder("test")
(made / "file").write_text("x")
print(made, oct(made.stat().st_mode & 0o777))
"""


def test_a_folder_is_private_and_ends_with_its_process(tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAKES_ONE, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    name, mode = done.stdout.split()
    assert (Path(name).parent, mode) == (tmp_path, "0o700")
    assert list(tmp_path.iterdir()) == []
