"""A process that builds variants or answers with artefacts: `python -m tests.fakes.lab_worker ASKED TOLD`.

Many in one process, because importing torch takes seconds. ASKED and TOLD are files of JSON lists.
"""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import numpy as np

from control_plane.optimization.messages import Artefact, BuildOrder, BuildReply


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """Open *artefact* and answer each of *batches*, npz files of the artefact's inputs by name."""

    artefact: Artefact
    batches: tuple[str, ...]
    answers: tuple[str, ...]
    """Where the outputs of each batch go, as npz files."""


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a question."""

    failed: str | None = None


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """Builds first, then questions."""

    orders: tuple[BuildOrder, ...] = ()
    questions: tuple[Question, ...] = ()


class Answered(msgspec.Struct, frozen=True, kw_only=True):
    """In the order of what was asked."""

    replies: tuple[BuildReply, ...]
    told: tuple[Told, ...]


def answered(question: Question) -> Told:
    """Serve every batch as an agent would."""
    import torch

    from control_plane.optimization import serving

    try:
        server = serving.opened(question.artefact)
        for path, target in zip(question.batches, question.answers, strict=True):
            with np.load(path) as batch, torch.inference_mode():
                outputs = server.postprocess(server.predict(server.preprocess(dict(batch))))
            np.savez(target, **outputs)
    except Exception as error:  # noqa: BLE001  a test shows it
        return Told(failed=f"{type(error).__name__}: {error}")
    return Told()


def main() -> None:
    """Do what is asked."""
    import torch

    from control_plane.optimization import build_process

    torch.set_num_threads(1)
    asked = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Asked)
    replies = tuple(build_process.answer(order) for order in asked.orders)
    told = tuple(answered(question) for question in asked.questions)
    Path(sys.argv[2]).write_bytes(msgspec.json.encode(Answered(replies=replies, told=told)))


if __name__ == "__main__":
    main()
