"""Folders of Hugging Face's other libraries, told by the files that only they write. Pure."""

from __future__ import annotations

from typing import Final

from control_plane.admission.base import Received, ReceivedFile, Refusal
from control_plane.admission.reasons import ReasonCode

KINDS: Final = {
    "model_index.json": (
        "a diffusers pipeline: several networks and a loop around them",
        "Export the network that is to be served with torch.export, or upload its safetensors file alone.",
    ),
    "diffusion_pytorch_model.safetensors": (
        "a part of a diffusers pipeline, which no handler serves",
        "Export it with torch.export, or upload its safetensors file alone.",
    ),
    "adapter_config.json": (
        "a LoRA adapter (PEFT), which is nothing without the model it was trained on",
        "Merge it and upload the whole model: model.merge_and_unload().save_pretrained(folder).",
    ),
}
"""Name of a file → what a folder with it is, and what to do."""


def is_other(received: Received) -> bool:
    """Tell whether the files are several, and of one of these kinds."""
    return len(received) > 1 and not KINDS.keys().isdisjoint(_at_top(received))


def check(received: Received) -> None:
    """Refuse the files where they are of one of these kinds."""
    if not is_other(received):
        return
    names = _at_top(received)
    name = next(name for name in KINDS if name in names)
    what, next_step = KINDS[name]
    raise Refusal(
        ReasonCode.UNSUPPORTED_ARCHITECTURE, f"{names[name].path} says that this is {what}", next_step,
        file=names[name].path,
    )  # fmt: skip


def _at_top(received: Received) -> dict[str, ReceivedFile]:
    """Return the files that lie in the fewest folders, by name: what lies deeper may be left out."""
    depth = min(file.path.count("/") for file in received)
    return {file.name: file for file in received if file.path.count("/") == depth}
