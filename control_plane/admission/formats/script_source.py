"""Reading the arguments of `forward` from TorchScript's source text, without evaluating any of it. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

MAX_HEADER_CHARS: Final = 65_536
NAME: Final = re.compile(r"[^\W\d]\w*")
OPENING: Final = "([{"
CLOSING: Final = ")]}"
FILE_WORDS: Final = re.compile(r"\b(from_file|read_file|write_file)\b")
"""Operators that read or write files of the machine they run on."""
CODE: Final = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""|'{3}(?:[^\\]|\\.)*?'{3}|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|\#[^\n]*'''
    r"|(?P<saving>(?<![\w.])(?:torch|ops)(?:\.\w+)*\.save)\("
    r"|(?<![\w.])(?:torch|ops)(?:\.\w+)+\("
    r"""|(?P<odd>(?<![\w.])(?:torch|ops)\b|["'\\])""",
    re.ASCII | re.DOTALL,
)
"""Text and comments, calls of operators, and operators named in any other way than to call them."""


class UnusualSourceError(ValueError):
    """The source is not as torch prints it, so operators could hide in it."""


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


def file_operator(source: str) -> str | None:
    """Return the first operator that reads or writes files; None where there is none.

    Torch prints operators as calls by their whole name (`torch.add(`, `ops.aten.add(`), which are all that
    is looked at. Raises UnusualSourceError where an operator is named otherwise: by an alias, with
    blanks in it, over several lines or by `getattr`.
    """
    named = FILE_WORDS.search(source)
    if named:
        return named[0]
    for found in CODE.finditer(source):
        if found["odd"]:
            line = source.count("\n", 0, found.start()) + 1
            raise UnusualSourceError(f"torch does not write {found['odd']!r} as in line {line}")
        if found["saving"]:
            return found["saving"]
    return None


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
