"""How much memory this process holds, and held at most."""

from __future__ import annotations

from pathlib import Path


def limit(device: str, memory_bytes: int | None) -> None:
    """Bound what this process allocates on a GPU; None leaves it unbounded, as it is on the CPU."""
    if device == "cpu" or memory_bytes is None:
        return
    import torch

    whole = torch.cuda.get_device_properties(device).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, memory_bytes / whole), device)


def reset_peak(device: str) -> bool:
    """Forget the peak memory so far; False where this system does not allow it."""
    if device != "cpu":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def held_bytes(device: str) -> int:
    """Return the memory held now, in bytes; 0 where nobody can tell."""
    if device != "cpu":
        import torch

        return int(torch.cuda.memory_allocated(device))
    return _status("VmRSS") or 0


def peak_bytes(device: str) -> int | None:
    """Return the largest memory held since `reset_peak`, in bytes; None where nobody can tell."""
    if device != "cpu":
        import torch

        return int(torch.cuda.max_memory_allocated(device))
    return _status("VmHWM")


def _status(key: str) -> int | None:
    """Return a figure of /proc/self/status in bytes; None elsewhere than on Linux."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(key)), None)
