"""How long, and in how much memory, a NeMo RL step of about 1.7 GB (bf16) becomes a Hugging Face folder.

`python -m benchmarks.nemo_rl_convert OUT.json [--layers N] [--rounds N]` makes a Llama-shaped step in forms A
and B, two ranks' shards, then measures alternately, each in a process of its own:

- `ours-A`, `ours-B`: find the tensors, check the tiling, write shards (with fsync), index; the sources are
  not hashed and nothing is run, as torch does neither;
- `torch-A`: torch's `dcp_to_torch_save`, which NeMo RL's own converter calls (one pickle, no checks);
- `sha256-A`: reading and hashing the same files, as a yardstick of the disk.

Peak memory is VmHWM less the VmRSS after the imports; pages of mapped files count on both sides.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CASES = ("ours-A", "torch-A", "ours-B", "sha256-A")
SHARD_BYTES = 128 * 1024**2


def main() -> None:
    """Make the step, measure every case in turn, write the raw numbers."""
    parser = argparse.ArgumentParser()
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=14)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--case", choices=[*CASES, "make"])
    parser.add_argument("--folder", type=Path)
    given = parser.parse_args()
    if given.case == "make":
        make(given.folder, given.layers)
    elif given.case:
        measure(given.case, given.folder)
    else:
        compare(given.out, given.layers, given.rounds)


def compare(out: Path, layers: int, rounds: int) -> None:
    """Run all cases *rounds* times, one after the other."""
    with tempfile.TemporaryDirectory(prefix="nemo-rl-convert-") as folder:
        child("make", folder, layers)
        runs = [child(case, folder, layers) for _ in range(rounds) for case in CASES]
    best = {case: min(run["seconds"] for run in runs if run["case"] == case) for case in CASES}
    peak = {case: max(run["above_baseline_mb"] for run in runs if run["case"] == case) for case in CASES}
    out.write_text(
        json.dumps(
            {
                "machine": platform.platform(),
                "layers": layers,
                "shard_bytes": SHARD_BYTES,
                "best_s": best,
                "peak_mb": peak,
                "runs": runs,
            },
            indent=1,
        )
    )
    sys.stdout.write(json.dumps({"best_s": best, "peak_mb": peak}) + "\n")


def child(case: str, folder: str, layers: int) -> dict[str, Any]:
    """Run one case in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.nemo_rl_convert", "-", "--case", case, "--folder", folder]
    done = subprocess.run([*command, "--layers", str(layers)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1]) if case != "make" else {}


def make(folder: Path, layers: int) -> None:
    """Write forms A and B of one model, 2 ranks each."""
    import torch

    from tests.fakes import nemo_rl_runs as fakes

    hidden, wide, vocabulary = 2048, 8192, 32000
    torch.manual_seed(0)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.bfloat16)

    state = {
        "model.embed_tokens.weight": weight(vocabulary, hidden),
        "lm_head.weight": weight(vocabulary, hidden),
    }
    for layer in range(layers):
        prefix = f"model.layers.{layer}."
        for name in ("q", "k", "v", "o"):
            state[f"{prefix}self_attn.{name}_proj.weight"] = weight(hidden, hidden)
        state[f"{prefix}mlp.gate_proj.weight"] = weight(wide, hidden)
        state[f"{prefix}mlp.up_proj.weight"] = weight(wide, hidden)
        state[f"{prefix}mlp.down_proj.weight"] = weight(hidden, wide)
    fakes.save_form_a(folder / "A", state, ranks=2)
    fakes.save_form_b(folder / "B", state, {}, ranks=2)


def measure(case: str, folder: Path) -> None:
    """Do one case and print its time and memory."""
    run = prepared(case, folder)
    before = memory("VmRSS")
    started = time.perf_counter()
    size = run()
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "case": case,
                "seconds": round(seconds, 3),
                "bytes": size,
                "baseline_mb": round(before / 1000, 1),
                "above_baseline_mb": round((memory("VmHWM") - before) / 1000, 1),
            }
        )
    )


def prepared(case: str, folder: Path) -> Callable[[], int]:
    """Import what *case* needs and return what is measured; it returns bytes written or read."""
    import torch.distributed.checkpoint.format_utils as stock

    from control_plane.admission import safetensors_writer
    from control_plane.nemo_rl import forms, listing, shards, sources

    kind, form = case.split("-")
    step, target = folder / form, folder / "out"
    shutil.rmtree(target, ignore_errors=True)
    (target / "model").mkdir(parents=True)

    def ours() -> int:
        weights = sources.read(step, forms.detect(listing.files(step)), {})
        files = safetensors_writer.shards(weights.tensors, SHARD_BYTES)
        made = shards.write(files, target / "model", cast=None, progress=lambda _: None, source=form)
        return made.size_bytes

    def theirs() -> int:
        stock.dcp_to_torch_save(step / "policy" / "weights", target / "model.bin")
        return (target / "model.bin").stat().st_size

    def hashed() -> int:
        files = [path for path in (step / "policy" / "weights").rglob("*") if path.is_file()]
        for path in files:
            with path.open("rb") as stream:
                hashlib.file_digest(stream, "sha256")
        return sum(path.stat().st_size for path in files)

    return {"ours": ours, "torch": theirs, "sha256": hashed}[kind]


def memory(field: str) -> int:
    """A field of this process's status, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
