"""Reading the arguments of `forward` from TorchScript's source text, without evaluating any of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_HEADER_CHARS: Final = 65_536
NAME: Final = re.compile(r"[^\W\d]\w*")
OPENING: Final = "([{"
CLOSING: Final = ")]}"


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument of a method."""

    name: str
    type: str
    """As the source says, e.g. `Tensor` or `List[Tensor]`."""
    has_default: bool


def forward_arguments(source: str, class_name: str) -> tuple[Argument, ...] | None:
    """Return the arguments of `forward` after `self`, or None where the class has no readable one."""
    body = _class_body(source, class_name)
    start = body.find("\n  def forward(")
    if start < 0:
        return None
    header = body[start + len("\n  def forward(") :][:MAX_HEADER_CHARS]
    end = _closing(header)
    if end is None:
        return None
    arguments = [_argument(text) for text in _split(header[:end])][1:]
    return None if None in arguments else tuple(argument for argument in arguments if argument)


def _class_body(source: str, class_name: str) -> str:
    """Return the text from the class's line to the next line that is not indented."""
    start = re.search(rf"^class {re.escape(class_name)}\(", source, re.MULTILINE)
    if start is None:
        return ""
    rest = source[start.start() :]
    end = re.search(r"\n(?=[^\s])", rest)
    return rest[: end.start()] if end else rest


def _closing(text: str) -> int | None:
    """Return where the bracket closes that was opened right before *text*."""
    depth = 1
    for index, char in enumerate(text):
        depth += (char in OPENING) - (char in CLOSING)
        if depth == 0:
            return index
    return None


def _split(text: str) -> list[str]:
    """Split at the commas outside of all brackets; a trailing comma adds nothing."""
    parts, depth, start = [], 0, 0
    for index, char in enumerate(text):
        depth += (char in OPENING) - (char in CLOSING)
        if char == "," and depth == 0:
            parts.append(text[start:index])
            start = index + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()]


def _argument(text: str) -> Argument | None:
    declaration, equals, _default = text.partition("=")
    name, _, type_ = declaration.partition(":")
    if NAME.fullmatch(name.strip()) is None:
        return None
    return Argument(name.strip(), " ".join(type_.split()) or "Tensor", bool(equals))
