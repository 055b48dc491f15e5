"""Reading a deployments file: YAML to wishes, every complaint with its line and column.

The format is described in docs/reference/deployments.md.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

import yaml

from control_plane.domain.deployments import AliasWish, Deployments, DeploymentWish
from control_plane.domain.endpoint import EndpointGoal
from control_plane.domain.goal import Wish, check_wish
from control_plane.domain.names import check_alias, check_label, parse_version_ref
from control_plane.errors import InvalidInputError, TooLargeError
from control_plane.services import options_node
from control_plane.services.yaml_reader import Fields, Reader, suggestion

MAX_BYTES: Final = 256 * 1024
_MAX_SHOWN: Final = 10
_SERVING: Final = ("handler", "threads", "device", "memory", "options")
_TOP: Final = ("models", "deployments")
_MODEL: Final = (*_SERVING, "aliases")
_DEPLOYMENT: Final = ("endpoint", "version", "replicas", *_SERVING, "state")
_STATES: Final = {"running": EndpointGoal.RUNNING, "stopped": EndpointGoal.STOPPED}


def parse(text: str) -> Deployments:
    """Read a deployments file.

    Raises InvalidInputError whose message names line and column of the first faults and whose
    `details["problems"]` lists them all as {"line", "column", "message"}; TooLargeError beyond 256 KiB.
    """
    reader = Reader()
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


def _models(reader: Reader, node: yaml.Node | None) -> tuple[dict[str, Wish], list[AliasWish]]:
    defaults: dict[str, Wish] = {}
    aliases: list[AliasWish] = []
    if node is not None:
        for model, value in reader.fields(node, "models", None).items():
            reader.checked(value, lambda model=model: check_label("model", model))  # type: ignore[misc]
            fields = reader.fields(value, f"model {model!r}", _MODEL)
            defaults[model] = _wish(reader, value, fields)
            aliases.extend(_aliases(reader, model, fields))
    return defaults, aliases


def _aliases(reader: Reader, model: str, fields: Fields) -> list[AliasWish]:
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
    reader: Reader, node: yaml.Node | None, defaults: Mapping[str, Wish]
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


def _deployment(reader: Reader, item: yaml.Node, defaults: Mapping[str, Wish]) -> DeploymentWish | None:
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


def _state(reader: Reader, fields: Fields) -> EndpointGoal | None:
    text = reader.text(fields, "state") if "state" in fields else "running"
    if text is not None and text not in _STATES:
        reader.complain(
            fields["state"], f"state must be running or stopped{suggestion(text, tuple(_STATES))}"
        )
    return _STATES.get(text or "")


def _wish(reader: Reader, node: yaml.Node, fields: Fields) -> Wish:
    wish = Wish(
        replicas=reader.number(fields, "replicas"),
        threads=reader.number(fields, "threads"),
        device=reader.text(fields, "device"),
        handler=reader.text(fields, "handler"),
        memory_bytes=reader.size_bytes(fields, "memory"),
        options=options_node.read(reader, fields.get("options")),
    )
    reader.checked(node, lambda: check_wish(wish, cpu_count=os.cpu_count() or 1))
    return wish
