"""TorchScript node by node: the graphs of a program's methods, walked in Python over torch's own kernels.

Programs take no hooks, and calls of modules vanish once a graph is inlined; so each call of a module is
followed into the graph of its own method.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, NamedTuple

from serving_agent.inspection import places
from serving_agent.inspection.captures.script_values import UNPACKED, on_values
from serving_agent.inspection.points import Points, Seen
from serving_agent.inspection.structures import leaves

FORWARD: Final = "forward"
"""The method that makes a module's output; others are steps on the way to it."""
FUNCTION: Final = "FunctionType"
SIZE: Final = "prim::NumToTensor"
"""What tracing makes of a tensor's size: nothing of the network's own."""
OF_A_TRACE: Final = re.compile(r"^(\S.*)\((\d+)\): [\w<>]+$", re.MULTILINE)
OF_A_SCRIPT: Final = re.compile(r'^  File "(.+)", line (\d+)$', re.MULTILINE)
SERIALIZED: Final = "\nSerialized "
"""Before the lines of the program's own code."""
TRACER: Final = "torch/jit/_trace.py"
"""Lines from it outwards are of whoever traced the model."""


@dataclass(frozen=True, slots=True)
class ModuleAt:
    """A module of the program, by its path in it."""

    module: Any
    path: str


class Where(NamedTuple):
    """Whose nodes they are."""

    path: str
    """Of the module."""
    prefix: str
    """Before the nodes' names."""


class Interpreter:
    """Runs one program's methods and tells *points* of each node and each module."""

    def __init__(self, points: Points) -> None:
        self._points = points

    def call(self, at: ModuleAt, method: str, args: Sequence[Any]) -> Any:
        """Run *method* of a module on *args*; what `forward` returns is recorded as the module's point."""
        clock = self._points.clock
        began = clock.now()
        with clock.aside():
            graph = at.module._c._get_method(method).graph
        if method != FORWARD:
            return self._graph(graph, (at, *args), at.path, f"{method}/")
        value = self._graph(graph, (at, *args), at.path, "")
        seen = Seen(
            module=at.path,
            kind=at.module.original_name,
            depth=_depth(at.path),
            seconds=clock.now() - began,
        )
        return self._points.record(seen, value)

    def _graph(self, graph: Any, args: Sequence[Any], path: str, prefix: str) -> Any:
        """Run *graph*; path: of the module it is of. prefix: before the names of its nodes."""
        names = [each.debugName() for each in graph.inputs()]
        scope = dict(zip(names, args, strict=True))
        self._nodes(graph.nodes(), scope, path, prefix)
        results = [scope[each.debugName()] for each in graph.outputs()]
        return results[0] if len(results) == 1 else tuple(results)

    def _nodes(self, nodes: Iterable[Any], scope: dict[str, Any], path: str, prefix: str) -> None:
        for node in nodes:
            names = [each.debugName() for each in node.outputs()]
            special = SPECIAL.get(node.kind())
            try:
                if special is None:
                    results = self._operator(node, names, scope, Where(path, prefix))
                else:
                    results = special(self, node, scope, path, prefix)
            except Exception:
                self._points.failed_in(path, source_of(node.sourceRange()))
                raise
            scope.update(zip(names, results, strict=True))

    def _operator(self, node: Any, names: list[str], scope: dict[str, Any], where: Where) -> Sequence[Any]:
        """Return the values of the node's outputs, which are called *names*."""
        kind = node.kind()
        inputs = [scope[each.debugName()] for each in node.inputs()]
        clock = self._points.clock
        began = clock.now()
        of_values = on_values(kind, inputs)
        value = _computed(node, kind, inputs) if of_values is None else of_values(*inputs)
        seconds = clock.now() - began
        if of_values is None and kind != SIZE and _has_tensor(value):
            with clock.aside():
                seen = Seen(
                    node=f"{where.prefix}{names[0]}",
                    module=where.path,
                    kind=kind,
                    source=source_of(node.sourceRange()),
                    depth=_depth(where.path) + 1,
                    seconds=seconds,
                )
                value = self._points.record(seen, value)
        if not names:
            return ()
        return tuple(value) if len(names) > 1 or kind in UNPACKED else (value,)

    def constant(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """A value of the graph itself; functions are called by their nodes."""
        del scope, path, prefix
        output = node.output()
        return (None if output.type().kind() == FUNCTION else output.toIValue(),)

    def attribute(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """An attribute of a module: another module, or a value."""
        del path, prefix
        import torch

        owner, name = scope[node.input().debugName()], node.s("name")
        if not isinstance(owner, ModuleAt):
            return (getattr(owner, name),)
        found = getattr(owner.module, name)
        if isinstance(found, torch.jit.ScriptModule):
            return (ModuleAt(found, f"{owner.path}.{name}" if owner.path else name),)
        return (found,)

    def set_attribute(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """A module that remembers something."""
        del path, prefix
        owner, value = (scope[each.debugName()] for each in node.inputs())
        setattr(owner.module if isinstance(owner, ModuleAt) else owner, node.s("name"), value)
        return ()

    def call_method(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """A method of a module, followed into; one of another object, called."""
        del path, prefix
        owner, *args = [scope[each.debugName()] for each in node.inputs()]
        if isinstance(owner, ModuleAt):
            return (self.call(owner, node.s("name"), args),)
        return (getattr(owner, node.s("name"))(*args),)

    def call_function(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """A scripted function: its own graph, followed into."""
        args = [scope[each.debugName()] for each in list(node.inputs())[1:]]
        graph, order = _alone(node)
        by_name = dict(zip((each.debugName() for each in list(node.inputs())[1:]), args, strict=True))
        inner = f"{prefix}{next(iter(node.outputs())).debugName()}/"
        return (self._graph(graph, [by_name[name] for name in order], path, inner),)

    def branch(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """The block that the condition chooses."""
        taken = list(node.blocks())[0 if scope[node.input().debugName()] else 1]
        self._nodes(taken.nodes(), scope, path, prefix)
        return [scope[each.debugName()] for each in taken.outputs()]

    def loop(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """A block as often as its count and its condition say."""
        most, going, *carried = [scope[each.debugName()] for each in node.inputs()]
        (block,) = node.blocks()
        counter, *names = [each.debugName() for each in block.inputs()]
        turn = 0
        while going and turn < most:
            scope[counter] = turn
            scope.update(zip(names, carried, strict=True))
            self._nodes(block.nodes(), scope, path, prefix)
            going, *carried = [scope[each.debugName()] for each in block.outputs()]
            turn += 1
        return carried

    def nothing(self, node: Any, scope: dict[str, Any], path: str, prefix: str) -> Sequence[Any]:
        """Contexts for gradients, of which there are none here."""
        del scope, path, prefix
        return [None for _ in node.outputs()]


Special = Callable[[Interpreter, Any, dict[str, Any], str, str], Sequence[Any]]
SPECIAL: Final[dict[str, Special]] = {
    "prim::Constant": Interpreter.constant,
    "prim::GetAttr": Interpreter.attribute,
    "prim::SetAttr": Interpreter.set_attribute,
    "prim::CallMethod": Interpreter.call_method,
    "prim::CallFunction": Interpreter.call_function,
    "prim::If": Interpreter.branch,
    "prim::Loop": Interpreter.loop,
    "prim::Enter": Interpreter.nothing,
    "prim::Exit": Interpreter.nothing,
}
"""Nodes that are more than an operator on values."""


def _computed(node: Any, kind: str, inputs: list[Any]) -> Any:
    """Run one operator as a kernel of torch, or as a program of this node alone."""
    schema = node.schema()
    kernel = _kernel(schema) if schema and schema != "(no schema)" else None
    if kernel is not None and any(isinstance(inputs[place], list | dict) for place in kernel.written):
        raise NotImplementedError(f"{kind} changes a list or a dict, which is not followed")
    if kernel is None or kernel.run is None:
        return _run_alone(node, inputs)
    args = [value for value, name in zip(inputs, kernel.named, strict=True) if not name]
    more = {name: value for value, name in zip(inputs, kernel.named, strict=True) if name}
    return kernel.run(*args, **more)


@dataclass(frozen=True, slots=True)
class _Kernel:
    """An operator of torch."""

    run: Callable[..., Any] | None
    """None where it takes types that Python's values do not tell."""
    named: tuple[str, ...]
    """For each argument its name where it has to be given by name, else nothing."""
    written: tuple[int, ...]
    """Places of the arguments that it changes."""


@cache
def _kernel(schema: str) -> _Kernel | None:
    """Return what runs the operator of *schema*; None where it takes any number of values."""
    import torch

    if "..." in schema:
        return None
    parsed = torch._C.parse_schema(schema)
    written = tuple(
        place
        for place, each in enumerate(parsed.arguments)
        if each.alias_info is not None and each.alias_info.is_write
    )
    named = tuple(each.name if each.kwarg_only else "" for each in parsed.arguments)
    if any(re.search(r"\bt\b", str(each.type)) for each in parsed.arguments):
        return _Kernel(None, named, written)
    found = torch._C._get_operation_overload(parsed.name, parsed.overload_name)
    return _Kernel(found[0] if found else None, named, written)


def _run_alone(node: Any, inputs: list[Any]) -> Any:
    import torch

    graph, order = _alone(node)
    by_name = dict(zip((each.debugName() for each in node.inputs()), inputs, strict=True))
    function = torch._C._create_function_from_graph("alone", graph)
    return function(*[by_name[name] for name in order])


def _alone(node: Any) -> tuple[Any, list[str]]:
    """Return a graph of *node* alone, functions inlined, and the names that its inputs have around it."""
    import torch

    graph: Any = torch._C.Graph()
    values: dict[str, Any] = {}
    order: list[str] = []

    def value_of(value: Any) -> Any:
        name = value.debugName()
        if name not in values:
            if value.type().kind() == FUNCTION:
                constant = graph.createClone(value.node(), lambda inner: inner)
                graph.appendNode(constant)
                values[name] = constant.output()
            else:
                values[name] = graph.addInput()
                values[name].setType(value.type())
                order.append(name)
        return values[name]

    clone = graph.createClone(node, value_of)
    graph.appendNode(clone)
    for output in clone.outputs():
        graph.registerOutput(output)
    torch._C._jit_pass_inline(graph)
    return graph, order


def source_of(text: str) -> str:
    """`file:line` of the model's own code in what torch says of a node, innermost first; empty if nothing."""
    return _source(text.partition(SERIALIZED)[0])


@cache
def _source(text: str) -> str:
    lines = [(match[1], int(match[2])) for match in OF_A_TRACE.finditer(text)]
    lines = lines or [(match[1], int(match[2])) for match in OF_A_SCRIPT.finditer(text)]
    inside = []
    for file, line in lines:
        if places.short(file) == TRACER:
            break
        inside.append((file, line))
    return places.innermost(reversed(inside))


def _has_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor) or (
        isinstance(value, list | tuple) and any(isinstance(leaf, torch.Tensor) for _, leaf in leaves(value))
    )


def _depth(path: str) -> int:
    return path.count(".") + 1 if path else 0
