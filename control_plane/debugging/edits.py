"""Edits of tensors: which are well formed, which fit a run, and how later ones join earlier ones. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from control_plane.debugging import kept
from control_plane.domain.debugging import MAX_EDITS
from control_plane.errors import InvalidInputError
from serving_agent.contract.inspection import Edit, InspectedRun

MAX_TEXT_CHARS: Final = 1000
FORM: Final = (
    "Write edits as POINT[tensor][i, j]=value, like `block.2[0][0, *]=1.5`; a value may be nan or inf."
)
EARLIER: Final = "Edit a layer, or inputs, preprocess or predict."
_EDIT: Final = re.compile(r"(.+?)\[([^\[\]]*)\](?:\[([^\[\]]*)\])?\s*=\s*(\S+)", re.DOTALL)


def checked(edits: Iterable[Edit]) -> tuple[Edit, ...]:
    """*edits* if there are not too many and each names something. Raises InvalidInputError."""
    found = tuple(edits)
    if len(found) > MAX_EDITS:
        raise InvalidInputError(f"a run may have {MAX_EDITS} edits at most, not {len(found)}")
    for each in found:
        texts = (each.point, each.tensor) if isinstance(each.tensor, str) else (each.point,)
        if not each.point or any(len(text) > MAX_TEXT_CHARS or "\0" in text for text in texts):
            raise InvalidInputError("an edit names the point whose output it changes", next_step=FORM)
        if each.point == "postprocess":
            raise InvalidInputError("postprocess cannot be edited: nothing comes after it", next_step=EARLIER)
    return found


def added(before: Sequence[Edit], later: Sequence[Edit]) -> tuple[Edit, ...]:
    """*before* and then *later*; one of the same elements takes the earlier one's place out."""
    changed = {_target(each) for each in later}
    return (*(each for each in before if _target(each) not in changed), *later)


def check_targets(edits: Iterable[Edit], run: InspectedRun) -> None:
    """See that every edit names elements that *run* has. Raises InvalidInputError."""
    for each in edits:
        tensor = kept.tensor_of(run, each.point, each.tensor)
        if tensor is None:
            raise InvalidInputError(f"the run has no tensor {each.tensor!r} at {each.point[:200]!r}")
        if tensor.datatype == "BYTES":
            raise InvalidInputError(f"{each.point[:200]} holds texts, which cannot be edited")
        if each.index and len(each.index) != len(tensor.shape):
            raise InvalidInputError(
                f"{each.point[:200]} has {len(tensor.shape)} dimensions, and the edit names {len(each.index)}"
            )
        for place, size in zip(each.index, tensor.shape, strict=False):
            if place is not None and not 0 <= place < size:
                raise InvalidInputError(
                    f"place {place} is none of {each.point[:200]}, whose shape is {list(tensor.shape)}"
                )


def parse(text: str) -> Edit:
    """The edit that *text* writes (FORM). Raises InvalidInputError."""
    found = _EDIT.fullmatch(text.strip()) if len(text) <= MAX_TEXT_CHARS else None
    if found is None:
        raise InvalidInputError(f"{text[:80]!r} is no edit", next_step=FORM)
    point, tensor, index, value = found.groups()
    try:
        places = [each.strip() for each in index.split(",")] if index and index.strip() else []
        return Edit(
            point=point.strip(),
            tensor=int(tensor) if tensor.strip().isdecimal() else tensor.strip(),
            index=tuple(None if each in ("*", ":") else int(each) for each in places),
            value=float(value),
        )
    except ValueError:
        raise InvalidInputError(f"{text[:80]!r} is no edit", next_step=FORM) from None


def written(edit: Edit) -> str:
    """*edit* as `parse` reads it."""
    places = ", ".join("*" if each is None else str(each) for each in edit.index)
    return f"{edit.point}[{edit.tensor}]" + (f"[{places}]" if places else "") + f"={edit.number!r}"


def _target(edit: Edit) -> tuple[str, int | str, tuple[int | None, ...]]:
    return edit.point, edit.tensor, edit.index
