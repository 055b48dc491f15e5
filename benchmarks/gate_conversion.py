"""What judging and converting a state dict costs, beside hashing the same file.

    python -m benchmarks.gate_conversion [MIB] [ROUNDS]

Writes a state dict of MIB mebibytes (512) in several forms. Each round hashes the file with sha256 and judges
and converts it to safetensors, in turn the one and the other first, each in a process of its own that tells
its seconds and its peak memory. The page cache is warm. The converted tensors are compared bit by bit with
what torch.load gives. Prints medians and writes every measurement to benchmarks/results/gate_conversion.json.

    python -m benchmarks.gate_conversion sha256|convert FILE OUT    one measurement, as JSON
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results" / "gate_conversion.json"
MIB = 1024 * 1024
LAYERS = 32


def main() -> None:
    if sys.argv[1:2] and sys.argv[1] in MEASURED:
        act, source, target = sys.argv[1:4]
        print(json.dumps(timed(lambda: MEASURED[act](Path(source), Path(target)))))
        return
    size = int(sys.argv[1]) if len(sys.argv) > 1 else 512
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    with tempfile.TemporaryDirectory(prefix="sb-") as home:
        measured = [row for form in FORMS for row in compare(Path(home), form, size, rounds)]
    report(measured)
    RESULTS.write_text(json.dumps(measured, indent=1) + "\n")


# one measurement


def timed(act: Callable[[], None]) -> dict[str, float]:
    before = peak_mib()
    begun, used = time.perf_counter(), time.process_time()
    act()
    return {
        "seconds": time.perf_counter() - begun,
        "cpu_seconds": time.process_time() - used,
        "peak_mib": peak_mib(),
        "before_mib": before,
    }


def peak_mib() -> float:
    """The largest resident size of this program so far; getrusage would count its parent's."""
    status = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in status if line.startswith("VmHWM:")) / 1024


def hash_file(source: Path, target: Path) -> None:
    with source.open("rb") as file:
        target.write_text(hashlib.file_digest(file, "sha256").hexdigest())


def convert(source: Path, target: Path) -> None:
    from control_plane.admission import gate, safetensors_writer
    from control_plane.admission.base import Accepted

    verdict = gate.judge(source.parent)
    if not isinstance(verdict, Accepted):
        raise SystemExit(str(verdict))
    target.mkdir()
    safetensors_writer.write_all(verdict.weights, target)


MEASURED: dict[str, Callable[[Path, Path], None]] = {"sha256": hash_file, "convert": convert}


# the comparison


def zipped(tensors: dict[str, Any], path: Path) -> None:
    import torch

    torch.save(tensors, path)


def legacy(tensors: dict[str, Any], path: Path) -> None:
    import torch

    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def transposed(tensors: dict[str, Any], path: Path) -> None:
    zipped({name: tensor.T for name, tensor in tensors.items()}, path)


def bare(tensors: dict[str, Any], path: Path) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path.with_suffix(".safetensors"))


FORMS: dict[str, Callable[[dict[str, Any], Path], None]] = {
    "zip": zipped,
    "legacy": legacy,
    "transposed": transposed,
    "safetensors": bare,
}


def compare(home: Path, form: str, size: int, rounds: int) -> list[dict[str, Any]]:
    import torch

    upload = home / form
    upload.mkdir()
    side = int((size * MIB / LAYERS / 4) ** 0.5)
    FORMS[form](
        {f"layers.{index}.weight": torch.randn(side, side) for index in range(LAYERS)}, upload / "model.pt"
    )
    (source,) = upload.iterdir()
    rows = []
    for number in range(rounds):
        order = list(MEASURED) if number % 2 else list(reversed(MEASURED))
        for act in order:
            target = home / f"{form}-{act}-{number}"
            rows.append(
                {"form": form, "round": number, "act": act, "mib": size, **measure(act, source, target)}
            )
            if act == "convert":
                verify(source, target)
            discard(target)
    source.unlink()
    return rows


def measure(act: str, source: Path, target: Path) -> dict[str, float]:
    command = [sys.executable, "-m", "benchmarks.gate_conversion", act, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout)
    return result


def verify(source: Path, target: Path) -> None:
    """Compare every converted tensor with the original's, bit by bit."""
    import torch
    from safetensors.torch import load_file

    found = load_file(target / "model.safetensors")
    if source.suffix == ".safetensors":
        wanted = load_file(source)
    else:
        wanted = torch.load(source, weights_only=True, mmap=zip_like(source))
    if found.keys() != wanted.keys():
        raise SystemExit(f"{source}: names differ")
    for name, tensor in wanted.items():
        if not torch.equal(found[name].view(torch.int32), tensor.contiguous().view(torch.int32)):
            raise SystemExit(f"{source}: {name} differs")


def zip_like(source: Path) -> bool:
    with source.open("rb") as file:
        return file.read(2) == b"PK"


def discard(target: Path) -> None:
    if target.is_dir():
        for path in target.iterdir():
            path.unlink()
        target.rmdir()
    else:
        target.unlink()


def report(measured: list[dict[str, Any]]) -> None:
    for form in FORMS:
        rows = [row for row in measured if row["form"] == form]
        ratios = [
            next(r["seconds"] for r in rows if (r["round"], r["act"]) == (number, "convert"))
            / next(r["seconds"] for r in rows if (r["round"], r["act"]) == (number, "sha256"))
            for number in sorted({row["round"] for row in rows})
        ]
        peak = max(row["peak_mib"] for row in rows if row["act"] == "convert")
        print(
            f"{form}: convert / sha256 median {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f}), peak {peak:.0f} MiB"
        )


if __name__ == "__main__":
    main()
