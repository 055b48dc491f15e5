"""Debugger runs in every state, as the job writes them: a small network computed here with numpy.

Rows and comparisons are the services' own; only the process that looks inside a model is left out.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import msgspec
import numpy as np

from control_plane.debugging import comparing, summary
from control_plane.debugging.comparing import Inspected
from control_plane.domain.debugging import DebugRunView, ExampleSource, InputSource, JsonSource, Side
from control_plane.domain.divergence import Comparison
from control_plane.domain.token_scores import Candidate, TokenScore, TokenScores
from control_plane.domain.views import Reason
from control_plane.registry import session as sessions
from control_plane.registry.tables import Job
from control_plane.services import debug_folders, debug_records, debugger
from control_plane.services.context import Context
from control_plane.services.debug_folders import SideState
from serving_agent.contract.inspection import (
    ATTENTION,
    RUN,
    STAGES,
    Edit,
    Failure,
    InspectedRun,
    Point,
    Stage,
    StageName,
    TensorSummary,
)
from serving_agent.inspection.summaries import Summaries
from serving_agent.inspection.values_file import ValuesFile

A, B = "digits@1", "digits@2"
KEEP_BYTES = 8 * 1024**2
WORDS = ("the", "ship", "comes", "home", "at", "night")

Layer = tuple[str, str, dict[str, Any]]
"""Path, kind and outputs by name."""


def network(image: np.ndarray, *, noise: float = 0.0, nan: bool = False) -> tuple[list[Layer], np.ndarray]:
    """Layers of a small convolutional classifier and its answer. noise: of the weights from `fc1` on."""
    draw = np.random.default_rng(3)
    kernel = draw.normal(size=(4, 3, 3)).astype(np.float32)
    first, second = (draw.normal(size=s).astype(np.float32) / 6 for s in ((256, 16), (16, 10)))
    first = first + np.random.default_rng(5).normal(size=first.shape).astype(np.float32) * noise
    padded = np.pad(image[0, 0], 1)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3))
    conv = np.einsum("hwij,cij->chw", windows, kernel)[None].astype(np.float32)
    relu = np.maximum(conv, 0)
    if nan:
        relu = relu.copy()
        relu[0, 2, 3, 4] = np.nan
    flat = relu.reshape(1, -1)
    hidden = flat @ first
    active = np.maximum(hidden, 0)
    logits = active @ second
    layers: list[Layer] = [
        ("features.0", "Conv2d", {"output": conv}),
        ("features.1", "ReLU", {"output": relu}),
        ("features", "Sequential", {"output": relu}),
        ("flatten", "Flatten", {"output": flat}),
        ("fc1", "Linear", {"output": hidden}),
        ("act", "ReLU", {"output": active}),
        ("fc2", "Linear", {"output": logits}),
        ("Digits", "Digits", {"output": logits}),
    ]
    return layers, logits


def deep(count: int) -> tuple[list[Layer], np.ndarray]:
    """*count* layers that change their input a little."""
    value = np.linspace(-1, 1, 256, dtype=np.float32).reshape(1, 256)
    layers: list[Layer] = []
    for at in range(count):
        value = np.tanh(value * np.float32(1.01))
        layers.append((f"blocks.{at // 10}.{at % 10}", "Tanh", {"output": value}))
    return layers, value[:, :10]


def looking(seed: int = 0) -> tuple[list[Layer], np.ndarray]:
    """Layers of a transformer, with attention beside one's output, and logits over 32 words."""
    draw = np.random.default_rng(seed)
    n = len(WORDS)
    scores = np.triu(np.full((1, 2, n, n), -np.inf), 1) + draw.normal(size=(1, 2, n, n)) * 2
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares = (shares / shares.sum(-1, keepdims=True)).astype(np.float32)
    hidden = draw.normal(size=(1, n, 8)).astype(np.float32)
    logits = draw.normal(size=(1, n, 32)).astype(np.float32)
    return [
        ("embed", "Embedding", {"output": hidden}),
        ("block.attention", "Attention", {"output": hidden * 2, ATTENTION: shares}),
        ("block.mlp", "Linear", {"output": hidden * 3}),
        ("head", "Linear", {"output": logits}),
    ], logits


def side(
    folder: Path,
    layers: Sequence[Layer],
    answer: np.ndarray,
    image: np.ndarray,
    *,
    keep_bytes: int = KEEP_BYTES,
    failed: StageName | None = None,
    edited: str = "",
    tokens: tuple[tuple[str, ...], ...] = (),
    level: Literal["module", "none"] = "module",
) -> Inspected:
    """Write the files of one side."""
    folder.mkdir(parents=True)
    with ValuesFile(folder, keep_bytes) as kept:
        summaries = Summaries(kept)
        made: dict[str, Mapping[str, np.ndarray]] = {
            "inputs": {"image": image},
            "preprocess": {"image": image},
            "predict": {"logits": answer},
            "postprocess": {"logits": answer},
        }
        points = () if failed == "preprocess" else tuple(
            _point(summaries, at, layer, edited) for at, layer in enumerate(layers)
        )  # fmt: skip
        stages = tuple(_stage(summaries, name, made[name], failed) for name in STAGES)
        kept.finish()
    run = InspectedRun(
        level=level,
        note="" if level == "module" else "An ONNX graph runs in one piece: its nodes cannot be captured.",
        stages=stages,
        points=points if level == "module" else (),
        load_s=0.21,
        plain_s=None if failed else 0.0041,
        recorded_s=None if failed else 0.0173,
        same_outputs=None if failed or edited else True,
        tokens=tokens,
        libraries={"torch": "2.13.0"},
    )
    (folder / RUN).write_bytes(msgspec.json.encode(run))
    (folder / debug_folders.SIDE).write_bytes(msgspec.json.encode(SideState()))
    return Inspected(run, folder)


def _point(summaries: Summaries, at: int, layer: Layer, edited: str) -> Point:
    path, kind, outputs = layer
    return Point(
        id=path,
        module="" if path == kind else path,
        kind=kind,
        source=f"model.py:{20 + at}",
        seconds=0.0001 * (at + 1),
        depth=0 if path == kind else path.count(".") + 1,
        outputs=tuple(summaries.of(name, value) for name, value in outputs.items()),
        edited=path == edited,
    )


def _stage(
    summaries: Summaries, name: StageName, made: Mapping[str, np.ndarray], failed: StageName | None
) -> Stage:
    reached = failed is None or STAGES.index(name) < STAGES.index(failed)
    if reached:
        summed: tuple[TensorSummary, ...] = tuple(summaries.of(key, value) for key, value in made.items())
        return Stage(name=name, state="done", seconds=0.0008, tensors=summed)
    if name != failed:
        return Stage(name=name, state="not_reached")
    return Stage(
        name=name,
        state="failed",
        seconds=0.0004,
        failure=Failure(
            type="ValueError",
            message="image must have shape [1, 1, 8, 8], got [1, 1, 8, 9]",
            place="validation.py:41 in check_shape",
        ),
    )


def start(
    ctx: Context, *, b: str | None = None, source: InputSource | None = None, **more: Any
) -> DebugRunView:
    """A run that waits for the worker."""
    given = source or ExampleSource(number=4)
    return debugger.start(ctx, A, given, against=b, actor="ana", **more)


def put(ctx: Context, run_id: str, state: str, *, reason: Reason | None = None, **row: Any) -> None:
    """Bring the run's job into *state*."""
    with sessions.write(ctx.engine) as session:
        job = session.get_one(Job, debug_records.found(session, run_id).job_id)
        job.state = state
        job.error = asdict(reason) if reason else None
        job.finished_at = time.time()
        for name, value in row.items():
            setattr(job, name, value)


def finish(
    ctx: Context,
    view: DebugRunView,
    draw: Callable[[Path, Side], Inspected],
    tokens: TokenScores | None = None,
) -> str:
    """Write what was seen of every side, as *draw* makes it, and end the run's job; returns the run's id."""
    folder = debug_folders.of_run(ctx.settings, view.id)
    seen = draw(folder / "a", "a")
    compared: Comparison | None = None
    if view.b is not None:
        compared = comparing.compare(seen, draw(folder / "b", "b"))
        (folder / debug_folders.COMPARISON).write_bytes(msgspec.json.encode(compared))
    if tokens is not None:
        (folder / debug_folders.TOKENS).write_bytes(msgspec.json.encode(tokens))
    told = summary.summed_up(view.a, seen.run, "", compared)
    debug_records.inspected(ctx, view.id, summary=told, size_bytes=debug_folders.size_of(folder))
    put(ctx, view.id, "succeeded", progress=1.0)
    return view.id


def image_of(ctx: Context, number: int = 4) -> np.ndarray:
    """Example *number* as a batch."""
    from control_plane.services import versions

    row = versions.examples(ctx, A)[number - 1].inputs["image"]
    return np.asarray([row], dtype=np.float32)


def plain(ctx: Context, *, nan: bool = False, **more: Any) -> str:
    """A run of one version that went well. nan: with a NaN at `features.1`."""
    image = image_of(ctx)
    return finish(ctx, start(ctx, **more), lambda folder, _: side(folder, *network(image, nan=nan), image))


def fill(ctx: Context, *, going: bool = True) -> dict[str, str]:
    """Runs in every state, their ids by name; needs digits@1 and digits@2 with examples.

    going: those too that have not ended, which a worker would run in earnest.
    """
    image = image_of(ctx)

    def beside(folder: Path, which: Side) -> Inspected:
        return side(folder, *network(image, noise=0.0 if which == "a" else 0.3), image)

    def other(**given: Any) -> Callable[[Path, Side], Inspected]:
        return lambda folder, _: side(folder, *network(image), image, **given)

    ids = {
        "plain": plain(ctx, name="baseline"),
        "nan": plain(ctx, nan=True),
        "compared": finish(ctx, start(ctx, b=B), beside),
        "wrong": finish(
            ctx, start(ctx, source=JsonSource(input=[[[[0.5] * 9] * 8]])), other(failed="preprocess")
        ),
        "none": finish(ctx, start(ctx), other(level="none")),
        "unkept": finish(ctx, start(ctx), other(keep_bytes=512)),
        "tokens": _tokens(ctx, image),
    }
    ids["edited"] = edited(ctx, ids["plain"], image)
    if going:
        ids["running"] = start(ctx, b=B).id
        put(ctx, ids["running"], "running", progress=0.42, stage="inspect digits@1", finished_at=None)
        ids["queued"] = start(ctx).id
    ids["failed"] = start(ctx).id
    why = Reason("out_of_memory", "digits@1 needs more than 256 MiB", "Use a smaller input.")
    put(ctx, ids["failed"], "failed", reason=why)
    return ids


def edited(ctx: Context, run_id: str, image: np.ndarray) -> str:
    """The run gone on with one element of `act` set to 5."""
    change = Edit(point="act", tensor=0, index=(0, 3), value=5.0)
    view = debugger.edit(ctx, run_id, (change,), actor="bo")
    layers, _ = network(image)
    outputs = {path: made["output"] for path, _, made in layers}
    active = outputs["act"].copy()
    active[0, 3] = 5.0
    draw = np.random.default_rng(3)
    draw.normal(size=(4, 3, 3))
    _, second = (draw.normal(size=s).astype(np.float32) / 6 for s in ((256, 16), (16, 10)))
    logits = active @ second
    changed = {"act": active, "fc2": logits, "Digits": logits}
    gone_on: list[Layer] = [
        (path, kind, {"output": changed[path]} if path in changed else made) for path, kind, made in layers
    ]
    return finish(ctx, view, lambda folder, _: side(folder, gone_on, logits, image, edited="act"))


def many(ctx: Context, count: int = 500) -> str:
    """A run of *count* layers, beside another of as many."""
    image = image_of(ctx)
    return finish(ctx, start(ctx, b=B), lambda folder, _: side(folder, *deep(count), image))


def _tokens(ctx: Context, image: np.ndarray) -> str:
    pieces = (WORDS,)

    def draw(folder: Path, which: Side) -> Inspected:
        return side(folder, *looking(0 if which == "a" else 1), image, tokens=pieces)

    return finish(ctx, start(ctx, b=B), draw, scores())


def scores() -> TokenScores:
    """What two language models say of WORDS."""

    def top(shift: float, ids: tuple[int, ...]) -> tuple[Candidate, ...]:
        return tuple(
            Candidate(token=each, piece=WORDS[each % len(WORDS)], logprob=-0.4 - shift - rank)
            for rank, each in enumerate(ids)
        )

    return TokenScores(
        output="logits",
        vocabulary=32,
        tokens=tuple(
            TokenScore(
                row=0,
                position=at,
                token=at,
                piece=word,
                logprob_a=None if at == 0 else -0.3 - 0.2 * at,
                logprob_b=None if at == 0 else -0.3 - 0.2 * at - (1.5 if at == 3 else 0.02),
                kl=0.8 if at == 2 else 0.01,
                top_a=top(0.0, (at + 1, 0, 7)),
                top_b=top(0.2, (at + 1, 9, 0)),
            )
            for at, word in enumerate(WORDS)
        ),
        truncated=False,
        largest_kl=2,
    )
