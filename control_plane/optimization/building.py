"""Building a variant in a process of its own, as a job asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from control_plane.optimization.base import BuildError
from control_plane.optimization.children import Child
from control_plane.optimization.messages import BuildOrder, BuildReply

MODULE: Final = "control_plane.optimization.build_process"


class BuildFailedError(BuildError):
    """Nothing was built; `code` is a reason code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def build(
    order: BuildOrder, environment: Mapping[str, str], beat: Callable[[], None], timeout_s: float
) -> BuildReply:
    """Return what was built. *beat* is called several times a second and may raise to end it.

    Raises BuildFailedError, ChildError.
    """
    with Child(MODULE, environment) as child:
        child.tell(msgspec.json.encode(order), last=True)
        reply = msgspec.json.decode(child.hear(beat, timeout_s), type=BuildReply)
    if reply.failed is not None:
        raise BuildFailedError(reply.code, reply.failed)
    return reply
