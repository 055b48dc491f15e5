"""Logging set-up for every control-plane process."""

from __future__ import annotations

import logging
import sys


def configure(level: str, process: str) -> None:
    """Send log lines of this process to stderr as `time level process logger: message`."""
    logging.basicConfig(
        level=level.upper(),
        format=f"%(asctime)s %(levelname)s {process} %(name)s: %(message)s",
        stream=sys.stderr,
        force=True,
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
