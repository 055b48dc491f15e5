"""Networks that run as Python: every call of every module, by hooks that are taken off again."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from serving_agent.contract.inspection import Point
from serving_agent.inspection import places
from serving_agent.inspection.captures import base
from serving_agent.inspection.captures.attention import Weights
from serving_agent.inspection.points import Points, Seen
from serving_agent.model_server import ModelServer

if TYPE_CHECKING:
    from torch.nn import Module

LISTS: Final = ("ModuleList", "ModuleDict")
OF_A_LIST: Final = "It only holds other modules: nothing calls it."
NOT_CALLED: Final = (
    "Nothing called it in this run: the module around it uses its weights itself, or this input takes "
    "another way."
)
NOT_REACHED: Final = "The run ended before anything called it."
NOT_RETURNED: Final = "It was running when the run ended: the error came out of it."
OF_A_SCRIPT: Final = "It is TorchScript inside a network of Python, which takes no hooks."


@dataclass(frozen=True, slots=True)
class _Call:
    """A module that is running."""

    path: str
    source: str
    started: float


class Modules:
    """Watches eager networks: state dicts, Hugging Face folders, and what an operator's handler builds."""

    name = "modules"
    level: base.Level = "module"

    def applies_to(self, server: ModelServer) -> bool:
        """Modules of torch that are no programs."""
        import torch
        from torch._dynamo.eval_frame import OptimizedModule

        programs = (torch.jit.ScriptModule, torch.fx.GraphModule, OptimizedModule)
        found = base.roots(server)
        return bool(found) and not any(isinstance(root.module, programs) for root in found)

    @contextmanager
    def watching(self, server: ModelServer, points: Points) -> Iterator[None]:
        """Hook every module; fused encoder layers run in their parts meanwhile."""
        watch = _Watch(points)
        with ExitStack() as stack:
            stack.enter_context(without_fused_layers())
            stack.enter_context(watch.weights.of_transformers())
            for root in base.roots(server):
                watch.hook(root, stack)
            try:
                yield
            except BaseException:
                watch.failed()
                raise
            finally:
                watch.add_missing()

    def unwatched(self, server: ModelServer) -> Any:
        """Without the fused path."""
        del server
        return without_fused_layers()


@contextmanager
def without_fused_layers() -> Iterator[None]:
    """Have torch compute encoder layers and attention in their parts, as they are written."""
    import torch

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


class _Watch:
    """The hooks of one run."""

    def __init__(self, points: Points) -> None:
        self.weights = Weights(points)
        self._points = points
        self._running: list[_Call] = []
        self._modules: dict[str, Module] = {}
        self._unhooked: set[str] = set()
        self._has_failed = False

    def hook(self, root: base.Root, stack: ExitStack) -> None:
        """Hook all modules under *root*; *stack* takes the hooks off."""
        import torch

        for name, module in root.module.named_modules():
            path = (root.prefix + name).rstrip(".")
            self._modules[path] = module
            if isinstance(module, torch.jit.ScriptModule):
                self._unhooked.add(path)
                continue
            stack.enter_context(
                _removed(module.register_forward_pre_hook(self._before(path), with_kwargs=True))
            )
            stack.enter_context(_removed(module.register_forward_hook(self._after(path), with_kwargs=True)))

    def _before(self, path: str) -> Any:
        def hook(module: Module, args: tuple[Any, ...], named: dict[str, Any]) -> None:
            with self._points.clock.aside():
                self.weights.of_torch(module, args, named)
                source = places.of_caller(sys._getframe(1))
            self._running.append(_Call(path, source, self._points.clock.now()))

        return hook

    def _after(self, path: str) -> Any:
        def hook(module: Module, args: tuple[Any, ...], named: dict[str, Any], output: Any) -> Any:
            del args, named
            ended = self._points.clock.now()
            call = self._running.pop()
            while call.path != path:  # its error was caught by the model itself
                call = self._running.pop()
            seen = Seen(
                module=path,
                kind=type(module).__name__,
                source=call.source,
                depth=depth_of(path),
                seconds=ended - call.started,
            )
            return self._points.record(seen, output, lambda: self.weights.pop(module))

        return hook

    def failed(self) -> None:
        """Say in which module the run ended."""
        self._has_failed = True
        if self._running:
            self._points.failed_in(self._running[-1].path)

    def add_missing(self) -> None:
        """Add the modules that were not called, each behind what it holds or before what holds it."""
        called = {point.module for point in self._points.points}
        for path, module in reversed(self._modules.items()):
            why = self._why_missing(path, module, called)
            if path not in called and why:
                seen = Seen(module=path, kind=_kind(module), depth=depth_of(path))
                place = place_for(path, self._points.points)
                if place is not None:
                    self._points.points.insert(place, self._points.missing(seen, why))

    def _why_missing(self, path: str, module: Module, called: set[str]) -> str:
        if path in self._unhooked:
            return OF_A_SCRIPT
        if any(call.path == path for call in self._running):
            return NOT_RETURNED
        if _kind(module) in LISTS:
            return OF_A_LIST if any(inner.startswith(f"{path}.") for inner in called) else ""
        why = NOT_REACHED if self._has_failed else NOT_CALLED
        return why if any(True for _ in module.parameters(recurse=False)) else ""


def place_for(path: str, points: list[Point]) -> int | None:
    """Return where a module that was not called belongs: behind the last it holds, else before its parent."""
    inside = [place for place, point in enumerate(points) if point.module.startswith(f"{path}.")]
    if inside:
        return inside[-1] + 1
    parent = path
    while parent:
        parent = parent.rpartition(".")[0]
        around = [place for place, point in enumerate(points) if point.module == parent]
        if around:
            return around[0]
    return len(points) if points else None


def depth_of(path: str) -> int:
    """How many modules *path* lies in."""
    return path.count(".") + 1 if path else 0


def _kind(module: Any) -> str:
    return str(getattr(module, "original_name", "") or type(module).__name__)


@contextmanager
def _removed(handle: Any) -> Iterator[None]:
    try:
        yield
    finally:
        handle.remove()


CAPTURE: Final = Modules()
