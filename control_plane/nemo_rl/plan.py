"""What a conversion will write: tensors, their element type, config and tokenizer. Writes the small files."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from control_plane.admission import coverage, safetensors_writer
from control_plane.admission.base import WeightsFile
from control_plane.admission.safetensors_writer import Cast
from control_plane.admission.tensors import SourceTensor
from control_plane.errors import InvalidInputError
from control_plane.nemo_rl import architecture, bfloat16, companions, hf_config, sources
from control_plane.nemo_rl.companions import Tokenizer
from control_plane.nemo_rl.run import Run, Step
from control_plane.nemo_rl.sources import Weights
from control_plane.nemo_rl.tied_head import without_tied_head

FLOATS: Final = frozenset({"F64", "F32", "F16", "BF16"})
REWARD_HEAD: Final = "score.weight"

Dtype = Literal["keep", "bf16"]


@dataclass(frozen=True, slots=True)
class ElementType:
    """Safetensors' names of the weights' main floating-point type, before and after."""

    saved: str
    written: str

    @property
    def cast(self) -> Cast | None:
        """How it changes; None where it stays."""
        return bfloat16.cast() if self.saved != self.written else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Wishes:
    """What a person chose."""

    base: Path | None
    """Folder of the base model; its config.json is needed for forms A, C and F."""
    base_tokenizer: bool
    """Whether the base model's tokenizer may stand in for one that the step lacks."""
    dtype: Dtype | None
    """None: bf16 where the run trained in bfloat16 and saved float32 masters, else as it is."""
    shard_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is known before the first shard is written."""

    weights: Weights
    files: tuple[WeightsFile, ...]
    dtype: ElementType
    size_bytes: int
    """Of the weights that will be written."""
    reward_model: bool
    vocabulary: int
    tokenizer: Tokenizer
    dropped: list[str]
    """Entries of the base's config.json that were left out."""


def make(step: Step, held: Run, wishes: Wishes, target: Path) -> Plan:
    """Find the tensors, write config.json, tokenizer and generation defaults to *target*, compare the two.

    Raises Refusal, RefusedError where the weights do not fit, InvalidInputError where something is missing.
    """
    base = companions.read_config(_config_path(step, wishes))
    weights = sources.read(Path(step.folder), step.form, base)
    coverage.check(weights.tensors, Path(step.folder).name)
    dtype = element_type(weights.tensors, wishes.dtype, held.facts.precision)
    reward_model = held.facts.reward_model or any(each.name == REWARD_HEAD for each in weights.tensors)
    tokenizer = _tokenizer(step, wishes, target)
    config = hf_config.made(
        base,
        overrides=held.facts.config_overrides,
        dtype=dtype.written,
        reward_model=reward_model,
        padding=architecture.padding(target) if reward_model else None,
    )
    (target / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    _generation(step, wishes, target)
    wanted = architecture.expected(target, reward_model=reward_model)
    tensors = without_tied_head(weights.tensors, wanted)
    architecture.check(tensors, wanted)
    return Plan(
        weights=weights,
        files=safetensors_writer.shards(tensors, wishes.shard_bytes, cast=dtype.cast),
        dtype=dtype,
        size_bytes=written_bytes(tensors, dtype),
        reward_model=reward_model,
        vocabulary=wanted.vocabulary,
        tokenizer=tokenizer,
        dropped=hf_config.dropped(base),
    )


def element_type(found: Sequence[SourceTensor], wanted: Dtype | None, precision: str | None) -> ElementType:
    """Return how the weights are written: only float32 is ever cast, and only to bfloat16. Pure."""
    sizes: dict[str, int] = {}
    for tensor in found:
        if tensor.dtype in FLOATS:
            sizes[tensor.dtype] = sizes.get(tensor.dtype, 0) + tensor.size_bytes
    saved = max(sizes, key=lambda kind: sizes[kind]) if sizes else "F32"
    chosen = wanted or ("bf16" if precision in ("bfloat16", "bf16") else "keep")
    return ElementType(saved, "BF16" if chosen == "bf16" and saved == "F32" else saved)


def written_bytes(tensors: Sequence[SourceTensor], dtype: ElementType) -> int:
    """Return the bytes that *tensors* take when written. Pure."""
    halved = bfloat16.TARGETS if dtype.saved != dtype.written else {}
    return sum(each.size_bytes // 2 if each.dtype in halved else each.size_bytes for each in tensors)


def _config_path(step: Step, wishes: Wishes) -> Path:
    if step.form.config:
        return Path(step.folder) / step.form.config
    if wishes.base is None:
        raise InvalidInputError(
            f"This step brings no config.json ({step.form.title})",
            next_step="Give the folder of the base model that the run was started from.",
        )
    return wishes.base / "config.json"


def _tokenizer(step: Step, wishes: Wishes, target: Path) -> Tokenizer:
    own = companions.folder_in(Path(step.folder), step.form.folder)
    if own is not None:
        return companions.copy_tokenizer(own, target, "step")
    if wishes.base is not None and wishes.base_tokenizer and companions.holds_tokenizer(wishes.base):
        return companions.copy_tokenizer(wishes.base, target, "base model")
    raise InvalidInputError(
        "This step holds no tokenizer",
        next_step="Give the base model's folder and allow its tokenizer, if the training did not change it.",
    )


def _generation(step: Step, wishes: Wishes, target: Path) -> None:
    beside = [Path(step.folder, step.form.config).parent] if step.form.config else []
    folders = [*beside, *([wishes.base] if wishes.base else [])]
    any(companions.copy_generation(folder, target) for folder in folders)


def lineage(step: Step, held: Run, plan: Plan, wishes: Wishes) -> dict[str, Any]:
    """Return what the version keeps of where it came from, save hashes of files. Plain JSON values or NaN."""
    return {
        "kind": "nemo-rl",
        "step": step.number,
        "form": step.form.letter,
        "form_title": step.form.title,
        "algorithm": held.facts.algorithm,
        "base_model": held.facts.base_model,
        "base_config": None if step.form.config else str(wishes.base),
        "precision": held.facts.precision,
        "max_length": held.facts.max_length,
        "metric_name": held.facts.metric_name,
        "training_info": step.info,
        "saved_at": plan.weights.saved_at,
        "left_out_keys": len(plan.weights.left),
        "skipped_bytes": step.form.skipped_bytes,
        "dtype": {"saved": plan.dtype.saved, "written": plan.dtype.written},
        "config_overrides": held.facts.config_overrides,
        "config_entries_dropped": plan.dropped,
        "tokenizer": {
            "origin": plan.tokenizer.origin,
            "sha256": plan.tokenizer.sha256,
            "chat_template_sha256": plan.tokenizer.chat_template_sha256,
        },
        "sampling": held.facts.sampling,
    }
