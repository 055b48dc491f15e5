"""Plain tensors inside pickles that torch wrote: recognising them and reading their types. Runs nothing."""

from __future__ import annotations

from typing import Any, Final

from control_plane.admission.pickle_symbols import Call, Global, Persistent, walk

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


def _storage_type(storage: Any) -> str | None:
    identity = storage.identity if isinstance(storage, Persistent) else None
    if not isinstance(identity, tuple) or len(identity) < 2 or not isinstance(identity[1], Global):
        return None
    return DATATYPE_OF_STORAGE.get(identity[1].name) if identity[1].module == "torch" else None
