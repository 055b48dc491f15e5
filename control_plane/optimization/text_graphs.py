"""What the graph of a text model takes and returns, where clients send text. Pure.

Versions of Hugging Face folders that read text have the signature of their handler (`text` → ...). A variant
of one is a graph of the network inside, between tokens and the tensor that the handler reads; `tensors.json`
beside it says so (`serving_agent.contract.graph_tensors`).
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any, Final

from serving_agent.contract.signature import Signature, TensorSpec

HANDLERS: Final = "serving_agent.handlers.catalog"
"""Loaded by name, as it loads its entries: what it lists imports torch once a model is opened."""
IDS: Final = "input_ids"
SEGMENTS: Final = "token_type_ids"
WIDTHS: Final = ("hidden_size", "dim", "d_model", "n_embd")
"""Keys of configurations for the width of hidden states, by families of architectures."""


def reads_text(signature: Signature) -> bool:
    """Whether clients send text, which only a handler turns into tensors."""
    return any(spec.datatype == "BYTES" for spec in signature.inputs)


def tensors(signature: Signature, handler: str, config: Mapping[str, Any]) -> Signature:
    """The graph's own signature: *signature* itself unless *handler* turns text into tokens.

    config: the folder's configuration, of which sizes are read; what it does not tell stays open.
    """
    if not reads_text(signature) or ":" in handler:
        return signature
    read: str = getattr(import_module(HANDLERS).get(handler), "reads", "")
    if not read:
        return signature
    names = [IDS, "attention_mask", *([SEGMENTS] if _size(config, ("type_vocab_size",)) > 1 else [])]
    shape = (-1, _classes(config)) if read == "logits" else (-1, -1, _size(config, WIDTHS))
    return Signature(
        tuple(TensorSpec(name, "INT64", (-1, -1)) for name in names),
        (TensorSpec(read, "FP32", shape),),
    )


def _classes(config: Mapping[str, Any]) -> int:
    named = config.get("id2label")
    return len(named) if isinstance(named, Mapping) and named else -1


def _size(config: Mapping[str, Any], keys: tuple[str, ...]) -> int:
    """The first positive whole number that *config* has under one of *keys*; -1 without any."""
    found = (config.get(key) for key in keys)
    return next((size for size in found if type(size) is int and size > 0), -1)
