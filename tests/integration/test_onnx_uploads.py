"""An ONNX program from its upload to an agent's answers, and what is refused of one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode
from control_plane.config import Settings
from control_plane.jobs import trial
from control_plane.registry.artifacts import ArtifactStore
from control_plane.services import uploads, versions
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import checkpoints, models, registry
from tests.fakes.agents import make_manifest, start_agent

WIDE = 70_000
"""Elements of a tensor that the exporter puts into a file of its own."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """A registry whose worker runs."""
    ctx = registry.open_home(tmp_path_factory.mktemp("home"))
    with checkpoints.worker(ctx):
        yield ctx
    ctx.engine.dispose()


def scaled(folder: Path, *, shapes: bool = True, external: str | None = None) -> Path:
    """y = x * w as ONNX, with *w* in the file *external* beside it; shapes: whether it tells sizes."""
    folder.mkdir(parents=True)
    sizes = ["rows", WIDE] if shapes else None
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, sizes) for name in ("x", "y")]
    weight = helper.make_tensor(
        "w", TensorProto.FLOAT, [WIDE], np.arange(WIDE, dtype="<f4").tobytes(), raw=True
    )
    node = helper.make_node("Mul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "scaled", ports[:1], ports[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "net.onnx", save_as_external_data=bool(external), location=external)
    return folder


def test_an_onnx_program_is_accepted_tried_registered_and_served(home: Context, tmp_path: Path) -> None:
    example = torch.from_numpy(models.digits_data()[0][:3])
    sent = models.save_onnx(models.digits_model(), tmp_path / "net", (example,), models.DIGITS)
    waiting = checkpoints.checked(home, checkpoints.send(home, sent / "model.onnx", model="digits"))
    assert (waiting.state, waiting.format, waiting.needs) == ("needs input", "onnx", ("acceptance",))
    done = checkpoints.checked(home, uploads.answer(home, waiting.id, actor="ben", accept_program=True))
    assert (done.state, done.version_ref) == ("registered", "digits@1"), done.reason
    version = versions.get(home, "digits@1")
    assert (version.signature, version.program_accepted_by) == (models.DIGITS, "ben")
    folder = ArtifactStore(home.settings.artifacts_dir).folder(version.digest)
    with (
        start_agent(make_manifest(folder, version.signature, format="onnx"), tmp_path / "agent") as agent,
        agent.http as http,
    ):
        logits = http.post("/predict", json={"input": example.tolist()}).json()["predictions"]
    torch.testing.assert_close(torch.tensor(logits), models.digits_model()(example))


def test_external_tensors_come_along_and_missing_sizes_are_declared(home: Context, tmp_path: Path) -> None:
    folder = scaled(tmp_path / "net", shapes=False, external="weights.bin")
    sent = checkpoints.send(home, folder, model="scaled", accept_program=True)
    waiting = checkpoints.checked(home, sent)
    assert (waiting.state, waiting.needs) == ("needs input", ("signature",))
    declared = Signature((TensorSpec("x", "FP32", (-1, WIDE)),), ())
    done = checkpoints.checked(home, uploads.answer(home, waiting.id, actor="ben", signature=declared))
    assert done.state == "registered", done.reason
    version = versions.get(home, str(done.version_ref))
    assert version.signature.outputs == (TensorSpec("y", "FP32", (-1, WIDE)),)
    assert [file.path for file in version.files] == ["model.onnx", "weights.bin"]


def tried(folder: Path, home: Path) -> Signature:
    """What a trial finds that program to be."""
    return trial.run(
        trial.Trial(
            settings=Settings(home=home), format="onnx", artifact_dir=folder,
            signature=Signature((TensorSpec("x", "FP32", (-1, WIDE)),), ()), memory_bytes=4 * 1024**3,
        ),
        lambda _stage, _done: None,
    )  # fmt: skip


def test_a_program_that_reaches_for_a_file_outside_fails_its_trial(tmp_path: Path) -> None:
    """As it would where the gate had missed the reference."""
    folder = scaled(tmp_path / "net", external="weights.bin")
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(Refusal) as refusal:
        tried(folder, tmp_path)
    assert refusal.value.refused.code == ReasonCode.DOES_NOT_LOAD


def test_a_program_that_asks_for_endless_memory_is_told_so(tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    ports = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", WIDE]) for name in ("x", "y")]
    size = helper.make_tensor("size", TensorProto.INT64, [2], [1 << 20, WIDE])
    nodes = [
        helper.make_node("Expand", ["x", "size"], ["huge"]),
        helper.make_node("ReduceSum", ["huge"], ["y"]),
    ]
    graph = helper.make_graph(nodes, "huge", ports[:1], ports[1:], [size])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "model.onnx")
    with pytest.raises(Refusal) as refusal:
        tried(folder, tmp_path)
    assert refusal.value.refused.code == ReasonCode.OUT_OF_MEMORY
