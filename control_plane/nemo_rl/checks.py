"""Checks of a converted folder before it becomes a version: equal samples, finite numbers, one real run."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from control_plane.admission.base import WeightsFile
from control_plane.admission.tensors import ITEM_BYTES, Piece, SourceTensor
from control_plane.errors import RefusedError
from control_plane.nemo_rl.architecture import OFFLINE, opener
from control_plane.nemo_rl.plan import FLOATS

SAMPLED_TENSORS: Final = 512
SAMPLED_ITEMS: Final = 16
"""Elements compared of each sampled tensor, its two corners among them."""
FINITE_ITEMS: Final = 65_536
"""Elements from a random place on of each sampled tensor that must be finite."""
SMOKE_SHARE: Final = 0.5
"""Share of the free memory that a model may take to be run once here."""
TORCH: Final = {
    "F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16", "I64": "int64", "I32": "int32",
    "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool",
}  # fmt: skip
DAMAGED: Final = "Convert it again; if it fails again, the step's own files are damaged."


@dataclass(frozen=True, slots=True)
class Samples:
    """What was compared."""

    tensors: int
    items: int


class _Written:
    """A safetensors file that we wrote, element by element."""

    def __init__(self, path: Path) -> None:
        self._stream = path.open("rb")
        size = int.from_bytes(self._stream.read(8), "little")
        self.entries: dict[str, Any] = json.loads(self._stream.read(size))
        self._begin = 8 + size

    def read(self, name: str, start: int, count: int) -> tuple[bytes, str]:
        """Return *count* elements from flat index *start* on, and their type."""
        entry = self.entries[name]
        item = ITEM_BYTES[entry["dtype"]]
        self._stream.seek(self._begin + entry["data_offsets"][0] + start * item)
        return self._stream.read(count * item), entry["dtype"]

    def close(self) -> None:
        self._stream.close()


def samples(files: Sequence[WeightsFile], folder: Path, seed: int) -> Samples:
    """Compare random elements of *folder*'s shards with the same elements of the sources, and look for NaN.

    Places in the sources are computed anew, one by one, not by the code that copied. A cast element must be
    what torch makes of the source's. Raises RefusedError naming the tensor.
    """
    chance = random.Random(seed)  # noqa: S311  a sample to look at, no secret
    everything = [(file, tensor) for file in files for tensor in file.tensors if math.prod(tensor.shape)]
    chosen = chance.sample(everything, min(SAMPLED_TENSORS, len(everything)))
    opened = {file.name: _Written(folder / file.name) for file in files}
    try:
        for file, tensor in chosen:
            _check_equal(tensor, opened[file.name], chance)
            _check_finite(tensor, opened[file.name], chance)
    finally:
        for written in opened.values():
            written.close()
    return Samples(len(chosen), sum(min(SAMPLED_ITEMS, math.prod(tensor.shape)) for _, tensor in chosen))


def _check_equal(tensor: SourceTensor, written: _Written, chance: random.Random) -> None:
    count = math.prod(tensor.shape)
    for place in {0, count - 1, *(chance.randrange(count) for _ in range(SAMPLED_ITEMS - 2))}:
        ours, dtype = written.read(tensor.name, place, 1)
        theirs = _as(dtype, source_bytes(tensor, _index(place, tensor.shape)), tensor.dtype)
        if ours != theirs:
            raise RefusedError(
                f"Element {place} of {tensor.name} differs from the step's own", next_step=DAMAGED
            )


def _check_finite(tensor: SourceTensor, written: _Written, chance: random.Random) -> None:
    import torch

    count = math.prod(tensor.shape)
    wanted = min(FINITE_ITEMS, count)
    data, dtype = written.read(tensor.name, chance.randrange(count - wanted + 1), wanted)
    if dtype not in FLOATS:
        return
    values = torch.frombuffer(bytearray(data), dtype=getattr(torch, TORCH[dtype]))
    if not bool(torch.isfinite(values).all()):
        raise RefusedError(
            f"{tensor.name} holds NaN or infinite numbers: the training had diverged, or the file is damaged",
            next_step="Import an earlier step.",
            reason="not-finite",
        )


def _index(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    index = []
    for size in reversed(shape):
        place, rest = divmod(place, size)
        index.append(rest)
    return tuple(reversed(index))


def source_bytes(tensor: SourceTensor, index: tuple[int, ...]) -> bytes:
    """Return the bytes of the element at *index*, read from the file that holds it."""
    piece = next(piece for piece in tensor.pieces if _holds(piece, index))
    place = piece.start + sum(
        (at - low) * stride for at, low, stride in zip(index, piece.at, piece.strides, strict=True)
    )
    item = ITEM_BYTES[tensor.dtype]
    with piece.storage.location.open("rb") as stream:
        stream.seek(piece.storage.offset + place * item)
        return stream.read(item)


def _holds(piece: Piece, index: tuple[int, ...]) -> bool:
    return all(low <= at < low + size for at, low, size in zip(index, piece.at, piece.shape, strict=True))


def _as(dtype: str, data: bytes, source_dtype: str) -> bytes:
    if dtype == source_dtype:
        return data
    import torch

    value = torch.frombuffer(bytearray(data), dtype=getattr(torch, TORCH[source_dtype]))
    return value.to(getattr(torch, TORCH[dtype])).view(torch.uint8).numpy().tobytes()


def smoke(folder: Path, *, reward_model: bool, size_bytes: int, free_bytes: int) -> str:
    """Open *folder* as transformers does and run it once; return what was done, in words.

    A language model generates a few tokens, a reward model scores a few. A model that takes more than
    SMOKE_SHARE of *free_bytes* is not opened, and the words say so. Raises RefusedError where tensors are
    missing or left, or an output is not finite.
    """
    if size_bytes > SMOKE_SHARE * free_bytes:
        return "not run: the model is larger than half of the free memory"
    import torch

    model, report = opener(reward_model).from_pretrained(
        folder, dtype="auto", use_safetensors=True, output_loading_info=True, **OFFLINE
    )
    _check_loaded(report)
    tokens = torch.arange(1, 5)[None, :] % max(2, int(model.config.get_text_config().vocab_size))
    with torch.inference_mode():
        scores = model(input_ids=tokens).logits
        if not bool(torch.isfinite(scores).all()):
            raise RefusedError("The converted model gives NaN or infinite numbers", next_step=DAMAGED)
        if reward_model:
            return f"scored {tokens.shape[1]} tokens"
        made = model.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0)
    return f"generated {made.shape[1] - tokens.shape[1]} tokens"


def _check_loaded(report: Mapping[str, Any]) -> None:
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if names := list(report.get(kind) or ()):
            raise RefusedError(
                f"transformers opens the converted model with {kind.replace('_', ' ')}: {names[0]}",
                next_step=DAMAGED,
            )
