"""Makes artefacts with native code: `python -m tests.fakes.native_models FOLDER`; needs a C++ compiler.

In a process of its own: the compiler's cache and torch's settings belong to the whole process. Writes the
digits classifier, smoothed, as `aot_inductor/` and `compiled/`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ANY_THREADS = {"cpp.dynamic_threads": True}
"""Without it Inductor's code is for the number of threads that it was made with."""


def made(factory: pytest.TempPathFactory) -> Path:
    """The folder with both artefacts, made once for all tests and processes that ask for it."""
    from filelock import FileLock

    shared = factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    folder, mark = shared / "native_models", shared / "native_models.made"
    with FileLock(shared / "native_models.lock"):
        if not mark.exists():
            command = [sys.executable, "-m", "tests.fakes.native_models", str(folder)]
            subprocess.run(command, cwd=ROOT, check=True)
            mark.touch()
    return folder


def main(folder: Path) -> None:
    """Write both artefacts."""
    cache = folder / "cache"
    cache.mkdir(parents=True)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(cache)
    import torch

    from tests.fakes import models

    torch.set_num_threads(1)
    model, example = models.smooth_digits(), torch.zeros(2, 1, 8, 8)
    models.save_exported(model, folder / "compiled", example)
    _compile(folder / "compiled", example, cache)
    _package(folder / "compiled" / "model.pt2", folder / "aot_inductor")


def _compile(folder: Path, example: object, cache: Path) -> None:
    import torch

    from serving_agent.formats import compiled

    program = torch.export.load(folder / "model.pt2").module()
    with torch.inference_mode():
        run = torch.compile(program, dynamic=True, options=ANY_THREADS)
        for rows in (1, 5):
            run(torch.zeros(rows, 1, 8, 8))
    artifacts = torch.compiler.save_cache_artifacts()
    assert artifacts is not None
    (folder / compiled.CACHE).write_bytes(artifacts[0])
    compiled.pack_kernels(cache, folder / compiled.KERNELS)
    (folder / compiled.OPTIONS).write_text(json.dumps({"dynamic": True, "options": ANY_THREADS}))


def _package(program: Path, folder: Path) -> None:
    import torch

    folder.mkdir()
    with torch._inductor.config.patch({**ANY_THREADS, "aot_inductor.compile_wrapper_opt_level": "O0"}):
        torch._inductor.aoti_compile_and_package(
            torch.export.load(program), package_path=str(folder / "model.pt2")
        )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
