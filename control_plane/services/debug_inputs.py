"""Where a debugger run's input can come from, and reading it from there."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from sqlalchemy.orm import Session

from control_plane import agent_client
from control_plane.debugging import inputs, pictures
from control_plane.debugging.inputs import Tensors
from control_plane.domain.debugging import (
    CaptureSource,
    CaptureView,
    DisagreementSource,
    DisagreementView,
    ExampleSource,
    ImageSource,
    InputChoices,
    InputSource,
    InputView,
    JsonSource,
    KeptFor,
    NpySource,
    RandomSource,
    RunSource,
    TextSource,
)
from control_plane.domain.endpoint import LIVE_PHASES, EndpointGoal
from control_plane.domain.served_answer import Answer
from control_plane.errors import InvalidInputError, NotFoundError
from control_plane.registry import endpoints
from control_plane.registry import session as sessions
from control_plane.registry.tables import Agent, Disagreement, Rollout
from control_plane.services import debug_folders, debug_records, rollout_commands
from control_plane.services.context import Context
from control_plane.services.optimization_subjects import Known
from serving_agent.contract.capture import Capture, CapturedTensor
from serving_agent.contract.signature import Signature

SentSource = JsonSource | NpySource | ImageSource | TextSource | RandomSource
MAX_AGENTS: Final = 16
"""Agents of an endpoint that are asked for what they keep."""
MAX_PAGES: Final = 16
"""Pages that one agent is asked for."""
_REASONS: Final[tuple[KeptFor, ...]] = ("sampling", "rollout")


@dataclass(frozen=True, slots=True)
class Resolved:
    """An input that was read."""

    tensors: Tensors
    title: str
    """Where it came from, for people."""
    answer: Answer | None = None
    """What the client got for it, where that was kept."""


def read(ctx: Context, found: Known, source: InputSource) -> Resolved:
    """The input of *source* for *found*.

    Raises NotFoundError, GoneError, InvalidInputError, TooLargeError.
    """
    signature = found.served
    match source:
        case ExampleSource(number=number):
            return _example(found, number)
        case CaptureSource():
            capture, by = _captured(ctx, source)
            given = inputs.of_captured(capture.inputs, signature)
            title = f"request {source.seq} kept by {source.endpoint}"
            return Resolved(given, title, Answer(by=by, outputs=capture.outputs) if capture.outputs else None)
        case DisagreementSource():
            return _disagreed(ctx, found, source)
        case RunSource(run=run):
            return _of_run(ctx, run)
        case _:
            return _sent(source, signature)


def _sent(source: SentSource, signature: Signature) -> Resolved:
    """What came with the call."""
    match source:
        case JsonSource(input=value):
            return Resolved(inputs.of_json(value, signature), "JSON")
        case NpySource(files=files):
            return Resolved(inputs.of_npy(files, signature), ".npy")
        case ImageSource(content=content, name=name):
            return Resolved(inputs.of_image(content, name, signature), "a picture")
        case TextSource(text=text, name=name):
            return Resolved(inputs.of_text(text, name, signature), "a text")
        case RandomSource(seed=seed, rows=rows, open_size=open_size):
            return Resolved(inputs.random(seed, rows, open_size, signature), f"random, seed {seed}")


def _disagreed(ctx: Context, found: Known, source: DisagreementSource) -> Resolved:
    view, kept = _disagreement(ctx, source.rollout, source.disagreement)
    if kept is None:
        raise InvalidInputError(
            "the inputs of that request were not kept: they were too large",
            next_step="Choose another one of the gallery.",
        )
    return Resolved(inputs.of_json(kept, found.served), f"request {view.request_id} to {view.endpoint}")


def choices(ctx: Context, found: Known) -> InputChoices:
    """What *found* can be given."""
    signature = found.served
    with sessions.read(ctx.engine) as session:
        names = [
            row.name
            for row in endpoints.every(session)
            if row.version.model_id == found.model_id and row.goal != EndpointGoal.DELETED
        ]
    return InputChoices(
        ref=found.ref,
        signature=signature,
        examples=tuple(
            f"Example {number}" + (f", labelled {each['label']}" if each.get("label") is not None else "")
            for number, each in enumerate(found.examples, 1)
        ),
        endpoints=tuple(names),
        image_inputs=tuple(spec.name for spec in signature.inputs if pictures.fits(spec)),
        text_inputs=tuple(spec.name for spec in signature.inputs if spec.datatype == "BYTES"),
    )


def captures(ctx: Context, endpoint: str) -> tuple[CaptureView, ...]:
    """Requests that agents of *endpoint* keep, newest first. Raises NotFoundError."""
    with sessions.read(ctx.engine) as session:
        agents = {row.id: row.rest_address for row in _agents(session, endpoint) if row.rest_address}
    found = [
        _capture_view(endpoint, agent, why, each)
        for agent, address in agents.items()
        for why in _REASONS
        for each in _pages(address, why)
    ]
    return tuple(sorted(found, key=lambda view: (-view.at, view.agent, -view.seq)))


def disagreement(ctx: Context, rollout: str, disagreement_id: str) -> DisagreementView:
    """A request of a rollout's gallery. Raises NotFoundError."""
    return _disagreement(ctx, rollout, disagreement_id)[0]


def _of_run(ctx: Context, run_id: str) -> Resolved:
    with sessions.read(ctx.engine) as session:
        row = debug_records.found(session, run_id)
    return Resolved(debug_folders.read_inputs(ctx.settings, row.id), row.input)


def _example(found: Known, number: int) -> Resolved:
    count = len(found.examples)
    if not 1 <= number <= count:
        raise InvalidInputError(
            f"{found.ref} has no example {number}: it has {count}",
            next_step=f"Choose one from 1 to {count}."
            if count
            else "Give it another input: JSON, or random.",
        )
    row = found.examples[number - 1]["inputs"]
    return Resolved(inputs.of_row(row, found.served), f"example {number} of {found.ref}")


def _captured(ctx: Context, source: CaptureSource) -> tuple[Capture, str]:
    """The kept request, and the version that answered it."""
    with sessions.read(ctx.engine) as session:
        agents = {
            row.id: (row.rest_address, str(row.spec.get("version_ref", "")))
            for row in _agents(session, source.endpoint)
        }
    address, by = agents.get(source.agent, (None, ""))
    read = agent_client.sampled if source.why == "sampling" else agent_client.captured
    capture = read(address, source.seq) if address else None
    if capture is None:
        raise NotFoundError(
            f"agent {source.agent[:40]!r} of {source.endpoint} keeps no request {source.seq}",
            next_step="Requests are kept for some minutes: choose a newer one.",
        )
    return capture, by


def _agents(session: Session, endpoint: str) -> list[Agent]:
    """Agents of the endpoint that run, newest first. Raises NotFoundError."""
    row = endpoints.find(session, endpoint)
    if row is None:
        raise NotFoundError(f"There is no endpoint {endpoint[:80]!r}", next_step="See `signalbox status`.")
    shown = endpoints.shown_agents(session, [row.id])
    return [agent for agent in shown if agent.phase in LIVE_PHASES][:MAX_AGENTS]


def _pages(address: str, why: KeptFor) -> Iterator[Capture]:
    """What one agent keeps for that reason; what it does not answer is left out."""
    listed, after = agent_client.samples if why == "sampling" else agent_client.captures, 0
    for _ in range(MAX_PAGES):
        page = listed(address, after)
        if page is None:
            return
        yield from page.captures
        if not page.more:
            return
        after = page.last


def _capture_view(endpoint: str, agent: str, why: KeptFor, capture: Capture) -> CaptureView:
    return CaptureView(
        endpoint=endpoint,
        agent=agent,
        seq=capture.seq,
        why=why,
        at=capture.at,
        request_id=capture.request_id,
        inputs=views(capture.inputs),
        complete=inputs.are_whole(capture.inputs),
        error=capture.error,
    )


def views(tensors: tuple[CapturedTensor, ...]) -> tuple[InputView, ...]:
    """What is shown of them."""
    return tuple(InputView(name=each.name, datatype=each.datatype, shape=each.shape) for each in tensors)


def _disagreement(
    ctx: Context, rollout: str, disagreement_id: str
) -> tuple[DisagreementView, dict[str, object] | None]:
    with sessions.read(ctx.engine) as session:
        row: Rollout = rollout_commands.resolve(session, rollout)
        kept = session.get(Disagreement, disagreement_id)
        if kept is None or kept.rollout_id != row.id:
            raise NotFoundError(
                f"The rollout has no disagreement {disagreement_id[:80]!r}",
                next_step="See the gallery of the rollout.",
            )
        view = DisagreementView(
            rollout=row.id,
            disagreement=kept.id,
            endpoint=row.endpoint,
            a=row.stable.ref,
            b=row.candidate.ref,
            complete=kept.inputs is not None,
            request_id=kept.request_id,
        )
        return view, kept.inputs
