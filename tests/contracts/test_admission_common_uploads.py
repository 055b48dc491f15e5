"""Uploads as people really make them: nothing usual is refused, nothing of a network vanishes unsaid."""

from __future__ import annotations

import collections
import io
import json
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from control_plane.admission import gate, inert_globals, safetensors_writer
from control_plane.admission.base import Accepted, Refused
from control_plane.admission.pickle_symbols import Global
from control_plane.admission.reasons import ReasonCode
from tests.fakes import models

STATE = {"conv.weight": torch.ones(2, 3), "conv.bias": torch.zeros(2)}


def accepted(folder: Path) -> Accepted:
    verdict = gate.judge(folder)
    assert isinstance(verdict, Accepted), verdict
    return verdict


def refused(folder: Path) -> Refused:
    verdict = gate.judge(folder)
    assert isinstance(verdict, Refused), verdict
    assert verdict.next_step.endswith(".")
    return verdict


def names(verdict: Accepted) -> list[str]:
    return sorted(tensor.name for file in verdict.weights for tensor in file.tensors)


def left(verdict: Accepted) -> dict[str, str]:
    return {each.path: each.why for each in verdict.left_out}


def pickled(folder: Path, value: Any, name: str = "model.pt") -> Path:
    torch.save(value, folder / name)
    return folder


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return models.save_text_classifier(tmp_path_factory.mktemp("hf") / "model")


@pytest.fixture
def folder(classifier: Path, tmp_path: Path) -> Path:
    return copied(classifier, tmp_path / "up")


def copied(source: Path, target: Path) -> Path:
    target.mkdir(parents=True)
    for path in source.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    return target


def zipped(data: bytes) -> bytes:
    """A file of torch.save with *data* as its pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/data.pkl", data)
    return buffer.getvalue()


def put(folder: Path, name: str, content: bytes = b"") -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)


# folders


def test_a_folder_of_sentence_transformers_is_let_in(folder: Path) -> None:
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    put(folder, "modules.json", json.dumps(modules).encode())
    put(folder, "1_Pooling/config.json", b'{"word_embedding_dimension": 16}')
    assert ("modules.json", "modules.json") in accepted(folder).stored


@pytest.mark.parametrize(
    ("content", "code"),
    [
        ([{"auto_map": {"AutoModel": "x.Y"}}], ReasonCode.REMOTE_CODE),
        ([{"chat_template": "{{ x.__class__ }}"}], ReasonCode.UNSAFE_TEMPLATE),
    ],
)
def test_arrays_are_looked_through_as_objects_are(folder: Path, content: Any, code: ReasonCode) -> None:
    put(folder, "modules.json", json.dumps(content).encode())
    assert refused(folder).code == code


def test_empty_files_that_nothing_needs_are_left_out(folder: Path) -> None:
    locks = [".cache/huggingface/download/config.json.lock", ".cache/huggingface/x.json", "README.md"]
    for name in (*locks, "1_Pooling/__init__.py", ".gitkeep"):
        put(folder, name)
    put(folder, ".cache/huggingface/download/config.json.metadata", b"x")
    reported = left(accepted(folder))
    assert {reported[name] for name in locks} == {"empty"}
    assert reported[".cache/huggingface/download/config.json.metadata"] == "not weights"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "vocab.txt", "tokenizer.json"])
def test_a_file_that_lost_its_content_is_refused(folder: Path, name: str) -> None:
    put(folder, name)
    verdict = refused(folder)
    assert (verdict.code, verdict.file) == (ReasonCode.EMPTY_FILE, name)


def test_nothing_but_empty_files_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.lock")
    assert refused(tmp_path).code == ReasonCode.EMPTY_FILE


def test_a_cache_beside_bare_weights_is_left_out(tmp_path: Path) -> None:
    safetensors.torch.save_file(STATE, tmp_path / "w.safetensors")
    put(tmp_path, ".cache/huggingface/download/w.safetensors.metadata", b"x")
    assert list(left(accepted(tmp_path)).values()) == ["not weights"]


def test_parts_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        safetensors.torch.save_file({name: torch.ones(2)}, tmp_path / name / "model.safetensors")
    verdict = refused(tmp_path)
    assert verdict.code == ReasonCode.SEVERAL_FILES
    assert "a/model.safetensors and b/model.safetensors" in verdict.message


def test_what_lies_outside_of_the_model_replaces_nothing(classifier: Path, tmp_path: Path) -> None:
    copied(classifier, tmp_path / "up" / "sub")
    put(tmp_path / "up", "tokenizer.json", b"{}")
    put(tmp_path / "up", "model.safetensors", (classifier / "model.safetensors").read_bytes())
    verdict = accepted(tmp_path / "up")
    assert ("tokenizer.json", "sub/tokenizer.json") in verdict.stored
    assert left(verdict) == dict.fromkeys(
        ("model.safetensors", "tokenizer.json"), "outside of the model's folder"
    )
    put(tmp_path / "up", "modeling.py", b"x")
    assert refused(tmp_path / "up").code == ReasonCode.REMOTE_CODE


def test_two_models_are_refused(classifier: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        copied(classifier, tmp_path / "up" / name)
    assert refused(tmp_path / "up").code == ReasonCode.SEVERAL_FILES


@pytest.mark.parametrize("name", ["spiece.model", "spm.model", "sentencepiece.bpe.model", "tokenizer.model"])
def test_sentencepiece_alone_is_a_tokenizer(folder: Path, name: str) -> None:
    for other in ("tokenizer.json", "vocab.txt"):
        (folder / other).unlink(missing_ok=True)
    assert refused(folder).code == ReasonCode.MISSING_TOKENIZER
    put(folder, name, b"x")
    assert (name, name) in accepted(folder).stored


@pytest.mark.parametrize("value", ["false", "null"])
def test_saying_that_no_code_is_trusted_is_inert(folder: Path, value: str) -> None:
    put(folder, "generation_config.json", b'{"trust_remote_code": %s}' % value.encode())
    accepted(folder)
    put(folder, "generation_config.json", b'{"trust_remote_code": true}')
    assert refused(folder).code == ReasonCode.REMOTE_CODE


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("model_index.json", "diffusers"),
        ("diffusion_pytorch_model.safetensors", "diffusers"),
        ("adapter_config.json", "LoRA"),
    ],
)
def test_folders_of_other_libraries_are_called_by_their_names(tmp_path: Path, name: str, said: str) -> None:
    put(tmp_path, name, b"{}")
    safetensors.torch.save_file(STATE, tmp_path / "adapter_model.safetensors")
    verdict = refused(tmp_path)
    assert verdict.code == ReasonCode.UNSUPPORTED_ARCHITECTURE
    assert said in verdict.message


def test_an_adapter_of_an_earlier_step_does_not_name_the_folder(folder: Path) -> None:
    put(folder, "checkpoint-10/adapter_config.json", b"{}")
    assert left(accepted(folder)) == {"checkpoint-10/adapter_config.json": "resume state"}


def test_pickled_parts_with_their_index_are_weights(tmp_path: Path) -> None:
    parts = {name: f"pytorch_model-0000{n}-of-00002.bin" for n, name in enumerate(STATE, 1)}
    for name, part in parts.items():
        pickled(tmp_path, {name: STATE[name]}, part)
    put(tmp_path, "pytorch_model.bin.index.json", json.dumps({"weight_map": parts}).encode())
    verdict = accepted(tmp_path)
    assert (verdict.decision, verdict.needs) == ("convert", ("architecture",))
    out = tmp_path.with_name("out")
    out.mkdir()
    safetensors_writer.write_all(verdict.weights, out)
    assert safetensors.torch.load_file(out / "model.safetensors").keys() == STATE.keys()
    (tmp_path / parts["conv.bias"]).unlink()
    assert refused(tmp_path).code == ReasonCode.MISSING_WEIGHTS


# state dicts


@pytest.mark.parametrize(
    "value",
    [
        {"module": STATE, "head.weight": torch.ones(2)},
        {"model": STATE, "cls_token": torch.ones(1, 1, 4)},
        {"state_dict": STATE, "head.weight": torch.ones(2)},
    ],
)
def test_a_tensor_beside_a_state_dict_is_not_dropped(tmp_path: Path, value: Any) -> None:
    verdict = refused(pickled(tmp_path, value))
    assert verdict.code == ReasonCode.UNSUPPORTED_TENSOR
    assert verdict.member in value


def test_counters_beside_a_state_dict_are_left_out(tmp_path: Path) -> None:
    value = {"model": STATE, "best_acc1": torch.tensor(0.9), "epoch": 3, "rng_state": torch.get_rng_state()}
    verdict = accepted(pickled(tmp_path, value))
    assert names(verdict) == sorted(STATE)
    assert len(left(verdict)) == 3


def test_tensors_called_like_a_trainers_are_weights(tmp_path: Path) -> None:
    value = {"net": STATE, "log_scaler": torch.ones(1), "noise_scheduler": torch.ones(3)}
    assert names(accepted(pickled(tmp_path, value))) == [
        "log_scaler", "net.conv.bias", "net.conv.weight", "noise_scheduler",
    ]  # fmt: skip


def test_only_optimisers_are_left_out_inside_a_network(tmp_path: Path) -> None:
    optimiser = {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}
    value = {"enc": {"scaler": {"w": torch.ones(2)}, "step": torch.ones(1)}, "dec": STATE, "optim": optimiser}
    verdict = accepted(pickled(tmp_path, value))
    assert names(verdict) == ["dec.conv.bias", "dec.conv.weight", "enc.scaler.w", "enc.step"]
    assert left(verdict) == {"model.pt!/optim": "optimiser state"}


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(3).to_sparse(),
        lambda: torch.empty(3, device="meta"),
        lambda: torch.ones(3, dtype=torch.complex64).conj(),
        lambda: torch.ones(3, dtype=torch.complex128),
    ],
)
def test_weights_that_cannot_be_kept_are_named(tmp_path: Path, make: Callable[[], torch.Tensor]) -> None:
    verdict = refused(pickled(tmp_path, {**STATE, **{f"odd{n}": make() for n in range(6)}}))
    assert (verdict.code, verdict.member) == (ReasonCode.UNSUPPORTED_TENSOR, "odd0")
    assert "also odd1, odd2, odd3 and 2 more" in verdict.message


# what pickles name


@pytest.fixture
def callback(monkeypatch: pytest.MonkeyPatch) -> type:
    """A class by the name that Lightning up to 1.4 used as a key."""
    module = "pytorch_lightning.callbacks.model_checkpoint"
    parts = module.split(".")
    for end in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:end]), types.ModuleType(parts[end - 1]))
    made = type("ModelCheckpoint", (), {"__module__": module})
    monkeypatch.setattr(sys.modules[module], "ModelCheckpoint", made, raising=False)
    return made


def test_a_callback_as_a_key_is_let_in_and_left_out(tmp_path: Path, callback: type) -> None:
    verdict = accepted(pickled(tmp_path, {"state_dict": STATE, "callbacks": {callback: {"best": 1.0}}}))
    assert left(verdict) == {"model.pt!/callbacks": "resume state"}


def test_a_callback_that_would_be_built_is_refused(tmp_path: Path, callback: type) -> None:
    verdict = refused(pickled(tmp_path, {"state_dict": STATE, "callbacks": {callback: callback()}}))
    assert verdict.code == ReasonCode.FULL_MODULE_PICKLE


def test_calls_of_what_is_no_name_beside_a_callback_are_refused(tmp_path: Path) -> None:
    body = b"\x80\x02cpytorch_lightning.callbacks.x\nA\n](]tR\x86."
    put(tmp_path, "model.pt", zipped(body))
    assert refused(tmp_path).code == ReasonCode.FULL_MODULE_PICKLE


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("pytorch_lightning.callbacks.x", "os.system"),
        ("pytorch_lightning.callbacks.x", "system"),
        ("pytorch_lightning.callbacksx", "Model"),
        ("torchao.utils", "os.system"),
        ("torchao.utils", "run"),
        ("torch.distributed.tensor.x", "Shard.__init__"),
    ],
)
def test_only_classes_of_such_packages_may_be_named(module: str, name: str) -> None:
    found = Global(module, name)
    assert not inert_globals.is_inert(found)
    assert not inert_globals.is_inert_name(found)


def test_paths_of_python_3_13_are_inert(tmp_path: Path) -> None:
    value = collections.OrderedDict(state_dict=STATE, hyper_parameters={"root": Path("a/b")})
    buffer = io.BytesIO()
    torch.save(value, buffer, _use_new_zipfile_serialization=False, pickle_module=pickle)
    data = buffer.getvalue()
    assert data.count(b"cpathlib\n") == 1
    put(tmp_path, "model.pt", data.replace(b"cpathlib\n", b"cpathlib._local\n"))
    assert names(accepted(tmp_path)) == sorted(STATE)
