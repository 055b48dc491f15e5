"""Request bodies of the debugger."""

from __future__ import annotations

from typing import Any

import msgspec
from pydantic import Field

from control_plane.api.schemas import Body
from control_plane.domain.debugging import MAX_EDITS, InputSource
from control_plane.errors import InvalidInputError
from serving_agent.contract.inspection import Edit, Word


class EditBody(Body):
    """Elements of a tensor that are overwritten before the run goes on."""

    point: str = Field(
        description="Id of a layer or node whose output is edited, or `inputs`, `preprocess` or `predict`."
    )
    tensor: int | str = Field(0, description="Which of its tensors: its place, or its name.")
    index: list[int | None] = Field(
        default_factory=list,
        max_length=32,
        description="One place per dimension, null for all of that dimension; empty for the whole tensor.",
    )
    value: float | Word = Field(description="What the elements become: a number, `nan`, `inf` or `-inf`.")

    @property
    def edit(self) -> Edit:
        """As services take it."""
        return Edit(point=self.point, tensor=self.tensor, index=tuple(self.index), value=self.value)


class _EditsBody(Body):
    edits: list[EditBody] = Field(
        default_factory=list, max_length=MAX_EDITS, description="What is overwritten on the way."
    )
    name: str = Field("", description="Saves the run under it, which keeps it longer.")

    @property
    def wanted(self) -> tuple[Edit, ...]:
        """As services take them."""
        return tuple(each.edit for each in self.edits)


class DebugBody(_EditsBody):
    """POST of a run."""

    version: str = Field(description="`model@N` or `model@alias`.")
    against: str | None = Field(None, description="Another version that runs beside it on the same input.")
    input: dict[str, Any] = Field(
        description='Where the input comes from: {"kind": "example", "number": 1}; {"kind": "json", "input": '
        '…} as `/predict` takes it; {"kind": "npy", "files": {name: base64}}; {"kind": "image", "content": '
        'base64}; {"kind": "text", "text": …}; {"kind": "random", "seed": 0}; {"kind": "capture", '
        '"endpoint": …, "agent": …, "seq": …}; {"kind": "disagreement", "rollout": …, "disagreement": …}; '
        '{"kind": "run", "run": id}.'
    )

    @property
    def source(self) -> InputSource:
        """As services take it. Raises InvalidInputError."""
        try:
            found: InputSource = msgspec.convert(self.input, InputSource)
        except (msgspec.ValidationError, ValueError) as error:
            raise InvalidInputError(f"input: {error}") from error
        return found


class ChangeBody(_EditsBody):
    """POST of edits to a run that is done."""


class NameBody(Body):
    """PUT of a run's name."""

    name: str = Field(description="Name; empty to have it expire sooner again.")
