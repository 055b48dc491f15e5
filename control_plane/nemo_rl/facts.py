"""What a run's config.yaml says of it: algorithm, base model, precision, parallelism, data. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from control_plane.nemo_rl.documents import at, shown

ALGORITHMS: Final = ("grpo", "ppo", "dpo", "sft", "rm", "distillation")
"""Top-level keys of config.yaml; the one that is present names the algorithm."""
DEGREES: Final = {
    "tensor": "tensor_parallel_size",
    "context": "context_parallel_size",
    "pipeline": "pipeline_parallel_size",
    "expert": "expert_parallel_size",
}
MEGATRON_DEGREES: Final = {
    "tensor": "tensor_model_parallel_size",
    "context": "context_parallel_size",
    "pipeline": "pipeline_model_parallel_size",
    "expert": "expert_model_parallel_size",
}
SAMPLING: Final = ("temperature", "top_p", "top_k", "max_new_tokens", "stop_token_ids", "stop_strings")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """A run in words and numbers; None or empty where the config says nothing."""

    algorithm: str | None
    variant: str | None
    """Of GRPO: the advantage estimator's name."""
    base_model: str | None
    tokenizer: str | None
    precision: str | None
    max_length: int | None
    """Longest sequence in training, in tokens."""
    backend: str | None
    """`DTensor v1`, `DTensor v2` or `Megatron`."""
    parallelism: dict[str, int]
    """Kind → number of ranks, those above 1."""
    gpus: int | None
    datasets: dict[str, str]
    """`train` and `validation` → name of the dataset."""
    prompts: dict[str, str]
    """`prompt_file` and `system_prompt_file` → path on the training machine."""
    sampling: dict[str, Any]
    metric_name: str | None
    higher_is_better: bool
    keep_top_k: int | None
    save_period: int | None
    reward_model: bool
    config_overrides: dict[str, Any]
    """`policy.hf_config_overrides`: what training changed in the base model's config.json."""


def of(config: Mapping[str, Any]) -> Facts:
    """Return what *config*, a parsed config.yaml, says. Values of an unexpected type count as absent."""
    algorithm = next((name for name in ALGORITHMS if name in config), None)
    megatron = bool(at(config, "policy.megatron_cfg.enabled"))
    return Facts(
        algorithm=algorithm,
        variant=_text(at(config, "grpo.adv_estimator.name")),
        base_model=_text(at(config, "policy.model_name")),
        tokenizer=_text(at(config, "policy.tokenizer.name")),
        precision=_text(at(config, "policy.precision")),
        max_length=_number(at(config, "policy.max_total_sequence_length")),
        backend=_backend(config, megatron=megatron),
        parallelism=_parallelism(config, megatron=megatron),
        gpus=_gpus(config),
        datasets=_datasets(config),
        prompts=_prompts(config),
        sampling=_sampling(config),
        metric_name=_text(at(config, "checkpointing.metric_name")),
        higher_is_better=at(config, "checkpointing.higher_is_better") is not False,
        keep_top_k=_number(at(config, "checkpointing.keep_top_k")),
        save_period=_number(at(config, "checkpointing.save_period")),
        reward_model=algorithm == "rm" or bool(at(config, "policy.reward_model_cfg.enabled")),
        config_overrides=_mapping(at(config, "policy.hf_config_overrides")),
    )


def _backend(config: Mapping[str, Any], *, megatron: bool) -> str | None:
    if megatron:
        return "Megatron"
    if not isinstance(at(config, "policy.dtensor_cfg"), Mapping):
        return None
    return "DTensor v2" if at(config, "policy.dtensor_cfg._v2") else "DTensor v1"


def _parallelism(config: Mapping[str, Any], *, megatron: bool) -> dict[str, int]:
    block = at(config, "policy.megatron_cfg" if megatron else "policy.dtensor_cfg")
    names = MEGATRON_DEGREES if megatron else DEGREES
    degrees = {kind: _number(at(block, name)) for kind, name in names.items()}
    return {kind: degree for kind, degree in degrees.items() if degree is not None and degree > 1}


def _gpus(config: Mapping[str, Any]) -> int | None:
    nodes, each = _number(at(config, "cluster.num_nodes")), _number(at(config, "cluster.gpus_per_node"))
    return nodes * each if nodes and each else None


def _datasets(config: Mapping[str, Any]) -> dict[str, str]:
    """Return dataset names: `data.train.dataset_name` today, `data.dataset_name` before."""
    found = {
        "train": _text(at(config, "data.train.dataset_name")) or _text(at(config, "data.dataset_name")),
        "validation": _text(at(config, "data.validation.dataset_name"))
        or _text(at(config, "data.val_dataset_name")),
    }
    return {name: value for name, value in found.items() if value}


def _prompts(config: Mapping[str, Any]) -> dict[str, str]:
    found = {
        name: _text(at(config, f"data.default.{name}")) or _text(at(config, f"data.{name}"))
        for name in ("prompt_file", "system_prompt_file")
    }
    return {name: value for name, value in found.items() if value}


def _sampling(config: Mapping[str, Any]) -> dict[str, Any]:
    block = _mapping(at(config, "policy.generation"))
    return {name: block[name] for name in SAMPLING if isinstance(block.get(name), int | float | str | list)}


def _text(value: Any) -> str | None:
    return shown("", value)[:300] if isinstance(value, str) and value else None


def _number(value: Any) -> int | None:
    return value if type(value) is int and 0 <= value < 1 << 53 else None


def _mapping(value: Any) -> dict[str, Any]:
    return {str(key): held for key, held in value.items()} if isinstance(value, Mapping) else {}
