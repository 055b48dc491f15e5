"""`scale`, `restart`, `stop`, `start`, `delete`, `logs`: endpoints that are there."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Annotated, Final

import httpx
import typer

from control_plane.cli import waiting
from control_plane.cli.client import Client, Json, part
from control_plane.cli.command import Session, command
from control_plane.cli.deploy import WAIT_MARGIN_S, known_agents
from control_plane.cli.failures import ApiError
from control_plane.errors import InvalidInputError, NotFoundError

FOLLOW_POLL_S: Final = 0.5
FOLLOW_LINES: Final = 1000

Name = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint.")]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is so.")]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for function in (scale, restart, start, stop, delete, logs):
        command(app)(function)


def scale(
    session: Session,
    endpoint: Name,
    replicas: Annotated[int, typer.Argument(min=1, help="Agents wanted.")],
    wait: Wait = True,
) -> None:
    """Let more or fewer agents serve an endpoint."""
    _change(session, endpoint, "scale", {"replicas": replicas}, wait=wait)


def restart(session: Session, endpoint: Name, wait: Wait = True) -> None:
    """Replace all agents of an endpoint by new ones; no request is lost."""
    _change(session, endpoint, "restart", {}, wait=wait)


def start(session: Session, endpoint: Name, wait: Wait = True) -> None:
    """Let a stopped endpoint serve again."""
    _change(session, endpoint, "start", {}, wait=wait)


def stop(session: Session, endpoint: Name) -> None:
    """End all agents of an endpoint; it answers 503 until it is started again."""
    _change(session, endpoint, "stop", {}, wait=False)


def delete(session: Session, endpoint: Name) -> None:
    """End all agents of an endpoint and forget it; its events stay."""
    session.api.delete(f"/endpoints/{part(endpoint)}")
    session.out.line(f"{endpoint} is being deleted")
    session.out.document({"deleted": endpoint})


def logs(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="ENDPOINT|AGENT", help="An endpoint, or one agent's id.")],
    lines: Annotated[int, typer.Option(min=1, max=5000, help="Lines of each log.")] = 200,
    follow: Annotated[bool, typer.Option("--follow", help="Go on with new lines until Ctrl-C.")] = False,
) -> None:
    """Show the log of an agent, or of the latest agents of an endpoint."""
    if follow and session.out.as_json:
        raise InvalidInputError("--follow has no end, and --json is one document", next_step="Choose one.")
    agents = _agents(session.api, name)
    if follow:
        return _follow(session, agents[0])
    found = {agent: _log(session.api, agent, lines) for agent in agents}
    for agent, log in found.items():
        session.out.line(f"── agent {agent} ──")
        for line in log:
            session.out.line(line)
    return session.out.document({"agents": [{"id": agent, "lines": log} for agent, log in found.items()]})


def fresh_lines(before: Sequence[str], now: Sequence[str]) -> Sequence[str]:
    """What *now* holds beyond *before*, when both are the end of one growing log."""
    for overlap in range(min(len(before), len(now)), -1, -1):
        if list(before[len(before) - overlap :]) == list(now[:overlap]):
            return now[overlap:]
    return now


def _change(session: Session, endpoint: str, verb: str, body: Json, *, wait: bool) -> None:
    known = known_agents(session.api, endpoint)
    view = session.api.post(f"/endpoints/{part(endpoint)}/{verb}", body)
    if wait and view["goal"] == "running":
        timeout_s = session.settings.start_timeout_s + WAIT_MARGIN_S
        view = waiting.for_endpoint(session.api, session.out, view, known=known, timeout_s=timeout_s)
    session.out.line(f"{view['name']}: {view['sentence']}")
    session.out.document(view)


def _agents(api: Client, name: str) -> list[str]:
    """The agent itself, or the live and latest failed agents of the endpoint, newest first."""
    try:
        agents = [str(agent["id"]) for agent in api.get(f"/endpoints/{part(name)}")["agents"]]
    except ApiError as error:
        if error.status != httpx.codes.NOT_FOUND:
            raise
        return [name]
    if not agents:
        raise NotFoundError(f"{name} has no agents", next_step=f"Start it: signalbox start {name}")
    return agents


def _log(api: Client, agent_id: str, lines: int) -> list[str]:
    return list(api.get(f"/agents/{part(agent_id)}/log", lines=lines)["lines"])


def _follow(session: Session, agent_id: str) -> None:
    session.out.note(f"agent {agent_id}; Ctrl-C ends")
    before: list[str] = []
    while True:
        now = _log(session.api, agent_id, FOLLOW_LINES)
        for line in fresh_lines(before, now):
            session.out.line(line)
        before = now
        time.sleep(FOLLOW_POLL_S)  # another process writes; REST has no event for it
