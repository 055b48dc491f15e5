"""`signalbox push`: files to the server, then the check, then what became of them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from control_plane.cli import declarations
from control_plane.cli.client import Client, Json, part
from control_plane.cli.command import Session, command
from control_plane.cli.failures import CommandError
from control_plane.cli.output import Output, size
from control_plane.errors import InvalidInputError, RefusedError, SignalboxError

CHUNK_BYTES: Final = 1024 * 1024
POLL_S: Final = 0.2
_NEEDS: Final = {
    "acceptance": "It is a program: know where it comes from, then push again with --accept-program.",
    "signature": "It does not say what it takes: push again with --input NAME:FP32:-1,3,224,224 "
    "for each input.",
}


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    command(app)(push)


def push(
    session: Session,
    path: Annotated[Path, typer.Argument(help="A file (.pt, .pt2) or a Hugging Face folder.")],
    model: Annotated[str, typer.Option("--model", help="Name of the model it becomes a version of.")],
    accept_program: Annotated[
        bool, typer.Option("--accept-program", help="Accept to run the program that the file is.")
    ] = False,
    meta: Annotated[list[str] | None, typer.Option(help="Metadata, key=value; may be repeated.")] = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="An input, NAME:DATATYPE:SIZES; may be repeated.")
    ] = None,
    label: Annotated[list[str] | None, typer.Option(help="A class name; may be repeated.")] = None,
    labels: Annotated[str | None, typer.Option(help="All class names, separated by commas.")] = None,
    handler: Annotated[str | None, typer.Option(help="Handler to serve it with.")] = None,
) -> None:
    """Upload a file or folder, have it checked, and register it as the next version of a model."""
    names = [*(labels.split(",") if labels else []), *(label or [])]
    body: Json = {"model": model, "details": declarations.metadata(meta or ()), "labels": names}
    body["accept_program"] = accept_program
    if handler is not None:
        body["handler"] = handler
    if inputs:
        body["signature"] = {"inputs": [_tensor(text) for text in inputs], "outputs": []}
    version = send(session.api, session.out, path, body)
    session.out.line(version["ref"])
    session.out.line(f"  {version['format']}, {size(version['size_bytes'])}, {version['digest']}")
    session.out.document(version)


def files_of(path: Path) -> dict[str, Path]:
    """The files to send, by the path each gets; a folder's hidden files stay behind.

    Raises InvalidInputError when there are none.
    """
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise InvalidInputError(f"there is no file or folder {path}")
    found = {
        inner.relative_to(path).as_posix(): inner
        for inner in sorted(path.rglob("*"))
        if inner.is_file() and not any(name.startswith(".") for name in inner.relative_to(path).parts)
    }
    if not found:
        raise InvalidInputError(f"the folder {path} holds no files")
    return found


def send(api: Client, out: Output, path: Path, declared: Json) -> Json:
    """Send *path*, wait for its check, and return the registered version.

    An upload that does not get there is cancelled. Raises RefusedError with file, reason and next step.
    """
    files = files_of(path)
    sizes = {name: file.stat().st_size for name, file in files.items()}
    body = {**declared, "files": [{"path": name, "size_bytes": size} for name, size in sizes.items()]}
    upload = api.post("/uploads", body)
    where = f"/uploads/{part(upload['id'])}"
    try:
        _send_files(api, out, where, files, sizes)
        api.post(f"{where}/complete")
        return _outcome(api, _checked(api, out, where))
    except (SignalboxError, CommandError, OSError, KeyboardInterrupt):
        _cancel(api, where)
        raise


def _send_files(api: Client, out: Output, where: str, files: dict[str, Path], sizes: dict[str, int]) -> None:
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=out.progress, disable=out.as_json) as progress:
        task = progress.add_task("sending", total=sum(sizes.values()))
        for name, file in files.items():
            chunks = _chunks(file, lambda count: progress.advance(task, count))
            api.put_bytes(f"{where}/files/{'/'.join(map(part, name.split('/')))}", chunks, sizes[name])


def _chunks(file: Path, advance: Callable[[int], Any]) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(CHUNK_BYTES):
            yield chunk
            advance(len(chunk))


def _checked(api: Client, out: Output, where: str) -> Json:
    with out.progress.status("checking"):
        while (upload := api.get(where))["state"] == "checking":
            time.sleep(POLL_S)  # the worker checks; REST has no event for it
    return upload


def _outcome(api: Client, upload: Json) -> Json:
    if upload["state"] == "registered":
        model, _, number = upload["version_ref"].partition("@")
        return api.get(f"/models/{part(model)}/versions/{part(number)}")
    if upload["state"] == "needs input":
        needs = upload["needs"]
        why = f" because {upload['reason']['message']}" if upload["reason"] else ""
        raise RefusedError(
            f"{upload['model_name']} is not registered: the check asks for {' and '.join(needs)}{why}",
            next_step=" ".join(_NEEDS.get(need, need) for need in needs),
            needs=list(needs),
        )
    reason = upload["reason"] or {"message": f"the upload is {upload['state']}", "code": upload["state"]}
    where = f"{reason['file']}: " if reason.get("file") else ""
    raise RefusedError(
        f"{where}{reason['message']}",
        next_step=reason.get("next_step"),
        reason=reason["code"],
        file=reason.get("file"),
    )


def _cancel(api: Client, where: str) -> None:
    """Take the upload back; one that has ended by itself stays as it is."""
    try:
        api.delete(where)
    except (SignalboxError, CommandError):
        return


def _tensor(text: str) -> Json:
    spec = declarations.tensor(text)
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
