"""The files beside the weights: tokenizer, chat template, generation defaults, and where each comes from."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.admission import bounded_json
from control_plane.admission.base import ReceivedFile
from control_plane.errors import InvalidInputError

TOKENIZER_FILES: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "vocab.txt", "tokenizer.model", "spiece.model", "chat_template.jinja", "chat_template.json",
)  # fmt: skip
"""Names that belong to a tokenizer; none of them holds code."""
MAIN_FILES: Final = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")
"""Any of these makes a folder one that holds a tokenizer."""
MAX_BYTES: Final = 256 * 1024 * 1024
GENERATION: Final = "generation_config.json"
NAMES: Final = (*TOKENIZER_FILES, GENERATION, "config.json")
"""All that is read of a base model's folder."""
IN_STEP: Final = ("policy/tokenizer", "tokenizer")
"""Where a step keeps its tokenizer; Megatron may put one beside the weights instead."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tokenizer:
    """The tokenizer of a converted model."""

    origin: str
    """`step` or `base model`."""
    sha256: str
    """Over the sorted lines "<name> <sha256>" of its files."""
    chat_template_sha256: str | None


def folder_in(step: Path, weights_folder: str) -> Path | None:
    """Return the folder of *step* that holds its tokenizer, None where there is none."""
    places = [step / place for place in IN_STEP]
    places += [step / weights_folder / "tokenizer", step / weights_folder]
    return next((place for place in places if holds_tokenizer(place)), None)


def holds_tokenizer(folder: Path) -> bool:
    """Tell whether *folder* holds a tokenizer."""
    return any((folder / name).is_file() for name in MAIN_FILES)


def copy_tokenizer(source: Path, target: Path, origin: str) -> Tokenizer:
    """Copy the tokenizer's files from *source* to *target*. Raises InvalidInputError for a file too large."""
    taken = [name for name in TOKENIZER_FILES if (source / name).is_file()]
    for name in taken:
        _copy(source / name, target / name)
    digests = {name: hashlib.sha256((target / name).read_bytes()).hexdigest() for name in taken}
    return Tokenizer(origin=origin, sha256=_joined(digests.items()), chat_template_sha256=_template(target))


def copy_generation(source: Path, target: Path) -> bool:
    """Copy generation_config.json if *source* holds one; whether it did. Raises admission's Refusal."""
    path = source / GENERATION
    if not path.is_file():
        return False
    bounded_json.parse_file(ReceivedFile(GENERATION, path, path.stat().st_size), 1024 * 1024)
    _copy(path, target / GENERATION)
    return True


def read_config(path: Path) -> dict[str, Any]:
    """Return the object in a config.json. Raises Refusal, InvalidInputError where it is missing."""
    if not path.is_file():
        raise InvalidInputError(
            f"{path} is missing", next_step="Give the folder of the base model as Hugging Face has it."
        )
    return bounded_json.parse_file(ReceivedFile(path.name, path, path.stat().st_size), 4 * 1024 * 1024)


def _copy(source: Path, target: Path) -> None:
    if source.stat().st_size > MAX_BYTES:
        raise InvalidInputError(f"{source.name} has more than {MAX_BYTES} bytes, which no tokenizer needs")
    shutil.copyfile(source, target)


def _joined(digests: Iterable[tuple[str, str]]) -> str:
    return hashlib.sha256(
        "\n".join(f"{name} {digest}" for name, digest in sorted(digests)).encode()
    ).hexdigest()


def _template(folder: Path) -> str | None:
    """Return the sha256 of the chat template: its own file, or the entry of tokenizer_config.json."""
    own = folder / "chat_template.jinja"
    if own.is_file():
        return hashlib.sha256(own.read_bytes()).hexdigest()
    config = folder / "tokenizer_config.json"
    if not config.is_file():
        return None
    template = bounded_json.parse_file(ReceivedFile(config.name, config, config.stat().st_size)).get(
        "chat_template"
    )
    return hashlib.sha256(template.encode()).hexdigest() if isinstance(template, str) else None
