"""What the machine does: processor, memory, processes and NVIDIA GPUs. Nothing here raises."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import psutil
import pynvml

NO_GPU: Final = "no NVIDIA GPU found"


@dataclass(frozen=True, slots=True)
class Host:
    """The machine now: cpu_percent since the last reading (100 is all cores), memory in bytes."""

    cpu_percent: float
    memory_used_bytes: int
    memory_total_bytes: int


@dataclass(frozen=True, slots=True)
class Gpu:
    """One NVIDIA GPU now: utilisation over the last sampling period, memory in bytes.

    None stands for a value the driver does not give.
    """

    index: int
    name: str
    utilization_percent: float | None
    memory_used_bytes: int | None
    memory_total_bytes: int | None
    temperature_celsius: float | None


@dataclass(frozen=True, slots=True)
class ProcessUse:
    """One process: CPU since its last reading (100 is one core; None at the first), resident bytes."""

    cpu_percent: float | None
    memory_bytes: int


def host() -> Host:
    """Return the machine's present load; the first reading of a process has cpu_percent 0."""
    memory = psutil.virtual_memory()
    return Host(psutil.cpu_percent(interval=None), memory.total - memory.available, memory.total)


class ProcessMeter:
    """Measures processes by id, each against its own last reading."""

    def __init__(self) -> None:
        self._known: dict[int, psutil.Process] = {}

    def measure(self, pids: Iterable[int]) -> dict[int, ProcessUse]:
        """Return what each living process of *pids* uses; those not asked for are forgotten."""
        wanted = set(pids)
        self._known = {pid: process for pid, process in self._known.items() if pid in wanted}
        measured = ((pid, self._measure(pid)) for pid in wanted)
        return {pid: use for pid, use in measured if use is not None}

    def _measure(self, pid: int) -> ProcessUse | None:
        try:
            process = self._known.get(pid)
            if process is None or not process.is_running():
                process = self._known[pid] = psutil.Process(pid)
                process.cpu_percent(interval=None)
                return ProcessUse(None, process.memory_info().rss)
            return ProcessUse(process.cpu_percent(interval=None), process.memory_info().rss)
        except psutil.Error:
            self._known.pop(pid, None)
            return None


_nvml_lock = threading.Lock()
_nvml: list[bool] = []


def gpus() -> list[Gpu]:
    """Return every NVIDIA GPU, in the driver's order; none (see NO_GPU) without a GPU or a driver."""
    if not _nvml_works():
        return []
    try:
        return [_gpu(index) for index in range(pynvml.nvmlDeviceGetCount())]
    except pynvml.NVMLError:
        return []


def _nvml_works() -> bool:
    """Load the driver's library once; a machine that has none when we start has none."""
    with _nvml_lock:
        if not _nvml:
            try:
                pynvml.nvmlInit()
                _nvml.append(True)
            except pynvml.NVMLError:
                _nvml.append(False)
        return _nvml[0]


def _gpu(index: int) -> Gpu:
    handle = pynvml.nvmlDeviceGetHandleByIndex(index)
    memory = _asked(pynvml.nvmlDeviceGetMemoryInfo, handle)
    rates = _asked(pynvml.nvmlDeviceGetUtilizationRates, handle)
    temperature = _asked(pynvml.nvmlDeviceGetTemperature, handle, pynvml.NVML_TEMPERATURE_GPU)
    name = _asked(pynvml.nvmlDeviceGetName, handle) or f"GPU {index}"
    return Gpu(
        index=index,
        name=name.decode() if isinstance(name, bytes) else str(name),
        utilization_percent=float(rates.gpu) if rates is not None else None,
        memory_used_bytes=int(memory.used) if memory is not None else None,
        memory_total_bytes=int(memory.total) if memory is not None else None,
        temperature_celsius=float(temperature) if temperature is not None else None,
    )


def _asked(question: Callable[..., Any], *arguments: Any) -> Any:
    """Ask the driver; None for what this GPU does not tell."""
    try:
        return question(*arguments)
    except pynvml.NVMLError:
        return None
