"""Programs with quantised operators: the libraries that bring those, and the engine that runs them.

The engine is a setting of the whole process: an agent serves one model.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Final, Literal

import msgspec

from serving_agent.errors import StartError

FILE: Final = "quantized.json"
BROUGHT_BY: Final = {
    "quantized_decomposed": "torch.ao.quantization.fx._decomposed",
    "torchao": "torchao",
}
"""Namespace of operators → the module whose import registers them."""
OPERATOR: Final = re.compile(rb"\bops\.(%s)\." % b"|".join(name.encode() for name in BROUGHT_BY))
TEXT: Final = re.compile(r"[^/]+/(models/[^/]+\.json|code/.+\.py)")
"""Members of TorchScript and of exported programs that name operators."""


class Quantized(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The content of `quantized.json`."""

    engine: Literal["x86", "onednn", "fbgemm", "qnnpack"]


def prepare(artifact_dir: Path) -> None:
    """Choose the engine that *artifact_dir* asks for and import what its programs' operators come from.

    Call it before the program is opened, which packs the weights for the engine. Raises StartError.
    """
    _choose_engine(artifact_dir)
    for path in sorted((*artifact_dir.glob("*.pt"), *artifact_dir.glob("*.pt2"))):
        for namespace in sorted(namespaces(path)):
            import_module(BROUGHT_BY[namespace])


def namespaces(program: Path) -> set[str]:
    """Return the keys of BROUGHT_BY that *program* names operators of; none where it is no zip archive."""
    try:
        with zipfile.ZipFile(program) as archive:
            return {found.decode() for text in _texts(archive) for found in OPERATOR.findall(text)}
    except zipfile.BadZipFile:
        return set()


def _texts(archive: zipfile.ZipFile) -> Iterator[bytes]:
    for name in archive.namelist():
        if TEXT.fullmatch(name):
            yield archive.read(name)


def _choose_engine(artifact_dir: Path) -> None:
    try:
        wanted = msgspec.json.decode((artifact_dir / FILE).read_bytes(), type=Quantized).engine
    except FileNotFoundError:
        return
    except msgspec.MsgspecError as error:
        raise StartError(f"{FILE} cannot be used: {error}") from error
    import torch

    known = torch.backends.quantized.supported_engines
    if wanted not in known:
        raise StartError(
            f"this machine has no engine {wanted} for quantised operators, only {', '.join(known)}"
        )
    torch.backends.quantized.engine = wanted
