"""Builds several variants in one process: `python -m tests.fakes.engine_builds FOLDER`.

FOLDER holds `orders.json`, build orders by name; `replies.json` is written beside it. In a process
of its own: a build may change settings of the whole process.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import msgspec

from control_plane.optimization.messages import BuildOrder, BuildReply

ROOT = Path(__file__).parents[2]


def replies(orders: dict[str, BuildOrder], folder: Path) -> dict[str, BuildReply]:
    """What came of each order."""
    (folder / "orders.json").write_bytes(msgspec.json.encode(orders))
    subprocess.run([sys.executable, "-m", "tests.fakes.engine_builds", str(folder)], cwd=ROOT, check=True)
    return msgspec.json.decode((folder / "replies.json").read_bytes(), type=dict[str, BuildReply])


def main(folder: Path) -> None:
    """Carry out every order, each on a parent opened anew."""
    from control_plane.optimization import build_process

    orders = msgspec.json.decode((folder / "orders.json").read_bytes(), type=dict[str, BuildOrder])
    made = {name: build_process.answer(order) for name, order in orders.items()}
    (folder / "replies.json").write_bytes(msgspec.json.encode(made))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
