"""`python -m control_plane.supervisor.child PID ROLE`: one of our own processes, tied to its supervisor.

Settings come from the environment that the supervisor gave. The process gets SIGTERM when its supervisor is
gone, also when that was killed, so that the next `signalbox up` finds its ports free.
"""

from __future__ import annotations

import importlib
import sys
from typing import Final

from control_plane import log
from control_plane.config import Settings
from control_plane.supervisor import bond

MODULES: Final = {
    "web": "control_plane.web",
    "controller": "control_plane.supervisor.controller_process",
    "worker": "control_plane.jobs.worker",
}
"""The module of each role; its `serve(settings)` runs until SIGTERM."""


def main(arguments: list[str]) -> int:
    """Tie this process to its supervisor, then be what *arguments* say: `PID ROLE`."""
    supervisor_pid, role = int(arguments[0]), arguments[1]
    bond.end_with(supervisor_pid)
    settings = Settings()
    log.configure(settings.log_level, role)
    return int(importlib.import_module(MODULES[role]).serve(settings) or 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
