"""Form F: dense Llama, Qwen2 and Qwen3 of Megatron-Core `torch_dist` as Hugging Face tensors. Pure.

Naming and layout: megatron/core/models/gpt/gpt_layer_specs.py and Megatron-Bridge's parameter mappings.
Layers are stacked along a first axis or named one by one; `linear_qkv` holds, for each group of key-value
heads, the group's queries, then its key, then its value; `linear_fc1` holds the gate above the up projection;
the norms before attention and MLP are kept with the projections that follow them; the vocabulary is padded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission.tensors import SourceTensor
from control_plane.errors import RefusedError
from control_plane.nemo_rl import slices

FAMILIES: Final = frozenset({"llama", "qwen2", "qwen3"})
"""`model_type`s whose layout is known and tested."""
LAYERS: Final = "decoder.layers."
_NUMBERED: Final = re.compile(r"(\d+)\.(.+)")
_PREFIXES: Final = ("", "model.", "module.")
QKV: Final = "self_attention.linear_qkv."
FC1: Final = "mlp.linear_fc1."
KEPT: Final = {
    "self_attention.linear_proj.weight": "self_attn.o_proj.weight",
    "self_attention.linear_proj.bias": "self_attn.o_proj.bias",
    "self_attention.q_layernorm.weight": "self_attn.q_norm.weight",
    "self_attention.k_layernorm.weight": "self_attn.k_norm.weight",
    "self_attention.linear_qkv.layer_norm_weight": "input_layernorm.weight",
    "input_layernorm.weight": "input_layernorm.weight",
    "mlp.linear_fc1.layer_norm_weight": "post_attention_layernorm.weight",
    "pre_mlp_layernorm.weight": "post_attention_layernorm.weight",
    "mlp.linear_fc2.weight": "mlp.down_proj.weight",
    "mlp.linear_fc2.bias": "mlp.down_proj.bias",
}
"""Parameters of a layer that only change their names."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a config.json decides how projections are cut; sizes in elements."""

    layers: int
    heads: int
    groups: int
    """Of key-value heads."""
    head_dim: int
    intermediate: int
    vocabulary: int


def shape_of(config: Mapping[str, Any]) -> Shape:
    """Return the sizes in *config*. Raises RefusedError for other architectures than the tested ones."""
    family = config.get("model_type")
    if family not in FAMILIES:
        raise RefusedError(
            f"Megatron checkpoints of {str(family)[:60]} are not converted here: dense "
            f"{', '.join(sorted(FAMILIES))} are",
            next_step="Convert it with NeMo RL's own converter, then import what it writes.",
        )
    heads = _size(config, "num_attention_heads")
    return Shape(
        layers=_size(config, "num_hidden_layers"),
        heads=heads,
        groups=_size(config, "num_key_value_heads", heads),
        head_dim=_size(config, "head_dim", _size(config, "hidden_size") // heads),
        intermediate=_size(config, "intermediate_size"),
        vocabulary=_size(config, "vocab_size"),
    )


def convert(found: Mapping[str, SourceTensor], config: Mapping[str, Any]) -> Iterator[SourceTensor]:
    """Yield the tensors of *found* (by Megatron's keys) under Hugging Face names.

    Optimiser state is passed over. Raises RefusedError for a parameter that is not of a dense decoder.
    """
    shape = shape_of(config)
    for key, tensor in found.items():
        name = _bare(key)
        if name.startswith(("optimizer.", "chained_")) or name.endswith("_extra_state"):
            continue
        if name.startswith(LAYERS):
            yield from _of_layers(name.removeprefix(LAYERS), tensor, shape)
        else:
            yield _outer(name, tensor, shape)


def _bare(key: str) -> str:
    for prefix in _PREFIXES[1:]:
        rest = key.removeprefix(prefix)
        if rest != key and rest.startswith(("decoder.", "embedding.", "output_layer.")):
            return rest
    return key


def _outer(name: str, tensor: SourceTensor, shape: Shape) -> SourceTensor:
    if name == "embedding.word_embeddings.weight":
        return slices.rows(tensor, "model.embed_tokens.weight", [(0, shape.vocabulary)])
    if name == "output_layer.weight":
        return slices.rows(tensor, "lm_head.weight", [(0, shape.vocabulary)])
    if name == "decoder.final_layernorm.weight":
        return slices.renamed(tensor, "model.norm.weight")
    raise _foreign(name)


def _of_layers(rest: str, tensor: SourceTensor, shape: Shape) -> Iterator[SourceTensor]:
    """Yield the parameters of one layer where *rest* begins with its number, else of all of them."""
    matched = _NUMBERED.fullmatch(rest)
    if matched:
        yield from _of_layer(int(matched[1]), matched[2], tensor, shape)
        return
    if not tensor.shape or tensor.shape[0] != shape.layers:
        raise RefusedError(
            f"{LAYERS}{rest} holds {tensor.shape[0] if tensor.shape else 0} layers; "
            f"the base model's config.json says {shape.layers}",
            next_step="Give the folder of the base model that the run was started from.",
        )
    for index in range(shape.layers):
        yield from _of_layer(index, rest, slices.layer(tensor, index), shape)


def _of_layer(index: int, name: str, tensor: SourceTensor, shape: Shape) -> Iterator[SourceTensor]:
    prefix = f"model.layers.{index}."
    if name in KEPT:
        yield slices.renamed(tensor, prefix + KEPT[name])
    elif name in (f"{QKV}weight", f"{QKV}bias"):
        yield from _queries_keys_values(prefix, name.removeprefix(QKV), tensor, shape)
    elif name in (f"{FC1}weight", f"{FC1}bias"):
        kind, size = name.removeprefix(FC1), shape.intermediate
        _check_rows(name, tensor, 2 * size)
        yield slices.rows(tensor, f"{prefix}mlp.gate_proj.{kind}", [(0, size)])
        yield slices.rows(tensor, f"{prefix}mlp.up_proj.{kind}", [(size, 2 * size)])
    else:
        raise _foreign(LAYERS + name)


def _queries_keys_values(
    prefix: str, kind: str, tensor: SourceTensor, shape: Shape
) -> Iterator[SourceTensor]:
    """Yield q_proj, k_proj and v_proj out of rows ordered [group][query heads..., key, value][head_dim]."""
    queries = shape.heads // shape.groups
    dim, height = shape.head_dim, (shape.heads // shape.groups + 2) * shape.head_dim
    _check_rows(QKV + kind, tensor, shape.groups * height)
    parts = {"q": (0, queries * dim), "k": (queries * dim, (queries + 1) * dim), "v": (height - dim, height)}
    for letter, (low, high) in parts.items():
        spans = [(group * height + low, group * height + high) for group in range(shape.groups)]
        yield slices.rows(tensor, f"{prefix}self_attn.{letter}_proj.{kind}", spans)


def _check_rows(name: str, tensor: SourceTensor, wanted: int) -> None:
    if not tensor.shape or tensor.shape[0] != wanted:
        raise RefusedError(
            f"{name} has {tensor.shape[0] if tensor.shape else 0} rows; the base model's config.json "
            f"asks for {wanted}",
            next_step="Give the folder of the base model that the run was started from.",
        )


def _foreign(name: str) -> RefusedError:
    return RefusedError(
        f"The checkpoint holds {name[:120]}, which is not part of a dense Llama, Qwen2 or Qwen3",
        next_step="Convert it with NeMo RL's own converter, then import what it writes.",
    )


def _size(config: Mapping[str, Any], key: str, default: int | None = None) -> int:
    value = config.get(key)
    if value is None and default is not None:
        return default
    if type(value) is not int or not 1 <= value < 1 << 32:
        raise RefusedError(
            f"config.json of the base model gives no usable {key}",
            next_step="Give the folder of the base model that the run was started from.",
        )
    return value
