"""Looking into models: where things go wrong, what is changed, and that nothing is left behind."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import subprocess
import sys
import termios
import warnings
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
import torch
from torch import nn

from serving_agent.contract import architecture
from serving_agent.contract.inspection import ATTENTION, Edit, NotInspected, Progressed, Said
from serving_agent.contract.options import Execution
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.inspection import inspecting, values_file
from serving_agent.inspection.captures import catalog as captures
from serving_agent.inspection.captures.modules import CAPTURE
from serving_agent.inspection.captures.nothing import Nothing
from serving_agent.inspection.edits import Edits
from serving_agent.inspection.points import Points
from serving_agent.inspection.summaries import Summaries
from serving_agent.model_server import ModelServer
from tests.fakes import inspected, models
from tests.fakes.waiting import wait_until

ROOT = Path(__file__).parents[2]
ROWS = Signature((TensorSpec("x", "FP32", (-1, 4)),), (TensorSpec("y", "FP32", (-1, 4)),))
SEQUENCES = Signature((TensorSpec("x", "FP32", (-1, 3, 8)),), (TensorSpec("y", "FP32", (-1, 3, 8)),))
X = {"x": np.arange(8, dtype=np.float32).reshape(2, 4)}


class Log(nn.Module):
    """NaN for what is negative."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.log(x)


class Picky(nn.Module):
    """Fails for sums above 1000."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if float(x.sum()) > 1000.0:
            raise ArithmeticError("too much")
        return x


class Pair(nn.Module):
    """Returns two tensors, as recurrent layers do."""

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return x + 1, x * 2


class Network(nn.Module):
    """y = (x - 3) → log → picky → first · second of a pair, and one layer that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.shift = nn.Linear(4, 4)
        self.inside = nn.Sequential(Log(), Picky())
        self.pair = Pair()
        self.spare = nn.Linear(2, 2)
        with torch.no_grad():
            self.shift.weight.copy_(torch.eye(4))
            self.shift.bias.fill_(-3.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        first, second = self.pair(self.inside(self.shift(x)))
        return self.inside[1](first * second)


def encoder() -> nn.Module:
    """Two layers that torch computes fused where it may."""
    return nn.TransformerEncoder(
        nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2, enable_nested_tensor=False
    )


class Random(nn.Module):
    """Answers by chance, the same for equal seeds; counts its calls in its answer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        return x + torch.rand_like(x) + self.calls


def quantised() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao's own, about its end
        return torch.ao.quantization.quantize_dynamic(two_layers(), {nn.Linear})


def two_layers() -> nn.Module:
    torch.manual_seed(7)
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 4)).eval()


def hungry() -> nn.Module:
    return Hungry()


class Hungry(nn.Module):
    """Asks for more memory than there is."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.empty(1 << 42)[:1]


@pytest.fixture
def look(tmp_path):
    """Inspect a network of this module, by its name; returns what was seen."""

    def carried_out(builder, inputs=X, signature=ROWS, expect=inspected.inspected, **more):
        folder = tmp_path / "artefact"
        if not folder.exists():
            torch.manual_seed(0)
            network = globals()[builder]()
            models.save_state_dict(network, folder, f"{__name__}:{builder}")
            architecture.write(architecture.Architecture(f"{__name__}:{builder}"), folder)
        return expect(
            "state_dict", folder, signature, inputs, tmp_path / f"run{len(list(tmp_path.iterdir()))}", **more
        )

    return carried_out


def test_a_nan_is_found_where_it_arises(look):
    seen = look("Network")
    first = next(point for point in seen.run.points if any(tensor.nan for tensor in point.outputs))
    assert (first.id, first.kind) == ("inside.0", "Log")
    assert first.outputs[0].nan == 3
    assert first.outputs[0].inf == 1
    assert first.source.endswith("container.py:253") or "test_inspection.py" in first.source
    assert seen.point("shift").outputs[0].low == -3.0
    assert np.isnan(seen.array(first.outputs[0])[0, :3]).all()
    assert seen.run.same_outputs is True


def test_calls_and_depths_and_what_nothing_called_are_told(look):
    run = look("Network").run
    told = {point.id: (point.module, point.kind, point.depth) for point in run.points}
    assert told == {
        "shift": ("shift", "Linear", 1), "inside.0": ("inside.0", "Log", 2),
        "inside.1": ("inside.1", "Picky", 2), "inside": ("inside", "Sequential", 1),
        "pair": ("pair", "Pair", 1),
        "spare": ("spare", "Linear", 1), "inside.1#1": ("inside.1", "Picky", 2),
        "Network": ("", "Network", 0),
    }  # fmt: skip
    spare = next(point for point in run.points if point.id == "spare")
    assert spare.not_captured.startswith("Nothing called it")
    assert [tensor.name for tensor in run.points[4].outputs] == ["0", "1"]


def test_one_element_of_a_pair_is_edited_and_the_run_goes_on_with_it(look):
    inputs = {"x": np.full((2, 4), 4.0, dtype=np.float32)}  # log(1) = 0: first = 1, second = 0, y = 0
    seen = look("Network", inputs, edits=(Edit(point="pair", tensor=1, index=(1, 2), value=7.0),))
    expected = np.zeros((2, 4))
    expected[1, 2] = 7.0
    assert np.array_equal(seen.array(seen.stage("postprocess").tensors[0]), expected)
    assert [point.id for point in seen.run.points if point.edited] == ["pair"]


def test_inputs_are_edited_before_the_model_sees_them(look):
    edits = (
        Edit(point="inputs", tensor="x", index=(0, None), value=4.0),
        Edit(point="preprocess", tensor="x", index=(1, None), value=4.0),
    )
    seen = look("Network", edits=edits)
    assert seen.stage("inputs").tensors[0].high == 7.0
    assert (seen.stage("preprocess").tensors[0].low, seen.stage("preprocess").tensors[0].high) == (4.0, 4.0)
    assert seen.point("inside.0").outputs[0].zeros == 8


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (Edit(point="nowhere"), "'nowhere' is no point of this run.*there are inputs, preprocess, shift"),
        (Edit(point="pair", tensor=2), "pair has no tensor 2 to edit; it has 0, 1"),
        (Edit(point="inputs", tensor="z"), "inputs has no tensor 'z' to edit; it has x"),
        (Edit(point="shift", index=(2, 0)), r"\[2, 0\] is no place in a tensor of shape \[2, 4\]"),
        (Edit(point="shift", index=(0,)), r"\[0\] is no place"),
    ],
)
def test_edits_of_what_is_not_there_say_what_there_is(look, edit, sentence):
    said = look("Network", expect=inspected.refused, edits=(edit,))
    assert said.code == "edit_refused"
    assert re.search(sentence, said.message)


def test_a_failing_layer_stops_the_walk_at_its_place(look):
    seen = look("Network", {"x": np.full((1, 4), 1e30, dtype=np.float32)})
    assert [stage.state for stage in seen.run.stages] == ["done", "done", "failed", "not_reached"]
    failure = seen.stage("predict").failure
    assert (failure.type, failure.message, failure.module) == ("ArithmeticError", "too much", "inside.1")
    assert "test_inspection.py:" in failure.place
    assert failure.place.endswith("in forward")
    ran = [point.id for point in seen.run.points if point.outputs]
    assert ran == ["shift", "inside.0", "inside.1", "inside", "pair"]
    others = {point.id: point.not_captured for point in seen.run.points if not point.outputs}
    assert others["Network"].startswith("It was running when the run ended")
    assert others["spare"] == "The run ended before anything called it."
    assert (seen.run.same_outputs, seen.run.plain_s, seen.run.recorded_s) == (None, None, None)


def test_a_wrong_shape_stops_at_the_inputs(look):
    seen = look("Network", {"x": np.zeros((2, 5), dtype=np.float32)})
    assert [stage.state for stage in seen.run.stages] == ["failed", *["not_reached"] * 3]
    failed = seen.stage("inputs")
    assert failed.failure.message.startswith("input 'x' must have shape [-1, 4], not [2, 5]")
    assert failed.tensors[0].shape == (2, 5)
    assert seen.run.points == ()


def test_a_shape_that_only_the_model_refuses_stops_in_its_layer(look):
    anything = Signature((TensorSpec("x", "FP32", (-1, -1)),), ROWS.outputs)
    seen = look("Network", {"x": np.zeros((2, 5), dtype=np.float32)}, anything)
    failure = seen.stage("predict").failure
    assert failure.module == "shift"
    assert failure.place.startswith("torch/nn/modules/linear.py:")


def test_answers_that_break_the_signature_fail_in_the_last_step(look):
    wrong = Signature(ROWS.inputs, (TensorSpec("y", "FP32", (-1, 3)),))
    seen = look("Network", signature=wrong)
    last = seen.stage("postprocess")
    assert last.state == "failed"
    assert "its signature declares [-1, 3]" in last.failure.message
    assert last.tensors[0].shape == (2, 4)


def test_infinities_are_refused_where_an_endpoint_refuses_them(look):
    inputs = {"x": np.full((1, 4), np.inf, dtype=np.float32)}
    assert look("Network", inputs).stage("inputs").tensors[0].inf == 4
    refused = look("Network", inputs, nan_policy="reject")
    assert "holds NaN or infinite values" in refused.stage("inputs").failure.message


def test_fused_layers_are_taken_apart_and_the_difference_is_told(look):
    rows = {"x": np.random.default_rng(0).standard_normal((2, 3, 8)).astype(np.float32)}
    before = torch.backends.mha.get_fastpath_enabled()
    seen = look("encoder", rows, SEQUENCES)
    assert torch.backends.mha.get_fastpath_enabled() == before
    run = seen.run
    assert {"layers.0.linear1", "layers.1.norm2", "layers.0.self_attn"} <= {point.id for point in run.points}
    assert run.same_outputs is True or "with the layers apart" in run.note
    attention = seen.point("layers.0.self_attn").outputs[-1]
    assert (attention.name, attention.shape) == (ATTENTION, (2, 2, 3, 3))
    np.testing.assert_allclose(seen.array(attention).sum(-1), 1.0, atol=1e-6)


def test_a_model_that_never_answers_twice_alike_is_said_to_be_one(look):
    run = look("Random").run
    assert run.same_outputs is False
    assert run.note.startswith("The model does not give one answer twice")


def test_hooks_are_gone_afterwards_also_from_a_model_that_failed(look, monkeypatch):
    opened = []
    original = inspecting.opening.opened
    monkeypatch.setattr(
        inspecting.opening, "opened", lambda order: opened.append(original(order)) or opened[-1]
    )
    look("Network")
    look("Network", {"x": np.full((1, 4), 1e30, dtype=np.float32)})
    look("Network", expect=inspected.refused, edits=(Edit(point="shift", index=(9, 9)),))
    assert len(opened) == 3
    for server in opened:
        for module in server.model.module.modules():
            assert not module._forward_hooks
            assert not module._forward_pre_hooks


def test_int8_layers_stand_beside_those_they_were_made_of(tmp_path):
    rows = {"x": np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)}
    plain = models.save_exported(two_layers(), tmp_path / "fp32", torch.zeros(2, 4))
    int8 = models.save_torchscript(quantised(), tmp_path / "int8", torch.zeros(2, 4))
    one = inspected.inspected("exported_program", plain, ROWS, rows, tmp_path / "a")
    other = inspected.inspected("torchscript", int8, ROWS, rows, tmp_path / "b")
    for module in ("0", "1", "2"):
        a, b = (seen.array(seen.of_module(module).outputs[0]) for seen in (one, other))
        assert a.shape == b.shape
        assert np.abs(a - b).max() < 0.1 * np.abs(a).max()
    kinds = {point.kind for point in other.run.points}
    assert "quantized::linear_dynamic" in kinds


def test_eager_int8_layers_are_hooked_though_they_hold_modules(look, tmp_path):
    seen = look("two_layers")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = quantised()
    server = ModelServer()
    server.model = type("Held", (), {"module": network})()
    with values_file.ValuesFile(tmp_path, 0) as values:
        points = Points(Summaries(values), Edits(()), lambda count: None)
        with CAPTURE.watching(server, points), torch.inference_mode():
            network(torch.zeros(2, 4))
    ran = {point.id for point in points.points}
    assert ran == {point.id for point in seen.run.points}


class Exported(nn.Module):
    """One layer that is called twice, a part without gradients, and a layer that returns several tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.twice = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.memory = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.twice(self.twice(x))
        with torch.no_grad():
            x = x * 2.0
        states, (last, _) = self.memory(x[:, None])
        return states[:, 0] + last[0]


def test_nodes_of_exported_programs_are_grouped_by_the_modules_they_came_from(tmp_path):
    torch.manual_seed(3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's own, about how its LSTM holds weights
        folder = models.save_exported(Exported().eval(), tmp_path / "artefact", torch.zeros(2, 4))
    seen = inspected.inspected("exported_program", folder, ROWS, X, tmp_path / "out")
    assert seen.run.same_outputs is True
    modules = [point.id for point in seen.run.points if "/" not in point.id]
    assert modules == [
        "twice.0", "twice.1", "twice", "twice.0#1", "twice.1#1", "twice#1", "memory", "Exported",
    ]  # fmt: skip
    doubled = next(point for point in seen.run.points if point.kind == "aten.mul.Tensor")
    assert "test_inspection.py:" in doubled.source
    assert np.array_equal(seen.array(doubled.outputs[0]), 2 * seen.array(seen.point("twice#1").outputs[0]))
    assert len(seen.point("memory").outputs) == 2
    edit = Edit(point="twice#1", index=(0, None), value=0.0)
    other = inspected.inspected("exported_program", folder, ROWS, X, tmp_path / "other", edits=(edit,))
    assert other.point(doubled.id).outputs[0].zeros == 4


def test_what_does_not_fit_is_summed_up_but_not_kept(look):
    seen = look("Network", keep_bytes=40)
    kept = [tensor for tensor in seen.summaries() if tensor.offset is not None]
    assert len(seen.values) <= 40
    assert kept
    assert any(tensor.offset is None and tensor.histogram for tensor in seen.summaries())


def test_options_of_the_endpoint_apply_as_in_an_agent(look):
    rows = {"x": np.random.default_rng(1).standard_normal((3, 4)).astype(np.float32)}
    seen = look("two_layers", rows, execution=Execution(autocast="bf16"))
    assert seen.point("0").outputs[0].datatype == "BF16"
    assert seen.point("0").outputs[0].kept_datatype == "FP32"
    assert seen.run.same_outputs is True


def test_a_capture_that_fails_is_not_blamed_on_the_model(look, monkeypatch):
    class Faulty(Nothing):
        level = "node"

        def watching(self, server, points):
            raise NotImplementedError("prim::Unheard")

    monkeypatch.setattr(captures, "for_model", lambda server: Faulty())
    run = look("Network").run
    assert (run.level, run.points, run.same_outputs) == ("none", (), True)
    assert run.note == "The recording failed, not the model (NotImplementedError: prim::Unheard)."
    failed = look("Network", {"x": np.full((1, 4), 1e30, dtype=np.float32)})
    assert failed.stage("predict").failure.type == "ArithmeticError"
    assert "prim::Unheard" in failed.run.note


def test_memory_that_runs_out_is_said(look):
    said = look("hungry", expect=inspected.refused)
    assert said.code == "out_of_memory"
    assert said.message == "the model needs more memory than this machine has free"


def test_a_full_disk_is_said_and_leaves_nothing_behind(look, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    said = look("Network", expect=inspected.refused)
    assert (said.code, said.message) == ("no_space", "the disk is full")


def test_what_cannot_be_opened_is_said(tmp_path):
    said = inspected.refused("state_dict", tmp_path, ROWS, X, tmp_path / "out")
    assert (said.code, said.message) == ("cannot_open", "the artefact holds no model.safetensors")
    said = inspected.refused("state_dict", tmp_path, ROWS, X, tmp_path / "out", handler="os:system")
    assert said.code == "cannot_open"


def begun() -> tuple[subprocess.Popen[bytes], int]:
    """A real process whose order is still to be written, and the end of its pipe."""
    reader, writer = os.pipe()
    command = [sys.executable, "-m", "serving_agent.inspection", str(writer)]
    process = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, pass_fds=(writer,))
    os.close(writer)
    return process, reader


def test_a_real_process_says_how_it_goes_and_keeps_to_its_memory(tmp_path):
    folder = models.save_torchscript(models.Picky(), tmp_path / "artefact")
    given = inspected.order(
        "torchscript", folder, models.SCALAR, {"x": np.full((1, 1), 7.0, dtype=np.float32)},
        tmp_path / "out", memory_bytes=1 << 34,
    )  # fmt: skip
    process, reader = begun()
    with process, os.fdopen(reader, "rb") as pipe:
        process.communicate(msgspec.json.encode(given))
        said = [msgspec.json.decode(line, type=Said) for line in pipe]
    assert process.returncode == 0
    assert all(isinstance(each, Progressed) for each in said[:-1])
    assert isinstance(said[-1], NotInspected)
    assert said[-1].code == "out_of_memory"
    assert "the limit of 16384 MiB" in said[-1].message
    assert list((tmp_path / "out").iterdir()) == []


def test_an_order_that_cannot_be_read_is_answered():
    process, reader = begun()
    with process, os.fdopen(reader, "rb") as pipe:
        process.communicate(b'{"folder": 3}')
        (said,) = [msgspec.json.decode(line, type=Said) for line in pipe]
    assert process.returncode == 0
    assert isinstance(said, NotInspected)
    assert said.message.startswith("the order cannot be read")


def test_it_dies_with_the_process_that_started_it():
    """Its stdin, which this test holds, stays open: nothing else would end it."""
    starter = (
        "import os, subprocess, sys; r, w = os.pipe(); "
        "p = subprocess.Popen([sys.executable, '-m', 'serving_agent.inspection', str(w)], pass_fds=(w,)); "
        "print(p.pid, flush=True); p.wait()"
    )
    command = [sys.executable, "-c", starter]
    with subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as parent:
        assert parent.stdin is not None
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.write(parent.stdin.fileno(), b"{")
        wait_until(lambda: _unread(parent.stdin) == 0, timeout_s=20, what=lambda: "it reads no order")
        parent.kill()
        wait_until(lambda: _is_gone(child), timeout_s=5, what=lambda: f"it lives: {child.status()}")


def _unread(pipe) -> int:
    """Bytes that nobody has taken out of the pipe."""
    return int.from_bytes(fcntl.ioctl(pipe.fileno(), termios.FIONREAD, b"\0" * 4), sys.byteorder)


def _is_gone(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
