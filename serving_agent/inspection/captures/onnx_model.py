"""ONNX graphs that give every value they compute, and names of the modules that their nodes came from."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from serving_agent.inspection import places
from serving_agent.inspection.captures.module_groups import NO_MODULE, OUTSIDE, Level, Part

SCOPES: Final = "pkg.torch.onnx.name_scopes"
CLASSES: Final = "pkg.torch.onnx.class_hierarchy"
STACK: Final = "pkg.torch.onnx.stack_trace"
UNKNOWN: Final = "module"
"""In the place of a module's class."""
UNSHOWN: Final = frozenset({"Constant", "Identity"})
"""Nodes that compute nothing."""
EDITED: Final = "__edited_"
"""Between a value's name and a number: the input that stands in its place."""


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value comes from in the original network."""

    stack: tuple[Level, ...] = ()
    source: str = ""

    @property
    def path(self) -> str:
        """Of the innermost module; empty where none is known."""
        return self.stack[-1].path if self.stack else ""


NOWHERE: Final = Origin()


class OnnxGraph:
    """A model as it is read from its file, without the contents of external files."""

    def __init__(self, path: Path) -> None:
        import onnx
        from onnx import inliner

        self.folder = path.parent
        model = onnx.load(path, load_external_data=False)
        self._model = inliner.inline_local_functions(model) if model.functions else model

    @property
    def nodes(self) -> Sequence[Any]:
        """Its nodes in order of running."""
        return list(self._model.graph.node)

    def origins(self) -> dict[str, Origin]:
        """Return where each value comes from, by its name."""
        return {name: origin_of(node) for node in self._model.graph.node for name in node.output if name}

    def parts(self, origins: dict[str, Origin]) -> list[Part]:
        """Return the nodes with their modules, and with who reads them."""
        readers: dict[str, set[int]] = defaultdict(set)
        for place, node in enumerate(self._model.graph.node):
            for name in read_by(node):
                readers[name].add(place)
        for output in self._model.graph.output:
            readers[output.name].add(OUTSIDE)
        parts = []
        for node in self._model.graph.node:
            users: set[int] = set().union(*(readers[name] for name in node.output if name))
            parts.append(Part(_origin(node, origins).stack, users))
        return parts

    def telling(self, wanted: Sequence[str], first: int | None = None) -> bytes:
        """Return a model whose outputs are the *wanted* values, of all nodes or of the *first* ones alone."""
        import onnx

        told = onnx.ModelProto()
        told.CopyFrom(self._model)
        known = {output.name: output for output in self._model.graph.output}
        if first is not None:
            del told.graph.node[first:]
        del told.graph.output[:]
        told.graph.output.extend(known.get(name) or onnx.ValueInfoProto(name=name) for name in wanted)
        return bytes(told.SerializeToString())

    def edit(self, name: str, kind: int, apart: Set[int], number: int) -> str:
        """Have all nodes but those at the places *apart* read a new input instead of *name*; return its name.

        kind: ONNX's number of the type of its elements.
        """
        import onnx

        stand_in = f"{name}{EDITED}{number}"
        for place, node in enumerate(self._model.graph.node):
            if place not in apart:
                _rename(node, name, stand_in)
        self._model.graph.input.append(onnx.helper.make_tensor_value_info(stand_in, kind, None))
        return stand_in


def values_of(nodes: Sequence[Any]) -> list[str]:
    """Return the names of all values that *nodes* compute."""
    return [name for node in nodes for name in node.output if name]


def read_by(node: Any) -> Iterator[str]:
    """Yield the names that *node* reads, in graphs of its own too."""
    yield from node.input
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                yield from read_by(inner)


def origin_of(node: Any) -> Origin:
    """Return what the exporter wrote of *node*: torch's own metadata, or the path in older ones' names."""
    said = {entry.key: entry.value for entry in node.metadata_props}
    if SCOPES not in said:
        return Origin(_stack_of_name(node.name))
    paths, classes = _listed(said[SCOPES])[:-1], _listed(said.get(CLASSES, "[]"))
    levels = []
    for depth, path in enumerate(paths):
        if path == NO_MODULE:
            return NOWHERE
        kind = classes[depth].rpartition(".")[2] if depth < len(classes) else UNKNOWN
        levels.append(Level(path, path.partition("@")[0], kind))
    return Origin(tuple(levels), places.of_stack(said.get(STACK, "")))


def _origin(node: Any, origins: dict[str, Origin]) -> Origin:
    return next((origins[name] for name in node.output if name in origins), NOWHERE)


def _stack_of_name(name: str) -> tuple[Level, ...]:
    """Read `/encoder/layer.0/attention/MatMul`, as the exporter by tracing names nodes."""
    if not name.startswith("/"):
        return ()
    path: list[str] = []
    levels = []
    for part in name.split("/")[1:-1]:
        if path and part.startswith(f"{path[-1]}."):  # a list's name comes again before its number
            path.pop()
        path.append(part)
        whole = ".".join(path)
        levels.append(Level(whole, whole, UNKNOWN))
    return tuple(levels)


def _rename(node: Any, old: str, new: str) -> None:
    for place, name in enumerate(node.input):
        if name == old:
            node.input[place] = new
    for attribute in node.attribute:
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
            for inner in graph.node:
                _rename(inner, old, new)


def _listed(text: str) -> list[str]:
    try:
        found = ast.literal_eval(text)
    except (SyntaxError, ValueError):
        return []
    return [str(each) for each in found] if isinstance(found, list) else []
