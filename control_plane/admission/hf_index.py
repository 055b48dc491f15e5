"""The index of weights in parts, as Hugging Face writes it, and whether all parts are there. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode

PART: Final = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.(safetensors|bin)")
UPLOAD_ALL: Final = "Upload all parts, as model.save_pretrained(folder) wrote them, with the index."


def check(index: dict[str, Any], held: Mapping[str, frozenset[str]], file: str) -> None:
    """Check that *held*, the tensors by part, has everything that *index* promises. Raises Refusal."""
    places = index.get("weight_map")
    if not isinstance(places, dict) or not places:
        raise incomplete("it does not say which part holds which tensor", file)
    for tensor, part in places.items():
        if not isinstance(part, str) or part not in held:
            raise incomplete(f"it names the part {str(part)[:80]!r}, which is not in the folder", file)
        if tensor not in held[part]:
            raise incomplete(f"{part} lacks the tensor {tensor[:80]}", file)


def check_parts(names: Collection[str], file: str) -> None:
    """Check that files called `...-00001-of-0000N...` are all there. Raises Refusal."""
    numbers: dict[tuple[str, int], set[int]] = {}
    for name in names:
        part = PART.fullmatch(name)
        if part:
            numbers.setdefault((part["stem"], int(part["count"])), set()).add(int(part["number"]))
    for (stem, count), found in numbers.items():
        if found != set(range(1, count + 1)):
            raise incomplete(f"{len(found)} of the {count} parts of {stem} are there", file)


def incomplete(why: str, file: str) -> Refusal:
    """Return the refusal of weights of which something is missing."""
    return Refusal(ReasonCode.MISSING_WEIGHTS, f"weights are incomplete: {why}", UPLOAD_ALL, file=file)
