"""TorchScript programs, traced, scripted or frozen: every node, and every module they still know of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from serving_agent.inspection.captures import base
from serving_agent.inspection.captures.lab_wrappers import around
from serving_agent.inspection.captures.script_interpreter import Interpreter, ModuleAt
from serving_agent.inspection.points import Points
from serving_agent.model_server import ModelServer

FROZEN: Final = (
    "The program is frozen: its operators are known by their place in its graph, but not by the layers that "
    "they came from."
)

AUTOCAST: Final = (
    "Under the option `autocast` TorchScript lowers operators by rules of its own, which apply only where it "
    "runs as a whole: types of some nodes may differ from an agent's."
)


class ScriptGraph:
    """Watches programs of torch.jit, by walking their graphs."""

    name = "script_graph"
    level: base.Level = "node"

    def applies_to(self, server: ModelServer) -> bool:
        """Handlers that hold programs of torch.jit."""
        import torch

        found = base.roots(server)
        return bool(found) and all(isinstance(root.module, torch.jit.ScriptModule) for root in found)

    @contextmanager
    def watching(self, server: ModelServer, points: Points) -> Iterator[None]:
        """Put an interpreter in the place of each program."""
        found = [(root, root.module) for root in base.roots(server)]
        if len(found) == 1:
            points.around = around(_chain(found[0][1]))
        if server.context.execution.autocast != "off":
            points.note(AUTOCAST)
        try:
            for root, module in found:
                if not any(True for _ in module.children()) and not any(True for _ in module.parameters()):
                    points.note(FROZEN)
                setattr(root.holder, root.attribute, _Walked(module, root.prefix.rstrip("."), points))
            yield
        finally:
            for root, module in found:
                setattr(root.holder, root.attribute, module)

    def unwatched(self, server: ModelServer) -> None:
        """Agents run it so."""
        del server


def _chain(module: Any) -> Iterator[tuple[str, str]]:
    """Yield path and class of the program, of its only module, of that one's only module, and so on."""
    path: list[str] = []
    while True:
        yield ".".join(path), module.original_name
        inside = list(module.named_children())
        if len(inside) != 1:
            return
        path.append(inside[0][0])
        module = inside[0][1]


class _Walked:
    """A program that is walked where it is called, and is itself in all else."""

    def __init__(self, module: Any, path: str, points: Points) -> None:
        self._module = module
        self._path = path
        self._points = points

    def __call__(self, *args: Any, **named: Any) -> Any:
        """Run `forward` on arguments by place or by name. Raises TypeError where they do not fit."""
        arguments = list(self._module.forward.schema.arguments)[1:]
        return Interpreter(self._points).call(
            ModuleAt(self._module, self._path), "forward", _placed(arguments, args, named)
        )

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


def _placed(arguments: list[Any], args: tuple[Any, ...], named: dict[str, Any]) -> list[Any]:
    names = [argument.name for argument in arguments]
    unknown = sorted(named.keys() - set(names[len(args) :]))
    if len(args) > len(names) or unknown:
        raise TypeError(f"forward takes {', '.join(names)}; it was called with {len(args)} and {unknown}")
    placed = list(args)
    for argument in arguments[len(args) :]:
        if argument.name in named:
            placed.append(named[argument.name])
        elif argument.has_default_value():
            placed.append(argument.default_value)
        else:
            raise TypeError(f"forward needs {argument.name}")
    return placed


CAPTURE: Final = ScriptGraph()
