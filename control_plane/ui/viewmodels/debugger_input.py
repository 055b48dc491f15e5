"""What a debugger run is given: ways to choose it, files by input, words. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import Any, Final

from control_plane.domain.debugging import CaptureView, InputChoices
from control_plane.errors import InvalidInputError
from control_plane.ui.viewmodels import playground, quantities
from control_plane.ui.viewmodels.debugger import inputs_words
from serving_agent.contract.signature import Signature

EXAMPLE, CAPTURED, JSON, FILE, TEXT, RANDOM = "Example", "Captured", "JSON", "File", "Text", "Random"
MAX_LINK_CHARS: Final = 2_000
"""An input longer than this as JSON is not put into an address."""


def ways(choices: InputChoices) -> tuple[str, ...]:
    """How an input can be given, the easiest first."""
    return (
        *((EXAMPLE,) if choices.examples else ()),
        *((TEXT,) if choices.text_inputs else ()),
        JSON,
        FILE,
        RANDOM,
        CAPTURED,
    )


def way_of(*, example: str | None, endpoint: str | None, json: str | None) -> str | None:
    """The way that the address names."""
    return EXAMPLE if example else CAPTURED if endpoint else JSON if json else None


def beside(refs: Sequence[str], a: str | None) -> list[str]:
    """Versions to stand beside *a*: those of its model first."""
    model = (a or "").partition("@")[0]
    return sorted(refs, key=lambda ref: ref.partition("@")[0] != model)


def whole(text: str | None, low: int, high: int) -> int:
    """A whole number of the address, brought between *low* and *high*."""
    try:
        return max(low, min(high, int(text or "")))
    except ValueError:
        return low


def json_start(signature: Signature) -> str:
    """What the JSON field starts with: one row of neutral values."""
    body = playground.request_body(signature, playground.example_row(signature, ()))
    return json.dumps(body["input"])


def bare_input(value: Any) -> Any:
    """The input itself where somebody wrote the whole body of a request."""
    if isinstance(value, Mapping) and set(value) <= {"input", "parameters"} and "input" in value:
        return value["input"]
    return value


def link_of(body: Mapping[str, Any]) -> dict[str, str] | None:
    """A request's input as part of an address; None where it is too long for one."""
    if "input" not in body:
        return None
    text = json.dumps(body["input"], separators=(",", ":"))
    return {"json": text} if len(text) <= MAX_LINK_CHARS else None


def npy_files(choices: InputChoices, files: Sequence[tuple[str, bytes]]) -> dict[str, bytes]:
    """`.npy` files by the input that each is for. Raises InvalidInputError."""
    names = [spec.name for spec in choices.signature.inputs]
    if len(names) == 1 and len(files) == 1:
        return {"": files[0][1]}
    given = {PurePath(name).stem: content for name, content in files}
    missing = [name for name in names if name not in given]
    if missing or len(given) != len(names):
        raise InvalidInputError(
            f"{choices.ref} takes {quantities.count(len(names), 'input')}, and {', '.join(missing) or 'one'} "
            "has no file of its name",
            next_step=f"Choose {', '.join(f'{name}.npy' for name in names)} together.",
        )
    return {name: given[name] for name in names}


def file_words(choices: InputChoices) -> str:
    """What files can be given."""
    specs = ", ".join(
        f"{spec.name} {spec.datatype} {playground.shape_words(spec)}" for spec in choices.signature.inputs
    )
    several = ", one an input under its name" if len(choices.signature.inputs) > 1 else ""
    pictures = ", or a PNG or JPEG, which is scaled to the input" if choices.image_inputs else ""
    return f"A NumPy file (.npy){several}{pictures}. The version takes {specs}."


def capture_words(capture: CaptureView, zone: str | None) -> str:
    """A kept request as an entry of a list."""
    failed = f" · {capture.error}" if capture.error else ""
    when = quantities.clock(capture.at, zone)
    why = "sampled" if capture.why == "sampling" else "of a rollout"
    return f"{when} · {inputs_words(capture.inputs)}{failed} · {why} · {capture.request_id}"
