"""The `options` of a deployments file as a change of serving options."""

from __future__ import annotations

from typing import Any, Final

import yaml

from control_plane.domain.options import Patch, check_patch
from control_plane.services.yaml_reader import Fields, Reader
from serving_agent.contract.options import Batching, Cache, Execution, Sampling, ServingOptions

_SECTIONS: Final = {
    "batching": Batching.__struct_fields__,
    "cache": Cache.__struct_fields__,
    "execution": Execution.__struct_fields__,
    "sampling": Sampling.__struct_fields__,
}
_NAMES: Final = ServingOptions.__struct_fields__


def read(reader: Reader, node: yaml.Node | None) -> Patch | None:
    """The change that *node* asks for, None when there is no node; complaints go to *reader*.

    The word `default` in place of all options or of a section sets each option there to its default.

    Every option is held against its own bounds here; what two options say of each other is checked when they
    are merged into what the endpoint has.
    """
    if node is None:
        return None
    if _is_default(node):
        return {name: _defaults(name) for name in _NAMES}
    fields = reader.fields(node, "options", _NAMES)
    patch: dict[str, Any] = {}
    for name, value in fields.items():
        if name in _SECTIONS:
            patch[name] = _section(reader, name, value)
        else:
            patch[name] = _leaf(reader, value, reader.value(value), name)
    return patch


def _section(reader: Reader, section: str, node: yaml.Node) -> dict[str, Any]:
    if _is_default(node):
        return dict.fromkeys(_SECTIONS[section])
    fields = reader.fields(node, section, _SECTIONS[section])
    return {
        name: _leaf(reader, value, _read(reader, fields, name), section, name)
        for name, value in fields.items()
    }


def _is_default(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.value == "default"


def _defaults(name: str) -> dict[str, None] | None:
    """The change that sets *name* to its default, option by option: another may be merged over it."""
    return dict.fromkeys(_SECTIONS[name]) if name in _SECTIONS else None


def _read(reader: Reader, fields: Fields, name: str) -> Any:
    """A leaf's value; sizes may have a unit."""
    return reader.size_bytes(fields, name) if name == "max_bytes" else reader.value(fields[name])


def _leaf(reader: Reader, node: yaml.Node, value: Any, *path: str) -> Any:
    """*value* after checking it by itself, with its place in the file."""
    change: Any = value
    for name in reversed(path):
        change = {name: change}
    reader.checked(node, lambda: check_patch(change))
    return value
