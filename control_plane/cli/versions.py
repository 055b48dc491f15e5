"""`models` and `versions`: what is in the registry."""

from __future__ import annotations

from typing import Annotated, Any, Final

import typer

from control_plane.cli import waiting
from control_plane.cli.client import Json, part
from control_plane.cli.command import Session, command, group
from control_plane.cli.failures import FailedError
from control_plane.cli.output import size, when
from control_plane.errors import InvalidInputError

Ref = Annotated[str, typer.Argument(help="`model@N` or `model@alias`.")]
MOST_TENSORS: Final = 40
"""Tensors that `compare` lists, those that differ most first; --json gives all."""


def add_to(app: typer.Typer) -> None:
    """Register these commands."""
    command(app)(models)
    group(app, versions, (compare, verify, rejudge))


def models(
    session: Session,
    q: Annotated[str, typer.Option(help="Part of a model's name.")] = "",
    page: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """List the models."""
    found = session.api.get("/models", q=q, page=page)
    session.out.table(
        ("model", "versions", "latest", "aliases", "created"),
        (
            (
                each["name"],
                each["version_count"],
                each["latest"],
                ", ".join(f"{alias} → {ref}" for alias, ref in each["aliases"].items()),
                when(each["created_at"]),
            )
            for each in found["items"]
        ),
        empty="No models yet: signalbox push PATH --model NAME, or signalbox example.",
    )
    session.out.document(found)


def versions(
    session: Session,
    model: Annotated[str | None, typer.Option(help="Only versions of this model.")] = None,
    q: Annotated[str, typer.Option(help="Part of a model name, tag or creator, or a digest's start.")] = "",
    page: Annotated[int, typer.Option(min=1)] = 1,
) -> None:
    """List versions, newest first."""
    found = session.api.get("/versions", model=model, q=q, page=page)
    session.out.table(
        ("version", "format", "size", "aliases", "served by", "created", "by"),
        (
            (
                each["ref"],
                each["format"],
                size(each["size_bytes"]),
                ", ".join(each["aliases"]),
                ", ".join(each["served_by"]),
                when(each["created_at"]),
                each["created_by"],
            )
            for each in found["items"]
        ),
        empty="No such versions.",
    )
    shown, total = len(found["items"]), found["total"]
    if shown < total:
        session.out.line(f"{shown} of {total}; more with --page {page + 1}")
    session.out.document(found)


def compare(session: Session, a: Ref, b: Ref) -> None:
    """Set two versions side by side: metadata, configuration, files, and every tensor by name."""
    found = _compared(session, a, b)
    _tell_differences(session, found)
    _tell_weights(session, found["weights"])
    session.out.document(found)


def verify(session: Session, ref: Ref) -> None:
    """Read all files of a version again and check them against its signed manifest."""
    job = session.api.post(f"{_path(ref)}/verify", {})
    result = waiting.for_job(session.api, session.out, job["id"])["result"]
    if result["problems"]:
        raise FailedError(
            f"{result['ref']} is not what was signed: {'; '.join(result['problems'])}",
            next_step="Register it again from where it came from, and find out who changed it.",
            **result,
        )
    session.out.line(f"{result['ref']}: {result['files']} files as signed by key {result['key_id']}")
    session.out.document(result)


def rejudge(
    session: Session,
    ref: Annotated[str | None, typer.Argument(help="One version; without it, those that are due.")] = None,
    every: Annotated[bool, typer.Option("--all", help="Every version, also those not due.")] = False,
) -> None:
    """Have the present gate judge stored versions again."""
    if ref and every:
        raise InvalidInputError("name one version, or --all")
    path = f"{_path(ref)}/rejudge" if ref else "/versions/rejudge"
    job = session.api.post(path, {} if ref else {"every": every})
    result = waiting.for_job(session.api, session.out, job["id"])["result"]
    decisions = ", ".join(f"{count} {word}" for word, count in result.items() if word != "versions")
    session.out.line(f"Versions judged: {result['versions']}" + (f": {decisions}" if decisions else ""))
    session.out.document(result)


def _path(ref: str) -> str:
    """The route of a version. Raises InvalidInputError."""
    model, at, which = ref.partition("@")
    if not (model and at and which):
        raise InvalidInputError(f"{ref!r} does not name a version", next_step="Write model@number.")
    return f"/models/{part(model)}/versions/{part(which)}"


def _compared(session: Session, a: str, b: str) -> Json:
    """The comparison with its weights, once a job has read them."""
    found = session.api.get("/versions/compare", a=a, b=b)
    if found["weights"]["state"] in ("ready", "none"):
        return found
    job_id = session.api.post("/versions/compare", {"a": a, "b": b})["weights"]["job_id"]
    if job_id is not None:
        waiting.for_job(session.api, session.out, job_id)
    return session.api.get("/versions/compare", a=a, b=b)


def _tell_differences(session: Session, found: Json) -> None:
    rows = [each for each in found["metadata"] if each["a"] != each["b"]]
    for name, changes in found["config"].items():
        rows += [{**each, "name": f"{name}: {each['name']}"} for each in changes]
    rows += [
        {**each, "name": f"file {each['name']}", "a": _short(each["a"]), "b": _short(each["b"])}
        for each in found["files"]
        if each["a"] != each["b"]
    ]
    session.out.table(
        ("", found["a"], found["b"]),
        ((each["name"], each["a"], each["b"]) for each in rows),
        empty="Metadata, configuration and files are the same.",
    )


def _short(sha256: str | None) -> str | None:
    return sha256 and sha256[:12]


def _tell_weights(session: Session, weights: Json) -> None:
    session.out.line(weights["sentence"])
    if weights["compared"] is None:
        return
    counts = ", ".join(f"{count} {word}" for word, count in weights["counts"].items() if count)
    session.out.line(counts)
    differing = [each for each in weights["compared"]["tensors"] if not each["same"]]
    differing.sort(key=lambda each: -(each["max_difference"] or 0.0))
    session.out.table(
        ("tensor", "a", "b", "norm a", "norm b", "max |Δ|"),
        (_tensor_row(each) for each in differing[:MOST_TENSORS]),
        empty="Every tensor is the same.",
    )
    if len(differing) > MOST_TENSORS:
        session.out.line(f"{len(differing) - MOST_TENSORS} more differ; --json gives all")


def _tensor_row(pair: dict[str, Any]) -> tuple[object, ...]:
    sides = (pair["a"], pair["b"])
    kinds = (side and f"{side['dtype']} {side['shape']}" for side in sides)
    norms = (_number(side and side["norm"]) for side in sides)
    return (pair["name"], *kinds, *norms, _number(pair["max_difference"]))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.6g}"
