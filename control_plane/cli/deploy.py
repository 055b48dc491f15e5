"""`deploy` and `predict`: a version behind an endpoint, and an answer from it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import httpx
import typer

from control_plane.cli import declarations, serving_options, waiting
from control_plane.cli.client import Client, Json, part
from control_plane.cli.command import Session, Waive, command
from control_plane.cli.failures import ApiError
from control_plane.config import Settings
from control_plane.errors import InvalidInputError, NotFoundError, UnavailableError

PREDICT_TIMEOUT_S: Final = 120.0
WAIT_MARGIN_S: Final = 60.0
"""How much longer than a start may take `deploy` waits."""


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    for function in (deploy, predict):
        command(app)(function)


def deploy(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="The name that clients call.")],
    version: Annotated[str, typer.Argument(help="model@N or model@alias.")],
    replicas: Annotated[int | None, typer.Option(min=1, help="Agents that serve it.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads for one inference.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu or cuda:N.")] = None,
    handler: Annotated[str | None, typer.Option(help="What turns requests into tensors and back.")] = None,
    memory: Annotated[str | None, typer.Option(help="Memory limit of one agent, e.g. 2GiB.")] = None,
    max_batch_rows: serving_options.MaxBatchRows = None,
    batch_delay_ms: serving_options.BatchDelayMs = None,
    batch_buckets: serving_options.BatchBuckets = None,
    adaptive_batching: serving_options.AdaptiveBatching = None,
    cache_mib: serving_options.CacheMib = None,
    cache_ttl_s: serving_options.CacheTtlS = None,
    channels_last: serving_options.ChannelsLast = None,
    autocast: serving_options.Autocast = None,
    compile: serving_options.Compile = None,  # noqa: A002  torch's word
    max_concurrency: serving_options.MaxConcurrency = None,
    check_interval_s: serving_options.CheckIntervalS = None,
    samples_per_minute: serving_options.SamplesPerMinute = None,
    samples_kept_h: serving_options.SamplesKeptH = None,
    redact: serving_options.Redact = None,
    waive: Waive = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it serves.")] = True,
    timeout: Annotated[float | None, typer.Option(min=1, help="Longest wait, in seconds.")] = None,
) -> None:
    """Create an endpoint, or let it serve another version or with other settings."""
    body: Json = {"version": version, "replicas": replicas, "threads": threads, "device": device}
    body |= {"handler": handler, "memory_bytes": declarations.size_bytes(memory) if memory else None}
    options = serving_options.change(
        max_batch_rows=max_batch_rows,
        batch_delay_ms=batch_delay_ms,
        batch_buckets=batch_buckets,
        adaptive_batching=adaptive_batching,
        cache_mib=cache_mib,
        cache_ttl_s=cache_ttl_s,
        channels_last=channels_last,
        autocast=autocast,
        compile=compile,
        max_concurrency=max_concurrency,
        check_interval_s=check_interval_s,
        samples_per_minute=samples_per_minute,
        samples_kept_h=samples_kept_h,
        redact=redact,
    )
    body |= {"options": options or None, "waiver": waive}
    known = known_agents(session.api, endpoint)
    given = {name: value for name, value in body.items() if value is not None}
    view = session.api.put(f"/endpoints/{part(endpoint)}", given)
    if wait:
        timeout_s = timeout or session.settings.start_timeout_s + WAIT_MARGIN_S
        view = waiting.for_endpoint(session.api, session.out, view, known=known, timeout_s=timeout_s)
        for line in (*waiting.breakdowns(view), *waiting.effects(view)):
            session.out.line(line)
    session.out.line(f"{view['name']}: {view['sentence']}")
    session.out.line(view["url"])
    session.out.document(view)


def predict(
    session: Session,
    endpoint: Annotated[str, typer.Argument(help="The endpoint to ask.")],
    source: Annotated[str, typer.Option("--input", help="JSON file, or - for standard input.")],
) -> None:
    """Send one request through the gateway: a whole body, or just the input."""
    body = request_body(_read(source))
    answer = ask(session.settings, endpoint, body)
    session.out.line(json.dumps(answer, ensure_ascii=False))
    session.out.document(answer)


def known_agents(api: Client, endpoint: str) -> frozenset[str]:
    """Ids of the agents that the endpoint has had so far."""
    try:
        return frozenset(agent["id"] for agent in api.get(f"/endpoints/{part(endpoint)}")["agents"])
    except ApiError as error:
        if error.status == httpx.codes.NOT_FOUND:
            return frozenset()
        raise


def request_body(text: str) -> Json:
    """The body of a predict request: an object that has `input` as it is, anything else as the input.

    Raises InvalidInputError when *text* is not JSON.
    """
    try:
        value = json.loads(text)
    except ValueError as error:
        raise InvalidInputError(f"the input is not JSON: {error}") from error
    return value if isinstance(value, dict) and "input" in value else {"input": value}


def ask(settings: Settings, endpoint: str, body: Json) -> Json:
    """The gateway's answer to one predict request. Raises ApiError, NotFoundError or UnavailableError."""
    url = f"{settings.gateway_url}/e/{part(endpoint)}/predict"
    try:
        answer = httpx.post(url, json=body, timeout=PREDICT_TIMEOUT_S, trust_env=False)
    except httpx.TransportError as error:
        raise UnavailableError(
            f"the gateway does not answer at {settings.gateway_url}: {str(error) or type(error).__name__}",
            next_step="Start it with `signalbox up`, or name its port with --gateway-port.",
        ) from error
    document = _document(answer)
    if answer.is_success:
        return document
    message = str(document.get("error", f"the gateway answered {answer.status_code}"))
    if answer.status_code == httpx.codes.NOT_FOUND:
        raise NotFoundError(message, next_step="See `signalbox status` for the endpoints there are.")
    raise ApiError(answer.status_code, {"code": "prediction_failed", "message": message})


def _document(answer: httpx.Response) -> Json:
    try:
        document: Any = answer.json()
    except ValueError:
        document = {"error": answer.text[:500]}
    return document if isinstance(document, dict) else {"predictions": document}


def _read(source: str) -> str:
    try:
        return sys.stdin.read() if source == "-" else Path(source).read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInputError(f"the input cannot be read: {error}") from error
