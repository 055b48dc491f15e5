"""`signalbox push`: files to the server, then the check, then what became of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from control_plane.cli import declarations, sending
from control_plane.cli.client import Client, Json, part
from control_plane.cli.command import Session, command
from control_plane.cli.failures import CommandError
from control_plane.cli.output import Output, size
from control_plane.domain.file_paths import is_hidden
from control_plane.domain.references import is_url
from control_plane.domain.upload import declaration_hash
from control_plane.domain.views import Reason
from control_plane.errors import InvalidInputError, RefusedError, SignalboxError

POLL_S: Final = 0.2
_NEEDS: Final = {
    "acceptance": "It is a program: know where it comes from, then push again with --accept-program.",
    "signature": "It does not say what it takes: push again with --input NAME:FP32:-1,3,224,224 "
    "for each input.",
    "architecture": "They are weights alone: push again with --architecture module:Class (one that "
    "SIGNALBOX_ARCHITECTURES lists) and --arguments, or with --config config.json of a transformers model.",
}


def add_to(app: typer.Typer) -> None:
    """Register this command."""
    command(app)(push)


def push(
    session: Session,
    model: Annotated[str, typer.Option("--model", help="Name of the model it becomes a version of.")],
    path: Annotated[
        Path | None, typer.Argument(help="A file (.pt, .pt2, .safetensors) or a folder of one model.")
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option("--from", help="A path or URL that Signalbox fetches itself, in place of PATH."),
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", help="Go on with this unfinished upload, by its id.")
    ] = None,
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
    architecture: Annotated[
        str | None, typer.Option(help="The network of bare weights, module:Class.")
    ] = None,
    arguments: Annotated[
        str | None, typer.Option(help="What that network is built with, as a JSON object.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="The config.json of bare weights of a transformers model.")
    ] = None,
) -> None:
    """Upload a file or folder, have it checked, and register it as the next version of a model."""
    if (path is None) == (reference is None):
        raise InvalidInputError("name either a PATH to send or a place to fetch from with --from")
    names = [*(labels.split(",") if labels else []), *(label or [])]
    body: Json = {"model": model, "details": declarations.metadata(meta or ()), "labels": names}
    body["accept_program"] = accept_program
    if handler is not None:
        body["handler"] = handler
    if network := declarations.network(architecture, arguments, config):
        body["architecture"] = network
    if inputs:
        body["signature"] = {"inputs": [_tensor(text) for text in inputs], "outputs": []}
    if path is not None:
        version = send(session.api, session.out, path, body, resume=resume)
    else:
        version = fetch(session.api, session.out, str(reference), body)
    session.out.line(version["ref"])
    session.out.line(f"  {version['format']}, {size(version['size_bytes'])}, {version['digest']}")
    session.out.document(version)


def files_of(path: Path) -> dict[str, Path]:
    """The files to send, by the path each gets; hidden files stay behind but for those of checkpoints.

    Raises InvalidInputError when there are none.
    """
    if path.is_file():
        return {path.name: path}
    if not path.is_dir():
        raise InvalidInputError(f"there is no file or folder {path}")
    found = {
        inner.relative_to(path).as_posix(): inner
        for inner in sorted(path.rglob("*"))
        if inner.is_file() and not is_hidden(inner.relative_to(path).as_posix())
    }
    if not found:
        raise InvalidInputError(f"the folder {path} holds no files")
    return found


def send(api: Client, out: Output, path: Path, declared: Json, *, resume: str | None = None) -> Json:
    """Send *path*, wait for its check, and return the registered version.

    An upload of the same files that was interrupted is gone on with, or the one that *resume* names. An
    interruption leaves what arrived on the server. Raises RefusedError with file, reason and next step.
    """
    files = files_of(path)
    upload = _upload(api, out, {**declared, "files": [_declared(*each) for each in files.items()]}, resume)
    where = f"/uploads/{part(upload['id'])}"
    try:
        sending.complete(api, upload["id"], _send_files(api, out, upload, files))
    except (CommandError, SignalboxError, KeyboardInterrupt):
        out.note(f"What arrived is kept for a day. Go on with: the same command, or --resume {upload['id']}")
        raise
    return _outcome(api, _checked(api, out, where))


def fetch(api: Client, out: Output, reference: str, declared: Json) -> Json:
    """Have Signalbox fetch *reference*, wait for its check, and return the registered version."""
    if not is_url(reference):
        reference = str(Path(reference).absolute())
    upload = api.post("/uploads", {**declared, "reference": reference})
    where = f"/uploads/{part(upload['id'])}"
    with out.progress.status("fetching") as status:
        while (upload := api.get(where))["state"] == "receiving":
            job = api.get(f"/jobs/{part(upload['job_id'])}")
            left = f", {job['time_left_s']:.0f} s left" if job["time_left_s"] is not None else ""
            status.update(f"{job['stage'] or 'waiting for a worker'} {job['progress']:.0%}{left}")
            time.sleep(POLL_S)  # the worker fetches; REST has no event for it
    return _outcome(api, _checked(api, out, where))


def _declared(name: str, file: Path) -> Json:
    seen = file.stat()
    return {"path": name, "size_bytes": seen.st_size, "modified_ms": seen.st_mtime_ns // 1_000_000}


def _upload(api: Client, out: Output, body: Json, resume: str | None) -> Json:
    """The upload to send to: the one named, the caller's unfinished one of the same, or a new one."""
    found: Json | None
    if resume is not None:
        found = api.get(f"/uploads/{part(resume)}")
        if found is not None and (other := _other(found, body)):
            raise InvalidInputError(
                f"upload {resume} cannot be resumed: {other}",
                next_step="Push without --resume to begin a new upload.",
            )
    else:
        waiting = api.get("/uploads", state="receiving", page_size=100)["items"]
        own = (each for each in waiting if each["created_by"] == api.actor)
        found = next((each for each in own if _other(each, body) is None), None)
    if found is None:
        return api.post("/uploads", body)
    out.note(f"Going on with upload {found['id']}: {size(found['received_bytes'])} have arrived already")
    return found


def _other(upload: Json, body: Json) -> str | None:
    """Why *upload* is another one than *body* declares, if it is; sizes and times tell files apart."""
    if upload["reference"] is not None:
        return "Signalbox fetches its files itself"
    if upload["model_name"] != body["model"]:
        return f"it is of the model {upload['model_name']}"
    if _identities(upload["files"]) != _identities(body["files"]):
        return "the files have changed"
    if (upload["program_accepted_by"] is not None) != body["accept_program"]:
        return "it began with another answer to --accept-program"
    if upload["declaration_sha256"] != _declaration_hash(body):
        return "it began with other metadata, labels, inputs, handler or architecture"
    return None


def _declaration_hash(body: Json) -> str:
    return declaration_hash(
        details=body["details"],
        labels=body["labels"],
        handler=body.get("handler"),
        architecture=body.get("architecture"),
        signature=body.get("signature"),
    )


def _identities(files: list[Json]) -> set[tuple[str, int, int | None]]:
    return {(file["path"], file["size_bytes"], file["modified_ms"]) for file in files}


def _send_files(api: Client, out: Output, upload: Json, files: dict[str, Path]) -> dict[str, str]:
    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    sent = {file["path"]: file["received_bytes"] for file in upload["files"]}
    with Progress(*columns, console=out.progress, disable=out.as_json) as progress:
        task = progress.add_task("sending", total=upload["size_bytes"], completed=sum(sent.values()))

        def tell(path: str, count: int) -> None:
            sent[path] = count
            progress.update(task, completed=sum(sent.values()))

        return sending.send_all(api, upload, files, tell)


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
    refused = Reason(**reason)
    raise RefusedError(refused.sentence, next_step=refused.next_step, reason=refused.code, file=refused.file)


def _tensor(text: str) -> Json:
    spec = declarations.tensor(text)
    return {"name": spec.name, "datatype": spec.datatype, "shape": list(spec.shape)}
