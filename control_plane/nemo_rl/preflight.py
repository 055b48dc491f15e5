"""What a conversion would need and make, said before it begins. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.nemo_rl.form_megatron import FAMILIES
from control_plane.nemo_rl.run import Run, Step

BLOCKS_BYTES: Final = 96 * 1024 * 1024
"""What the copying itself holds at a time, whatever the checkpoint's size."""
LIBRARIES_BYTES: Final = 450 * 1024 * 1024
"""What torch and transformers take in the job's process."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preflight:
    """The answer to "can this step become a version, and what does it take"."""

    step: int | None
    form: str | None
    title: str
    ready: bool
    problems: tuple[str, ...]
    """What stands in the way, each a sentence with what to do."""
    notes: tuple[str, ...]
    """What to know besides."""
    output_bytes: int
    """At most; form F holds the optimiser in the same files, so it is much less there."""
    skipped_bytes: int
    memory_bytes: int
    """Peak of the copying; the last check takes the model's size where half of the free memory holds it."""
    casts: bool
    """Whether float32 weights would be written as bfloat16."""
    command: str | None
    """NVIDIA's own converter, where we do not convert."""


def look(
    run: Run,
    step: Step,
    *,
    base: Mapping[str, Any] | None,
    base_tokenizer: bool,
    own_tokenizer: bool,
    dtype: str | None,
    free_bytes: int,
) -> Preflight:
    """Say what converting *step* would take.

    base: config.json of the base model's folder, None where none was given; base_tokenizer: whether its
    tokenizer is there and allowed; own_tokenizer: whether the step has one; free_bytes: of the disk, above
    what must stay free.
    """
    casts = dtype == "bf16" or (dtype is None and run.facts.precision in ("bfloat16", "bf16"))
    output = step.form.weight_bytes // 2 if casts else step.form.weight_bytes
    problems = _problems(step, base, base_tokenizer=base_tokenizer, own_tokenizer=own_tokenizer)
    if output > free_bytes:
        problems.append(f"The disk has room for {free_bytes} bytes; up to {output} are needed. Free some.")
    return Preflight(
        step=step.number,
        form=step.form.letter,
        title=step.form.title,
        ready=not problems,
        problems=tuple(problems),
        notes=_notes(run, own_tokenizer=own_tokenizer),
        output_bytes=output,
        skipped_bytes=step.form.skipped_bytes,
        memory_bytes=LIBRARIES_BYTES + BLOCKS_BYTES,
        casts=casts,
        command=megatron_command(step) if step.form.letter == "F" else None,
    )


def megatron_command(step: Step) -> str:
    """Return NeMo RL's own command that converts a Megatron checkpoint."""
    folder = Path(step.folder)
    iteration = folder / step.form.folder.rstrip("/")
    return (
        "uv run --extra mcore python examples/converters/convert_megatron_to_hf.py "
        f"--config {shlex.quote(str(folder / 'config.yaml'))} "
        f"--megatron-ckpt-path {shlex.quote(str(iteration))} --hf-ckpt-path hf_model"
    )


def _problems(
    step: Step, base: Mapping[str, Any] | None, *, base_tokenizer: bool, own_tokenizer: bool
) -> list[str]:
    if not step.form.convertible:
        return [step.form.reason]
    found = []
    if step.form.needs_base and base is None:
        found.append(f"{step.form.title} brings no config.json: give the folder of the base model.")
    if not own_tokenizer and not base_tokenizer:
        found.append("The step holds no tokenizer: give the base model's folder and allow its tokenizer.")
    if step.form.letter == "F" and base is not None and base.get("model_type") not in FAMILIES:
        found.append(
            f"Megatron checkpoints of {str(base.get('model_type'))[:60]} are not converted here; "
            "run NeMo RL's own converter and upload the folder it writes."
        )
    return found


def _notes(run: Run, *, own_tokenizer: bool) -> tuple[str, ...]:
    notes = [
        f"The {name.replace('_', ' ')} is not in the checkpoint: keep {path} beside the version."
        for name, path in run.facts.prompts.items()
    ]
    if run.facts.config_overrides:
        notes.append(f"Applied to config.json: {', '.join(sorted(run.facts.config_overrides))}.")
    if not own_tokenizer:
        notes.append("The base model's tokenizer and chat template are used.")
    if run.facts.reward_model:
        notes.append("A reward model: it becomes a version that gives one score a text.")
    return tuple(notes)
