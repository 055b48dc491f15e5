"""A program of torch.export with what torch.compile made of it: `model.pt2`, `cache.bin`, `kernels.zip`.

`cache.bin` is what torch.compiler.save_cache_artifacts returns: it spares the translation. The machine code
that the C++ compiler made is no part of that; it lies in `kernels.zip`, as files of the compiler's cache
folder.
"""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Final

import msgspec

from serving_agent import config, scratch
from serving_agent.contract.signature import Signature
from serving_agent.errors import StartError
from serving_agent.formats import quantized
from serving_agent.formats.base import PositionalModel, only_file
from serving_agent.formats.exported_program import open_program
from serving_agent.formats.graph import opening

CACHE: Final = "cache.bin"
KERNELS: Final = "kernels.zip"
OPTIONS: Final = "compiled.json"
NO_KERNELS: Final = frozenset({"locks", "fxgraph", "aotautograd"})
"""Folders of the compiler's cache that hold no machine code; the last two are in `cache.bin`."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `compiled.json`: what torch.compile was told, and is told again to find its cache."""

    dynamic: bool | None = True
    """Whether sizes are left open; None lets torch find out which vary."""
    options: dict[str, bool | int | str] = {}
    """Settings of Inductor, by torch's names. Code made without `cpp.dynamic_threads` is for the number of
    threads it was made with, and made anew for any other."""


class Compiled:
    """Opens programs that torch.compile has translated before."""

    name = "compiled"
    title = "torch.compile with cache"
    description = "A .pt2 program and the code that torch.compile made of it; opened only when signed."
    is_program = True
    is_native = True
    is_module = True
    libraries = ()

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> PositionalModel:
        """Open the program and the code for it. The caller has checked who made them.

        The first calls, at a warm-up, look the code up; what is not found is compiled. Raises StartError, as
        it does where there is no C++ compiler: torch asks for one even where nothing is compiled.
        """
        import torch

        program = only_file(artifact_dir, ".pt2")
        cache = artifact_dir / CACHE
        if not cache.exists():
            raise StartError(f"the artefact holds no {CACHE}")
        options = read_options(artifact_dir)
        check_compiler()
        with opening("torch.compile"):
            folder = scratch.folder("compiled")
            config.use_compile_cache(folder)
            torch.compiler.load_cache_artifacts(cache.read_bytes())
            unpack_kernels(artifact_dir / KERNELS, folder)
            quantized.prepare(artifact_dir)
            module = open_program(program, device).module()
        settings: Any = options.options or None
        compiled: Any = torch.compile(module, dynamic=options.dynamic, options=settings)
        return PositionalModel(compiled, signature)


def read_options(artifact_dir: Path) -> Options:
    """Return the options in *artifact_dir*, the defaults where it holds none. Raises StartError."""
    try:
        return msgspec.json.decode((artifact_dir / OPTIONS).read_bytes(), type=Options)
    except FileNotFoundError:
        return Options()
    except msgspec.MsgspecError as error:
        raise StartError(f"{OPTIONS} cannot be used: {error}") from error


def check_compiler() -> None:
    """Check that there is a C++ compiler. Raises StartError."""
    from torch._inductor import cpp_builder, exc

    try:
        cpp_builder.get_cpp_compiler()
    except exc.InvalidCxxCompiler as error:
        raise StartError(
            "torch.compile needs a C++ compiler (g++) on the machine that serves it, and there is none"
        ) from error


def pack_kernels(cache_folder: Path, target: Path) -> None:
    """Write the machine code in the compiler's *cache_folder* (TORCHINDUCTOR_CACHE_DIR) to *target*."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(cache_folder.rglob("*")):
            name = path.relative_to(cache_folder)
            if path.is_file() and name.parts[0] not in NO_KERNELS:
                archive.write(path, name.as_posix())


def unpack_kernels(source: Path, cache_folder: Path) -> None:
    """Put the machine code in *source* back where the compiler looks for it; nothing where there is none."""
    if source.exists():
        with zipfile.ZipFile(source) as archive:
            archive.extractall(cache_folder)


FORMAT: Final = Compiled()
