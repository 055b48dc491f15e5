"""`rollout …`: bring a version to an endpoint with proof, and say what happens on the way."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, Any, Final, Literal

import typer

from control_plane.cli import rollout_output, rollout_values
from control_plane.cli.client import Client, Json, part
from control_plane.cli.command import Session, Waive, command, group
from control_plane.cli.failures import FailedError

FOLLOW_POLL_S: Final = 0.5
ENDED: Final = frozenset({"completed", "rolled_back", "aborted", "superseded", "failed"})

Endpoint = Annotated[str, typer.Argument(metavar="ENDPOINT", help="The endpoint.")]
Reason = Annotated[str | None, typer.Option("--reason", help="Why; kept with the event.")]
Strategy = Annotated[str, typer.Option("--strategy", help="canary, blue-green or shadow.")]
Steps = Annotated[
    str | None,
    typer.Option("--steps", help="Weights of a canary, e.g. 0.05,0.25,1.0; 1.0 is added where it lacks."),
]
Bake = Annotated[float | None, typer.Option("--bake", min=0, help="Least observed seconds of every step.")]
MinRequests = Annotated[
    int | None, typer.Option("--min-requests", min=0, help="Least requests of the candidate at every step.")
]
Mirror = Annotated[
    float | None,
    typer.Option("--mirror", min=0, max=1, help="Share copied in a step before the others, or by a shadow."),
]
Guardrails = Annotated[
    list[str] | None,
    typer.Option("--guardrail", metavar="NAME.FIELD=VALUE", help="Change a guardrail; may be repeated."),
]


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    acting = [_acting(*each) for each in _COMMANDS]
    commands: list[Callable[..., None]] = [start, status, simulate, report, policy, *acting]
    inner = group(app, rollout, commands)
    command(inner, name="list")(list_all)


def rollout(session: Session) -> None:
    """List rollouts, newest first."""
    _list(session, None, None, 1)


def list_all(
    session: Session,
    endpoint: Annotated[str | None, typer.Option(help="Only rollouts of this endpoint.")] = None,
    state: Annotated[str | None, typer.Option(help="Only those in this state, e.g. baking.")] = None,
    page: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """List rollouts, newest first, of one endpoint or in one state."""
    _list(session, endpoint, state, page)


def start(
    session: Session,
    endpoint: Endpoint,
    candidate: Annotated[str, typer.Argument(metavar="MODEL@N", help="model@N or model@alias.")],
    strategy: Strategy = "canary",
    steps: Steps = None,
    bake: Bake = None,
    min_requests: MinRequests = None,
    approval: Annotated[
        bool, typer.Option("--approval", help="Every step but the last waits for a person.")
    ] = False,
    no_auto_advance: Annotated[
        bool, typer.Option("--no-auto-advance", help="Proven steps wait for a person too.")
    ] = False,
    mirror: Mirror = None,
    guardrail: Guardrails = None,
    skip_gates: Annotated[
        str | None, typer.Option("--skip-gates", metavar="REASON", help="Leave out the gates before traffic.")
    ] = None,
    break_freeze: Annotated[
        str | None, typer.Option("--break-freeze", metavar="REASON", help="Go on in a freeze window.")
    ] = None,
    supersede: Annotated[
        bool, typer.Option("--supersede", help="End a standing rollout of the endpoint for this one.")
    ] = False,
    warm: Annotated[
        float | None, typer.Option("--warm", min=0, help="Seconds that the old version stays warm.")
    ] = None,
    waive: Waive = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow it until it ends.")] = False,
) -> None:
    """Bring a version to an endpoint step by step, beside what it serves."""
    body = _plan(strategy, steps, bake, min_requests, mirror, guardrail)
    body |= {"endpoint": endpoint, "candidate": candidate, "approval": approval, "supersede": supersede}
    body |= {"auto_advance": not no_auto_advance, "skip_gates": skip_gates, "break_freeze": break_freeze}
    view = session.api.post("/rollouts", _given(body | {"warm_s": warm, "waiver": waive}))
    if wait:
        view = _follow(session, view)
    session.out.line(f"{view['endpoint']}: {view['sentence']}")
    session.out.document(view)


def status(session: Session, endpoint: Endpoint) -> None:
    """Say where an endpoint's newest rollout stands, and what the evidence says."""
    view = _newest(session.api, endpoint)
    rollout_output.status(session.out, view)
    session.out.document(view)


def simulate(
    session: Session,
    endpoint: Annotated[str | None, typer.Argument(metavar="ENDPOINT", help="Whose traffic.")] = None,
    rate: Annotated[float | None, typer.Option(min=0, help="Requests per second.")] = None,
    error_rate: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of requests that fail at stable.")
    ] = None,
    p50: Annotated[
        float | None, typer.Option(min=0, help="Stable's median latency, in milliseconds.")
    ] = None,
    p95: Annotated[float | None, typer.Option(min=0, help="Its 95th percentile, in milliseconds.")] = None,
    strategy: Strategy = "canary",
    steps: Steps = None,
    bake: Bake = None,
    min_requests: MinRequests = None,
    mirror: Mirror = None,
    guardrail: Guardrails = None,
) -> None:
    """Say what a rollout is to be expected to do: time a step, and how soon regressions are caught."""
    body = _plan(strategy, steps, bake, min_requests, mirror, guardrail)
    body |= {"endpoint": endpoint, "rate": rate, "error_rate": error_rate}
    body |= {"p50_s": _seconds(p50), "p95_s": _seconds(p95)}
    predicted = session.api.post("/rollouts/simulate", _given(body))
    rollout_output.prediction(session.out, predicted)
    session.out.document(predicted)


def report(
    session: Session,
    endpoint: Endpoint,
    form: Annotated[Literal["md", "json"], typer.Option("--format", help="md or json.")] = "md",
) -> None:
    """Print the report of an endpoint's newest rollout: who did what when, and all the evidence."""
    path = f"/rollouts/{part(_newest(session.api, endpoint)['id'])}/report"
    if form == "json" or session.out.as_json:
        session.out.as_json = True
        session.out.document(session.api.get(path))
        return
    session.out.line(session.api.get_text(path, format="md").rstrip("\n"))


def policy(
    session: Session,
    endpoint: Endpoint,
    change: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="FIELD=VALUE", help="Change a field; may be repeated; none: default."),
    ] = None,
) -> None:
    """Show or change what an endpoint asks of every rollout."""
    path = f"/endpoints/{part(endpoint)}/rollout-policy"
    present = session.api.get(path)
    if change:
        changes = rollout_values.policy(change)
        present = session.api.put(path, _given({**present, **changes}))
    session.out.table(("field", "value"), ((name, _told(value)) for name, value in present.items()), empty="")
    session.out.document(present)


_COMMANDS: Final = (
    ("approve", "Let a rollout go on from a step that waits for a person, or start without gates."),
    ("promote", "Go to the next step, or end the last one's bake."),
    ("promote-full", "Skip the steps that remain: all requests go to the candidate."),
    ("hold", "Let nothing go forward until it is resumed; evidence gathers on."),
    ("resume", "Let a held rollout go forward again."),
    ("abort", "Give up: stable gets every request again."),
    ("rollback", "Roll back at once, also after completion: the old version gets every request again."),
)


def _acting(name: str, description: str) -> Callable[..., None]:
    """The command line's command for the rollout's command *name*."""

    def act(session: Session, endpoint: Endpoint, reason: Reason = None) -> None:
        _act(session, endpoint, name, reason)

    act.__name__ = name.replace("-", "_")
    act.__doc__ = description
    return act


def _act(session: Session, endpoint: str, name: str, reason: str | None) -> None:
    seen = _newest(session.api, endpoint)
    body = {"reason": reason, "expected_step": seen["step"], "expected_revision": seen["revision"]}
    view = session.api.post(f"/rollouts/{part(seen['id'])}/{name}", _given(body))
    session.out.line(f"{view['endpoint']}: {view['sentence']}")
    session.out.document(view)


def _newest(api: Client, endpoint: str) -> Json:
    return api.get(f"/endpoints/{part(endpoint)}/rollout")


def _list(session: Session, endpoint: str | None, state: str | None, page: int) -> None:
    found = session.api.get("/rollouts", endpoint=endpoint, state=state, page=page)
    rollout_output.listing(session.out, found["items"])
    session.out.document(found)


def _follow(session: Session, view: Json) -> Json:
    """Tell of every move until the rollout ends; returns how. Raises FailedError unless it completed."""
    told = ""
    while True:
        line = rollout_output.moved(view)
        if line != told:
            session.out.note(line)
            told = line
        if view["phase"] in ENDED:
            break
        time.sleep(FOLLOW_POLL_S)  # another process moves it; REST has no event for it
        view = session.api.get(f"/rollouts/{part(view['id'])}")
    if view["phase"] != "completed":
        raise FailedError(
            f"the rollout of {view['candidate_ref']} to {view['endpoint']} ended: {view['sentence']}",
            next_step=f"See `signalbox rollout report {view['endpoint']}`.",
            rollout=view["id"],
            state=view["phase"],
            reason=view["reason"],
        )
    return view


def _plan(
    strategy: str,
    steps: str | None,
    bake: float | None,
    min_requests: int | None,
    mirror: float | None,
    guardrail: list[str] | None,
) -> Json:
    return {
        "strategy": strategy,
        "weights": rollout_values.weights(steps) if steps else None,
        "bake_s": bake,
        "min_requests": min_requests,
        "mirror": mirror,
        "guardrails": rollout_values.guardrails(guardrail or ()) or None,
    }


def _given(body: Json) -> Json:
    return {name: value for name, value in body.items() if value is not None}


def _seconds(milliseconds: float | None) -> float | None:
    return None if milliseconds is None else milliseconds / 1000


def _told(value: Any) -> str:
    if isinstance(value, dict):
        return ":".join(str(each) for each in value.values())
    return "" if value is None else str(value)
