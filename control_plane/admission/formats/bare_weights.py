"""Weights without the network they belong to: what all of their formats answer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final

from control_plane.admission import bounded_json, coverage, hf_index
from control_plane.admission.base import Accepted, LeftOut, Received, ReceivedFile, Refusal, WeightsFile
from control_plane.admission.formats import hf_left_out
from control_plane.admission.reasons import ReasonCode
from control_plane.admission.tensors import SourceTensor

WEIGHTS: Final = "model.safetensors"
BESIDE: Final = re.compile(
    r"(?i)(.*/)?((README|LICENSE|LICENCE|NOTICE|MODEL_CARD)(\.\w+)?|\.gitattributes|\.gitignore|\.DS_Store"
    r"|[\w.-]+\.(md|txt|rst|png|jpe?g|svg))"
)
"""Files beside weights that are let in and left out."""


def accepted(
    tensors: tuple[SourceTensor, ...], left_out: tuple[LeftOut, ...], *, converted: bool
) -> Accepted:
    """Return the verdict for *tensors*: let in, once a person says which network they belong to."""
    return Accepted(
        format="state_dict",
        handler="tensor",
        signature=None,
        program=False,
        needs=("architecture",),
        stored=(),
        weights=(WeightsFile(WEIGHTS, tensors),),
        left_out=left_out,
        converted=converted,
        code=ReasonCode.CONVERTED_WEIGHTS if converted else ReasonCode.PLAIN_WEIGHTS,
    )


def split(received: Received) -> tuple[list[ReceivedFile], tuple[LeftOut, ...]]:
    """Return the files of *received* that matter, and those beside them that are left out.

    Where only such files are there, they matter: an optimiser's state alone is judged as what it is.
    """
    reasons = {file.path: _why(file) for file in received}
    matter = [file for file in received if reasons[file.path] is None]
    if not matter:
        return list(received), ()
    beside = [(file, why) for file in received if (why := reasons[file.path])]
    return matter, tuple(LeftOut(file.path, file.size_bytes, why) for file, why in beside)


def _why(file: ReceivedFile) -> str | None:
    if BESIDE.fullmatch(file.path) or hf_left_out.CACHE.fullmatch(file.path):
        return "not weights"
    return hf_left_out.why(file.name)


def by_name(files: Iterable[ReceivedFile]) -> dict[str, ReceivedFile]:
    """Return *files* by name without folders, sorted. Raises Refusal where two have one name."""
    named: dict[str, ReceivedFile] = {}
    for file in files:
        other = named.setdefault(file.name, file)
        if other is not file:
            raise Refusal(
                ReasonCode.SEVERAL_FILES,
                f"{other.path} and {file.path} have one name: they may be two models",
                "Upload one of them; give parts of one model different names.",
                file=file.path,
            )
    return dict(sorted(named.items()))


def joined(
    held: Mapping[str, tuple[SourceTensor, ...]], index: ReceivedFile | None, file: str
) -> tuple[SourceTensor, ...]:
    """Return the tensors of parts, *held* by the part's name, after checking that all parts are there.

    index: what says which part holds which tensor, where it is there. *file* names the upload in refusals.
    """
    if index is not None:
        names = {name: frozenset(tensor.name for tensor in tensors) for name, tensors in held.items()}
        hf_index.check(bounded_json.parse_file(index), names, index.path)
    hf_index.check_parts(held, file)
    return together(list(held.values()), file)


def together(parts: list[tuple[SourceTensor, ...]], file: str) -> tuple[SourceTensor, ...]:
    """Return the tensors of several files, by name; *file* names the upload in refusals. Raises Refusal."""
    tensors = tuple(sorted((tensor for part in parts for tensor in part), key=lambda tensor: tensor.name))
    coverage.check(tensors, file)
    return tensors
