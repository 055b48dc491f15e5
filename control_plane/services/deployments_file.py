"""Reading a deployments file: YAML to wishes, every complaint with its line and column.

The format is described in docs/reference/deployments.md.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

import yaml

from control_plane.domain.deployments import AliasWish, Deployments, DeploymentWish
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.goal import Wish, check_wish
from control_plane.domain.names import check_alias, check_label, parse_version_ref
from control_plane.errors import InvalidInputError, TooLargeError

MAX_BYTES: Final = 256 * 1024
_MAX_SHOWN: Final = 10
_MEMORY: Final = re.compile(r"(\d{1,15}(?:\.\d{1,6})?) ?(B|KiB|MiB|GiB|TiB)?")
_UNIT_BYTES: Final = {None: 1, "B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40}
_SERVING: Final = ("handler", "threads", "device", "memory")
_TOP: Final = ("models", "deployments")
_MODEL: Final = (*_SERVING, "aliases")
_DEPLOYMENT: Final = ("endpoint", "version", "replicas", *_SERVING, "state")
_STATES: Final = {"running": EndpointGoal.RUNNING, "stopped": EndpointGoal.STOPPED}

T = TypeVar("T")
Fields = Mapping[str, yaml.Node]


class _Reader:
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
                self.complain(key_node, f"{what} has no {key!r}{_suggestion(key, known)}")
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

    def memory_bytes(self, fields: Fields) -> int | None:
        """An amount of memory; 0 stands for "default"."""
        node = fields.get("memory")
        if node is None:
            return None
        text = str(node.value)
        match = _MEMORY.fullmatch(text)
        if text != "default" and match is None:
            self.complain(node, 'memory must be like 512MiB or 2GiB, or "default"')
        return int(float(match[1]) * _UNIT_BYTES[match[2]]) if match else 0


def parse(text: str) -> Deployments:
    """Read a deployments file.

    Raises InvalidInputError whose message names line and column of the first faults and whose
    `details["problems"]` lists them all as {"line", "column", "message"}; TooLargeError beyond 256 KiB.
    """
    reader = _Reader()
    root = _compose(text)
    fields = reader.fields(root, "the file", _TOP) if root is not None else {}
    defaults, aliases = _models(reader, fields.get("models"))
    deployments = _deployments(reader, fields.get("deployments"), defaults)
    if reader.problems:
        raise _invalid(reader.problems)
    return Deployments(tuple(aliases), tuple(deployments))


def _compose(text: str) -> yaml.Node | None:
    if len(text.encode(errors="replace")) > MAX_BYTES:
        raise TooLargeError(f"The file is larger than {MAX_BYTES // 1024} KiB")
    try:
        node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = {"line": mark.line + 1, "column": mark.column + 1} if mark else {"line": 1, "column": 1}
        raise _invalid([{**place, "message": error.problem or "this is not YAML"}]) from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _invalid([{"line": 1, "column": 1, "message": "this is not YAML"}]) from error
    return node


def _invalid(problems: list[dict[str, Any]]) -> InvalidInputError:
    shown = [f"line {each['line']}, column {each['column']}: {each['message']}" for each in problems]
    more = f"; and {len(shown) - _MAX_SHOWN} more" if len(shown) > _MAX_SHOWN else ""
    return InvalidInputError(
        "; ".join(shown[:_MAX_SHOWN]) + more,
        next_step="Correct the file and apply it again.",
        problems=problems,
    )


def _models(reader: _Reader, node: yaml.Node | None) -> tuple[dict[str, Wish], list[AliasWish]]:
    defaults: dict[str, Wish] = {}
    aliases: list[AliasWish] = []
    if node is not None:
        for model, value in reader.fields(node, "models", None).items():
            reader.checked(value, lambda model=model: check_label("model", model))  # type: ignore[misc]
            fields = reader.fields(value, f"model {model!r}", _MODEL)
            defaults[model] = _wish(reader, value, fields)
            aliases.extend(_aliases(reader, model, fields))
    return defaults, aliases


def _aliases(reader: _Reader, model: str, fields: Fields) -> list[AliasWish]:
    node = fields.get("aliases")
    if node is None:
        return []
    wishes = []
    entries = reader.fields(node, "aliases", None)
    for alias, value in entries.items():
        name = reader.checked(value, lambda alias=alias: check_alias(alias))  # type: ignore[misc]
        number = reader.number(entries, alias)
        if name is not None and number is not None:
            wishes.append(AliasWish(model, name, number, value.start_mark.line + 1))
    return wishes


def _deployments(
    reader: _Reader, node: yaml.Node | None, defaults: Mapping[str, Wish]
) -> list[DeploymentWish]:
    found: dict[str, DeploymentWish] = {}
    for item in reader.items(node, "deployments") if node is not None else ():
        wish = _deployment(reader, item, defaults)
        if wish is not None and wish.endpoint in found:
            reader.complain(
                item, f"endpoint {wish.endpoint!r} is on line {found[wish.endpoint].line} already"
            )
        elif wish is not None:
            found[wish.endpoint] = wish
    return list(found.values())


def _deployment(reader: _Reader, item: yaml.Node, defaults: Mapping[str, Wish]) -> DeploymentWish | None:
    fields = reader.fields(item, "a deployment", _DEPLOYMENT)
    for name in ("endpoint", "version"):
        if name not in fields and isinstance(item, yaml.MappingNode):
            reader.complain(item, f"a deployment needs {name!r}")
    endpoint, ref = reader.text(fields, "endpoint"), reader.text(fields, "version")
    wish = _wish(reader, item, fields)
    state = _state(reader, fields)
    if endpoint is None or ref is None or state is None:
        return None
    reader.checked(fields["endpoint"], lambda: check_label("endpoint", endpoint))
    version = reader.checked(fields["version"], lambda: parse_version_ref(ref))
    if version is None:
        return None
    merged = wish.over(defaults.get(version.model, Wish()))
    return DeploymentWish(endpoint, version, merged, state, item.start_mark.line + 1)


def _state(reader: _Reader, fields: Fields) -> EndpointGoal | None:
    text = reader.text(fields, "state") if "state" in fields else "running"
    if text is not None and text not in _STATES:
        reader.complain(
            fields["state"], f"state must be running or stopped{_suggestion(text, tuple(_STATES))}"
        )
    return _STATES.get(text or "")


def _wish(reader: _Reader, node: yaml.Node, fields: Fields) -> Wish:
    wish = Wish(
        replicas=reader.number(fields, "replicas"),
        threads=reader.number(fields, "threads"),
        device=reader.text(fields, "device"),
        handler=reader.text(fields, "handler"),
        memory_bytes=reader.memory_bytes(fields),
    )
    reader.checked(node, lambda: check_wish(wish, cpu_count=os.cpu_count() or 1))
    return wish


def _suggestion(word: str, known: tuple[str, ...]) -> str:
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known are {', '.join(known)}"
