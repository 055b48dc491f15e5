"""What people type for `debug`, as REST takes it."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from control_plane.cli.client import Client, Json, part
from control_plane.debugging import edits as edit_rules
from control_plane.errors import InvalidInputError, NotFoundError

SENDING_TIMEOUT_S: Final = 300.0
_ONE: Final = "Give one of --example, --input, --npy, --image, --text, --random and --captured."


def source(
    *,
    example: int | None,
    json_file: Path | None,
    npy: Sequence[str],
    image: str | None,
    text: str | None,
    random: int | None,
    capture: Json | None = None,
) -> Json:
    """Where the input comes from: the first example where nothing is said. Raises InvalidInputError."""
    chosen: list[Json] = []
    if example is not None:
        chosen.append({"kind": "example", "number": example})
    if json_file is not None:
        chosen.append({"kind": "json", "input": _input_of(json_file)})
    if npy:
        chosen.append({"kind": "npy", "files": dict(_named_file(each) for each in npy)})
    if image is not None:
        name, content = _named_file(image)
        chosen.append({"kind": "image", "content": content, "name": name})
    if text is not None:
        chosen.append({"kind": "text", "text": text})
    if random is not None:
        chosen.append({"kind": "random", "seed": random})
    if capture is not None:
        chosen.append(capture)
    if len(chosen) > 1:
        raise InvalidInputError("a run has one input, and several are named", next_step=_ONE)
    return chosen[0] if chosen else {"kind": "example", "number": 1}


def captured(api: Client, endpoint: str) -> Json:
    """The newest whole request that the endpoint's agents keep. Raises NotFoundError."""
    kept = api.get_list(f"/debug-runs/captures?endpoint={part(endpoint)}")
    newest = next((each for each in kept if each["complete"]), None)
    if newest is None:
        raise NotFoundError(
            f"{endpoint} keeps no {'request with all of its inputs' if kept else 'request'}",
            next_step="Take their inputs out of the serving option `sampling.redact`, or send smaller ones."
            if kept
            else "Have some kept: see the serving option `sampling`, or start a rollout.",
        )
    return {"kind": "capture", **{name: newest[name] for name in ("endpoint", "agent", "seq", "why")}}


def edits(texts: Sequence[str]) -> list[Json]:
    """Edits as they are written on the command line. Raises InvalidInputError."""
    parsed = [edit_rules.parse(text) for text in texts]
    return [
        {"point": each.point, "tensor": each.tensor, "index": list(each.index), "value": each.value}
        for each in parsed
    ]


def _input_of(file: Path) -> Any:
    """`input` of a body of `/predict`, or the whole file where it is none."""
    try:
        read = json.loads(file.read_bytes())
    except ValueError as error:
        raise InvalidInputError(f"{file} is not JSON: {error}") from error
    return read["input"] if isinstance(read, dict) and set(read) == {"input"} else read


def _named_file(text: str) -> tuple[str, str]:
    """(name, content as base64) of `NAME=FILE`, or of a file alone, whose name is empty."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).exists():
        name, path = "", text
    return name, base64.b64encode(Path(path).read_bytes()).decode("ascii")
