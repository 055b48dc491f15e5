"""What formats share whose graph another engine runs: names of its tensors, and its failures in words."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.error_text import says_out_of_memory, without_paths
from serving_agent.errors import AgentError, ModelError, StartError

if TYPE_CHECKING:
    from torch import Tensor

Run = Callable[[Sequence["Tensor"]], Sequence["Tensor"]]
"""Tensors in the order of the graph's inputs → tensors in the order of its outputs, owned by the caller."""
LONGEST: Final = 200
"""Characters of an engine's own message that are worth showing."""


class GraphModel:
    """An engine's graph, called with tensors by the signature's names, or the graph's where that has none."""

    def __init__(self, run: Run, tensors: Signature, signature: Signature) -> None:
        """*tensors*: what the graph takes and returns, in its words. Raises StartError unless both fit."""
        self.tensors = tensors
        self.run = run
        """Where the graph is run; the debugger puts another one in its place for a while."""
        inputs = _fitted("takes", tensors.inputs, signature.inputs or tensors.inputs)
        outputs = _fitted("returns", tensors.outputs, signature.outputs or tensors.outputs)
        named = {own.name: spec.name for spec, own in inputs}
        self._inputs = tuple(named[own.name] for own in tensors.inputs)
        self._outputs = tuple((spec.name, tensors.outputs.index(own)) for spec, own in outputs)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the graph once; the outputs are tensors on the CPU, or on the GPU that the graph is on."""
        results = self.run([inputs[name] for name in self._inputs])
        return {name: results[place] for name, place in self._outputs}


def _fitted(
    does: str, own: Sequence[TensorSpec], declared: Sequence[TensorSpec]
) -> list[tuple[TensorSpec, TensorSpec]]:
    """Return (declared, own) for every declared tensor. Raises StartError."""
    by_name = {spec.name: spec for spec in own}
    names = paired(tuple(by_name), [spec.name for spec in declared], may_drop=does == "returns")
    pairs = [(spec, by_name[names[spec.name]]) for spec in declared] if names else []
    if names is None or any(one.datatype != other.datatype for one, other in pairs):
        raise StartError(f"the graph {does} {_listed(own)}; its signature declares {_listed(declared)}")
    return pairs


def paired(own: Sequence[str], declared: Sequence[str], *, may_drop: bool = False) -> dict[str, str] | None:
    """Return declared name → own name: equal names belong together, all others in order. Pure.

    None where their numbers differ; may_drop: whether own names that nothing declares may be left.
    """
    others = [name for name in own if name not in declared]
    unknown = [name for name in declared if name not in own]
    if len(others) != len(unknown) and not (may_drop and not unknown):
        return None
    renamed = dict(zip(unknown, others, strict=False))
    return {name: renamed.get(name, name) for name in declared}


@contextmanager
def opening(engine: str) -> Iterator[None]:
    """Turn what *engine* raises while it opens a file into a StartError, or MemoryError."""
    try:
        yield
    except (AgentError, MemoryError):
        raise
    except Exception as error:
        if says_out_of_memory(str(error)):
            raise MemoryError from error
        raise StartError(f"{engine} cannot open the artefact: {_said(error)}") from error


@contextmanager
def running(engine: str) -> Iterator[None]:
    """Turn what *engine* raises for one input into a ModelError, or MemoryError."""
    try:
        yield
    except Exception as error:
        raise failure(engine, error) from error


def failure(engine: str, error: Exception) -> Exception:
    """Return what to raise where *engine* raised *error* for one input: a ModelError, or MemoryError."""
    if isinstance(error, AgentError | MemoryError):
        return error
    if says_out_of_memory(str(error)):
        return MemoryError()
    return ModelError(f"{engine} failed on this input: {_said(error)}")


def _said(error: Exception) -> str:
    """Return the telling line of *error* without paths: the last one of those that say more than where."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(("Exception from", "Exception raised from"))]
    line = (telling or lines or [type(error).__name__])[0]
    return without_paths(line)[:LONGEST]


def _listed(specs: Sequence[TensorSpec]) -> str:
    return ", ".join(f"{spec.name}:{spec.datatype}" for spec in specs[:8]) or "nothing"
