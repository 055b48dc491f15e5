"""Walking the nodes of a YAML file: every complaint with its line and column, all of them at once."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import yaml

from control_plane.errors import InvalidInputError

_SIZE: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?(B|KiB|MiB|GiB|TiB)?")
_UNIT_BYTES: Final = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}

T = TypeVar("T")
Fields = Mapping[str, yaml.Node]


class Reader:
    """Walks the nodes of one file and collects what is wrong, so that all of it can be said at once."""

    def __init__(self) -> None:
        self.problems: list[dict[str, Any]] = []

    def complain(self, node: yaml.Node, message: str) -> None:
        """Note what is wrong at *node*."""
        mark = node.start_mark
        self.problems.append({"line": mark.line + 1, "column": mark.column + 1, "message": message})

    def fields(self, node: yaml.Node, what: str, known: tuple[str, ...] | None) -> dict[str, yaml.Node]:
        """The entries of a mapping; *known* keys only, each once."""
        if not isinstance(node, yaml.MappingNode):
            self.complain(node, f"{what} must be a mapping of names to values")
            return {}
        found: dict[str, yaml.Node] = {}
        for key_node, value in node.value:
            key = str(key_node.value)
            if known is not None and key not in known:
                self.complain(key_node, f"{what} has no {key!r}{suggestion(key, known)}")
            elif key in found:
                self.complain(key_node, f"{key!r} stands here twice")
            else:
                found[key] = value
        return found

    def items(self, node: yaml.Node, what: str) -> list[yaml.Node]:
        """The items of a list."""
        if not isinstance(node, yaml.SequenceNode):
            self.complain(node, f"{what} must be a list")
            return []
        return list(node.value)

    def checked(self, node: yaml.Node, check: Callable[[], T]) -> T | None:
        """What *check* returns; None after noting its complaint."""
        try:
            return check()
        except InvalidInputError as error:
            self.complain(node, error.message + (f" ({error.next_step})" if error.next_step else ""))
            return None

    def text(self, fields: Fields, name: str) -> str | None:
        """A text."""
        node = fields.get(name)
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or not node.tag.endswith(":str"):
            self.complain(node, f"{name} must be a text; put quotes around it")
            return None
        return str(node.value)

    def number(self, fields: Fields, name: str) -> int | None:
        """A whole number, written in decimal digits."""
        node = fields.get(name)
        if node is None:
            return None
        if not isinstance(node, yaml.ScalarNode) or not re.fullmatch(r"\d{1,9}", str(node.value)):
            self.complain(node, f"{name} must be a whole number")
            return None
        return int(node.value)

    def size_bytes(self, fields: Fields, name: str) -> int | None:
        """An amount of memory; 0 stands for "default"."""
        node = fields.get(name)
        if node is None:
            return None
        text = str(node.value)
        match = _SIZE.fullmatch(text)
        if text != "default" and match is None:
            self.complain(node, f'{name} must be like 512MiB or 2GiB, or "default"')
        return int(float(match[1]) * _UNIT_BYTES[match[2]]) if match else 0

    def value(self, node: yaml.Node) -> Any:
        """Any plain value as YAML means it; the word `default` is None. None after noting a complaint."""
        if isinstance(node, yaml.ScalarNode) and node.value == "default":
            return None
        try:
            return yaml.SafeLoader("").construct_object(node, deep=True)
        except (yaml.YAMLError, ValueError, RecursionError):
            self.complain(node, "this is not a plain value")
            return None


def suggestion(word: str, known: tuple[str, ...]) -> str:
    """What somebody who wrote *word* may have meant, to follow a complaint."""
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
