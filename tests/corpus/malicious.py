"""Files whose naive loading runs a payload: one that only creates a marker file."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.corpus import opcodes
from tests.corpus.case import Case, one_file, refused
from tests.corpus.opcodes import called, imported, legacy, mapping, number, pickled, tensor, text, torch_zip

COMMANDS = (
    "os.system", "posix.system", "nt.system", "subprocess.getoutput", "commands.getoutput", "os.popen",
    "platform.popen", "pty.spawn", "webbrowser.open", "asyncio.create_subprocess_shell",
)  # fmt: skip
"""Take a shell's command."""
EVALUATORS = (
    "builtins.eval", "builtins.exec", "__builtin__.eval", "timeit.timeit", "cProfile.run", "pdb.run",
    "profile.run", "trace.Trace", "code.interact", "numpy.testing._private.utils.runstring", "sympy.sympify",
    "torch.jit.unsupported_tensor_ops.execWrapper", "torch.utils.collect_env.run",
    "torch._dynamo.guards.GuardBuilder.get", "torch.distributed.rpc.server_process_global_profiler",
    "torch.utils.bottleneck.__main__.run_cprofile", "bdb.Bdb.run",
    "idlelib.pyshell.ModifiedInterpreter.runcode",
    "doctest.debug_script",
    "logging.config._resolve", "torch.fx.graph_module._forward_from_src",
    "torch.fx.graph_module.reduce_graph_module", "torch._inductor.codecache.PyCodeCache.load",
)  # fmt: skip
"""Take Python's source."""
LOADERS = (
    "pickle.loads", "_pickle.loads", "torch.storage._load_from_bytes", "torch.load", "torch.hub.load",
    "torch.jit.load", "marshal.loads", "joblib.load", "numpy.load", "pkgutil.resolve_name",
    "importlib.import_module", "builtins.__import__", "runpy.run_path", "ctypes.CDLL",
    "torch.ops.load_library", "torch.package.PackageImporter", "lib2to3.pgen2.grammar.Grammar.loads",
    "builtins.getattr", "operator.attrgetter", "operator.methodcaller", "functools.partial", "types.CodeType",
    "types.FunctionType", "shelve.open", "builtins.open", "io.open", "_io.FileIO", "pathlib.Path.unlink",
    "shutil.copyfile", "urllib.request.urlretrieve", "socket.create_connection", "http.client.HTTPConnection",
    "transformers.dynamic_module_utils.get_class_from_dynamic_module", "torch._C._jit_set_x",
)  # fmt: skip
"""Take something that leads to code, files or the network."""


def cases(marker: Path) -> Iterator[Case]:
    """Every malicious case; payloads create *marker*."""
    yield from _globals(marker)
    yield from _encodings(marker)
    yield from _places(marker)
    yield from _containers(marker)
    yield from _folders(marker)


def payload(marker: Path) -> bytes:
    """Opcodes that call os.system to create *marker*."""
    return called(imported("os", "system"), text(f"touch {marker}"))


def _call(name: str, marker: Path) -> bytes:
    module, _, function = name.rpartition(".")
    source = f"__import__('pathlib').Path({str(marker)!r}).touch()"
    return called(imported(module, function), text(f"touch {marker}" if name in COMMANDS else source))


def _globals(marker: Path) -> Iterator[Case]:
    wraps: tuple[tuple[str, str, Callable[[bytes], bytes]], ...] = (
        ("zip", "model.pt", lambda call: torch_zip(pickled(mapping({"w": tensor(), "x": call})))),
        ("legacy", "model.pth", lambda call: legacy(pickled(mapping({"w": tensor(), "x": call})))),
        ("raw", "model.pkl", lambda call: pickled(call)),
    )
    names = (*COMMANDS, *EVALUATORS, *LOADERS)
    for index, name in enumerate(names):
        for way, file, wrap in wraps if index % 6 == 0 else wraps[index % 2 : index % 2 + 1]:
            content = wrap(_call(name, marker))
            codes = ("raw-pickle",) if way == "raw" else ("full-module-pickle",)
            yield refused(
                f"call-{way}-{name.replace('.', '-')}",
                "malicious",
                one_file(file, content),
                *codes,
            )


def _encodings(marker: Path) -> Iterator[Case]:
    """The same call in every way a pickle can spell it."""
    command = text(f"touch {marker}")
    system = imported("os", "system")
    spelled = {
        "stack-global": called(opcodes.stack_imported("os", "system"), command),
        "inst": b"(" + command + b"ios\nsystem\n",
        "obj": b"(" + system + command + b"o",
        "newobj": system + opcodes.tuple_of(command) + b"\x81",
        "newobj-ex": system + opcodes.tuple_of(command) + b"}\x92",
        "build": called(imported("torch.nn", "Linear"), number(1), number(1))
        + mapping({"x": command})
        + b"b",
        "memo": system + b"q\x00" + b"0" + b"h\x00" + opcodes.tuple_of(command) + b"R",
        "extension": b"\x82\x01" + opcodes.tuple_of(command) + b"R",
        "global-as-key": b"}" + called(system, command) + b"Ns",
        "attribute-path": called(opcodes.stack_imported("builtins", "eval.__call__"), command),
        "reduce-of-global-from-pieces": opcodes.text("o") + b"0" + called(system, command),
        "dropped": called(system, command) + b"0" + mapping({"w": tensor()}),
    }
    for way, value in spelled.items():
        content = torch_zip(pickled(value, opcodes.PROTOCOL_4))
        yield refused(f"spelled-{way}", "malicious", one_file("model.pt", content))
    second = pickled(mapping({"w": tensor()})) + pickled(payload(marker))
    yield Case(
        "second-pickle-behind-the-first",  # which no reader reaches
        "malicious",
        ("convert", "refuse"),
        one_file("m.pt", lambda: torch_zip(second)),
    )
    old = b"(dp0\nS'x'\ncos\nsystem\n(S'touch " + str(marker).encode() + b"'\ntRs."
    yield refused("protocol-0", "malicious", one_file("model.bin", lambda: old), "raw-pickle")


def _places(marker: Path) -> Iterator[Case]:
    """The call where other readers do not look."""
    evil, good = pickled(payload(marker)), pickled(mapping({"w": tensor()}))
    places = {
        "in-a-tensor-argument": called(imported("torch._utils", "_rebuild_tensor_v2"), payload(marker)),
        "as-storage-kind": tensor(held=opcodes.tuple_of(text("storage"), payload(marker)) + b"Q"),
        "as-hooks": called(
            imported("torch._utils", "_rebuild_parameter"), tensor(), b"\x88", payload(marker)
        ),
        "as-state": called(imported("collections", "OrderedDict")) + payload(marker) + b"b",
        "by-type-v2": called(
            imported("torch._tensor", "_rebuild_from_type_v2"),
            imported("os", "system"), imported("os", "system"), opcodes.tuple_of(text("x")), b"}",
        ),
        "in-optimizer": mapping({"state_dict": mapping({"w": tensor()}), "optimizer": payload(marker)}),
    }  # fmt: skip
    for name, value in places.items():
        content = torch_zip(pickled(value if name == "in-optimizer" else mapping({"w": value})))
        yield refused(f"place-{name}", "malicious", one_file("model.pt", content))
    yield refused("legacy-first-pickle", "malicious", one_file("m.pt", lambda: evil + legacy(good)))
    yield refused(
        "legacy-third-pickle", "malicious",
        one_file("m.pt", lambda: opcodes.LEGACY_HEADER + b"\x80\x02M\xe9\x03." + evil + good + pickled(b"]")),
    )  # fmt: skip
    yield refused(
        "legacy-storage-keys", "malicious",
        one_file("m.pt", lambda: opcodes.LEGACY_HEADER + opcodes.LEGACY_REST + good + evil),
    )  # fmt: skip
    yield refused(
        "legacy-with-zip-behind", "malicious", one_file("m.pt", lambda: legacy(evil) + torch_zip(good))
    )
    yield refused("zip-with-pickle-in-front", "malicious", one_file("m.pt", lambda: evil + torch_zip(good)))
    yield refused("two-data-pkl", "malicious", one_file("m.pt", lambda: _twice(good, evil)))
    yield refused("two-data-pkl-other-order", "malicious", one_file("m.pt", lambda: _twice(evil, good)))
    yield refused(
        "two-names-for-data-pkl", "malicious",
        one_file("m.pt", lambda: torch_zip(good, {"evil.pkl": evil}).replace(b"data.pkl", b"evil.pkl", 1)),
    )  # fmt: skip


def _twice(first: bytes, second: bytes) -> bytes:
    return torch_zip(first, {"data.pkk": second}).replace(b"data.pkk", b"data.pkl")


def _containers(marker: Path) -> Iterator[Case]:
    evil = pickled(payload(marker))
    compressed: dict[str, Callable[[bytes], bytes]] = {
        "gz": gzip.compress, "z": zlib.compress, "bz2": bz2.compress, "xz": lzma.compress,
        "lzma": lambda data: lzma.compress(data, format=lzma.FORMAT_ALONE),
    }  # fmt: skip
    for suffix, compress in compressed.items():
        content = compress(evil)
        yield refused(f"pickle-{suffix}", "malicious", one_file(f"model.pkl.{suffix}", content))
    for suffix in ("joblib", "dill", "pickle", "pt", "bin", "ckpt", "safetensors", "onnx", "npy", "dat"):
        yield refused(f"pickle-called-{suffix}", "malicious", one_file(f"model.{suffix}", lambda: evil))
    yield refused("torch-package", "malicious", one_file("m.pt", lambda: _package(evil)), "torch-package")
    yield refused(
        "pickle-in-zip", "malicious", one_file("m.zip", lambda: _zip({"a/model.pkl": evil})), "raw-pickle"
    )
    yield refused(
        "pickle-in-tar-in-zip", "malicious",
        one_file("m.zip", lambda: _zip({"m.tar": _tar({"model.pt": torch_zip(evil)})})),
    )  # fmt: skip
    yield refused(
        "legacy-tar", "malicious",
        one_file("m.pt", lambda: _tar({"sys_info": evil, "pickle": evil, "tensors": evil, "storages": evil})),
        "raw-pickle",
    )  # fmt: skip
    yield refused("npy-of-objects", "malicious", one_file("m.npy", lambda: _objects(evil)))
    yield refused("npz-of-objects", "malicious", one_file("m.npz", lambda: _zip({"a.npy": _objects(evil)})))
    yield refused("native-library", "malicious", one_file("m.so", lambda: b"\x7fELF\x02\x01\x01" + bytes(64)))
    yield refused(
        "keras-lambda", "malicious",
        one_file("m.keras", lambda: _zip({"config.json": b"{}", "m.weights.h5": b"\x89HDF"})),
        "hdf5",
    )  # fmt: skip
    yield refused(
        "aoti-package", "malicious",
        one_file("m.pt2", lambda: torch_zip(None, {
            "archive_format": b"pt2", "archive_version": b"0", "data/aotinductor/model/a.so": b"\x7fELF",
        })),
        "native-code",
    )  # fmt: skip


def _package(evil: bytes) -> bytes:
    return torch_zip(
        evil,
        {".data/extern_modules": b"", ".data/version": b"6", "model/model.pkl": evil, "m/__init__.py": b""},
    )


def _objects(evil: bytes) -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (-(10 + len(head) + 1) % 64) + b"\n"
    return b"\x93NUMPY\x01\0" + len(head).to_bytes(2, "little") + head + evil


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def _folders(marker: Path) -> Iterator[Case]:
    """Folders whose loading by libraries would unpickle or import."""
    evil = pickled(payload(marker))
    source = f"import pathlib; pathlib.Path({str(marker)!r}).touch()".encode()
    dcp = {".metadata": evil, "__0_0.distcp": torch_zip(pickled(tensor()))}
    config = json.dumps({"architectures": ["BertForSequenceClassification"], "model_type": "bert"}).encode()
    remote = json.dumps({"auto_map": {"AutoModel": "modeling.Evil"}, "model_type": "evil"}).encode()
    folders: dict[str, dict[str, bytes]] = {
        "dcp-metadata": dcp,
        "hf-bin": {"config.json": config, "pytorch_model.bin": torch_zip(evil)},
        "hf-bin-legacy": {"config.json": config, "pytorch_model.bin": legacy(evil)},
        "hf-remote-code": {"config.json": remote, "modeling.py": source},
        "hf-library": {"config.json": config, "native.so": b"\x7fELF"},
        "nemo-step": {"training_info.json": b"{}", "policy/weights/.metadata": evil},
        "source": {"model.py": source, "weights.txt": b"x"},
    }
    for name, files in folders.items():
        yield refused(f"folder-{name}", "malicious", _folder(files))


def _folder(files: dict[str, bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        for name, content in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)

    return write
