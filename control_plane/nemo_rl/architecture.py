"""The tensors that a config.json asks for, by building its network on torch's meta device."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.admission.tensors import SourceTensor
from control_plane.errors import RefusedError

OFFLINE: Final[dict[str, Any]] = {"local_files_only": True, "trust_remote_code": False}
SHOWN: Final = 3
"""Names that a message lists."""


@dataclass(frozen=True, slots=True)
class Expected:
    """What a network's state dict holds."""

    shapes: dict[str, tuple[int, ...]]
    """Name → shape, without the second names of tied tensors."""
    tied: dict[str, str]
    """Second name → the name it is tied to."""
    vocabulary: int


def expected(folder: Path, *, reward_model: bool) -> Expected:
    """Build the network of `config.json` in *folder* without memory. Raises RefusedError where that fails."""
    import torch
    import transformers

    try:
        config = transformers.AutoConfig.from_pretrained(folder, **OFFLINE)
        with torch.device("meta"):
            model = opener(reward_model).from_config(config, trust_remote_code=False)
        model.tie_weights()
    except Exception as error:  # transformers raises whatever its model code raises
        raise RefusedError(
            f"transformers cannot build the network of config.json: {type(error).__name__}: {error}"[:400],
            next_step="Give the folder of the base model that the run was started from.",
        ) from error
    first: dict[int, str] = {}
    shapes, tied = {}, {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) in first:
            tied[name] = first[id(tensor)]
        else:
            first[id(tensor)] = name
            shapes[name] = tuple(tensor.shape)
    return Expected(shapes, tied, int(getattr(config.get_text_config(), "vocab_size", 0) or 0))


def padding(folder: Path) -> int | None:
    """Return the padding token of the tokenizer in *folder*. Raises RefusedError where it does not open."""
    import transformers

    try:
        token = transformers.AutoTokenizer.from_pretrained(folder, **OFFLINE).pad_token_id
    except Exception as error:  # transformers raises whatever its tokenizers raise
        raise RefusedError(
            f"transformers cannot open the tokenizer: {type(error).__name__}: {error}"[:400],
            next_step="Give the base model's folder and allow its tokenizer.",
        ) from error
    return int(token) if token is not None else None


def opener(reward_model: bool) -> Any:  # noqa: FBT001  the only choice there is
    """Return the transformers class that opens a language model, or a reward model."""
    import transformers

    return (
        transformers.AutoModelForSequenceClassification if reward_model else transformers.AutoModelForCausalLM
    )


def check(tensors: Iterable[SourceTensor], wanted: Expected) -> None:
    """Compare names and shapes with what the network asks for, both ways. Raises RefusedError naming some."""
    found = {tensor.name: tensor.shape for tensor in tensors}
    missing = [name for name in wanted.shapes if name not in found]
    foreign = [name for name in found if name not in wanted.shapes]
    other = [
        f"{name} is {list(found[name])} instead of {list(shape)}"
        for name, shape in wanted.shapes.items()
        if name in found and found[name] != shape
    ]
    complaints = [
        words + _some(names)
        for words, names in (
            ("missing: ", missing),
            ("not part of it: ", foreign),
            ("of another shape: ", other),
        )
        if names
    ]
    if complaints:
        raise RefusedError(
            "The weights do not fit the network of config.json; " + "; ".join(complaints),
            next_step="If shards are missing, copy the checkpoint again; else give the base model's folder.",
            reason="incomplete-weights",
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
