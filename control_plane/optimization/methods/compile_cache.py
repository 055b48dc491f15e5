"""`compile-cache`: an exported program with the code that torch.compile made of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
from pydantic import Field

from control_plane.optimization import containers, exporting
from control_plane.optimization.base import BuildError, Built, Gains, Params, Parent, Subject, Work
from serving_agent import config
from serving_agent.formats import compiled

if TYPE_CHECKING:
    from torch import Tensor

WARM_ROWS: Final = (1, 2, 8, 16, 32, 64)
"""Batch sizes that are run: code for open sizes still holds for a range of them only."""
COMPILER_NOTE: Final = "The machine that serves it needs a C++ compiler too, even where nothing is compiled."
NATIVE_NOTE: Final = "The code is for this kind of processor; another one compiles again as it starts."


class CompileCacheParams(Params):
    """What torch.compile may do."""

    max_autotune: bool = Field(
        default=False,
        title="Try kernels out",
        description="Time several kernels for each product while building: slow, and seldom better.",
    )


class CompileCache:
    """torch.compile with a warm cache: an agent starts without compiling."""

    name = "compile-cache"
    title = "torch.compile, compiled beforehand"
    description = (
        "The program and the code that torch.compile made of it, so that an agent starts without compiling. "
        "Fused loops in full precision, for every batch size; the machine that serves it needs a compiler."
    )
    params = CompileCacheParams
    calibrated = False
    cost_s = 25.0
    gains = Gains(latency=1.2, throughput=2.0, size=1.0)

    def inapplicable(self, subject: Subject) -> str | None:
        """Whatever torch.export can follow, on a machine with a C++ compiler."""
        return exporting.unexportable(subject) or containers.uncompilable(subject.machine)

    def candidates(self, subject: Subject) -> tuple[CompileCacheParams, ...]:
        """Without trying kernels out, which is seldom better."""
        del subject
        return (CompileCacheParams(),)

    def build(self, work: Work, params: CompileCacheParams) -> Built:
        """Write `model.pt2`, `cache.bin`, `kernels.zip` and `compiled.json`. Raises BuildError."""
        import torch

        containers.require_compiler()
        work.say("export")
        program = exporting.exported(work.parent)
        containers.save_program(program, work.out)
        settings = compiled.Options(dynamic=True, options=options(params))
        (work.out / compiled.OPTIONS).write_bytes(msgspec.json.encode(settings))
        work.say("compile")
        # not beside the artefact: the compiler's command is split at the spaces a path may have
        with tempfile.TemporaryDirectory(prefix="signalbox-compile-") as folder:
            config.use_compile_cache(Path(folder))
            # as an agent opens it: what is looked up there must be what was compiled here
            opened = torch.export.load(work.out / containers.PROGRAM_FILE)
            with exporting.quiet():
                _compile(opened.module(), settings, work.parent)
                _save(work.out, Path(folder))
        return Built(format="compiled", notes=(COMPILER_NOTE, NATIVE_NOTE))


def options(params: CompileCacheParams) -> dict[str, bool | int | str]:
    """Settings of Inductor. Code for a fixed number of threads would be compiled again for another one."""
    tried: dict[str, bool | int | str] = {"max_autotune": True} if params.max_autotune else {}
    return {"cpp.dynamic_threads": True, **tried}


def _compile(module: Any, settings: compiled.Options, parent: Parent) -> None:
    """Run what torch.compile makes of *module* on batches of many sizes, and compare the answers to some."""
    import torch

    chosen: Any = settings.options or None
    function: Any = torch.compile(module, dynamic=settings.dynamic, options=chosen)

    def run(*tensors: Tensor) -> Any:
        with torch.inference_mode():
            return function(*tensors)

    exporting.check_answers(module, run, parent)
    for rows in WARM_ROWS:
        run(*exporting.of_rows(parent.samples, parent.signature, rows))


def _save(out: Path, folder: Path) -> None:
    import torch

    artefacts = torch.compiler.save_cache_artifacts()
    if artefacts is None:
        raise BuildError("torch.compile made nothing of it that could be kept")
    (out / compiled.CACHE).write_bytes(artefacts[0])
    compiled.pack_kernels(folder, out / compiled.KERNELS)


METHOD: Final = CompileCache()
