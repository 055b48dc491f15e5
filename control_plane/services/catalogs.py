"""Listings for forms: what can be chosen. Imports no model library.

The catalogues of handlers and of jobs are loaded by name, as they load their own entries: what they list
imports torch in its functions, and calls services.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Final

from control_plane.errors import InvalidInputError
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature
from serving_agent.errors import AgentError
from serving_agent.formats import catalog as format_catalog

if TYPE_CHECKING:
    from serving_agent.model_server import ModelServer

HANDLER_CATALOG: Final = "serving_agent.handlers.catalog"
JOB_CATALOG: Final = "control_plane.jobs.catalog"


@dataclass(frozen=True, slots=True)
class HandlerView:
    """A handler that an endpoint may use; formats: the ones it can serve (every one for a custom handler)."""

    name: str
    title: str
    description: str
    formats: tuple[str, ...]
    needs_one_of: tuple[str, ...] = ()
    """Files of which a version must bring one; none where it needs none besides the model."""


@dataclass(frozen=True, slots=True)
class FormatView:
    """A format that versions may have."""

    name: str
    title: str
    program: bool
    """Whether serving it means running a program from the file."""


def handlers(ctx: Context) -> tuple[HandlerView, ...]:
    """Built-in handlers in the catalogue's order, then the custom ones that the settings allow."""
    names = format_catalog.names()
    built_in = tuple(
        HandlerView(
            handler.name,
            handler.title,
            handler.description,
            tuple(name for name in names if handler.applies_to(name)),
            handler.needs_one_of,
        )
        for handler in _built_in()
    )
    custom = tuple(
        HandlerView(name, name.partition(":")[2], f"Custom handler {name}.", names)
        for name in ctx.settings.handlers
    )
    return built_in + custom


def fitting(ctx: Context, format_name: str, files: Collection[str]) -> tuple[HandlerView, ...]:
    """Handlers that can serve a version of that format; *files*: paths in the version's artefact."""
    brought = set(files)
    return tuple(
        each
        for each in handlers(ctx)
        if format_name in each.formats and not (each.needs_one_of and brought.isdisjoint(each.needs_one_of))
    )


def formats() -> tuple[FormatView, ...]:
    """Every format that can be served."""
    return tuple(FormatView(each.name, each.title, each.is_program) for each in format_catalog.formats())


def is_program(format_name: str) -> bool:
    """Whether serving a version of that format runs a program from its file."""
    return any(each.is_program for each in format_catalog.formats() if each.name == format_name)


def is_run_by_torch(format_name: str) -> bool:
    """Whether torch runs versions of that format module by module, so that its options apply."""
    return any(each.is_module for each in format_catalog.formats() if each.name == format_name)


def job_kinds() -> tuple[str, ...]:
    """Every kind of job that people may submit."""
    return tuple(kind.name for kind in import_module(JOB_CATALOG).kinds() if kind.submittable)


def all_job_kinds() -> tuple[str, ...]:
    """Every kind of job, in the catalogue's order."""
    return tuple(kind.name for kind in import_module(JOB_CATALOG).kinds())


def check_handler(ctx: Context, name: str, format_name: str, files: Collection[str]) -> str:
    """Return *name* if it is a handler that serves versions of that format with those files.

    files: paths in the version's artefact. Raises InvalidInputError.
    """
    known = {handler.name: handler for handler in handlers(ctx)}
    if name not in known:
        raise InvalidInputError(
            f"There is no handler {name[:80]!r}; known handlers are {', '.join(known)}",
            next_step="Custom handlers must be listed in SIGNALBOX_HANDLERS.",
        )
    able = [each.name for each in fitting(ctx, format_name, files)]
    if name not in able:
        needed = known[name].needs_one_of if format_name in known[name].formats else ()
        lacks = f" without {' or '.join(needed)}" if needed else ""
        raise InvalidInputError(
            f"Handler {name} cannot serve {format_name} versions{lacks}",
            next_step=f"Use one of: {', '.join(able)}.",
        )
    return name


def check_job_kind(kind: str) -> str:
    """Return *kind* if it is a job that people may submit. Raises InvalidInputError."""
    if kind not in job_kinds():
        raise InvalidInputError(
            f"There is no job kind {kind[:80]!r}; known kinds are {', '.join(job_kinds())}"
        )
    return kind


def served_signature(handler: str, signature: Signature, labels: tuple[str, ...]) -> Signature:
    """What clients of a version with *signature* see when *handler* serves it.

    For a custom handler, whose code is never imported here, the version's own signature. Raises
    InvalidInputError when the handler cannot serve it.
    """
    if ":" in handler:
        return signature
    by_name = {each.name: each for each in _built_in()}
    if handler not in by_name:
        raise InvalidInputError(
            f"There is no handler {handler[:80]!r}; known handlers are {', '.join(by_name)}"
        )
    try:
        return by_name[handler].served_signature(signature, labels)
    except AgentError as error:
        raise InvalidInputError(str(error)) from error


def _built_in() -> tuple[type[ModelServer], ...]:
    handlers: tuple[type[ModelServer], ...] = import_module(HANDLER_CATALOG).handlers()
    return handlers
