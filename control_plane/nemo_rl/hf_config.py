"""config.json of a converted checkpoint: the base model's, with what training changed. Pure."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Final

from control_plane.errors import InvalidInputError
from control_plane.nemo_rl.documents import leaves

CODE_KEYS: Final = ("auto_map", "custom_pipelines", "trust_remote_code", "custom_generate")
"""Entries that name code; transformers' own class of the architecture is used without them."""
DROPPED: Final = (*CODE_KEYS, "quantization_config")
"""Entries that are left out: the weights are as trained, whatever the base model's file was."""
TORCH_NAMES: Final = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}
SCORE: Final = "score"
CAUSAL: Final = "ForCausalLM"
CLASSIFIER: Final = "ForSequenceClassification"


def made(
    base: Mapping[str, Any],
    *,
    overrides: Mapping[str, Any],
    dtype: str,
    reward_model: bool,
    padding: int | None = None,
) -> dict[str, Any]:
    """Return the config of the converted model.

    base: the config.json that came with the weights, or the base model's; overrides:
    `policy.hf_config_overrides`; dtype: safetensors' name of the weights' element type; padding: the
    tokenizer's padding token. A reward model gets one output and no language-model head. Raises
    InvalidInputError where *base* names no architecture.
    """
    config: dict[str, Any] = copy.deepcopy({key: base[key] for key in base if key not in DROPPED})
    _merge(config, overrides)
    if dtype in TORCH_NAMES:
        config["dtype"] = TORCH_NAMES[dtype]
        config["torch_dtype"] = config["dtype"]  # the name before transformers 5
    architecture = _architecture(config)
    if reward_model:
        bare = architecture.removesuffix(CLASSIFIER).removesuffix(CAUSAL)
        config["architectures"] = [bare + CLASSIFIER]
        config["id2label"], config["label2id"] = {"0": SCORE}, {SCORE: 0}
        config.pop("num_labels", None)
        config["problem_type"] = "regression"
        if config.get("pad_token_id") is None and padding is not None:
            config["pad_token_id"] = padding  # without it only one text at a time can be scored
    return config


def dropped(base: Mapping[str, Any]) -> list[str]:
    """Return the entries of *base* that are left out."""
    return [key for key in DROPPED if key in base]


def _architecture(config: Mapping[str, Any]) -> str:
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0].isidentifier():
        return named[0]
    raise InvalidInputError(
        "config.json does not name one architecture",
        next_step="Give the folder of the base model as Hugging Face has it.",
    )


def _merge(config: dict[str, Any], overrides: Mapping[str, Any]) -> None:
    """Write *overrides* over *config*, mapping by mapping. Raises InvalidInputError for what JSON lacks."""
    for path, value in leaves(overrides):
        if not isinstance(value, str | int | float | bool | list | dict | None):
            raise InvalidInputError(f"policy.hf_config_overrides.{path} is a {type(value).__name__}")
    for key, value in overrides.items():
        if key in DROPPED:
            continue
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _merge(config[key], value)
        else:
            config[key] = copy.deepcopy(value)
