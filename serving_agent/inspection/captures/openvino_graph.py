"""OpenVINO's graphs: every value that their operators compute, as outputs of the same graph."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from serving_agent.formats.base import only_file
from serving_agent.formats.graph import GraphModel, running
from serving_agent.formats.openvino import ENGINE, FORMAT, properties, read_options
from serving_agent.inspection.captures import base
from serving_agent.inspection.captures.lab_wrappers import around_all
from serving_agent.inspection.points import Points, Seen
from serving_agent.model_server import ModelServer

if TYPE_CHECKING:
    from torch import Tensor

UNSHOWN: Final = frozenset({"Parameter", "Constant", "Result", "ShapeOf", "Convert"})
"""Operators that compute nothing of the network's own."""
SIZES: Final = frozenset({"i32", "i64"})
"""Types of operators that compute with sizes."""
OF_TORCH: Final = "__module."
"""Before the path of a module in names that OpenVINO has given itself, converting from torch."""
WEIGHTS: Final = ("weight", "bias", "running_mean", "running_var", "in_proj_weight", "in_proj_bias")


class OpenVinoCapture:
    """Watches graphs of OpenVINO."""

    name = "openvino_graph"
    level: base.Level = "node"

    def applies_to(self, server: ModelServer) -> bool:
        """Handlers that hold a graph of OpenVINO."""
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
        self._folder = server.context.artifact_dir
        self._outputs = len(model.tensors.outputs)
        self._points = points

    def __call__(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        import openvino
        import torch

        with running(ENGINE):
            path = only_file(self._folder, ".xml")
            core = openvino.Core()
            graph = core.read_model(path, path.with_suffix(".bin"))
            outputs = [port.get_node().input_value(0) for port in graph.outputs]
            fixed = _fixed(graph)
            shown = [
                each for each in graph.get_ordered_ops() if each.get_name() not in fixed and _is_shown(each)
            ]
            paths = paths_of(shown, fixed)
            self._points.around = around_all(filter(None, paths.values()))
            if not any(paths.values()):
                self._points.note(base.NO_LAYERS)
            ports = {
                (each.get_name(), index): each.output(index) for each in shown for index in _outputs(each)
            }
            keys = [(port.get_node().get_name(), port.get_index()) for port in outputs]
            options = properties(read_options(self._folder))
            feeds = [tensor.cpu().contiguous().numpy() for tensor in tensors]
            values = _run(core, graph, options, feeds, {**ports, **dict(zip(keys, outputs, strict=True))})
            edited: dict[tuple[str, int], Any] = {}
            for operator in shown:
                for key, value in self._told(operator, paths[operator.get_name()], values):
                    _stand_in(graph, ports[key], value)
                    feeds.append(value)
                    edited[key] = value
                    values.update(_run(core, graph, options, feeds, ports))
                    values.update(edited)
            return [torch.from_numpy(values[key].copy()) for key in keys]

    def _told(
        self, operator: Any, path: str, values: dict[tuple[str, int], Any]
    ) -> Iterator[tuple[tuple[str, int], Any]]:
        """Tell of one operator; yield the outputs that were edited."""
        name = str(operator.get_friendly_name())
        seen = Seen(
            node=name,
            module=path,
            kind=str(operator.get_type_name()),
            depth=path.count(".") + 1 if path else 0,
        )
        keys = [(operator.get_name(), index) for index in _outputs(operator)]
        found = {str(key[1]): values[key] for key in keys if key in values}
        value = next(iter(found.values())) if len(found) == 1 else found
        new = self._points.record(seen, value)
        changed = {next(iter(found)): new} if len(found) == 1 else new
        for key in keys:
            if key in values and changed[str(key[1])] is not values[key]:
                yield key, changed[str(key[1])]


def _is_shown(operator: Any) -> bool:
    """Whether *operator* computes something of the network, and not sizes of tensors."""
    kinds = {operator.output(index).get_element_type().get_type_name() for index in _outputs(operator)}
    return operator.get_type_name() not in UNSHOWN and not kinds <= SIZES


def _outputs(operator: Any) -> range:
    return range(operator.get_output_size())


def _run(
    core: Any, graph: Any, options: dict[str, Any], feeds: Sequence[Any], ports: dict[tuple[str, int], Any]
) -> dict[tuple[str, int], Any]:
    """Return the values of *ports*; types that numpy lacks are missing."""
    told = _telling(graph, ports)
    request = core.compile_model(told, "CPU", options).create_infer_request()
    results = request.infer(list(feeds), share_inputs=False, share_outputs=False)
    return {key: results[index] for index, key in enumerate(ports)}


def _telling(graph: Any, ports: dict[tuple[str, int], Any]) -> Any:
    """Return a graph of the same operators whose outputs are *ports*."""
    import openvino
    from openvino import opset13

    results = [opset13.result(port) for port in ports.values()]
    return openvino.Model(results, list(graph.get_parameters()), "told").clone()


def _stand_in(graph: Any, port: Any, value: Any) -> None:
    """Have whoever reads *port* read a new input of the shape of *value*."""
    from openvino import opset13

    parameter = opset13.parameter(list(value.shape), port.get_element_type())
    for reader in port.get_target_inputs():
        reader.replace_source_output(parameter.output(0))
    graph.add_parameters([parameter])


def paths_of(operators: Sequence[Any], fixed: Set[str]) -> dict[str, str]:
    """Return by each operator's name the path of its module, of those that are known, in order of running."""
    paths: dict[str, str] = {}
    for operator in operators:
        path = path_of(operator, fixed)
        if not path and operator.get_type_name() == "Add":  # a bias whose name is gone
            ports = [operator.input_value(index) for index in range(operator.get_input_size())]
            sources = [port for port in ports if port.get_node().get_name() not in fixed]
            if len(sources) == 1 and len(sources[0].get_target_inputs()) == 1:
                path = paths.get(sources[0].get_node().get_name(), "")
        paths[operator.get_name()] = path
    return paths


def path_of(operator: Any, fixed: Set[str]) -> str:
    """Return the path of the module that *operator* is of, by its own name or its weights'; or nothing."""
    name = str(operator.get_friendly_name())
    if name.startswith(OF_TORCH):
        return name.removeprefix(OF_TORCH).partition("/")[0]
    return _path_of_weights(operator, fixed)


def _path_of_weights(operator: Any, fixed: Set[str]) -> str:
    """Return the path in the name of a weight that only *operator* computes with."""
    for index in range(operator.get_input_size()):
        port = operator.input_value(index)
        source = port.get_node()
        if source.get_name() not in fixed:
            continue
        path, _, weight = str(source.get_friendly_name()).rpartition(".")
        # equal weights of several modules are one constant, which tells of none of them
        is_its_own = source.get_type_name() == "Constant" and len(port.get_target_inputs()) == 1
        found = path if is_its_own and weight in WEIGHTS else _path_of_weights(source, fixed)
        if found:
            return found
    return ""


def _fixed(graph: Any) -> set[str]:
    """Return the names of operators that no input has a part in: weights, and what is made of them alone."""
    fixed: set[str] = set()
    for operator in graph.get_ordered_ops():
        sources = [
            operator.input_value(index).get_node().get_name() for index in range(operator.get_input_size())
        ]
        if operator.get_type_name() == "Constant" or (sources and all(each in fixed for each in sources)):
            fixed.add(operator.get_name())
    return fixed


CAPTURE: Final = OpenVinoCapture()
