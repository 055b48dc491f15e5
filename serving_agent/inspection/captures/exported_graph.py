"""Programs of torch.export: every node of their graph, and every module that it was made of."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any, Final

from serving_agent.inspection import places
from serving_agent.inspection.captures import base
from serving_agent.inspection.captures.lab_wrappers import around
from serving_agent.inspection.captures.module_groups import (
    NO_MODULE,
    OUTSIDE,
    Group,
    Level,
    Part,
    groups,
    returned,
)
from serving_agent.inspection.points import Points, Seen
from serving_agent.inspection.structures import leaves
from serving_agent.model_server import ModelServer

if TYPE_CHECKING:
    from torch.fx import Node

CALLS: Final = frozenset({"call_function", "call_module", "call_method"})
WRAPPERS: Final = ("wrap_with_set_grad_enabled", "wrap_with_autocast")
"""Operators that only run a graph of their own in another setting; its nodes are watched too."""


class ExportedGraph:
    """Watches exported programs, by interpreting their graphs."""

    name = "exported_graph"
    level: base.Level = "node"

    def applies_to(self, server: ModelServer) -> bool:
        """Handlers that hold graph modules of torch."""
        import torch

        found = base.roots(server)
        return bool(found) and all(isinstance(root.module, torch.fx.GraphModule) for root in found)

    @contextmanager
    def watching(self, server: ModelServer, points: Points) -> Iterator[None]:
        """Have the graphs interpreted where they are called."""
        with ExitStack() as stack:
            found = base.roots(server)
            if len(found) == 1:
                program: Any = found[0].module
                stacks = (stack_of(node) for node in program.graph.nodes)
                points.around = around((level.path, level.kind) for level in max(stacks, key=len, default=()))
            for root in found:
                for graph, levels in _graphs(root.module, ()):
                    stack.enter_context(_interpreted(Watched(graph, root.prefix, levels), points))
            yield

    def unwatched(self, server: ModelServer) -> None:
        """Agents run it so."""
        del server


class Watched:
    """A graph that is to be interpreted, and what is known of it beforehand."""

    def __init__(self, module: Any, prefix: str, levels: tuple[Level, ...]) -> None:
        """*levels*: the modules that the whole graph lies in."""
        self.module = module
        self.prefix = prefix
        nodes = [node for node in module.graph.nodes if node.op in CALLS]
        places_of = {node: place for place, node in enumerate(nodes)}
        parts = [
            Part(stack_of(node), {places_of.get(user, OUTSIDE) for user in node.users}) for node in nodes
        ]
        self.ended: dict[Node, list[tuple[Group, list[Node], list[Node]]]] = defaultdict(list)
        """Node → the modules that return after it, their nodes, and those of them that are returned."""
        for group in groups(parts, levels):
            values = [nodes[place] for place in returned(group, parts)]
            self.ended[nodes[group.last]].append((group, [nodes[place] for place in group.members], values))


def _graphs(module: Any, levels: tuple[Level, ...]) -> Iterator[tuple[Any, tuple[Level, ...]]]:
    """Yield the program's graph and the graphs in it that are run where they stand."""
    import torch

    yield module, levels
    for node in module.graph.nodes:
        if _is_wrapper(node):
            for argument in node.args:
                inner = getattr(module, str(getattr(argument, "target", "")), None)
                if isinstance(inner, torch.fx.GraphModule):
                    yield from _graphs(inner, stack_of(node))


@contextmanager
def _interpreted(watched: Watched, points: Points) -> Iterator[None]:
    """Put an interpreter in the place of the module's compiled code: what it checks before stays."""
    from serving_agent.inspection.captures.exported_interpreter import interpreted

    held = watched.module.__dict__
    held["forward"] = interpreted(watched, points)
    try:
        yield
    finally:
        del held["forward"]


def stack_of(node: Node) -> tuple[Level, ...]:
    """Return the modules that *node* lies in, outermost first; none where torch has added it."""
    stack: dict[str, Any] = node.meta.get("nn_module_stack") or {}
    if NO_MODULE in stack:
        return ()
    found = []
    for key, (path, kind) in stack.items():
        name = kind if isinstance(kind, str) else kind.__qualname__
        found.append(Level(key, str(path).partition("@")[0], name.rpartition(".")[2]))
    return tuple(found)


def path_of(node: Node) -> str:
    """Return the path of the innermost module that *node* lies in; empty where none is known."""
    stack = stack_of(node)
    return stack[-1].path if stack else ""


def seen_of(node: Node, prefix: str, seconds: float) -> Seen:
    """Return what is known of *node*."""
    path = prefix + path_of(node)
    return Seen(
        node=node.name,
        module=path,
        kind=_operator(node.target),
        source=source_of(node),
        depth=len(stack_of(node)),
        seconds=seconds,
    )


def source_of(node: Node) -> str:
    """`file:line` of the model's own code that *node* comes from; empty where it is not known."""
    return places.of_stack(node.meta.get("stack_trace") or "")


def _operator(target: Any) -> str:
    name = str(target)
    return str(getattr(target, "__name__", name)) if name.startswith("<") else name


def _is_wrapper(node: Node) -> bool:
    return any(name in str(node.target) for name in WRAPPERS)


def is_shown(node: Node, value: Any) -> bool:
    """Whether *node* computes something, and *value*, what it gave, holds tensors."""
    picks = getattr(node.target, "__name__", "") == "getitem"
    return not picks and not _is_wrapper(node) and has_tensor(value)


def has_tensor(value: Any) -> bool:
    """Whether *value* holds a tensor."""
    import torch

    return any(isinstance(leaf, torch.Tensor) for _, leaf in leaves(value))


CAPTURE: Final = ExportedGraph()
