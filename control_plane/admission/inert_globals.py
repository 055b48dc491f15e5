"""What pickles of weights may name: classes of plain data and torch's own constructors of tensors.

Nothing of it is ever imported or called; a pickle that names anything else is refused, because loading it
elsewhere would run code.
"""

from __future__ import annotations

import re
from collections.abc import Set
from typing import Final

from control_plane.admission.pickle_symbols import Global

DTYPES: Final = {
    "float64": "F64", "double": "F64", "float32": "F32", "float": "F32", "float16": "F16", "half": "F16",
    "bfloat16": "BF16", "int64": "I64", "long": "I64", "int32": "I32", "int": "I32", "int16": "I16",
    "short": "I16", "int8": "I8", "uint8": "U8", "uint16": "U16", "uint32": "U32", "uint64": "U64",
    "bool": "BOOL", "complex64": "C64", "cfloat": "C64", "complex128": "C128", "cdouble": "C128",
    "float8_e4m3fn": "F8_E4M3", "float8_e5m2": "F8_E5M2", "float8_e8m0fnu": "F8_E8M0",
    "float8_e4m3fnuz": "F8_E4M3FNUZ", "float8_e5m2fnuz": "F8_E5M2FNUZ",
}  # fmt: skip
"""torch's element type → safetensors' name of it."""
OTHER_DTYPES: Final = frozenset(
    {"complex32", "chalf", "qint8", "quint8", "qint32", "quint4x2", "quint2x4", "float4_e2m1fn_x2"}
    | {f"{kind}int{bits}" for kind in ("", "u") for bits in range(1, 8)}
)
"""torch's element types that safetensors does not hold as plain numbers."""
STORAGES: Final = {
    "DoubleStorage": "F64", "FloatStorage": "F32", "HalfStorage": "F16", "BFloat16Storage": "BF16",
    "LongStorage": "I64", "IntStorage": "I32", "ShortStorage": "I16", "CharStorage": "I8",
    "ByteStorage": "U8", "BoolStorage": "BOOL", "ComplexFloatStorage": "C64", "ComplexDoubleStorage": "C128",
}  # fmt: skip
"""torch's typed storage class → safetensors' name of its element type."""
UNTYPED_STORAGES: Final = frozenset({"UntypedStorage", "_UntypedStorage"})
QUANTISED_STORAGES: Final = frozenset(
    {"QInt8Storage", "QUInt8Storage", "QInt32Storage", "QUInt4x2Storage", "QUInt2x4Storage"}
)
_REBUILDERS: Final = {
    "torch._utils": {
        "_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3", "_rebuild_parameter",
        "_rebuild_parameter_with_state", "_rebuild_qtensor", "_rebuild_sparse_tensor",
        "_rebuild_sparse_csr_tensor", "_rebuild_nested_tensor", "_rebuild_meta_tensor_no_storage",
        "_rebuild_wrapper_subclass", "_rebuild_device_tensor_from_numpy", "_rebuild_xla_tensor",
        "_rebuild_device_tensor_from_cpu_tensor",
    },
    "torch._tensor": {"_rebuild_from_type", "_rebuild_from_type_v2"},
    "torch": {"Tensor", "Size", "device", "Generator", "per_tensor_affine", "per_channel_affine",
              "per_tensor_symmetric", "per_channel_symmetric", "per_channel_affine_float_qparams", "strided",
              "sparse_coo", "sparse_csr", "sparse_csc", "sparse_bsr", "sparse_bsc",
              "contiguous_format", "channels_last", "preserve_format"},
    "torch.serialization": {"_get_layout"},
    "torch.nn.parameter": {"Parameter", "Buffer"},
    "torch.torch_version": {"TorchVersion"},
}  # fmt: skip
_PATHS: Final = frozenset(
    {"PosixPath", "PurePosixPath", "WindowsPath", "PureWindowsPath", "Path", "PurePath"}
)
_PLAIN: Final[dict[str, Set[str]]] = {
    "collections": {"OrderedDict", "defaultdict", "Counter", "deque"},
    "builtins": {"set", "frozenset", "list", "dict", "tuple", "int", "float", "complex", "bool", "str",
                 "bytes", "bytearray", "slice", "range", "object", "xrange", "long", "unicode"},
    "argparse": {"Namespace"},
    "types": {"SimpleNamespace"},
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "uuid": {"UUID", "SafeUUID"},
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,  # Python 3.13
    "_codecs": {"encode"},
    "_io": {"BytesIO"},
    "copy_reg": {"_reconstructor"},
    "copyreg": {"_reconstructor"},
    "typing": {"Any"},
}  # fmt: skip
_NUMPY_TYPES: Final = frozenset(
    {"bool_", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16",
     "float32", "float64", "complex64", "complex128", "str_", "bytes_", "longlong", "ulonglong"}
)  # fmt: skip
_NUMPY: Final = {
    "numpy": {"dtype", "ndarray", *_NUMPY_TYPES},
    "numpy.core.multiarray": {"scalar", "_reconstruct"},
    "numpy._core.multiarray": {"scalar", "_reconstruct"},
    "numpy.core.numeric": {"_frombuffer"},
    "numpy._core.numeric": {"_frombuffer"},
}
_ATTRIBUTE_DICTS: Final = {
    f"{package}.utilities.{module}": {"AttributeDict"}
    for package in ("pytorch_lightning", "lightning.pytorch", "lightning_fabric", "lightning.fabric")
    for module in ("parsing", "data")
}
_OMEGACONF: Final = {
    "omegaconf.dictconfig": {"DictConfig"},
    "omegaconf.listconfig": {"ListConfig"},
    "omegaconf.base": {"ContainerMetadata", "Metadata"},
    "omegaconf.nodes": {
        "AnyNode", "IntegerNode", "FloatNode", "StringNode", "BooleanNode", "BytesNode", "PathNode",
        "EnumNode",
    },
}  # fmt: skip
INERT: Final = frozenset(
    Global(module, name)
    for modules in (_REBUILDERS, _PLAIN, _NUMPY, _ATTRIBUTE_DICTS, _OMEGACONF)
    for module, names in modules.items()
    for name in names
)
INERT_PACKAGES: Final = ("torchao.", "torch.distributed.tensor.", "torch.distributed._tensor.")
"""Packages whose tensors of their own are told apart from plain ones, and explained."""
CALLBACKS: Final = ("pytorch_lightning.callbacks.", "lightning.pytorch.callbacks.")
CLASS: Final = re.compile(r"_{0,2}[A-Z]\w*")


def is_inert(found: Global) -> bool:
    """Tell whether a pickle of weights may name *found*."""
    if found.module in ("torch", "torch.storage", "torch.cuda") and found.name in STORAGES:
        return True
    if found.module in ("torch", "torch.storage") and found.name in UNTYPED_STORAGES | QUANTISED_STORAGES:
        return True
    if found.module == "torch" and (found.name in DTYPES or found.name in OTHER_DTYPES):
        return True
    module = "builtins" if found.module == "__builtin__" else found.module
    return Global(module, found.name) in INERT or _is_class_of(found, INERT_PACKAGES)


def is_inert_name(found: Global) -> bool:
    """Tell whether a pickle may name *found* as long as it never calls it: keys of Lightning's callbacks."""
    return _is_class_of(found, CALLBACKS)


def _is_class_of(found: Global, packages: tuple[str, ...]) -> bool:
    """Tell whether *found* looks like a class of one of *packages*: no function, nothing reached by dots."""
    return found.module.startswith(packages) and CLASS.fullmatch(found.name) is not None
