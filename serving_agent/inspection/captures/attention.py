"""Attention weights beside what a network computes, which itself never forms them.

Fused attention returns no weights. The same function called with the identity for the values returns just
them, whatever masks and biases it applies; the network's own call stays as it is.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from serving_agent.contract.inspection import ATTENTION
from serving_agent.inspection.points import Points
from serving_agent.limits import is_out_of_memory

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

MOST_BYTES: Final = 256 << 20
"""Weights of one layer beyond it are not computed."""
TOO_LARGE: Final = (
    f"Attention weights of a layer that take more than {MOST_BYTES >> 20} MiB are not computed; try a "
    "shorter input."
)


class Weights:
    """The weights of attention layers that have run and are not yet asked for."""

    def __init__(self, points: Points) -> None:
        self._points = points
        self._found: dict[int, Tensor] = {}

    def pop(self, module: Module) -> dict[str, Any]:
        """Return the weights of the last run of *module* under their name; nothing where it has none."""
        weights = self._found.pop(id(module), None)
        return {} if weights is None else {ATTENTION: weights}

    @contextmanager
    def of_transformers(self) -> Iterator[None]:
        """Have the attention functions of transformers, where it is loaded, give their weights too."""
        if "transformers.modeling_utils" not in sys.modules:
            yield
            return
        functions = sys.modules["transformers.modeling_utils"].ALL_ATTENTION_FUNCTIONS
        originals = {"sdpa": functions["sdpa"]} if "sdpa" in functions else {}
        try:
            for name, original in originals.items():
                functions[name] = self._also_weights(original)
            yield
        finally:
            for name in originals:
                del functions[name]  # what is set lies over the library's own

    def _also_weights(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def function(
            module: Module, query: Tensor, key: Tensor, value: Tensor, *more: Any, **named: Any
        ) -> Any:
            result = original(module, query, key, value, *more, **named)
            with self._points.clock.aside(), self._harmless(module):
                self._of_call(original, module, (query, key), more, named)
            return result

        return function

    def _of_call(
        self,
        original: Callable[..., Any],
        module: Module,
        pair: tuple[Tensor, Tensor],
        more: tuple[Any, ...],
        named: dict[str, Any],
    ) -> None:
        import torch

        query, key = pair
        if named.get("cache") is not None or query.dim() != 4 or key.dim() != 4:
            return
        if not self._affordable(query.shape[:3].numel() * key.shape[2], query.element_size()):
            return
        identity = torch.eye(key.shape[2], dtype=query.dtype, device=query.device)
        values = identity.expand(*key.shape[:2], -1, -1)
        self._found[id(module)] = original(module, query, key, values, *more, **named)[0].transpose(1, 2)

    def of_torch(self, module: Module, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        """Find the weights of torch's own *module* for attention by a call of its function."""
        from torch import nn

        if isinstance(module, nn.MultiheadAttention):
            with self._harmless(module):
                self._of_torch(module, args, named)

    def _of_torch(self, module: Any, args: tuple[Any, ...], named: Mapping[str, Any]) -> None:
        query, key = (args + tuple(named[name] for name in ("query", "key")[len(args) :]))[:2]
        axis = 1 if module.batch_first or query.dim() == 2 else 0
        rows = query.shape[0] * query.shape[1] if query.dim() == 3 else query.shape[0]
        length = key.shape[axis if key.dim() == 3 else 0]
        if self._affordable(rows * length * module.num_heads, query.element_size()):
            wanted = {**named, "need_weights": True, "average_attn_weights": False}
            self._found[id(module)] = type(module).forward(module, *args[:3], **_named(args, wanted))[1]

    @contextmanager
    def _harmless(self, module: Module) -> Iterator[None]:
        """Let the run go on without weights where they cannot be computed."""
        try:
            yield
        except Exception as error:
            if is_out_of_memory(error):
                raise
            self._points.note(
                f"Attention weights of {type(module).__name__} cannot be computed: {type(error).__name__}."
            )

    def _affordable(self, elements: int, size: int) -> bool:
        if elements * size > MOST_BYTES:
            self._points.note(TOO_LARGE)
            return False
        return True


def _named(args: tuple[Any, ...], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return *named* with the mask that may be given by its place beside queries, keys and values."""
    places = ("key_padding_mask", "need_weights", "attn_mask", "average_attn_weights", "is_causal")
    by_place = dict(zip(places, args[3:], strict=False))
    return {**by_place, **named}
