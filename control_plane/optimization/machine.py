"""What this machine can do, and which of its cores are idle."""

from __future__ import annotations

import os
import platform
import shutil
from functools import cache
from pathlib import Path
from typing import Any, Final

import psutil

from control_plane.optimization.base import Machine

CPUINFO: Final = Path("/proc/cpuinfo")
TOLD_FLAGS: Final = (
    "avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16",
)  # fmt: skip
"""CPU features that decide which method wins."""
LOOK_S: Final = 0.2


@cache
def this_machine() -> Machine:
    """Describe the machine; imports no torch."""
    fields = _cpu_fields()
    return Machine(
        cpu=fields.get("model name") or platform.processor() or platform.machine(),
        cores=len(os.sched_getaffinity(0)),
        flags=frozenset(fields.get("flags", "").split()),
        memory_bytes=int(psutil.virtual_memory().total),
        gpus=_gpus(),
        compiler=shutil.which("g++") or shutil.which("clang++"),
    )


def described(machine: Machine) -> dict[str, Any]:
    """*machine* as a report tells it: {"cpu", "cores", "flags", "memory_bytes", "gpus"}."""
    return {
        "cpu": machine.cpu,
        "cores": machine.cores,
        "flags": [flag for flag in TOLD_FLAGS if flag in machine.flags],
        "memory_bytes": machine.memory_bytes,
        "gpus": [name for name, _, _ in machine.gpus],
    }


def quietest_cores(count: int) -> tuple[int, ...]:
    """The *count* least busy cores this process may use, or all of them if they are fewer."""
    allowed = sorted(os.sched_getaffinity(0))
    busy = psutil.cpu_percent(interval=LOOK_S, percpu=True)
    return tuple(sorted(sorted(allowed, key=lambda core: busy[core] if core < len(busy) else 0.0)[:count]))


def _cpu_fields() -> dict[str, str]:
    """Key and value of the first processor in /proc/cpuinfo; empty elsewhere than on Linux."""
    if not CPUINFO.exists():
        return {}
    first = CPUINFO.read_text().split("\n\n", 1)[0]
    pairs = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _gpus() -> tuple[tuple[str, int, int], ...]:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return ()
    try:
        handles = [pynvml.nvmlDeviceGetHandleByIndex(at) for at in range(pynvml.nvmlDeviceGetCount())]
        return tuple(
            (str(pynvml.nvmlDeviceGetName(handle)), *pynvml.nvmlDeviceGetCudaComputeCapability(handle))
            for handle in handles
        )
    except pynvml.NVMLError:
        return ()
    finally:
        pynvml.nvmlShutdown()
