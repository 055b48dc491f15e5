"""The `.metadata` of a distributed checkpoint (torch.distributed.checkpoint), followed without unpickling.

Layout: torch/distributed/checkpoint/metadata.py and filesystem.py (DCP 1.0.0): `state_dict_metadata` names
tensors with their chunks, `storage_data` says in which file and where each chunk lies, `planner_data` gives
the keys of the saved object. A pickle that names anything but these classes is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission.base import ReceivedFile, Refusal
from control_plane.admission.pickle_symbols import Call, Global, Items, Machine, NotAPickleError
from control_plane.admission.pickled_tensors import named
from control_plane.admission.reasons import ReasonCode

MAX_BYTES: Final = 256 * 1024 * 1024
"""A checkpoint of 723 tensors by 64 ranks needs about 10 MB."""
OPCODES_PER_BYTE: Final = 1
MAX_DIMENSIONS: Final = 16
MAX_SIZE: Final = 1 << 48
MAX_FIELDS: Final = 32
"""Of one object, and parts of one path."""
BYTES_PER_CHUNK: Final = 16
"""A chunk takes more in the file; entries that share their chunks would multiply them."""
DATA_FILE: Final = re.compile(r"__\d{1,7}_\d{1,7}\.distcp")
SAVE_AGAIN: Final = "Copy the checkpoint again from where it was saved, with every file of its folder."

_METADATA: Final = "torch.distributed.checkpoint.metadata"
_PLANNER: Final = "torch.distributed.checkpoint.planner"
_CLASSES: Final = {
    _METADATA: {
        "Metadata", "TensorStorageMetadata", "TensorProperties", "ChunkStorageMetadata",
        "BytesStorageMetadata", "MetadataIndex", "StorageMeta", "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo", "_StoragePrefix"},
    _PLANNER: {"SavePlan", "WriteItem", "TensorWriteData", "WriteItemType"},
    "torch": {
        "Size", "float32", "float64", "float16", "bfloat16", "int8", "int16", "int32", "int64", "uint8",
        "bool", "float8_e4m3fn", "float8_e5m2", "device",
    },
    "torch.serialization": {"_get_layout"},
    "pathlib": {"PosixPath", "PurePosixPath"},
    "pathlib._local": {"PosixPath", "PurePosixPath"},
    "megatron.core.dist_checkpointing.strategies.torch": {"MCoreMetadata", "MCoreSavePlan"},
    "collections": {"OrderedDict"},
}  # fmt: skip
ALLOWED: Final = frozenset(Global(module, name) for module, names in _CLASSES.items() for name in names)
"""Everything that a `.metadata` of torch or Megatron names."""
DTYPES: Final = {
    "float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16", "int8": "I8", "int16": "I16",
    "int32": "I32", "int64": "I64", "uint8": "U8", "bool": "BOOL", "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}  # fmt: skip
"""torch's element type → safetensors' name of it."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """A box of a tensor and where its item lies: a file that torch.save wrote, inside a `.distcp` file."""

    offsets: tuple[int, ...]
    sizes: tuple[int, ...]
    file: str
    """Name of the `.distcp` file beside `.metadata`."""
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class DcpTensor:
    """One tensor of the checkpoint."""

    key: str
    path: tuple[str, ...]
    """Keys of the saved object that lead to it, as `planner_data` says; (key,) where it says nothing."""
    dtype: str
    """Safetensors' name of the element type."""
    shape: tuple[int, ...]
    chunks: tuple[Chunk, ...]


@dataclass(frozen=True, slots=True)
class DcpMetadata:
    """What a `.metadata` says."""

    tensors: tuple[DcpTensor, ...]
    """By key, sorted."""
    objects: tuple[str, ...]
    """Keys of what is no tensor: pickled objects, which are never read."""
    saved_at: str | None
    """Path of the folder it was saved to, as the machine that saved it called it."""


def read(file: ReceivedFile) -> DcpMetadata:
    """Return what *file*, a `.metadata`, says. Raises Refusal for anything but a checkpoint's description."""
    if file.size_bytes > MAX_BYTES:
        raise Refusal(
            ReasonCode.TOO_LARGE_TO_READ,
            f"{file.path} has {file.size_bytes} bytes; at most {MAX_BYTES} are read",
            "Import a checkpoint that fewer processes have saved.",
            file=file.path,
        )
    return _Reader(file).metadata(_root(file))


def _root(file: ReceivedFile) -> Call:
    data = file.head(MAX_BYTES)
    machine = Machine(data, max_steps=len(data) * OPCODES_PER_BYTE)
    try:
        root = machine.run()
    except NotAPickleError as error:
        raise broken(file.path, str(error)) from None
    for found in machine.globals:
        if found not in ALLOWED:
            raise Refusal(
                ReasonCode.UNEXPECTED_PICKLE,
                f"{file.path} names {str(found)[:120]}, which no distributed checkpoint needs: "
                "it would run code when it is loaded",
                "Do not load this checkpoint with torch either; find out who wrote it.",
                file=file.path,
                member=str(found)[:120],
            )
    if machine.offset != len(machine.data):
        raise broken(file.path, "other data follows its end")
    if not isinstance(root, Call) or not _named(root.function, "Metadata", "MCoreMetadata"):
        raise broken(file.path, "it does not hold a checkpoint's metadata")
    return root


def broken(file: str, why: str, member: str | None = None) -> Refusal:
    """Return the refusal of a damaged checkpoint."""
    message = f"{file} does not describe a whole checkpoint: {why}"
    return Refusal(ReasonCode.BROKEN_WEIGHTS, message, SAVE_AGAIN, file=file, member=member)


class _Reader:
    """Turns symbols into values and names the file in every complaint."""

    def __init__(self, file: ReceivedFile) -> None:
        self._file = file.path
        self._chunks_left = file.size_bytes // BYTES_PER_CHUNK

    def metadata(self, root: Call) -> DcpMetadata:
        state = self._state(root)
        places = dict(self._places(state.get("storage_data")))
        paths = dict(self._paths(state.get("planner_data")))
        tensors, objects = [], []
        for key, entry in self._items(state.get("state_dict_metadata"), "its list of tensors"):
            if not isinstance(key, str) or not isinstance(entry, Call):
                raise self._broken("an entry of its list of tensors is malformed")
            if _named(entry.function, "TensorStorageMetadata"):
                tensors.append(self._tensor(key, entry, paths.get(key, (key,)), places))
            else:
                objects.append(key)
        if len({tensor.key for tensor in tensors}) != len(tensors):
            raise self._broken("it names a tensor twice")
        ordered = tuple(sorted(tensors, key=lambda tensor: tensor.key))
        return DcpMetadata(ordered, tuple(sorted(objects)), _saved_at(state.get("storage_meta")))

    def _tensor(
        self, key: str, entry: Call, path: tuple[str, ...], places: dict[tuple[str, tuple[int, ...]], _Place]
    ) -> DcpTensor:
        state = self._state(entry)
        shape = self._sizes(state.get("size"), key)
        chunks = state.get("chunks")
        self._chunks_left -= len(chunks) if isinstance(chunks, list) else 0
        if not isinstance(chunks, list) or self._chunks_left < 0:
            raise self._broken(f"the chunks of {key[:120]} are malformed", key)
        made = tuple(self._chunk(key, chunk, len(shape), places) for chunk in chunks)
        return DcpTensor(key, path, self._dtype(state.get("properties"), key), shape, made)

    def _chunk(
        self, key: str, chunk: Any, rank: int, places: dict[tuple[str, tuple[int, ...]], _Place]
    ) -> Chunk:
        if not isinstance(chunk, Call):
            raise self._broken(f"a chunk of {key[:120]} is malformed", key)
        state = self._state(chunk)
        offsets, sizes = self._sizes(state.get("offsets"), key), self._sizes(state.get("sizes"), key)
        if len(offsets) != rank or len(sizes) != rank:
            raise self._broken(f"a chunk of {key[:120]} has another number of dimensions", key)
        place = places.get((key, offsets))
        if place is None:
            raise self._broken(f"it does not say where the chunk of {key[:120]} at {list(offsets)} lies", key)
        return Chunk(offsets, sizes, place.file, place.offset, place.length)

    def _dtype(self, properties: Any, key: str) -> str:
        state = properties.state if isinstance(properties, Call) else None
        if isinstance(state, Items):  # written by torch without TensorProperties.__getstate__
            state = (self._state(properties).get("dtype"),)
        dtype = state[0] if isinstance(state, tuple) and state else None
        if not isinstance(dtype, Global) or dtype.module != "torch" or dtype.name not in DTYPES:
            raise self._broken(f"the element type of {key[:120]} is {named(dtype)}", key)
        return DTYPES[dtype.name]

    def _places(self, value: Any) -> Iterator[tuple[tuple[str, tuple[int, ...]], _Place]]:
        for index, info in self._items(value, "its list of places"):
            if not isinstance(index, Call) or not isinstance(info, Call):
                raise self._broken("an entry of its list of places is malformed")
            state = self._state(index)
            key, offset = state.get("fqn"), state.get("offset")
            if offset is not None and isinstance(key, str):  # else: a pickled object
                yield (key, self._sizes(offset, key)), self._place(key, info)

    def _place(self, key: str, info: Call) -> _Place:
        state = self._state(info)
        file, offset, length = state.get("relative_path"), state.get("offset"), state.get("length")
        if not isinstance(file, str) or not DATA_FILE.fullmatch(file):
            raise Refusal(
                ReasonCode.UNSAFE_NAME,
                f"{self._file} looks for {key[:120]} in {named(file)!r}, which is no data file beside it",
                "Do not load this checkpoint with torch either; find out who wrote it.",
                file=self._file,
                member=key[:120],
            )
        if type(offset) is not int or type(length) is not int or offset < 0 or length < 0:
            raise self._broken(f"the place of {key[:120]} is malformed", key)
        if state.get("transform_descriptors"):
            raise self._broken(f"{key[:120]} was compressed or encrypted when it was saved", key)
        return _Place(file, offset, length)

    def _paths(self, value: Any) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Yield (key, path) of the saved object; Megatron writes no such mapping."""
        for key, path in value.pairs if isinstance(value, Items) else ():
            if isinstance(key, str) and isinstance(path, tuple) and len(path) <= MAX_FIELDS:
                yield key, tuple(part if isinstance(part, str) else named(part) for part in path)

    def _items(self, value: Any, what: str) -> list[tuple[Any, Any]]:
        if not isinstance(value, Items):
            raise self._broken(f"{what} is missing")
        return value.pairs

    def _state(self, call: Call) -> Items:
        if not isinstance(call.state, Items) or len(call.state.pairs) > MAX_FIELDS:
            raise self._broken("an object in it has no fields, or too many")
        return call.state

    def _sizes(self, value: Any, key: str) -> tuple[int, ...]:
        if isinstance(value, Call) and value.function == Global("torch", "Size"):
            value = value.arguments[0] if isinstance(value.arguments, tuple) and value.arguments else None
        if not isinstance(value, tuple | list) or len(value) > MAX_DIMENSIONS:
            raise self._broken(f"the sizes of {key[:120]} are malformed", key)
        sizes = tuple(value)
        if not all(type(size) is int and 0 <= size <= MAX_SIZE for size in sizes):
            raise self._broken(f"the sizes of {key[:120]} are malformed", key)
        return sizes

    def _broken(self, why: str, member: str | None = None) -> Refusal:
        return broken(self._file, why, member[:120] if member else None)


@dataclass(frozen=True, slots=True)
class _Place:
    file: str
    offset: int
    length: int


def _named(function: Any, *names: str) -> bool:
    return isinstance(function, Global) and function.name in names


def _saved_at(value: Any) -> str | None:
    """Return the folder that `storage_meta` names: text, or a path as its parts."""
    state = value.state if isinstance(value, Call) else None
    place = state.get("checkpoint_id") if isinstance(state, Items) else None
    if isinstance(place, Call) and isinstance(place.arguments, tuple):
        parts = [named(part) for part in place.arguments[:MAX_FIELDS]]
        place = "/" + "/".join(part.strip("/") for part in parts if part.strip("/"))
    return place[:1024] if isinstance(place, str) else None
