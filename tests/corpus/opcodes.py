"""Pickles written opcode by opcode, as hostile ones are: https://docs.python.org/3/library/pickletools.html."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Mapping, Sequence

PROTOCOL_2 = b"\x80\x02"
PROTOCOL_4 = b"\x80\x04"
STOP = b"."
ORDERED_DICT = b"ccollections\nOrderedDict\n)R"
LEGACY_HEADER = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
LEGACY_REST = b"\x80\x02M\xe9\x03.\x80\x02}."
"""Protocol version 1001 and no system facts."""
Value = bytes
"""Opcodes that leave one value on the stack."""


def text(value: str) -> Value:
    raw = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: int) -> Value:
    raw = value.to_bytes((value.bit_length() + 8) // 8, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def tuple_of(*values: Value) -> Value:
    return b"(" + b"".join(values) + b"t"


def numbers(values: Sequence[int]) -> Value:
    return tuple_of(*map(number, values))


def imported(module: str, name: str) -> Value:
    return f"c{module}\n{name}\n".encode()


def stack_imported(module: str, name: str) -> Value:
    return text(module) + text(name) + b"\x93"


def called(function: Value, *arguments: Value) -> Value:
    return function + tuple_of(*arguments) + b"R"


def mapping(pairs: Mapping[str, Value]) -> Value:
    return b"}(" + b"".join(text(key) + value for key, value in pairs.items()) + b"u"


def storage(key: str = "0", *, kind: str = "FloatStorage", count: int = 4) -> Value:
    named = tuple_of(text("storage"), imported("torch", kind), text(key), text("cpu"), number(count))
    return named + b"Q"


def tensor(
    shape: Sequence[int] = (2, 2), strides: Sequence[int] = (2, 1), start: int = 0, held: Value | None = None
) -> Value:
    """A tensor as torch.save writes it."""
    return called(
        imported("torch._utils", "_rebuild_tensor_v2"),
        held or storage(),
        number(start),
        numbers(shape),
        numbers(strides),
        b"\x89",
        ORDERED_DICT,
    )


def pickled(value: Value, protocol: bytes = PROTOCOL_2) -> bytes:
    return protocol + value + STOP


def torch_zip(pickle: bytes | None, members: Mapping[str, bytes] | None = None, **options: int) -> bytes:
    """What torch.save writes, with *pickle* as data.pkl, or none; *members* replace or add others."""
    whole = {} if pickle is None else {"data.pkl": pickle, "data/0": bytes(range(16)), "version": b"3\n"}
    held = {**whole, ".format_version": b"1", "byteorder": b"little", **(members or {})}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", **options) as archive:  # type: ignore[call-overload]
        for name, content in held.items():
            archive.writestr(f"archive/{name}", content)
    return buffer.getvalue()


def legacy(pickle: bytes, storages: Mapping[str, bytes] | None = None) -> bytes:
    """What torch.save wrote before torch 1.6, with *pickle* as its fourth pickle; storages are float32."""
    held = {"0": bytes(range(16))} if storages is None else storages
    keys = pickled(b"](" + b"".join(map(text, held)) + b"e")
    raw = b"".join(struct.pack("<Q", len(content) // 4) + content for content in held.values())
    return LEGACY_HEADER + LEGACY_REST + pickle + keys + raw
