"""Files that break, exhaust or mislead readers without running anything."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from tests.corpus import opcodes, protobuf
from tests.corpus.case import Case, one_file, refused
from tests.corpus.opcodes import (
    called,
    imported,
    legacy,
    mapping,
    number,
    pickled,
    storage,
    tensor,
    text,
    torch_zip,
)

KIND: Final = "hostile"


def cases() -> Iterator[Case]:
    """Every hostile case."""
    yield from _pickles()
    yield from _zips()
    yield from _safetensors()
    yield from _archives()
    yield from _folders()
    yield from _onnx()
    yield from _unknown()


def _pickles() -> Iterator[Case]:
    """State dicts that take memory or time, or whose tensors are not what they say."""
    values = {
        "bytearray-2-gib": mapping({"x": called(imported("builtins", "bytearray"), number(2**31 - 1))}),
        "stride-0-tera": mapping({"w": tensor((2**20, 2**20), (0, 0))}),
        "view-past-its-storage": mapping({"w": tensor((4, 4), (4, 1))}),
        "start-past-its-storage": mapping({"w": tensor((2, 2), (2, 1), start=1)}),
        "negative-start": mapping({"w": tensor((2, 2), (2, 1), start=-1)}),
        "negative-stride": mapping({"w": tensor((2, 2), (-2, 1))}),
        "negative-size": mapping({"w": tensor((-2, 2), (2, 1))}),
        "overflowing-shape": mapping({"w": tensor((2**62, 4), (1, 1))}),
        "many-dimensions": mapping({"w": tensor((1,) * 5000, (1,) * 5000)}),
        "strides-missing": mapping({"w": tensor((2, 2), (1,))}),
        "storage-missing": mapping({"w": tensor(held=storage("7"))}),
        "storage-leads-elsewhere": mapping({"w": tensor(held=storage("../data.pkl"))}),
        "storage-larger-than-said": mapping({"w": tensor(held=storage(count=2**40))}),
        "storage-of-no-type": mapping({"w": tensor(held=storage(kind="EvilStorage"))}),
        "name-with-zero": mapping({"a\0b": tensor()}),
        "name-of-one-megabyte": mapping({"a" * 2**20: tensor()}),
        "name-twice": b"}(" + 2 * (text("w") + tensor()) + b"u",
        "meta-tensor-1-pib": mapping(
            {"w": called(
                imported("torch._utils", "_rebuild_meta_tensor_no_storage"), imported("torch", "float32"),
                opcodes.numbers((2**25, 2**25)), opcodes.numbers((2**25, 1)), b"\x89",
            )}
        ),
        "no-tensors": mapping({"a": number(1)}),
        "half-a-character-in-a-name": mapping({"a\ud800": tensor()}),
        "half-a-character-in-a-global": mapping(
            {"w": tensor(), "x": called(opcodes.stack_imported("a\ud800\n", "b\x1b[31m"))}
        ),
        "nothing": b"N",
    }  # fmt: skip
    for name, value in values.items():
        content = torch_zip(pickled(value))
        yield refused(f"pickle-{name}", KIND, one_file("model.pt", content))
    for name, value in {
        "data.pkl-empty": b"",
        "data.pkl-cut": pickled(mapping({"w": tensor()}))[:-9],
    }.items():
        yield refused(f"pickle-{name}", KIND, one_file("model.pt", torch_zip(value)))
    yield from _readable_pickles()


def _readable_pickles() -> Iterator[Case]:
    """State dicts with odd extras: read without them or refused, but in bounded time."""
    bomb = b"]q\x000" + b"".join(_doubled(index) for index in range(40)) + b"h\x28"
    memo = b"N" + b"".join(b"r" + struct.pack("<I", index) for index in range(200_000))
    values = {
        "root-is-a-list": b"](" + tensor() + b"e",
        "list-of-2-to-the-40": mapping({"w": tensor(), "x": bomb}),
        "deep-tuples": mapping({"w": tensor(), "x": b"N" + b"\x85" * 100_000}),
        "a-million-nones": mapping({"w": tensor(), "x": b"](" + b"N" * 1_000_000 + b"e"}),
        "memo-without-end": mapping({"w": tensor(), "x": memo}),
        "marks-without-end": mapping({"w": tensor(), "x": b"(" * 50_000 + b"t" * 50_000}),
        "surrogates": mapping({"w": tensor(), "x": text("\ud800")}),
        "long-number": mapping({"w": tensor(), "x": b"\x8b" + struct.pack("<I", 60_000) + b"\x7f" * 60_000}),
        "punycode": mapping({"w": tensor(), "x": called(
            imported("_codecs", "encode"), text("ü" * 60_000), text("punycode"))}),
        "markup-in-names": mapping({"<script>alert(1)</script>": tensor(), "../../etc/passwd": tensor()}),
        "second-storage-unused": mapping({"w": tensor()}),
    }  # fmt: skip
    for name, value in values.items():
        content = torch_zip(pickled(value))
        yield Case(
            f"odd-{name}", KIND, ("convert", "refuse"), one_file("model.pt", content)
        )  # fmt: skip


def _doubled(index: int) -> bytes:
    """Memoises a list that holds the list at *index* twice."""
    held = b"h" + bytes([index])
    return b"](" + held + held + b"eq" + bytes([index + 1]) + b"0"


def _zips() -> Iterator[Case]:
    """Torch zips that readers take differently."""
    good = torch_zip(pickled(mapping({"w": tensor()})))
    byte = bytearray(good)
    byte[good.index(bytes(range(16))) + 3] ^= 0xFF
    old = legacy(pickled(mapping({"w": tensor()})))
    changed: dict[str, bytes] = {
        "trailing-data": good + b"x",
        "leading-data": b"#!/bin/sh\n" + good,
        "cut-at-half": good[: len(good) // 2],
        "without-end": good[:-22],
        "two-ends": good + good[-22:],
        "comment": good[:-2] + b"\x04\0evil",
        "big-endian": torch_zip(pickled(mapping({"w": tensor()})), {"byteorder": b"big"}),
        "member-outside": good.replace(b"archive/data/0", b"../../../data/0"),
        "member-absolute": good.replace(b"archive/data/0", b"/rchive/data/0"),
        "cut-legacy": old[:-5],
        "trailing-legacy": old + b"garbage",
        "legacy-storage-count": legacy(pickled(mapping({"w": tensor()})), {"0": bytes(8)}),
        "legacy-without-storages": legacy(pickled(mapping({"w": tensor()})), {}),
        "many-members": torch_zip(
            pickled(mapping({"w": tensor()})), {f"data/{index}": b"" for index in range(1, 33_000)}
        ),
        "bomb": torch_zip(
            pickled(mapping({"w": tensor()})), {"data/1": bytes(64 * 1024**2)},
            compression=zipfile.ZIP_DEFLATED,
        ),
    }  # fmt: skip
    yield Case(
        "torch-wrong-checksum",  # seen where the bytes are read: by `signalbox gate` and by the conversion
        KIND,
        ("refuse", "convert"),
        one_file("model.pt", lambda: bytes(byte)),
        ("broken-archive",),
    )
    for name, content in changed.items():
        yield refused(f"torch-{name}", KIND, one_file("model.pt", content))


def safetensors(header: Any, data: bytes = bytes(16)) -> bytes:
    """A safetensors file with *header*, JSON or bytes."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(raw)) + raw + data


def _entry(
    start: int = 0, end: int = 16, shape: tuple[int, ...] = (4,), dtype: str = "F32"
) -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _safetensors() -> Iterator[Case]:
    good = safetensors({"w": _entry()})
    changed: dict[str, bytes] = {
        "length-2-63": struct.pack("<Q", 2**63) + good[8:],
        "length-2-32": struct.pack("<Q", 2**32) + good[8:],
        "length-short": struct.pack("<Q", 3) + good[8:],
        "overlap": safetensors({"a": _entry(0, 8, (2,)), "b": _entry(4, 16, (3,))}),
        "hole": safetensors({"a": _entry(0, 4, (1,)), "b": _entry(8, 16, (2,))}),
        "alias": safetensors({"a": _entry(), "b": _entry()}),
        "twice": safetensors(b'{"w":' + _json(_entry()) + b',"w":' + _json(_entry()) + b"}"),
        "past-the-end": safetensors({"w": _entry(0, 32, (8,))}),
        "not-to-the-end": safetensors({"w": _entry(0, 8, (2,))}),
        "overflow": safetensors({"w": _entry(0, 16, (2**62, 4))}),
        "negative": safetensors({"w": _entry(-4, 12)}),
        "backwards": safetensors({"w": _entry(16, 0)}),
        "odd-type": safetensors({"w": _entry(dtype="EVIL")}),
        "wrong-shape": safetensors({"w": _entry(shape=(5,))}),
        "floats-for-sizes": safetensors({"w": {"dtype": "F32", "shape": [4.0], "data_offsets": [0, 16]}}),
        "more-keys": safetensors({"w": {**_entry(), "evil": 1}}),
        "polyglot": good + b"PK\x05\x06" + bytes(18),
        "bad-utf-8": safetensors(b'{"\xff":' + json.dumps(_entry()).encode() + b"}"),
        "not-an-object": safetensors(b"[1,2]"),
        "deep": safetensors(b'{"a":' * 100_000),
        "nan": safetensors(b'{"w":{"dtype":"F32","shape":[NaN],"data_offsets":[0,16]}}'),
        "empty-name": safetensors({"": _entry()}),
        "control-name": safetensors({"a\nb": _entry()}),
        "long-name": safetensors({"a" * 5000: _entry()}),
        "no-tensors": safetensors({}, b""),
        "cut": good[:-1],
    }  # fmt: skip
    for name, content in changed.items():
        yield refused(f"safetensors-{name}", KIND, one_file("model.safetensors", content))


Entry = tuple[str, bytes, dict[str, Any]]


def _archives() -> Iterator[Case]:
    weights = safetensors({"w": _entry()})
    tars: dict[str, list[Entry]] = {
        "traversal": [("../model.safetensors", weights, {})],
        "absolute": [("/tmp/model.safetensors", weights, {})],
        "symlink": [("model.safetensors", b"", {"type": tarfile.SYMTYPE, "linkname": "/etc/passwd"})],
        "hard-link": [("model.safetensors", b"", {"type": tarfile.LNKTYPE, "linkname": "/etc/passwd"})],
        "device": [("model.safetensors", b"", {"type": tarfile.CHRTYPE})],
        "fifo": [("model.safetensors", b"", {"type": tarfile.FIFOTYPE})],
        "twice": [("m", weights, {}), ("m", weights, {})],
        "other-case": [("m", weights, {}), ("M", weights, {})],
        "file-as-folder": [("m", weights, {}), ("m/x", weights, {})],
        "sparse": [("m", b"", {"type": b"S"})],
        "empty": [],
    }
    for name, entries in tars.items():
        yield refused(f"tar-{name}", KIND, one_file("m.tar", _tar(entries)))
        yield refused(f"tgz-{name}", KIND, one_file("m.tar.gz", _tar(entries, "w:gz")))
    zips: dict[str, Callable[[], bytes]] = {
        "traversal": lambda: _zip({"../model.safetensors": weights}),
        "backslash": lambda: _zip({"a\\model.safetensors": weights}),
        "drive": lambda: _zip({"C:/model.safetensors": weights}),
        "other-case": lambda: _zip({"m.safetensors": weights, "M.safetensors": weights}),
        "bomb": lambda: _zip({"m.safetensors": bytes(128 * 1024**2)}),
        "members": lambda: _zip({f"m/{index}": b"x" for index in range(5000)}),
        "trailing": lambda: _zip({"m.safetensors": weights}) + b"x",
        "nested-thrice": lambda: _zip({"a.zip": _zip({"b.zip": _zip({"m.safetensors": weights})})}),
        "nested-bomb": lambda: _zip({"a.zip": _zip({"m.safetensors": bytes(128 * 1024**2)})}),
        "empty": lambda: _zip({}),
        "symlink": lambda: _linked_zip(),
    }
    for name, content in zips.items():
        yield refused(f"zip-{name}", KIND, one_file("m.zip", content))


def _tar(entries: list[Entry], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content, fields in entries:
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            for field, value in fields.items():
                setattr(entry, field, value)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _linked_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        entry = zipfile.ZipInfo("model.safetensors")
        entry.external_attr = 0o120777 << 16
        archive.writestr(entry, "/etc/passwd")
    return buffer.getvalue()


def _folders() -> Iterator[Case]:
    def link(folder: Path) -> None:
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").symlink_to("/etc/passwd")

    def pipe(folder: Path) -> None:
        os.mkfifo(folder / "model.safetensors")

    def empty(folder: Path) -> None:
        (folder / "model.pt").touch()

    def index(folder: Path) -> None:
        (folder / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
        (folder / "model.safetensors.index.json").write_text('{"weight_map": {"w": "../../etc/passwd"}}')

    def many(folder: Path) -> None:
        for number_ in range(600):
            (folder / f"{number_}.json").write_text("{}")

    def nothing(_folder: Path) -> None:
        return

    writes = {
        "link": link,
        "pipe": pipe,
        "empty-file": empty,
        "index": index,
        "many": many,
        "nothing": nothing,
    }
    for name, write in writes.items():
        yield refused(f"folder-{name}", KIND, write)


def _onnx() -> Iterator[Case]:
    models = {
        "external-outside": protobuf.model(external="../../etc/passwd"),
        "external-absolute": protobuf.model(external="/etc/passwd"),
        "external-missing": protobuf.model(external="weights.bin"),
        "custom-domain": protobuf.model(domain="com.evil"),
        "cut": protobuf.model()[:-3],
        "no-graph": protobuf.field(1, 8),
        "nested": protobuf.nested(3000),
    }
    for name, content in models.items():
        verdicts = ("refuse", "sandbox") if name == "nested" else ("refuse",)
        yield Case(f"onnx-{name}", KIND, verdicts, one_file("model.onnx", content))


def _unknown() -> Iterator[Case]:
    contents = {
        "text.pt": b"hello world", "zeros.bin": bytes(4096), "ones.safetensors": b"\xff" * 64,
        "a.7z": b"7z\xbc\xaf\x27\x1c" + bytes(40), "a.rar": b"Rar!\x1a\x07\x01\x00",
        "a.zst": b"\x28\xb5\x2f\xfd\0",
        "a.h5": b"\x89HDF\r\n\x1a\n", "a.gguf": b"GGUF\x03\0\0\0", "a.exe": b"MZ\x90", "a.py": b"import os",
        "a.gz": b"\x1f\x8b\x08\0", "a.tar": bytes(257) + b"ustar\x0000" + bytes(247),
    }  # fmt: skip
    for name, content in contents.items():
        yield refused(f"unknown-{name}", KIND, one_file(name, content))
