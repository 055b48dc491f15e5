"""Which of the six forms a step's weights have, by the files that are there and nothing else. Pure.

Writers: nemo_rl/utils/{checkpoint,native_checkpoint}.py and nemo_rl/models/automodel/checkpoint.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final

WEIGHTS: Final = "policy/weights/"
"""Where a step keeps the policy's weights; the value network of PPO is left alone."""
_FLAT_DCP: Final = re.compile(r"\.metadata|__\d+_\d+\.distcp")
_MODEL_DCP: Final = re.compile(r"model/(\.metadata|__\d+_\d+\.distcp)")
_SHARDS: Final = re.compile(r"model/shard-\d+-model-\d+-of-\d+\.safetensors")
_CONSOLIDATED: Final = re.compile(r"model/consolidated/[^/]+\.safetensors")
_ADAPTER: Final = re.compile(r"model/adapter_model\.(safetensors|bin)")
_MEGATRON: Final = re.compile(r"iter_\d{7}/(\.metadata|__\d+_\d+\.distcp)")
TITLES: Final = {
    "A": "DTensor v1, distributed checkpoint",
    "B": "DTensor v2, sharded safetensors",
    "C": "DTensor v2, distributed checkpoint",
    "D": "consolidated safetensors",
    "E": "LoRA adapter",
    "F": "Megatron torch_dist",
}
ADAPTER_REASON: Final = (
    "It holds a LoRA adapter, not a whole model. Merge it into its base model with peft "
    "(merge_and_unload, then save_pretrained) and upload the folder that it writes."
)


@dataclass(frozen=True, slots=True)
class Form:
    """A step's weights: their form, their files, and whether they can be converted."""

    letter: str | None
    """A to F; None where nothing known was found."""
    title: str
    weights: tuple[str, ...]
    """Files that hold the weights, relative to the step, sorted."""
    folder: str
    """Folder of the weights relative to the step, ending in a slash; "" for the step itself."""
    config: str | None
    """The config.json that comes with them, relative to the step."""
    weight_bytes: int
    skipped_bytes: int
    """Of optimiser, data loader, replay buffer and all else that is not read."""
    convertible: bool
    reason: str
    """Why not, or what conversion needs; empty where nothing is to be said."""

    @property
    def needs_base(self) -> bool:
        """Whether the base model's folder must be given for its config.json."""
        return self.convertible and self.config is None


def detect(files: Mapping[str, int]) -> Form:
    """Return the form of the step or weights folder that holds *files* (path → size in bytes)."""
    prefix = WEIGHTS if any(path.startswith(WEIGHTS) for path in files) else ""
    inside = {path.removeprefix(prefix): size for path, size in files.items() if path.startswith(prefix)}
    found = {letter: names for letter, find in _FINDERS.items() if (names := find(inside))}
    if "D" in found:
        found.pop("B", None)  # `save_consolidated` leaves the shards beside the consolidated files
    if len(found) != 1:
        return _unknown(files, found)
    ((letter, names),) = found.items()
    return _known(letter, names, prefix, files)


def _known(letter: str, names: list[str], prefix: str, files: Mapping[str, int]) -> Form:
    weights = tuple(sorted(prefix + name for name in names))
    config = next((prefix + name for name in _CONFIGS.get(letter, ()) if prefix + name in files), None)
    weight_bytes = sum(files[name] for name in weights)
    reason = ADAPTER_REASON if letter == "E" else _missing(letter, names)
    folder = weights[0].rpartition("/")[0]
    return Form(
        letter, TITLES[letter], weights, folder + "/" if folder else "", config, weight_bytes,
        sum(files.values()) - weight_bytes, not reason, reason,
    )  # fmt: skip


def _missing(letter: str, names: list[str]) -> str:
    if letter not in ("A", "C", "F"):
        return ""
    if not any(name.endswith(".metadata") for name in names):
        return "Its .metadata is missing, which says where each tensor lies: the save was cut short."
    if not any(name.endswith(".distcp") for name in names):
        return "Its .distcp files are missing: the save was cut short, or the files were not copied."
    if letter == "F" and len({name.partition("/")[0] for name in names}) > 1:
        return "It holds several iterations; name the folder of one of them."
    return ""


def _unknown(files: Mapping[str, int], found: Mapping[str, list[str]]) -> Form:
    if found:
        kinds = " and ".join(f"{TITLES[letter]} ({names[0]})" for letter, names in sorted(found.items()))
        reason = f"It holds weights of more than one form: {kinds}. Name the folder of the one you mean."
    else:
        some = ", ".join(list(files)[:3]) or "no file"
        reason = f"No weights of a known form are in it; found: {some[:200]}."
    return Form(None, "unknown", (), "", None, 0, sum(files.values()), convertible=False, reason=reason)


def _matching(pattern: re.Pattern[str]) -> Callable[[Mapping[str, int]], list[str]]:
    return lambda files: [name for name in files if pattern.fullmatch(name)]


_FINDERS: Final = {
    "A": _matching(_FLAT_DCP),
    "B": _matching(_SHARDS),
    "C": _matching(_MODEL_DCP),
    "D": _matching(_CONSOLIDATED),
    "E": _matching(_ADAPTER),
    "F": _matching(_MEGATRON),
}
_CONFIGS: Final = {
    "B": ("model/.hf_metadata/config.json",),
    "C": ("model/.hf_metadata/config.json",),
    "D": ("model/consolidated/config.json", "model/.hf_metadata/config.json"),
}
"""Where a form may bring the model's config.json."""
