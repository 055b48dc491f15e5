"""Every format, looked into: what is recorded is what is served, and it is told truly."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from serving_agent.contract.inspection import RUN, STAGES, VALUES, Edit, Inspected, Said
from serving_agent.contract.signature import Signature
from serving_agent.formats import catalog
from serving_agent.inspection import inspecting
from serving_agent.inspection.captures import catalog as captures
from tests.fakes import inspected, models, native_models, networks

pytestmark = pytest.mark.timeout(400)
"""Whoever comes first makes the native code, which takes a C++ compiler half a minute on an idle machine."""
ROOT = Path(__file__).parents[2]
NATIVE = tuple(each.name for each in catalog.formats() if each.is_native)
LEVELS = {
    "torchscript": "node", "exported_program": "node", "huggingface": "module", "state_dict": "module",
    "onnx": "node", "openvino": "node", "aot_inductor": "none", "compiled": "none",
}  # fmt: skip


@dataclass(frozen=True)
class Artifact:
    """One model in one format and an input for it."""

    folder: Path
    signature: Signature
    inputs: dict[str, np.ndarray]
    middle: str = ""
    """Path of a module in its middle."""


def deep_digits() -> torch.nn.Module:
    torch.manual_seed(5)
    return networks.Digits(hidden=12).eval()


def save_onnx(model: torch.nn.Module, folder: Path) -> Path:
    """The network as a graph made by hand, its nodes named as the exporter by tracing names them."""
    folder.mkdir()
    weights = {name: tensor.detach().numpy() for name, tensor in model.state_dict().items()}
    nodes = [
        helper.make_node("Flatten", ["image"], ["flat"], "/layers/layers.0/Flatten"),
        *_linear("layers.1", "flat", "hidden"),
        helper.make_node("Relu", ["hidden"], ["active"], "/layers/layers.2/Relu"),
        *_linear("layers.3", "active", "logits"),
    ]
    graph = helper.make_graph(
        nodes, "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(np.ascontiguousarray(value.T), name) for name, value in weights.items()],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.save(model, folder / "model.onnx")
    return folder


def _linear(path: str, source: str, target: str) -> list[onnx.NodeProto]:
    scope = f"/layers/{path}/"
    return [
        helper.make_node("MatMul", [source, f"{path}.weight"], [f"{path}.product"], f"{scope}MatMul"),
        helper.make_node("Add", [f"{path}.product", f"{path}.bias"], [target], f"{scope}Add"),
    ]


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Format name → Artifact; those with native code only where there is a C++ compiler."""
    folder = tmp_path_factory.mktemp("formats")
    digits = deep_digits()
    images = {"image": models.digits_data()[0][1510:1515]}
    example = torch.from_numpy(images["image"])
    models.save_text_classifier(folder / "huggingface")
    graph = save_onnx(digits, folder / "onnx")
    models.save_openvino(graph, folder / "openvino")
    weights = models.save_state_dict(digits, folder / "weights", "tests.fakes.networks:Digits")
    architecture = weights / "architecture.json"
    told = msgspec.json.decode(architecture.read_bytes()) | {"arguments": {"hidden": 12}}
    architecture.write_bytes(msgspec.json.encode(told))
    tokens = {"input_ids": np.array([[2, 5, 6, 3]]), "attention_mask": np.ones((1, 4), dtype=np.int64)}

    def of_digits(artifact, middle="layers.1"):
        return Artifact(artifact, models.DIGITS, images, middle)

    query = "bert.encoder.layer.0.attention.self.query"
    made = {
        "torchscript": of_digits(models.save_torchscript(digits, folder / "torchscript")),
        "exported_program": of_digits(models.save_exported(digits, folder / "pt2", example)),
        "huggingface": Artifact(folder / "huggingface", models.TEXT_SIGNATURE, tokens, query),
        "state_dict": of_digits(weights),
        "onnx": of_digits(folder / "onnx"),
        "openvino": of_digits(folder / "openvino"),
    }
    if shutil.which("g++"):
        native = native_models.made(tmp_path_factory)
        made |= {name: of_digits(native / name, "") for name in NATIVE}
    return made


@pytest.fixture(scope="module")
def found(artifacts, tmp_path_factory):
    """Format name → what was seen; native code in processes of its own, as the debugger has it done."""
    folder, known = tmp_path_factory.mktemp("inspections"), {}

    def look(name: str) -> inspected.Seen:
        if name not in known:
            artifact = artifacts[name]
            order = inspected.order(name, artifact.folder, artifact.signature, artifact.inputs, folder / name)
            if name in NATIVE:
                assert in_a_process(order)[-1] == Inspected()
                assert {path.name for path in (folder / name).iterdir()} == {RUN, VALUES}
            else:
                assert inspecting.inspect(order, lambda said: None) == Inspected()
            known[name] = inspected.Seen(folder / name)
        return known[name]

    return look


def in_a_process(order) -> list[Said]:
    """What a real child process says of *order*."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "serving_agent.inspection", str(writer)]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=(writer,)) as process:
        os.close(writer)
        process.communicate(msgspec.json.encode(order))
        with os.fdopen(reader, "rb") as pipe:
            lines = pipe.read().splitlines()
    assert process.returncode == 0
    return [msgspec.json.decode(line, type=Said) for line in lines]


@pytest.fixture(params=catalog.names())
def name(request):
    if request.param in NATIVE and shutil.which("g++") is None:
        pytest.skip("native code is made by a C++ compiler, and this machine has none")
    return request.param


def test_it_is_looked_into_as_deep_as_it_is_said(name, found):
    run = found(name).run
    assert run.level == LEVELS[name]
    assert bool(run.points) == (run.level != "none")
    assert run.points or run.note.endswith(".")
    assert all(point.outputs or point.not_captured.endswith(".") for point in run.points)
    assert len({point.id for point in run.points}) == len(run.points)


def test_recorded_answers_are_those_that_are_served(name, found):
    run = found(name).run
    assert run.same_outputs is True, run.note
    assert run.plain_s > 0
    assert run.recorded_s > 0
    assert [stage.name for stage in run.stages] == list(STAGES)
    assert {stage.state for stage in run.stages} == {"done"}


def test_figures_are_those_of_the_kept_elements(name, found):
    seen = found(name)
    for summary in seen.summaries():
        array = seen.array(summary)
        assert array.shape == summary.shape
        if summary.kept_datatype == "BYTES":
            continue
        assert (summary.low, summary.high) == (array.min(), array.max())
        assert summary.mean == pytest.approx(array.mean(dtype=np.float64), rel=1e-6, abs=1e-9)
        assert summary.std == pytest.approx(array.std(dtype=np.float64), rel=1e-6, abs=1e-9)
        assert sum(summary.histogram.counts) == array.size == summary.elements
        assert summary.zeros == (array == 0).sum()


def test_the_last_step_holds_the_answer(name, found, artifacts):
    seen = found(name)
    for spec, summary in zip(
        artifacts[name].signature.outputs, seen.stage("postprocess").tensors, strict=True
    ):
        assert (summary.name, summary.datatype) == (spec.name, spec.datatype)
        assert seen.array(summary).shape[0] == next(iter(artifacts[name].inputs.values())).shape[0]


def test_layers_are_told_by_the_same_paths_in_all_formats(found):
    """The hidden layer of one network, in five forms, each with the same output."""
    expected = found("state_dict")
    for module in ("layers.1", "layers.3"):
        summary = expected.of_module(module).outputs[0]
        for name in ("torchscript", "exported_program", "onnx", "openvino"):
            seen = found(name)
            other = seen.of_module(module).outputs[0]
            np.testing.assert_allclose(seen.array(other), expected.array(summary), atol=1e-5)


@pytest.mark.parametrize("name", [name for name, level in LEVELS.items() if level != "none"])
def test_an_edit_in_the_middle_changes_what_comes_after(name, found, artifacts, tmp_path):
    """All of one layer's output set to 2: as that layer alone tells, in each format."""
    artifact = artifacts[name]
    plain = found(name)
    before = plain.of_module(artifact.middle)
    edit = Edit(point=before.id, value=2.0)
    seen = inspected.inspected(
        name, artifact.folder, artifact.signature, artifact.inputs, tmp_path, edits=(edit,)
    )
    point = seen.point(before.id)
    assert point.edited
    assert (point.outputs[0].low, point.outputs[0].high) == (2.0, 2.0)
    assert seen.run.same_outputs is None
    assert seen.run.edits == (edit,)
    assert [other.id for other in seen.run.points] == [other.id for other in plain.run.points]
    answer = seen.array(seen.stage("postprocess").tensors[0])
    if artifact.signature == models.DIGITS:
        last = deep_digits().layers[3]
        with torch.no_grad():
            expected = last(torch.full((5, 12), 2.0)).numpy()
        np.testing.assert_allclose(answer, expected, atol=1e-5)
    else:
        assert not np.array_equal(answer, plain.array(plain.stage("postprocess").tensors[0]))


def test_every_capture_on_disk_is_in_the_catalogue():
    shared = {
        "__init__", "attention", "base", "catalog", "exported_interpreter", "lab_wrappers",
        "module_groups", "onnx_model", "onnx_session", "script_interpreter", "script_values",
    }  # fmt: skip
    files = {path.stem for path in Path(captures.__file__).parent.glob("*.py")} - shared
    assert files == {module.rpartition(".")[2] for module in captures.MODULES}
    assert [capture.name for capture in captures.captures()] == [
        module.rpartition(".")[2] for module in captures.MODULES
    ]
