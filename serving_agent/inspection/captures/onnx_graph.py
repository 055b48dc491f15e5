"""ONNX graphs: every value that their nodes compute, as outputs of the same graph."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from serving_agent import scratch
from serving_agent.formats.base import only_file
from serving_agent.formats.graph import GraphModel, running
from serving_agent.formats.onnx import ENGINE, FORMAT, session_options
from serving_agent.inspection.captures import base, onnx_session
from serving_agent.inspection.captures.lab_wrappers import around
from serving_agent.inspection.captures.module_groups import Group, groups, is_whole, returned
from serving_agent.inspection.captures.onnx_model import NOWHERE, UNSHOWN, OnnxGraph, Origin, values_of
from serving_agent.inspection.captures.onnx_session import Level
from serving_agent.inspection.points import Points, Seen
from serving_agent.model_server import ModelServer

if TYPE_CHECKING:
    from torch import Tensor

SUFFIX: Final = ".onnx"
AS_IT_IS: Final[Level] = "ORT_DISABLE_ALL"
AS_AGENTS: Final[Level] = "ORT_ENABLE_ALL"
JOINED: Final = (
    "ONNX Runtime joins operators when it opens the graph; points are those of the joined graph, as agents "
    "run it."
)


class OnnxCapture:
    """Watches graphs of ONNX Runtime."""

    name = "onnx_graph"
    level: base.Level = "node"

    def applies_to(self, server: ModelServer) -> bool:
        """Handlers that hold a graph of ONNX."""
        return server.context.format.name == FORMAT.name and base.graph_model(server) is not None

    @contextmanager
    def watching(self, server: ModelServer, points: Points) -> Iterator[None]:
        """Run a graph that gives all its values in the place of the agent's own."""
        with base.graph_run_by(server, lambda model: _Told(server, model, points)):
            yield

    def unwatched(self, server: ModelServer) -> None:
        """Agents run it so."""
        del server


class _Told:
    """Runs the graph once for each call, and once more after each edit."""

    def __init__(self, server: ModelServer, model: GraphModel, points: Points) -> None:
        self._path = only_file(server.context.artifact_dir, SUFFIX)
        self._inputs = [spec.name for spec in model.tensors.inputs]
        self._outputs = [spec.name for spec in model.tensors.outputs]
        self._plain = model.run
        self._points = points

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        feeds: dict[str, Any] = dict(zip(self._inputs, tensors, strict=True))
        with self._points.clock.aside():
            graph, origins, level = self._chosen(tensors, feeds)
        with running(ENGINE):
            return _Walk(graph, origins, level, self._points).run(feeds, self._outputs)

    def _chosen(
        self, tensors: Sequence[Tensor], feeds: dict[str, Any]
    ) -> tuple[OnnxGraph, dict[str, Origin], Level]:
        """Return the graph that gives the agent's outputs: the file's own, or as ONNX Runtime joins it."""
        graph = OnnxGraph(self._path)
        origins = graph.origins()
        deepest = max((origin.stack for origin in origins.values()), key=len, default=())
        self._points.around = around((level.path, level.kind) for level in deepest)
        if not deepest:
            self._points.note(base.NO_LAYERS)
        try:
            expected = self._plain(tensors)
        except Exception:  # noqa: BLE001  the graph fails on these inputs: the walk shows where
            return graph, origins, AS_AGENTS
        if self._leads_to(expected, graph, feeds, AS_AGENTS):
            return graph, origins, AS_AGENTS
        joined = joined_graph(self._path)
        if joined is not None and self._leads_to(expected, joined, feeds, AS_IT_IS):
            self._points.note(JOINED)
            return joined, origins, AS_IT_IS
        return graph, origins, AS_AGENTS

    def _leads_to(
        self, expected: Sequence[Tensor], graph: OnnxGraph, feeds: dict[str, Any], level: Level
    ) -> bool:
        wanted = list(dict.fromkeys([*self._outputs, *values_of(graph.nodes)]))
        values = onnx_session.run(graph, feeds, wanted, level)
        return all(
            base.same_bits(values.get(name), tensor)
            for name, tensor in zip(self._outputs, expected, strict=True)
        )


def joined_graph(path: Path) -> OnnxGraph | None:
    """Return the graph in *path* as ONNX Runtime rewrites it; None where it cannot write that down."""
    import onnxruntime

    target = scratch.folder("joined") / "model.onnx"
    options = session_options()
    options.optimized_model_filepath = str(target)
    try:
        onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        return OnnxGraph(target)
    except Exception:  # noqa: BLE001  the engine's errors have no common base; the file's graph will do
        return None


class _Walk:
    """One run of a graph, told node by node."""

    def __init__(self, graph: OnnxGraph, origins: dict[str, Origin], level: Level, points: Points) -> None:
        self._graph = graph
        self._nodes = graph.nodes
        self._origins = origins
        self._level = level
        self._points = points
        parts = graph.parts(origins)
        self._ended: dict[int, list[tuple[Group, list[int]]]] = defaultdict(list)
        self._torn: set[str] = set()
        """Paths of modules of which the graph does not tell what they return."""
        for group in groups(parts):
            if is_whole(group, parts):
                self._ended[group.last].append((group, returned(group, parts)))
            else:
                self._torn.add(group.path)
        self._edited: dict[str, Any] = {}

    def run(self, feeds: dict[str, Any], outputs: Sequence[str]) -> list[Tensor]:
        """Return the *outputs*. Raises what ONNX Runtime raises, with all that ran before it told."""
        import torch

        wanted = list(dict.fromkeys([*outputs, *values_of(self._nodes)]))
        values = self._values(feeds, wanted)
        for place, node in enumerate(self._nodes):
            for name, value, apart in self._told(place, node, values):
                stand_in = self._graph.edit(name, onnx_session.kind_of(value), apart, len(self._edited))
                self._edited[name] = feeds[stand_in] = value
                values.update(self._values(feeds, wanted))
                values.update(self._edited)
        return [torch.as_tensor(values[name]) for name in outputs]

    def _values(self, feeds: dict[str, Any], wanted: list[str]) -> dict[str, Any]:
        try:
            return onnx_session.run(self._graph, feeds, wanted, self._level)
        except Exception as error:
            place = onnx_session.failed_place(error, self._nodes)
            if place is not None:
                self._tell_before(place, feeds)
                origin = self._origin(self._nodes[place])
                self._points.failed_in(origin.path, origin.source)
            raise

    def _tell_before(self, failed: int, feeds: dict[str, Any]) -> None:
        """Tell of the nodes before the one that failed."""
        before = values_of(self._nodes[:failed])
        if before and not self._points.points:
            values = onnx_session.run(self._graph, feeds, before, self._level, failed)
            for place in range(failed):
                for _ in self._told(place, self._nodes[place], values):
                    pass

    def _told(self, place: int, node: Any, values: dict[str, Any]) -> Iterator[tuple[str, Any, set[int]]]:
        """Tell of a node and of the modules that end with it; yield what was edited.

        Each edit is the value's name, its elements, and the places of nodes that still read the old ones.
        """
        origin = self._origin(node)
        names = [name for name in node.output if name in values]
        if names and node.op_type not in UNSHOWN:
            kind = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            seen = Seen(
                module=origin.path,
                kind=kind,
                node=node.name or names[0],
                source=origin.source,
                ends_module=origin.path not in self._torn,
                depth=len(origin.stack),
            )
            yield from self._recorded(seen, names, values, {place})
        for group, places in self._ended.get(place, ()):
            found = [each for one in places for each in self._nodes[one].output if each in values]
            if found:
                seen = Seen(module=group.path, kind=group.kind, depth=group.depth)
                yield from self._recorded(seen, found, values, group.members)

    def _recorded(
        self, seen: Seen, names: list[str], values: dict[str, Any], apart: set[int]
    ) -> Iterator[tuple[str, Any, set[int]]]:
        if len(names) == 1:
            new = self._points.record(seen, values[names[0]])
            if new is not values[names[0]]:
                yield names[0], new, apart
            return
        changed = self._points.record(seen, {name: values[name] for name in names})
        for name in names:
            if changed[name] is not values[name]:
                yield name, changed[name], apart

    def _origin(self, node: Any) -> Origin:
        return next((self._origins[name] for name in node.output if name in self._origins), NOWHERE)


CAPTURE: Final = OnnxCapture()
