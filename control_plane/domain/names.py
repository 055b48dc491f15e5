"""Names: DNS labels for models, endpoints and aliases, and `model@N` references to versions."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from control_plane.errors import InvalidInputError

MAX_LABEL_CHARS: Final = 63
MAX_VERSION_NUMBER: Final = 999_999_999
_LABEL: Final = re.compile(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?")
_REF: Final = re.compile(r"(?P<model>[^@]+)@(?P<which>.+)")


def check_label(kind: str, name: str) -> str:
    """Return *name* if it is a DNS label (RFC 1123: a-z, 0-9 and inner hyphens, at most 63 characters).

    kind: what is named, for the sentence ("model", "endpoint", "alias"). Raises InvalidInputError.
    """
    if len(name) > MAX_LABEL_CHARS or not _LABEL.fullmatch(name):
        raise InvalidInputError(
            f"{kind} name {name!r} is not usable: it is part of addresses",
            next_step=f"Use 1 to {MAX_LABEL_CHARS} lower-case letters, digits and hyphens, "
            "starting and ending with a letter or digit.",
        )
    return name


def check_alias(alias: str) -> str:
    """Return *alias* if it is a DNS label that cannot be taken for a number. Raises InvalidInputError."""
    if alias.isdecimal():
        raise InvalidInputError(
            f"alias name {alias!r} is not usable: it reads as a version's number",
            next_step="Use a name with a letter in it.",
        )
    return check_label("alias", alias)


@dataclass(frozen=True, slots=True)
class VersionRef:
    """A version's name: `digits@2`, or through an alias: `digits@champion`."""

    model: str
    which: int | str

    def __str__(self) -> str:
        return f"{self.model}@{self.which}"


def parse_version_ref(text: str) -> VersionRef:
    """Read `model@N` or `model@alias`. Raises InvalidInputError."""
    match = _REF.fullmatch(text.strip())
    if match is None:
        raise InvalidInputError(
            f"{text!r} does not name a version", next_step="Write model@number, for example digits@2."
        )
    model = check_label("model", match["model"])
    which = match["which"]
    if which.isdecimal() and which.isascii():
        return VersionRef(model, _number(which))
    return VersionRef(model, check_label("alias", which))


def _number(digits: str) -> int:
    if len(digits) > len(str(MAX_VERSION_NUMBER)):
        raise InvalidInputError(f"{digits[:20]}… is no version's number")
    return int(digits)
