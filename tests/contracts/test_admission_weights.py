"""Weights as torch, safetensors, transformers and NumPy write them: every tensor bit-equal, nothing run."""

from __future__ import annotations

import argparse
import collections
import contextlib
import io
import json
import pickle
import re
import struct
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

from control_plane.admission import gate, safetensors_writer, state_dicts
from control_plane.admission.base import Accepted, ReceivedFile, Refusal, Refused
from control_plane.admission.reasons import ReasonCode
from tests.fakes import models

PLAIN_DTYPES = [
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint8, torch.uint16, torch.uint32, torch.uint64, torch.bool, torch.complex64,
    torch.float8_e4m3fn,
    torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e5m2fnuz, torch.float8_e8m0fnu,
]  # fmt: skip
ZIPPED = [True, False]


def saved(value: Any, *, zipped: bool = True) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=zipped)
    return buffer.getvalue()


def upload(folder: Path, data: bytes, name: str = "model.pt") -> Path:
    (folder / name).write_bytes(data)
    return folder


def accepted(folder: Path) -> Accepted:
    verdict = gate.judge(folder)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def refused(folder: Path) -> Refused:
    verdict = gate.judge(folder)
    assert isinstance(verdict, Refused), verdict
    assert verdict.next_step.endswith(".")
    assert verdict.message.isprintable()
    return verdict


def converted(verdict: Accepted, out: Path) -> dict[str, torch.Tensor]:
    """All tensors of the files that the verdict asks to write, as safetensors opens them."""
    out.mkdir()
    safetensors_writer.write_all(verdict.weights, out)
    tensors: dict[str, torch.Tensor] = {}
    for file in verdict.weights:
        tensors |= safetensors.torch.load_file(out / file.name)
    return tensors


def raw(tensor: torch.Tensor) -> bytes:
    flat = torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach()).reshape(-1)
    return bytes(flat.view(torch.uint8).numpy()) if flat.numel() else b""


def assert_equal(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert raw(found[name]) == raw(tensor)


def filled(dtype: torch.dtype, shape: tuple[int, ...], seed: int = 0) -> torch.Tensor:
    """Any bits at all, NaNs and denormals too; only bool keeps to 0 and 1."""
    generator = torch.Generator().manual_seed(seed)
    size = int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    data = torch.randint(
        0, 2 if dtype == torch.bool else 256, (size,), dtype=torch.uint8, generator=generator
    )
    return data.view(dtype).reshape(shape)


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    """A view of any kind: sliced, transposed, expanded, strided, 0-d, empty."""
    shape = tuple(draw(st.lists(st.integers(0, 5), max_size=4)))
    tensor = filled(draw(st.sampled_from(PLAIN_DTYPES)), shape, draw(st.integers(0, 9)))
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["permute", "slice", "step", "expand", "select"]))
        axes = [axis for axis, size in enumerate(tensor.shape) if size > 1]
        if kind == "permute":
            tensor = tensor.permute(draw(st.permutations(range(tensor.ndim))))
        elif kind == "expand":
            tensor = tensor.unsqueeze(0).expand(draw(st.integers(1, 3)), *tensor.shape)
        elif axes:
            axis = draw(st.sampled_from(axes))
            tensor = {
                "slice": lambda t, a: t.narrow(a, 1, t.shape[a] - 1),
                "step": lambda t, a: t[(slice(None),) * a + (slice(None, None, 2),)],
                "select": lambda t, a: t.select(a, t.shape[a] - 1),
            }[kind](tensor, axis)
    return tensor


# torch.save


@pytest.mark.parametrize("zipped", ZIPPED)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(state=st.dictionaries(st.text("abc._0", min_size=1, max_size=6), tensors(), min_size=1, max_size=4))
def test_any_tensor_comes_out_bit_equal(
    tmp_path_factory: pytest.TempPathFactory, zipped: bool, state: dict[str, torch.Tensor]
) -> None:
    home = tmp_path_factory.mktemp("state")
    verdict = accepted(upload(home, saved(state, zipped=zipped)))
    assert (verdict.format, verdict.needs, verdict.decision) == ("state_dict", ("architecture",), "convert")
    assert_equal(converted(verdict, home / "out"), state)


@pytest.mark.parametrize("zipped", ZIPPED)
@pytest.mark.parametrize("dtype", PLAIN_DTYPES, ids=str)
def test_every_type(tmp_path: Path, dtype: torch.dtype, zipped: bool) -> None:
    state = {
        "a": filled(dtype, (3, 4)),
        "t": filled(dtype, (3, 4), 1).T,
        "0d": filled(dtype, ()),
        "e": filled(dtype, (0, 2)),
    }
    verdict = accepted(upload(tmp_path, saved(state, zipped=zipped)))
    assert_equal(converted(verdict, tmp_path / "out"), state)


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(7, 4)
        self.conv = nn.Conv2d(1, 3, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(3)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embed.weight
        self.register_buffer("table", torch.arange(12).reshape(3, 4)[:, 1:3])


@pytest.fixture(scope="module")
def network() -> Network:
    return Network()


def checkpoint(network: Network) -> dict[str, Any]:
    """What training loops of many kinds put into one file."""
    optimiser = torch.optim.AdamW(network.parameters())
    network.embed.weight.sum().backward()
    optimiser.step()
    return {
        "state_dict": network.state_dict(),
        "optimizer_states": [optimiser.state_dict()],
        "lr_schedulers": [{"last_epoch": 3}],
        "hyper_parameters": {"lr": np.float64(0.1), "layers": [np.int64(3)], "mask": np.arange(3)},
        "args": argparse.Namespace(out=Path("a/b"), counts=collections.Counter("abc")),
        "callbacks": collections.defaultdict(list, best=[torch.tensor(0.5)]),
        "rng": torch.get_rng_state(),
        "epoch": 3,
        "shape": torch.Size([2]),
        "device": torch.device("cpu"),
        "dtype": torch.bfloat16,
        "pytorch-lightning_version": "2.5.0",
        "torch": torch.__version__,
        "bytes": b"\xff\0",
    }


@pytest.mark.parametrize("zipped", ZIPPED)
def test_a_checkpoint_gives_its_weights_and_reports_the_rest(
    tmp_path: Path, network: Network, zipped: bool
) -> None:
    verdict = accepted(upload(tmp_path, saved(checkpoint(network), zipped=zipped), "epoch=3.ckpt"))
    assert_equal(converted(verdict, tmp_path / "out"), network.state_dict())
    why = {entry.path.partition("!/")[2]: entry.why for entry in verdict.left_out}
    assert why["optimizer_states"] == "optimiser state"
    assert why["callbacks"] == why["rng"] == why["epoch"] == "resume state"
    assert why["shape"] == "not weights"
    sizes = {entry.path.partition("!/")[2]: entry.size_bytes for entry in verdict.left_out}
    assert sizes["optimizer_states"] >= 2 * 4 * 7 * 4
    assert sizes["rng"] == torch.get_rng_state().numel()


@pytest.mark.parametrize("zipped", ZIPPED)
def test_parameters_and_subclasses_are_plain_tensors(tmp_path: Path, zipped: bool) -> None:
    parameter = nn.Parameter(torch.randn(3))
    parameter.tag = "x"  # type: ignore[attr-defined] # makes torch save its state
    state = {"p": parameter, "b": nn.Buffer(torch.randn(2)), "plain": nn.Parameter(torch.randn(2))}
    verdict = accepted(upload(tmp_path, saved(state, zipped=zipped)))
    assert_equal(converted(verdict, tmp_path / "out"), {name: each.detach() for name, each in state.items()})


def test_tied_tensors_are_written_under_each_name(tmp_path: Path) -> None:
    shared = torch.randn(4, 4)
    state = {"a": shared, "b": shared, "c": shared[1:], "d": shared.T}
    verdict = accepted(upload(tmp_path, saved(state)))
    assert_equal(converted(verdict, tmp_path / "out"), state)


def test_large_storages_stream_through(tmp_path: Path) -> None:
    state = {f"layer{index}": torch.randn(1024, 1024) for index in range(20)}
    for number, zipped in enumerate(ZIPPED):
        folder = tmp_path / str(number)
        folder.mkdir()
        verdict = accepted(upload(folder, saved(state, zipped=zipped)))
        assert_equal(converted(verdict, folder / "out"), state)


def sparse() -> torch.Tensor:
    return torch.eye(3).to_sparse()


def quantised() -> torch.Tensor:
    return torch.quantize_per_tensor(torch.randn(3), 0.1, 0, torch.qint8)


def on_meta() -> torch.Tensor:
    return torch.empty(3, device="meta")


def conjugated() -> torch.Tensor:
    return torch.randn(3, dtype=torch.complex64).conj()


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:.*:DeprecationWarning")
@pytest.mark.parametrize("make", [sparse, on_meta, conjugated, quantised])
def test_tensors_without_plain_bytes_are_refused(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    for value in ({"odd": make()}, {"a": torch.ones(2), "odd": make()}):
        verdict = refused(upload(tmp_path, saved(value)))
        assert (verdict.code, verdict.member) == (ReasonCode.UNSUPPORTED_TENSOR, "odd")


def test_complex128_is_refused_with_advice(tmp_path: Path) -> None:
    verdict = gate.judge(upload(tmp_path, saved({"a": torch.ones(2, dtype=torch.complex128)})))
    assert isinstance(verdict, Refused)
    assert verdict.code == ReasonCode.UNSUPPORTED_TENSOR


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ({"epoch": 3}, ReasonCode.NO_TENSORS),
        ([], ReasonCode.NO_TENSORS),
        ({"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}, ReasonCode.NO_TENSORS),
        ({"a\nb": torch.ones(1)}, ReasonCode.BROKEN_WEIGHTS),
        ({"x" * 1025: torch.ones(1)}, ReasonCode.BROKEN_WEIGHTS),
        ({"": torch.ones(1)}, ReasonCode.BROKEN_WEIGHTS),
        ({"__metadata__": torch.ones(1)}, ReasonCode.BROKEN_WEIGHTS),
        ({"a\0": torch.ones(1)}, ReasonCode.BROKEN_WEIGHTS),
        ({"a": torch.ones(1).expand(1 << 40)}, ReasonCode.ARCHIVE_BOMB),
        ({"a": {"b": torch.ones(1)}, "a.b": torch.ones(1)}, ReasonCode.BROKEN_WEIGHTS),
        (nn.Linear(2, 2), ReasonCode.FULL_MODULE_PICKLE),
        ({"model": nn.Linear(2, 2)}, ReasonCode.FULL_MODULE_PICKLE),
    ],
    ids=str,
)
@pytest.mark.parametrize("zipped", ZIPPED)
def test_other_contents_are_refused(tmp_path: Path, value: Any, code: ReasonCode, zipped: bool) -> None:
    assert refused(upload(tmp_path, saved(value, zipped=zipped))).code == code


@pytest.mark.parametrize("name", ["../../etc/passwd", "<script>alert(1)</script>", "/absolute", "a b", "ü"])
def test_names_that_look_like_something_else_stay_names(tmp_path: Path, name: str) -> None:
    verdict = accepted(upload(tmp_path, saved({name: torch.ones(2)})))
    assert_equal(converted(verdict, tmp_path / "out"), {name: torch.ones(2)})
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.safetensors"]


class Runs:
    """Calls something when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return (open, (str(self.marker), "w"))


@pytest.mark.parametrize("zipped", ZIPPED)
@pytest.mark.parametrize("place", ["beside", "inside", "instead", "in a hook"])
def test_code_is_refused_wherever_it_lies_and_not_run(tmp_path: Path, place: str, zipped: bool) -> None:
    evil = Runs(tmp_path / "marker")
    value: Any = {
        "beside": {"a": torch.ones(2), "evil": evil},
        "inside": {"model": {"a": torch.ones(2)}, "optimizer": {"state": [evil]}},
        "instead": evil,
        "in a hook": collections.OrderedDict([(evil, torch.ones(2))]),
    }[place]
    (tmp_path / "up").mkdir()
    verdict = refused(upload(tmp_path / "up", saved(value, zipped=zipped)))
    assert verdict.code == ReasonCode.FULL_MODULE_PICKLE
    assert "open" in verdict.message
    assert verdict.member == "io.open"
    assert not (tmp_path / "marker").exists()


def test_what_a_trainer_saves_beside_is_left_out(tmp_path: Path) -> None:
    upload(tmp_path, saved(STATE), "pytorch_model.bin")
    upload(tmp_path, saved({"state": {}, "param_groups": []}), "optimizer.pt")
    upload(tmp_path, b"{}", "trainer_state.json")
    verdict = accepted(tmp_path)
    assert {entry.path: entry.why for entry in verdict.left_out} == {
        "optimizer.pt": "optimiser state", "trainer_state.json": "resume state",
    }  # fmt: skip
    (tmp_path / "pytorch_model.bin").unlink()
    (tmp_path / "trainer_state.json").unlink()
    assert refused(tmp_path).code == ReasonCode.NO_TENSORS


# damaged and contrived files


def rezipped(data: bytes, change: Callable[[str, bytes], bytes | None], **extra: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
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


STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(4, dtype=torch.int16)}


@pytest.mark.parametrize("zipped", ZIPPED)
def test_a_file_cut_at_any_byte_is_refused(tmp_path: Path, zipped: bool) -> None:
    data = saved({"a": torch.ones(2)}, zipped=zipped)
    path = tmp_path / "model.pt"
    for length in range(1, len(data), 7 if zipped else 1):
        path.write_bytes(data[:length])
        assert isinstance(gate.judge(tmp_path), Refused), length


@pytest.mark.parametrize("zipped", ZIPPED)
@settings(max_examples=150, deadline=None)
@given(position=st.integers(0, 1 << 20), byte=st.integers(0, 255))
def test_one_wrong_byte_gives_a_verdict_and_readable_weights(
    tmp_path_factory: pytest.TempPathFactory, zipped: bool, position: int, byte: int
) -> None:
    data = bytearray(saved(STATE, zipped=zipped))
    data[position % len(data)] = byte
    home = tmp_path_factory.mktemp("wrong")
    verdict = gate.judge(upload(home, bytes(data)))
    if isinstance(verdict, Accepted):
        with contextlib.suppress(Refusal) if zipped else contextlib.nullcontext():  # a checksum may differ
            assert len(converted(verdict, home / "out")) == len(verdict.weights[0].tensors)


def with_order(order: bytes) -> bytes:
    return rezipped(saved(STATE), lambda name, old: order if name == "byteorder" else old)


def without_storage() -> bytes:
    return rezipped(saved(STATE), lambda name, old: None if name == "data/0" else old)


def with_short_storage() -> bytes:
    return rezipped(saved(STATE), lambda name, old: old[:-1] if name == "data/0" else old)


def deflated() -> bytes:
    buffer = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(saved(STATE))) as source,
        zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for name in source.namelist():
            target.writestr(name, source.read(name))
    return buffer.getvalue()


def pickle_twice() -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return rezipped(saved(STATE), same, **{"data.pkl": pickle.dumps({})})


def with_pickle(change: Callable[[bytes], bytes]) -> bytes:
    return rezipped(saved(STATE), lambda name, old: change(old) if name == "data.pkl" else old)


def lists_of_lists() -> bytes:
    """A pickle whose lists would unfold to 2^40 tensors."""
    bomb = b"(K\x01" + b"".join(b"q%c(h%ch%cl" % (1 + i, 1 + i, 1 + i) for i in range(40))
    return with_pickle(lambda old: old[:-1] + b"0" + bomb + b".")


def legacy() -> bytes:
    return saved(STATE, zipped=False)


CONTRIVED: dict[str, tuple[Callable[[], bytes], set[ReasonCode]]] = {
    "big-endian": (lambda: with_order(b"big"), {ReasonCode.BIG_ENDIAN}),
    "storage missing": (without_storage, {ReasonCode.BROKEN_WEIGHTS}),
    "storage short": (with_short_storage, {ReasonCode.BROKEN_WEIGHTS}),
    "deflated": (deflated, {ReasonCode.COMPRESSED_WEIGHTS}),
    "two pickles": (pickle_twice, {ReasonCode.HOSTILE_ARCHIVE}),
    "more members": (
        lambda: rezipped(saved(STATE), same, **{"hook.py": b"x"}), {ReasonCode.UNEXPECTED_MEMBER}
    ),
    "nested member": (
        lambda: rezipped(saved(STATE), same, **{"data__a__b": b"x"}), {ReasonCode.UNEXPECTED_MEMBER}
    ),
    "pickle is none": (lambda: with_pickle(lambda _: b"hello"), {ReasonCode.BROKEN_WEIGHTS}),
    "pickle is cut": (lambda: with_pickle(lambda old: old[:-1]), {ReasonCode.BROKEN_WEIGHTS}),
    "key leads elsewhere": (
        lambda: with_pickle(lambda old: old.replace(b"X\x01\x00\x00\x000", b"X\x08\x00\x00\x00../../00")),
        {ReasonCode.BROKEN_WEIGHTS},
    ),
    "both keys one storage": (
        lambda: with_pickle(lambda old: old.replace(b"X\x01\x00\x00\x001", b"X\x01\x00\x00\x000")),
        {ReasonCode.BROKEN_WEIGHTS},
    ),
    "lists of lists": (lists_of_lists, {ReasonCode.NO_TENSORS, ReasonCode.BROKEN_WEIGHTS}),
    "legacy with an archive behind": (lambda: legacy() + saved(STATE), {ReasonCode.BROKEN_WEIGHTS}),
    "legacy with a byte behind": (lambda: legacy() + b"x", {ReasonCode.BROKEN_WEIGHTS}),
    "legacy, big-endian": (
        lambda: re.sub(rb"(little_endianq.)\x88", lambda found: found[1] + b"\x89", legacy()),
        {ReasonCode.BIG_ENDIAN},
    ),
    "legacy, other protocol": (
        lambda: legacy().replace(b"M\xe9\x03.", b"M\xea\x03.", 1), {ReasonCode.BROKEN_WEIGHTS}
    ),
    "legacy, huge storage": (
        lambda: legacy().replace(struct.pack("<q", 6), struct.pack("<q", 1 << 50)),
        {ReasonCode.BROKEN_WEIGHTS},
    ),
    "legacy, negative storage": (
        lambda: legacy().replace(struct.pack("<q", 6), struct.pack("<q", -1)), {ReasonCode.BROKEN_WEIGHTS}
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CONTRIVED)
def test_contrived_files_are_refused(tmp_path: Path, case: str) -> None:
    make, codes = CONTRIVED[case]
    data = make()
    assert data not in (saved(STATE), legacy())
    verdict = refused(upload(tmp_path, data))
    assert verdict.code in codes, verdict
    assert verdict.file == "model.pt"


def test_damage_in_a_storage_is_found_when_it_is_read(tmp_path: Path) -> None:
    data = bytearray(saved(STATE))
    at = data.index(struct.pack("<3f", 1.0, 2.0, 3.0))
    data[at] ^= 1
    verdict = accepted(upload(tmp_path, bytes(data)))
    with pytest.raises(Refusal) as damage:
        converted(verdict, tmp_path / "out")
    assert damage.value.refused.code == ReasonCode.BROKEN_ARCHIVE


def test_reader_opens_no_file_but_its_own(tmp_path: Path) -> None:
    upload(tmp_path, saved(STATE))
    file = ReceivedFile("model.pt", tmp_path / "model.pt", (tmp_path / "model.pt").stat().st_size)
    found = state_dicts.read(file)
    assert {piece.storage.location for tensor in found.tensors for piece in tensor.pieces} == {file.location}


# safetensors alone


def test_safetensors_alone_are_accepted(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "weights.safetensors")
    (tmp_path / "README.md").write_text("# hello")
    verdict = accepted(tmp_path)
    assert (verdict.decision, verdict.needs, verdict.code) == (
        "accept", ("architecture",), ReasonCode.PLAIN_WEIGHTS,
    )  # fmt: skip
    assert [entry.path for entry in verdict.left_out] == ["README.md"]
    assert_equal(converted(verdict, tmp_path / "out"), STATE)


def test_parts_of_safetensors_become_one(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    safetensors.torch.save_file({"a": STATE["a"]}, tmp_path / "m-00001-of-00002.safetensors")
    safetensors.torch.save_file({"b": STATE["b"]}, tmp_path / "m-00002-of-00002.safetensors")
    assert_equal(converted(accepted(tmp_path), tmp_path_factory.mktemp("out") / "parts"), STATE)
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    assert refused(tmp_path).code == ReasonCode.MISSING_WEIGHTS


def test_parts_with_one_tensor_twice_are_refused(tmp_path: Path) -> None:
    for number in (1, 2):
        safetensors.torch.save_file({"a": STATE["a"]}, tmp_path / f"m-0000{number}-of-00002.safetensors")
    assert refused(tmp_path).code == ReasonCode.BROKEN_WEIGHTS


# NumPy


def test_arrays_are_tensors(tmp_path: Path) -> None:
    arrays = {
        "a": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(3, dtype=np.int8),
        "f": np.asfortranarray(np.arange(12.0).reshape(3, 4)), "e": np.zeros((0, 2)),
        "b": np.array([True, False]), "c": np.ones(2, "c8"),
    }  # fmt: skip
    np.savez(tmp_path / "model.npz", **arrays)
    verdict = accepted(tmp_path)
    assert verdict.decision == "convert"
    found = converted(verdict, tmp_path / "out")
    assert_equal(found, {name: torch.from_numpy(array.copy()) for name, array in arrays.items()})


def test_one_array_is_one_tensor(tmp_path: Path) -> None:
    np.save(tmp_path / "weight.npy", np.asfortranarray(np.arange(6).reshape(2, 3)))
    found = converted(accepted(tmp_path), tmp_path / "out")
    assert_equal(found, {"weight": torch.arange(6).reshape(2, 3)})


def test_several_arrays_are_named_by_their_files(tmp_path: Path) -> None:
    for name in ("weight", "bias"):
        np.save(tmp_path / f"{name}.npy", np.arange(3))
    found = converted(accepted(tmp_path), tmp_path / "out")
    assert_equal(found, dict.fromkeys(("weight", "bias"), torch.arange(3)))


def test_arrays_of_objects_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "model.npz", a=np.array([Runs(tmp_path / "marker")]), b=np.ones(2))
    verdict = refused(tmp_path)
    assert (verdict.code, verdict.member) == (ReasonCode.NUMPY, "a")
    assert not (tmp_path / "marker").exists()


def test_compressed_arrays_are_refused_with_advice(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "model.npz", a=np.ones(100))
    verdict = refused(tmp_path)
    assert verdict.code == ReasonCode.COMPRESSED_WEIGHTS
    assert "numpy.savez" in verdict.next_step


# Hugging Face folders


@pytest.fixture(scope="module")
def folder_of_hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_text_classifier(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def folder(folder_of_hugging_face: Path, tmp_path: Path) -> Path:
    home = tmp_path / "up"
    home.mkdir()
    for path in folder_of_hugging_face.iterdir():
        (home / path.name).write_bytes(path.read_bytes())
    return home


def original(folder: Path) -> dict[str, torch.Tensor]:
    return safetensors.torch.load_file(folder / "model.safetensors")


def test_plain_weights_are_written_anew(folder: Path, tmp_path: Path) -> None:
    verdict = accepted(folder)
    assert verdict.decision == "accept"
    assert [file.name for file in verdict.weights] == ["model.safetensors"]
    assert "model.safetensors" not in dict(verdict.stored)
    assert_equal(converted(verdict, tmp_path / "out"), original(folder))


def test_pickled_weights_are_converted(folder: Path, tmp_path: Path) -> None:
    state = original(folder)
    torch.save(state, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    verdict = accepted(folder)
    assert (verdict.decision, verdict.code) == ("convert", ReasonCode.CONVERTED_WEIGHTS)
    assert_equal(converted(verdict, tmp_path / "out"), state)


@pytest.mark.parametrize(("stem", "suffix"), [("pytorch_model", "bin"), ("model", "safetensors")])
def test_parts_keep_their_names_and_get_an_index(
    folder: Path, tmp_path: Path, stem: str, suffix: str
) -> None:
    state = original(folder)
    names = sorted(state)
    places = {}
    for number, held in enumerate((names[::2], names[1::2]), 1):
        part = f"{stem}-0000{number}-of-00002.{suffix}"
        tensors_ = {name: state[name] for name in held}
        if suffix == "bin":
            torch.save(tensors_, folder / part)
        else:
            safetensors.torch.save_file(tensors_, folder / part)
        places |= dict.fromkeys(held, part)
    (folder / "model.safetensors").unlink()
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    verdict = accepted(folder)
    assert [file.name for file in verdict.weights] == [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    assert_equal(converted(verdict, tmp_path / "out"), state)
    written = json.loads((tmp_path / "out" / "model.safetensors.index.json").read_text())["weight_map"]
    assert written.keys() == state.keys()
    (folder / f"{stem}-00002-of-00002.{suffix}").unlink()
    assert refused(folder).code == ReasonCode.MISSING_WEIGHTS


def test_what_serving_does_not_need_is_left_out_and_reported(folder: Path) -> None:
    torch.save(original(folder), folder / "pytorch_model.bin")
    for name in (
        "optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin", "flax_model.msgpack",
        "tf_model.h5",
        "README.md", "trainer_state.json", "onnx/model.onnx", "runs/x/events.out.tfevents.1", "LICENSE",
    ):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"{}")
    verdict = accepted(folder)
    why = {entry.path: entry.why for entry in verdict.left_out}
    assert why["optimizer.pt"] == "optimiser state"
    assert why["training_args.bin"] == why["rng_state_0.pth"] == "resume state"
    assert why["onnx/model.onnx"] == why["pytorch_model.bin"] == "the model in another form"
    assert len(why) == 12
    assert not why.keys() & {path for _, path in verdict.stored}


def with_template(folder: Path, template: Any) -> None:
    path = folder / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "chat_template": template}))


@pytest.mark.parametrize("inline", [True, False])
def test_chat_templates_are_looked_at(folder: Path, inline: bool) -> None:
    def put(template: str) -> None:
        if inline:
            with_template(folder, template)
        else:
            (folder / "chat_template.jinja").write_text(template)

    put("{% for m in messages %}{{ m['content'] }}{% endfor %}")
    accepted(folder)
    put("{{ messages.__class__ }}")
    assert refused(folder).code == ReasonCode.UNSAFE_TEMPLATE


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("pytorch_model.bin", b"x", ReasonCode.PICKLED_WEIGHTS),
        ("pytorch_model.bin", saved(Runs(Path("never"))), ReasonCode.FULL_MODULE_PICKLE),
        ("other.pkl", b"x", ReasonCode.PICKLED_WEIGHTS),
        ("runs/x.py", b"x", ReasonCode.REMOTE_CODE),
        ("checkpoint-1/modeling.py", b"x", ReasonCode.REMOTE_CODE),
        ("lib.so.1", b"x", ReasonCode.REMOTE_CODE),
        ("movie.mp4", b"x", ReasonCode.UNEXPECTED_FILE),
    ],
)
def test_what_could_harm_others_is_refused(folder: Path, name: str, content: bytes, code: ReasonCode) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    assert refused(folder).code == code


@pytest.mark.filterwarnings("ignore:.*quantize:UserWarning", "ignore:.*:DeprecationWarning")
def test_a_folder_whose_weights_are_not_all_plain_is_refused(folder: Path) -> None:
    torch.save({**original(folder), "odd": quantised()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    verdict = refused(folder)
    assert (verdict.code, verdict.member) == (ReasonCode.UNSUPPORTED_TENSOR, "odd")
