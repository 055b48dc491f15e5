"""Tensors inside pickles that torch wrote: recognising them and where their elements lie. Runs nothing.

The calls are those of torch/_utils.py and torch/_tensor.py; a storage is a persistent id
`("storage", class, key, location, number of elements)`, see torch/serialization.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission.coverage import MAX_DIMENSIONS, MAX_ELEMENTS
from control_plane.admission.inert_globals import DTYPES, QUANTISED_STORAGES, STORAGES, UNTYPED_STORAGES
from control_plane.admission.pickle_symbols import Call, Global, Items, Persistent, walk
from control_plane.admission.safetensors_header import BITS
from control_plane.admission.tensors import ITEM_BYTES

DATATYPE_OF_STORAGE: Final = {
    "BoolStorage": "BOOL",
    "ByteStorage": "UINT8",
    "CharStorage": "INT8",
    "ShortStorage": "INT16",
    "IntStorage": "INT32",
    "LongStorage": "INT64",
    "HalfStorage": "FP16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "FP32",
    "DoubleStorage": "FP64",
}
"""torch's typed storage class → the protocol's element type."""
REBUILD: Final = frozenset(
    {
        Global("torch._utils", "_rebuild_tensor"),
        Global("torch._utils", "_rebuild_tensor_v2"),
        Global("torch._utils", "_rebuild_parameter"),
    }
)
ORDERED_DICT: Final = Global("collections", "OrderedDict")
CALLABLE: Final = REBUILD | {ORDERED_DICT, Global("torch", "Size")}
"""All that a pickle of plain tensors calls."""
WRAPPERS: Final = frozenset(
    {"_rebuild_parameter", "_rebuild_parameter_with_state", "_rebuild_device_tensor_from_cpu_tensor"}
)
"""Functions of torch._utils whose first argument is the tensor itself."""
SUBCLASSES: Final = frozenset({"_rebuild_from_type", "_rebuild_from_type_v2"})
"""Functions of torch._tensor that call another function and change the result's class."""
WITHOUT_BYTES: Final = {
    "_rebuild_qtensor": "quantised tensor",
    "_rebuild_sparse_tensor": "sparse tensor",
    "_rebuild_sparse_csr_tensor": "sparse tensor",
    "_rebuild_nested_tensor": "nested tensor",
    "_rebuild_meta_tensor_no_storage": "tensor without data (meta device)",
    "_rebuild_device_tensor_from_numpy": "tensor of an accelerator, saved as NumPy data",
    "_rebuild_xla_tensor": "tensor of an accelerator, saved as NumPy data",
}
"""Functions of torch._utils that rebuild what is no plain tensor, and what it is."""
MAX_WRAPPERS: Final = 8
STORAGE_FIELDS: Final = 6
MAX_FLAGS: Final = 8


class MalformedError(ValueError):
    """A tensor in a pickle is not described as torch does."""


@dataclass(frozen=True, slots=True)
class StorageKey:
    """A storage as a pickle names it."""

    key: str
    item_bytes: int
    items: int
    dtype: str | None
    """Element type, None for an untyped one."""
    first: int = 0
    """Element of the storage under *key* at which it begins; only very old files have such views."""

    @property
    def size_bytes(self) -> int:
        """Bytes it has."""
        return self.item_bytes * self.items


@dataclass(frozen=True, slots=True)
class View:
    """A plain tensor: a strided view of a storage; start, shape and strides in elements."""

    storage: StorageKey
    dtype: str
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class NotPlain:
    """A tensor that has no plain bytes."""

    why: str
    """What it is, e.g. `quantised tensor`."""


def named(value: Any) -> str:
    """Return *value* in at most 120 characters where it is a name or a number, else what kind it is.

    Anything else may unfold to a text that no memory holds.
    """
    if isinstance(value, Global):
        return f"{value.module[:60]}.{value.name[:59]}"
    return str(value)[:120] if type(value) in (str, int) else f"<{type(value).__name__}>"


def tensor(value: Any) -> View | NotPlain | None:
    """Return what tensor *value* stands for, None where it is none. Raises MalformedError."""
    for _ in range(MAX_WRAPPERS):
        if not isinstance(value, Call) or not isinstance(value.function, Global):
            return None
        module, name = value.function.module, value.function.name
        if module == "torch._tensor" and name in SUBCLASSES:
            value = _without_class(value)
        elif module == "torch._utils" and name in WRAPPERS:
            value = _argument(value, 0)
        else:
            return _rebuilt(value, name) if module == "torch._utils" else None
    raise MalformedError("it is wrapped too often")


def storage_key(value: Any) -> StorageKey | NotPlain:
    """Return the storage that a persistent id names. Raises MalformedError."""
    identity = value.identity if isinstance(value, Persistent) else None
    if not isinstance(identity, tuple) or len(identity) > STORAGE_FIELDS:
        raise MalformedError("its storage is malformed")
    match identity:
        case ("storage", Global() as kind, str(key), _, int(items), *more) if 0 <= items <= MAX_ELEMENTS:
            pass
        case _:
            raise MalformedError("its storage is malformed")
    if kind.name in QUANTISED_STORAGES:
        return NotPlain("quantised tensor")
    if kind.name in UNTYPED_STORAGES:
        return StorageKey(key, 1, items, None)
    dtype = STORAGES.get(kind.name)
    if dtype is None:
        raise MalformedError("its storage is of no known type")
    return StorageKey(key, ITEM_BYTES[dtype], items, dtype, _first(more[0] if more else None))


def tensor_type(value: Any) -> tuple[str, tuple[int, ...]] | None:
    """Return (datatype, shape) if *value* stands for a plain tensor, else None."""
    if not isinstance(value, Call) or value.function not in REBUILD or not isinstance(value.arguments, tuple):
        return None
    storage, _offset, shape = (*value.arguments, None, None, None)[:3]
    datatype = _storage_type(storage)
    if datatype is None or not isinstance(shape, tuple) or not all(type(size) is int for size in shape):
        return None
    return datatype, shape


def foreign_call(root: Any, allowed: frozenset[Global] = CALLABLE) -> str | None:
    """Return the name of the first thing that *root* would call beyond plain tensors, or None."""
    for value in walk(root):
        if isinstance(value, Call) and not (isinstance(value.function, Global) and value.function in allowed):
            return str(value.function)[:120] if isinstance(value.function, Global) else "a computed function"
    return None


def _rebuilt(call: Call, name: str) -> View | NotPlain | None:
    if name in WITHOUT_BYTES:
        return NotPlain(WITHOUT_BYTES[name])
    if name == "_rebuild_wrapper_subclass":
        return NotPlain(f"tensor of the class {named(_argument(call, 0))}")
    if name == "_rebuild_tensor":
        return _view(call, None, None)
    if name == "_rebuild_tensor_v2":
        return _view(call, None, _argument(call, 6, None))
    if name == "_rebuild_tensor_v3":
        return _view(call, _argument(call, 6), _argument(call, 7, None))
    return None


def _view(call: Call, dtype: Any, metadata: Any) -> View | NotPlain:
    """Return the view of `(storage, start, shape, strides, ...)`."""
    storage = storage_key(_argument(call, 0))
    if isinstance(storage, NotPlain):
        return storage
    if isinstance(metadata, Items) and _any_flag(metadata):
        return NotPlain("conjugated or negated view")
    item = storage.dtype if dtype is None else _dtype(dtype)
    if item is None:
        return NotPlain(f"tensor of the element type {named(dtype)}")
    if item not in BITS:
        return NotPlain("tensor of complex128, which safetensors does not hold")
    start, shape, strides = _argument(call, 1), _sizes(_argument(call, 2)), _sizes(_argument(call, 3))
    if type(start) is not int or start < 0 or len(shape) != len(strides):
        raise MalformedError("its place in its storage is malformed")
    return View(storage, item, start + storage.first, shape, strides)


def _any_flag(metadata: Items) -> bool:
    """Tell whether one of `conj`, `neg` and so on is set."""
    if len(metadata.pairs) > MAX_FLAGS:
        raise MalformedError("its flags are malformed")
    return any(value is not False for _, value in metadata.pairs)


def _dtype(value: Any) -> str | None:
    if isinstance(value, Global) and value.module == "torch":
        return DTYPES.get(value.name)
    raise MalformedError("its element type is malformed")


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, Call) and value.function == Global("torch", "Size"):
        value = _argument(value, 0)
    if isinstance(value, list | tuple) and len(value) <= MAX_DIMENSIONS:
        sizes = tuple(value)
        if all(type(size) is int and 0 <= size <= MAX_ELEMENTS for size in sizes):
            return sizes
    raise MalformedError("its shape is malformed")


def _first(view: Any) -> int:
    """Return where a view of a storage begins: `(key, start, size)`, or None for a whole storage."""
    match view:
        case None:
            return 0
        case (str(), int(start), int()) if start >= 0:
            return start
        case _:
            raise MalformedError("its storage is malformed")


def _without_class(call: Call) -> Call:
    function, arguments = _argument(call, 0), _argument(call, 2)
    if not isinstance(function, Global):
        raise MalformedError("it is made by something computed")
    return Call(function, arguments)


REQUIRED: Final = object()


def _argument(call: Call, index: int, default: Any = REQUIRED) -> Any:
    arguments = call.arguments
    if isinstance(arguments, tuple) and index < len(arguments):
        return arguments[index]
    if default is REQUIRED:
        raise MalformedError("an argument is missing")
    return default


def _storage_type(storage: Any) -> str | None:
    identity = storage.identity if isinstance(storage, Persistent) else None
    if not isinstance(identity, tuple) or len(identity) < 2 or not isinstance(identity[1], Global):
        return None
    return DATATYPE_OF_STORAGE.get(identity[1].name) if identity[1].module == "torch" else None
