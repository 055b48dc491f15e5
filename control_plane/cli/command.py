"""What all commands share: the options every one takes, the session they get, and how errors end them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError

from control_plane.cli.client import Client
from control_plane.cli.exit_codes import ExitCode, of_status
from control_plane.cli.failures import ApiError, CommandError
from control_plane.cli.output import Output
from control_plane.config import Settings
from control_plane.errors import InvalidInputError, SignalboxError

Home = Annotated[Path | None, typer.Option("--home", help="Home folder [env: SIGNALBOX_HOME].")]
WebPort = Annotated[int | None, typer.Option("--web-port", help="Dashboard port [env: SIGNALBOX_WEB_PORT].")]
GatewayPort = Annotated[
    int | None, typer.Option("--gateway-port", help="Gateway port [env: SIGNALBOX_GATEWAY_PORT].")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
Waive = Annotated[
    str | None,
    typer.Option(
        "--waive",
        metavar="REASON",
        help="Why a variant that the optimisation lab rejected is used all the same.",
    ),
]
COMMON = {"home": Home, "web_port": WebPort, "gateway_port": GatewayPort, "json": AsJson}
"""Options that every command takes, after its name or before it."""


@dataclass
class Session:
    """What one command works with."""

    settings: Settings
    out: Output

    @cached_property
    def api(self) -> Client:
        """The REST API."""
        return Client(self.settings)

    def close(self) -> None:
        """Close what was opened."""
        if "api" in self.__dict__:
            self.api.close()


def open_session(given: dict[str, Any]) -> Session:
    """Settings from the environment, and from flags, which win. Raises InvalidInputError."""
    flags = {
        name: given[name] for name in ("home", "web_port", "gateway_port") if given.get(name) is not None
    }
    try:
        settings = Settings(**flags)
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InvalidInputError(f"the settings are not usable: {problems}") from error
    return Session(settings, Output(as_json=bool(given.get("json"))))


def command(app: typer.Typer, **options: Any) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register `function(session, …)` as a command that takes the common options too."""

    def register(function: Callable[..., None]) -> Callable[..., None]:
        app.command(**options)(_as_command(function))
        return function

    return register


def group(
    app: typer.Typer,
    alone: Callable[..., None],
    commands: Iterable[Callable[..., None]],
    *,
    name: str | None = None,
) -> typer.Typer:
    """Register `alone(session, …)` for its name standing alone, and *commands* to follow that name.

    name: what it is called; like its function without.
    Returns the group, for commands that are not called like their function.
    """
    inner = typer.Typer(rich_markup_mode=None)
    inner.callback(invoke_without_command=True)(_as_command(alone))
    for each in commands:
        command(inner)(each)
    app.add_typer(inner, name=name or alone.__name__)
    return inner


def _as_command(function: Callable[..., None]) -> Callable[..., None]:
    """What typer calls for `function(session, …)`, with the common options among its parameters."""
    signature = inspect.signature(function, eval_str=True)
    own = list(signature.parameters.values())[1:]
    runner = _runner(function)
    parameters = [_context_parameter(), *own, *_common_parameters()]
    runner.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    runner.__annotations__ = {each.name: each.annotation for each in parameters}
    runner.__doc__ = function.__doc__
    runner.__name__ = function.__name__
    return runner


def _runner(function: Callable[..., None]) -> Callable[..., None]:
    def run(context: typer.Context, **given: Any) -> None:
        own = {name: given.pop(name) for name in COMMON}
        before: dict[str, Any] = context.obj or {}
        common = {name: own[name] or before.get(name) for name in COMMON}
        if context.invoked_subcommand is None:
            _run(function, common, given)
        else:
            context.obj = common

    return run


def _run(function: Callable[..., None], common: dict[str, Any], given: dict[str, Any]) -> None:
    """Call *function*, and turn what it raises into a message and an exit code."""
    out = Output(as_json=bool(common.get("json")))
    try:
        with closing(open_session(common)) as session:
            function(session, **given)
    except ApiError as error:
        out.problem(error)
        raise typer.Exit(of_status(error.status)) from error
    except CommandError as error:
        out.problem(error)
        raise typer.Exit(ExitCode.FAILED) from error
    except SignalboxError as error:
        out.problem(error)
        raise typer.Exit(of_status(error.http_status)) from error
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        out.problem(CommandError("io_error", f"{where}{error.strerror or error}"))
        raise typer.Exit(ExitCode.FAILED) from error
    except KeyboardInterrupt as error:
        out.note("interrupted")
        raise typer.Exit(ExitCode.INTERRUPTED) from error


def _context_parameter() -> inspect.Parameter:
    return inspect.Parameter("context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)


def _common_parameters() -> list[inspect.Parameter]:
    return [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=annotation,
            default=False if name == "json" else None,
        )
        for name, annotation in COMMON.items()
    ]
