"""The extension point for captures: how one kind of model is watched while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from serving_agent.formats.graph import GraphModel, Run
from serving_agent.formats.text_model import TextGraph
from serving_agent.inspection.points import Points
from serving_agent.model_server import ModelServer

if TYPE_CHECKING:
    from torch.nn import Module

NO_LAYERS: Final = "The graph does not tell which layers of the network its operators came from."
Level = Literal["module", "node", "none"]


class Capture(Protocol):
    """Watches one kind of model. Each file of this folder holds one as `CAPTURE`."""

    @property
    def name(self) -> str:
        """Key in the catalogue."""

    @property
    def level(self) -> Level:
        """What its points are."""

    def applies_to(self, server: ModelServer) -> bool:
        """Tell whether it can watch the model that *server* has opened."""

    def watching(self, server: ModelServer, points: Points) -> AbstractContextManager[None]:
        """Have *points* told of everything that runs in the body; all is as it was afterwards."""

    def unwatched(self, server: ModelServer) -> AbstractContextManager[None] | None:
        """Run the body as `watching` does but for the watching; None where that is how agents run it.

        Shows whether other outputs come from that, or from the watching itself.
        """


@dataclass(frozen=True, slots=True)
class Root:
    """A module that a handler holds, and where it is held."""

    prefix: str
    """Before the names of its modules; empty for a handler's only one."""
    holder: Any
    attribute: str

    @property
    def module(self) -> Module:
        """The module itself."""
        module: Module = getattr(self.holder, self.attribute)
        return module


def roots(server: ModelServer) -> list[Root]:
    """Return the modules of torch that *server* holds: its model's, or any among its own attributes."""
    import torch

    model = getattr(server, "model", None)
    if isinstance(getattr(model, "module", None), torch.nn.Module):
        return [Root("", model, "module")]
    found = []
    for holder in (server, model):
        for name, value in vars(holder).items() if hasattr(holder, "__dict__") else ():
            if isinstance(value, torch.nn.Module):
                found.append(Root(f"{name}.", holder, name))
    return [Root("", found[0].holder, found[0].attribute)] if len(found) == 1 else found


def graph_model(server: ModelServer) -> GraphModel | None:
    """Return the graph of another engine that *server* runs; None where it runs none."""
    model = getattr(server, "model", None)
    inner = model.graph if isinstance(model, TextGraph) else model
    return inner if isinstance(inner, GraphModel) else None


@contextmanager
def graph_run_by(server: ModelServer, made: Callable[[GraphModel], Run]) -> Iterator[None]:
    """Run the server's graph by what *made* returns for it, until the body has ended."""
    model = graph_model(server)
    if model is None:
        raise TypeError("the handler holds no graph")
    plain = model.run
    model.run = made(model)
    try:
        yield
    finally:
        model.run = plain


def same_bits(one: Any, other: Any) -> bool:
    """Whether two tensors or arrays hold the same bits; nothing is like None."""
    import torch

    if one is None or other is None:
        return False
    a, b = (torch.as_tensor(each).cpu().contiguous().reshape(-1) for each in (one, other))
    same_kind = a.dtype == b.dtype and tuple(one.shape) == tuple(other.shape)
    return same_kind and torch.equal(a.view(torch.uint8), b.view(torch.uint8))
