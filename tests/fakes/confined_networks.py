"""Networks of an operator that look around while they are tried."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import torch
from torch import nn

from serving_agent.config import FORCED


class Scaled(nn.Module):
    """Its input, each column times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.weight


class Curious(Scaled):
    """Imports as it runs, and fails unless it runs in the agent's environment."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        import_module("tests.fakes.networks")
        missing = {name for name, value in FORCED.items() if os.environ.get(name) != value}
        if missing:
            raise RuntimeError(f"lacks {missing}")
        return super().forward(x)


class Threaded(Scaled):
    """Fails unless every thread of its process is filtered, whenever it was started."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for status in Path("/proc/self/task").glob("*/status"):
            if "Seccomp:\t2" not in status.read_text():
                raise RuntimeError(status.read_text())
        return super().forward(x)


class Caller(Scaled):
    """Fails if it can connect or start a program."""

    def __init__(self, port: int) -> None:
        super().__init__()
        self.port = port

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for act in (self.connect, self.start):
            try:
                act()
            except OSError:
                continue
            raise RuntimeError(f"{act.__name__} succeeded")
        return super().forward(x)

    def connect(self) -> None:
        """Connect to a server that runs."""
        socket.create_connection(("127.0.0.1", self.port), timeout=5).close()

    def start(self) -> None:
        """Start a program."""
        subprocess.run([sys.executable, "-c", ""], check=False)
