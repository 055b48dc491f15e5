"""What every format of the gate must do, with real files; and what is refused, kind by kind."""

from __future__ import annotations

import io
import json
import pickle
import random
import tarfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from control_plane.admission import catalog, gate
from control_plane.admission.base import Accepted, Refused
from control_plane.admission.reasons import ReasonCode
from serving_agent.formats import catalog as served_formats
from serving_agent.handlers import catalog as handlers
from tests.corpus import protobuf
from tests.fakes import models, nemo_rl_runs

FORMATS = catalog.formats()
MODULE = nn.Sequential(nn.Linear(2, 2))


def module_name(format_: Any) -> str:
    """The last part of the module that a format is in."""
    return str(type(format_).__module__).rpartition(".")[2]


class Pair(nn.Module):
    """Two inputs, named outputs."""

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"total": left + right, "likeness": (left * right).sum(1)}


class Numbers(nn.Module):
    """Needs a number besides its tensor."""

    def forward(self, x: torch.Tensor, count: int) -> torch.Tensor:
        return x * count


class Reader(nn.Module):
    """Reads a file of the machine it runs on."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.from_file("/etc/hostname", size=4, dtype=torch.uint8)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder with a real upload for each format, and more by other names."""
    home = tmp_path_factory.mktemp("originals")
    example = torch.zeros(2, 1, 8, 8)
    pair = (torch.zeros(3, 4), torch.zeros(3, 4))
    exported = home / "pair"
    exported.mkdir()
    rows = torch.export.Dim("rows")
    program = torch.export.export(Pair(), pair, dynamic_shapes=({0: rows}, {0: rows}))
    torch.export.save(program, exported / "pair.pt2")
    arrays = io.BytesIO()
    np.savez(arrays, **{name: tensor.numpy() for name, tensor in MODULE.state_dict().items()})
    return {
        "torchscript": models.save_torchscript(models.digits_model(), home / "ts"),
        "traced": models.save_torchscript(models.digits_model(), home / "traced", example),
        "exported_program": models.save_exported(models.digits_model(), home / "ep", example),
        "pair": exported,
        "huggingface": models.save_text_classifier(home / "hf"),
        "state_dict": files(home / "sd", model__pt=saved({"model": MODULE.state_dict(), "epoch": 3})),
        "bare_safetensors": files(
            home / "st", model__safetensors=safetensors.torch.save(MODULE.state_dict())
        ),
        "numpy_arrays": files(home / "np", model__npz=arrays.getvalue()),
        "onnx": files(home / "onnx", model__onnx=protobuf.model()),
        "distributed_checkpoint": distributed(home / "dcp"),
    }


def distributed(folder: Path) -> Path:
    """Write a distributed checkpoint of MODULE."""
    nemo_rl_runs.save_dcp({"model": MODULE.state_dict()}, folder)
    return folder


def accepted(folder: Path) -> Accepted:
    verdict = gate.judge(folder)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def refused(folder: Path) -> Refused:
    verdict = gate.judge(folder)
    assert isinstance(verdict, Refused), verdict
    assert verdict.message
    assert verdict.next_step.endswith(".")
    return verdict


def files(folder: Path, **content: bytes) -> Path:
    """A folder that holds *content*; `__` in a name stands for a dot, `___` for a slash."""
    for name, data in content.items():
        path = folder / name.replace("___", "/").replace("__", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def saved(value: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **options)
    return buffer.getvalue()


def scripted(module: nn.Module) -> bytes:
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(torch.jit.script(module), buffer)
    return buffer.getvalue()


def rewritten(archive: bytes, change: Callable[[str, bytes], bytes | None], **extra: bytes) -> bytes:
    """The archive with members changed (None drops one) and *extra* ones, `__` standing for a slash."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as source, zipfile.ZipFile(buffer, "w") as target:
        top = source.namelist()[0].partition("/")[0]
        for name in source.namelist():
            content = change(name.partition("/")[2], source.read(name))
            if content is not None:
                target.writestr(name, content)
        for name, content in extra.items():
            target.writestr(f"{top}/{name.replace('__', '/')}", content)
    return buffer.getvalue()


def same(_name: str, content: bytes) -> bytes:
    return content


# every format


def test_catalogue_names_every_module_on_disk() -> None:
    folder = Path(catalog.__file__).parent / "formats"
    modules = {module.rpartition(".")[2] for module in catalog.MODULES}
    with_format = {path.stem for path in folder.glob("*.py") if "\nFORMAT: Final" in path.read_text()}
    assert modules == with_format


@pytest.mark.parametrize("format_", FORMATS, ids=module_name)
def test_agent_opens_what_the_gate_lets_in(format_: Any) -> None:
    assert served_formats.get(format_.name).name == format_.name


@pytest.mark.parametrize("format_", FORMATS, ids=module_name)
def test_real_upload_is_accepted(format_: Any, originals: dict[str, Path]) -> None:
    verdict = accepted(originals[module_name(format_)])
    assert verdict.format == format_.name
    assert verdict.program == served_formats.get(format_.name).is_program
    assert ("acceptance" in verdict.needs) == verdict.program
    assert handlers.get(verdict.handler).applies_to(format_.name)
    assert (verdict.signature is None) == ("architecture" in verdict.needs)
    assert verdict.stored or verdict.weights
    assert {path for _, path in verdict.stored} <= {
        path.relative_to(originals[module_name(format_)]).as_posix()
        for path in originals[module_name(format_)].rglob("*")
    }


@pytest.mark.parametrize("format_", FORMATS, ids=module_name)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32))
def test_damaged_upload_always_gets_a_verdict(
    format_: Any, originals: dict[str, Path], tmp_path_factory: pytest.TempPathFactory, seed: int
) -> None:
    chance = random.Random(seed)
    folder = tmp_path_factory.mktemp("damaged")
    for path in originals[module_name(format_)].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    victim = chance.choice(sorted(folder.iterdir()))
    data = bytearray(victim.read_bytes())
    for _ in range(chance.randint(1, 8)):
        data[chance.randrange(len(data))] = chance.randrange(256)
    victim.write_bytes(data[: chance.choice([len(data), chance.randrange(1, len(data))])])
    assert isinstance(gate.judge(folder), Accepted | Refused)


# what is read


def test_script_says_its_argument_and_asks_for_the_rest(originals: dict[str, Path]) -> None:
    verdict = accepted(originals["torchscript"])
    assert verdict.signature is not None
    assert [spec.name for spec in verdict.signature.inputs] == ["input"]
    assert verdict.needs == ("acceptance", "signature")
    assert verdict.stored == (("model.pt", "model.pt"),)


def test_trace_says_its_types_and_shapes(originals: dict[str, Path]) -> None:
    verdict = accepted(originals["traced"])
    assert verdict.signature is not None
    assert [str(spec) for spec in verdict.signature.inputs] == ["input:FP32[-1,1,8,8]"]
    assert verdict.needs == ("acceptance",)


def test_exported_program_says_everything(originals: dict[str, Path]) -> None:
    verdict = accepted(originals["pair"])
    assert verdict.signature is not None
    assert [str(spec) for spec in verdict.signature.inputs] == ["left:FP32[-1,4]", "right:FP32[-1,4]"]
    assert [str(spec) for spec in verdict.signature.outputs] == ["total:FP32[-1,4]", "likeness:FP32[-1]"]
    assert verdict.stored == (("model.pt2", "pair.pt2"),)


def test_folder_in_a_folder_is_a_hugging_face_folder(originals: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "reviews").symlink_to(originals["huggingface"])
    (tmp_path / "up").mkdir()
    for path in originals["huggingface"].iterdir():
        files(tmp_path / "up" / "reviews", **{path.name: path.read_bytes()})
    files(tmp_path / "up" / "reviews", README__md=b"# hello")
    verdict = accepted(tmp_path / "up")
    assert verdict.labels == ("negative", "positive")
    assert ("config.json", "reviews/config.json") in verdict.stored
    assert "README.md" not in dict(verdict.stored)


# what is refused


def single_file_cases() -> dict[str, tuple[ReasonCode, str, Callable[[], bytes]]]:
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("config.json", "{}")
    tarred = io.BytesIO()
    with tarfile.open(fileobj=tarred, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("x"))
    return {
        "full module": (ReasonCode.FULL_MODULE_PICKLE, "model.pt", lambda: saved(MODULE)),
        "full module, old": (
            ReasonCode.FULL_MODULE_PICKLE,
            "model.pt",
            lambda: saved(MODULE, _use_new_zipfile_serialization=False),
        ),
        "pickle": (ReasonCode.RAW_PICKLE, "model.pkl", lambda: pickle.dumps({"a": 1})),
        "old pickle": (ReasonCode.RAW_PICKLE, "model", lambda: pickle.dumps(Path("x"), protocol=0)),
        "onnx": (ReasonCode.BROKEN_PROGRAM, "model.onnx", lambda: b"\x08\x07\x12\x07pytorch"),
        "keras": (ReasonCode.HDF5, "model.h5", lambda: b"\x89HDF\r\n\x1a\n" + b"\0" * 64),
        "keras zip": (ReasonCode.HDF5, "model.keras", zipped.getvalue),
        "numpy": (ReasonCode.BROKEN_WEIGHTS, "model.npy", lambda: b"\x93NUMPY\x01\0"),
        "zip": (ReasonCode.PLAIN_ARCHIVE, "model.zip", zipped.getvalue),
        "tar": (ReasonCode.PLAIN_ARCHIVE, "model.tar", tarred.getvalue),
        "gzip": (ReasonCode.PLAIN_ARCHIVE, "model.tar.gz", lambda: b"\x1f\x8b\x08"),
        "library": (ReasonCode.NATIVE_CODE, "model.so", lambda: b"\x7fELF\x02"),
        "source": (ReasonCode.SOURCE_CODE, "model.py", lambda: b"import torch\n"),
        "unknown": (ReasonCode.UNKNOWN_FORMAT, "model.pt", lambda: b"hello world"),
        "empty": (ReasonCode.EMPTY_FILE, "model.pt", lambda: b""),
        "cut script": (ReasonCode.BROKEN_ARCHIVE, "model.pt", lambda: scripted(Pair())[:-40]),
        "half a script": (ReasonCode.BROKEN_ARCHIVE, "model.pt", lambda: scripted(Pair())[:500]),
        "trailing data": (ReasonCode.BROKEN_ARCHIVE, "model.pt", lambda: scripted(Pair()) + b"more"),
        "leading data": (
            ReasonCode.UNKNOWN_FORMAT, "model.pt", lambda: b"\x01more" + scripted(Pair())
        ),
        "number argument": (ReasonCode.UNSUPPORTED_ARGUMENTS, "model.pt", lambda: scripted(Numbers())),
        "file operator": (ReasonCode.FILE_ACCESS, "model.pt", lambda: scripted(Reader())),
        "no weights": (ReasonCode.BROKEN_WEIGHTS, "model.safetensors", lambda: b"\x02\0\0\0\0\0\0\0{}"),
    }  # fmt: skip


SINGLE = single_file_cases()


@pytest.mark.parametrize("case", SINGLE)
def test_single_file_is_refused(case: str, tmp_path: Path) -> None:
    code, name, content = SINGLE[case]
    (tmp_path / name).write_bytes(content())
    verdict = refused(tmp_path)
    assert verdict.code == code
    assert verdict.file == name
    assert name in verdict.message


def test_advice_for_pickled_modules_is_a_line_of_code(tmp_path: Path) -> None:
    verdict = refused(files(tmp_path, model__pt=saved(MODULE)))
    assert "torch.nn.modules.container.Sequential" in verdict.message
    assert "torch.export.save(" in verdict.next_step


@pytest.fixture(scope="module")
def script() -> bytes:
    return scripted(Pair())


def patched(archive: bytes, name: str, content: bytes) -> bytes:
    return rewritten(archive, lambda member, old: content if member == name else old)


@pytest.mark.parametrize(
    ("code", "member"),
    [
        (ReasonCode.UNEXPECTED_MEMBER, "code__evil.so"),
        (ReasonCode.UNEXPECTED_MEMBER, "hooks.py"),
        (ReasonCode.HOSTILE_ARCHIVE, "..__..__etc__passwd"),
        (ReasonCode.HOSTILE_ARCHIVE, "code__.__x.py"),
        (ReasonCode.HOSTILE_ARCHIVE, "code__x\x01.py"),
        (ReasonCode.HOSTILE_ARCHIVE, "C:__x"),
    ],
)
def test_odd_members_are_refused(script: bytes, tmp_path: Path, code: ReasonCode, member: str) -> None:
    changed = rewritten(script, same, **{member: b"x"})
    assert refused(files(tmp_path, model__pt=changed)).code == code


def test_member_twice_is_refused(script: bytes, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        changed = rewritten(script, same, **{"data.pkl": b"x"})
    assert refused(files(tmp_path, model__pt=changed)).code == ReasonCode.HOSTILE_ARCHIVE


def test_bomb_is_refused(script: bytes, tmp_path: Path) -> None:
    buffer = io.BytesIO(script)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_DEFLATED) as archive:
        top = archive.namelist()[0].partition("/")[0]
        archive.writestr(f"{top}/extra/zeros", bytes(64 * 1024 * 1024))
    assert refused(files(tmp_path, model__pt=buffer.getvalue())).code == ReasonCode.ARCHIVE_BOMB


def test_too_many_members_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for index in range(33_000):
            archive.writestr(f"m/data/{index}", b"")
    assert refused(files(tmp_path, model__pt=buffer.getvalue())).code == ReasonCode.HOSTILE_ARCHIVE


def test_damaged_weights_are_refused(script: bytes, tmp_path: Path) -> None:
    at = script.index(b"byteorder") + len(b"byteorder")
    at = script.index(b"little", at)
    changed = script[:at] + b"broken" + script[at + 6 :]
    assert refused(files(tmp_path, model__pt=changed)).code == ReasonCode.BROKEN_ARCHIVE


OWN_RESULT = '[1, {"type": "my.Output", "context": "[]", "children_spec": []}]'


def returns(program: dict[str, Any], out_spec: str) -> None:
    program["graph_module"]["module_call_graph"][0]["signature"]["out_spec"] = out_spec


def exported_cases() -> dict[str, tuple[ReasonCode, Callable[[str, bytes], bytes | None], dict[str, bytes]]]:
    def program(change: Callable[[dict[str, Any]], None]) -> Callable[[str, bytes], bytes]:
        def rewrite(name: str, content: bytes) -> bytes:
            if name != "models/model.json":
                return content
            value = json.loads(content)
            change(value)
            return json.dumps(value).encode()

        return rewrite

    def node(value: dict[str, Any]) -> dict[str, Any]:
        found: dict[str, Any] = value["graph_module"]["graph"]["nodes"][0]
        return found

    def size(value: dict[str, Any]) -> dict[str, Any]:
        tensors = value["graph_module"]["graph"]["tensor_values"]
        expr: dict[str, Any] = tensors["input"]["sizes"][0]["as_expr"]
        return expr

    def pickled(name: str, content: bytes) -> bytes:
        if name.startswith("data/sample_inputs/"):
            return saved((MODULE,))
        return content

    def by_pickle(name: str, content: bytes) -> bytes:
        return content.replace(b'"use_pickle": false', b'"use_pickle": true')

    def without_weights(name: str, content: bytes) -> bytes | None:
        return None if name == "data/weights/weight_0" else content

    plain = b"x"
    return {
        "compiled": (ReasonCode.NATIVE_CODE, same, {"data__aotinductor__model__a.so": plain}),
        "custom object": (ReasonCode.UNEXPECTED_PICKLE, same, {"data__constants__custom_obj_0": plain}),
        "opaque object": (ReasonCode.UNEXPECTED_PICKLE, same, {"data__constants__opaque_obj_0": plain}),
        "other member": (ReasonCode.UNEXPECTED_MEMBER, same, {"setup.py": plain}),
        "old": (ReasonCode.OLD_EXPORTED_PROGRAM, same, {"serialized_exported_program.json": b"{}"}),
        "second program": (ReasonCode.BROKEN_PROGRAM, same, {"models__other.json": b"{}"}),
        "pickled samples": (ReasonCode.UNEXPECTED_PICKLE, pickled, {}),
        "pickled weights": (ReasonCode.UNEXPECTED_PICKLE, by_pickle, {}),
        "missing weights": (ReasonCode.BROKEN_PROGRAM, without_weights, {}),
        "foreign operator": (
            ReasonCode.FOREIGN_OPERATOR, program(lambda v: node(v).update(target="torch.hub.load")), {}
        ),
        "file operator": (
            ReasonCode.FILE_ACCESS, program(lambda v: node(v).update(target="torch.ops.aten.from_file.out")),
            {},
        ),
        "free size": (
            ReasonCode.FREE_EXPRESSION,
            program(lambda v: size(v).update(expr_str="__import__('os').getpid()")),
            {},
        ),
        "free guard": (
            ReasonCode.FREE_EXPRESSION, program(lambda v: v.update(guards_code=["__import__('os')"])), {}
        ),
        "own result class": (
            ReasonCode.UNSUPPORTED_RESULTS,
            program(lambda v: returns(v, OWN_RESULT)),
            {},
        ),
        "no graph": (ReasonCode.BROKEN_PROGRAM, program(lambda v: v.update(graph_module=1)), {}),
    }  # fmt: skip


EXPORTED = exported_cases()


@pytest.mark.parametrize("case", EXPORTED)
def test_tampered_exported_program_is_refused(case: str, originals: dict[str, Path], tmp_path: Path) -> None:
    code, change, extra = EXPORTED[case]
    original = (originals["exported_program"] / "model.pt2").read_bytes()
    changed = rewritten(original, change, **extra)
    assert refused(files(tmp_path, model__pt2=changed)).code == code


def hugging_face(originals: dict[str, Path], folder: Path) -> Path:
    for path in originals["huggingface"].iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    return folder


def config_with(folder: Path, **changes: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


FOLDER_CASES: dict[str, tuple[ReasonCode, Callable[[Path], object]]] = {
    "no config": (ReasonCode.MISSING_CONFIG, lambda d: (d / "config.json").unlink()),
    "no weights": (ReasonCode.MISSING_WEIGHTS, lambda d: (d / "model.safetensors").unlink()),
    "no tokenizer": (ReasonCode.MISSING_TOKENIZER, lambda d: (d / "tokenizer.json").unlink()),
    "pickle": (ReasonCode.PICKLED_WEIGHTS, lambda d: (d / "pytorch_model.bin").write_bytes(b"x")),
    "other pickle": (ReasonCode.PICKLED_WEIGHTS, lambda d: (d / "data.pkl").write_bytes(b"x")),
    "code": (ReasonCode.REMOTE_CODE, lambda d: (d / "modeling_x.py").write_bytes(b"x")),
    "auto_map": (ReasonCode.REMOTE_CODE, lambda d: config_with(d, auto_map={"AutoModel": "x.X"})),
    "nested auto_map": (ReasonCode.REMOTE_CODE, lambda d: config_with(d, text_config={"auto_map": {}})),
    "attention": (ReasonCode.REMOTE_CODE, lambda d: config_with(d, _attn_implementation="a/b")),
    "language model": (
        ReasonCode.LANGUAGE_MODEL, lambda d: config_with(d, architectures=["T5ForConditionalGeneration"])
    ),
    "unknown": (
        ReasonCode.UNSUPPORTED_ARCHITECTURE,
        lambda d: config_with(d, architectures=["ViTForImageClassification"]),
    ),
    "stray file": (ReasonCode.UNEXPECTED_FILE, lambda d: (d / "movie.mp4").write_bytes(b"x")),
    "cut weights": (
        ReasonCode.BROKEN_WEIGHTS,
        lambda d: (d / "model.safetensors").write_bytes((d / "model.safetensors").read_bytes()[:-1]),
    ),
    "broken config": (ReasonCode.BROKEN_JSON, lambda d: (d / "config.json").write_text("{")),
    "link": (ReasonCode.NOT_A_FILE, lambda d: (d / "vocab.txt").symlink_to("/etc/passwd")),
    "parts without index": (
        ReasonCode.MISSING_WEIGHTS,
        lambda d: (d / "model.safetensors").rename(d / "model-00001-of-00002.safetensors"),
    ),
    "index leads elsewhere": (
        ReasonCode.MISSING_WEIGHTS,
        lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../../etc/x"}}'),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FOLDER_CASES)
def test_spoilt_hugging_face_folder_is_refused(case: str, originals: dict[str, Path], tmp_path: Path) -> None:
    code, spoil = FOLDER_CASES[case]
    spoil(hugging_face(originals, tmp_path))
    assert refused(tmp_path).code == code


def test_several_files_of_no_kind_are_refused(tmp_path: Path) -> None:
    assert refused(files(tmp_path, a__txt=b"x", b__txt=b"y")).code == ReasonCode.SEVERAL_FILES


def test_a_state_dict_among_others_is_refused(tmp_path: Path) -> None:
    verdict = refused(files(tmp_path, a__pt=saved(MODULE.state_dict()), b__pt=saved(MODULE.state_dict())))
    assert (verdict.code, verdict.file) == (ReasonCode.STATE_DICT, "a.pt")


def test_nothing_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path).code == ReasonCode.EMPTY_UPLOAD


def test_too_many_files_are_refused(tmp_path: Path) -> None:
    for index in range(gate.MAX_FILES + 1):
        (tmp_path / f"{index}.json").write_bytes(b"{}")
    assert refused(tmp_path).code == ReasonCode.TOO_MANY_FILES


def test_unprintable_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a\nb").write_bytes(b"x")
    assert refused(tmp_path).code == ReasonCode.UNSAFE_NAME
