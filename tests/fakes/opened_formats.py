"""Opens artefacts in a process of its own, as agents do: `python -m tests.fakes.opened_formats FOLDER...`.

Each FOLDER holds `job.json` and `inputs.pt`, a list of inputs by name; `answers.pt` is written beside them:
the outputs for each, as they came and as they were after all the others, and how much was compiled.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import torch

from serving_agent.contract.signature import Signature

ROOT = Path(__file__).parents[2]


class Job(msgspec.Struct, frozen=True):
    """What to open."""

    format: str
    artifact_dir: str
    signature: Signature


def answers(jobs: dict[str, tuple[Job, list[dict[str, torch.Tensor]]]], folder: Path) -> dict[str, Any]:
    """By each job's name: its answers at once and in the end, and how many graphs were compiled for them."""
    folders = []
    for name, (job, inputs) in jobs.items():
        own = folder / name
        own.mkdir(parents=True)
        (own / "job.json").write_bytes(msgspec.json.encode(job))
        torch.save(inputs, own / "inputs.pt")
        folders.append(str(own))
    command = [sys.executable, "-m", "tests.fakes.opened_formats", *folders]
    subprocess.run(command, cwd=ROOT, check=True)
    return {name: torch.load(folder / name / "answers.pt", weights_only=False) for name in jobs}


def main(folders: list[str]) -> None:
    """Run every job."""
    from serving_agent.formats import catalog

    torch.set_num_threads(2)
    for folder in map(Path, folders):
        job = msgspec.json.decode((folder / "job.json").read_bytes(), type=Job)
        model = catalog.get(job.format).load(Path(job.artifact_dir), "cpu", job.signature)
        with torch.inference_mode():
            came, at_once = [], []
            for saved in torch.load(folder / "inputs.pt"):
                inputs = {name: fresh(tensor) for name, tensor in saved.items()}
                came.append(dict(model(inputs)))
                at_once.append({name: tensor.clone() for name, tensor in came[-1].items()})
        said = {"at once": at_once, "in the end": came, "compiled": _compiled()}
        torch.save(said, folder / "answers.pt")


def fresh(tensor: torch.Tensor) -> torch.Tensor:
    """A copy in memory of its own with plain strides, as an agent's inputs are."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _compiled() -> int:
    """How many graphs torch.compile has had to translate."""
    from torch._dynamo.utils import counters

    return int(counters["inductor"]["fxgraph_cache_miss"])


if __name__ == "__main__":
    main(sys.argv[1:])
