"""Parts of the methods that torch itself carries out."""

import json
import types
import warnings

import pytest
import torch
from torch import nn

from control_plane.optimization import exporting, graph_int8, torchscript, weight_only
from control_plane.optimization.base import BuildError, Machine
from control_plane.optimization.methods import l1_pruning, sparse_2_4, static_int8, torchscript_script
from serving_agent.contract.signature import Signature, TensorSpec

PLAIN = Signature((TensorSpec("x", "FP32", (-1, 64)),), (TensorSpec("y", "FP32", (-1, 32)),))


def machine(*gpus: tuple[str, int, int]) -> Machine:
    return Machine(cpu="test", cores=1, flags=frozenset(), memory_bytes=1, gpus=gpus)


@pytest.fixture
def linear() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(64, 32).eval().requires_grad_(requires_grad=False)


def int8(layer: nn.Linear) -> nn.Module:
    weight, scale = weight_only.int8_rows(layer.weight)
    return weight_only.int8_linear(weight, scale.flatten(), layer.bias)


LAYERS = {
    "int8": (int8, 0.02),
    "int4": (lambda layer: weight_only.int4_of(layer, 32, fit=True), 0.12),
    "int4-plain": (lambda layer: weight_only.int4_of(layer, 32, fit=False), 0.15),
    "dynamic": (weight_only.dynamic_int8_linear, 0.02),
}


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.parametrize("scripted", [False, True], ids=["eager", "scripted"])
@pytest.mark.parametrize("shape", [(1, 64), (9, 64), (2, 3, 64)], ids=str)
def test_packed_layers_answer_nearly_the_same(kind, scripted, shape, linear):
    make, most = LAYERS[kind]
    made = make(linear)
    made = weight_only.scripted({"": made})[""] if scripted else made
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    exact, near = linear(x), made(x)
    assert (near.shape, near.dtype) == (exact.shape, exact.dtype)
    assert float((exact - near).norm() / exact.norm()) < most


def test_packed_weights_take_a_quarter_and_an_eighth(linear):
    held = linear.weight.numel() * 4
    assert int8(linear).weight.nbytes == held / 4
    assert weight_only.int4_of(linear, 32, fit=False).packed.nbytes == held / 8


def test_each_row_of_dynamic_int8_stands_alone(linear):
    made = weight_only.dynamic_int8_linear(linear)
    x = torch.randn(3, 64, generator=torch.Generator().manual_seed(1))
    x[1] *= 1000
    torch.testing.assert_close(made(x)[:1], made(x[:1]))


def test_an_int8_table_looks_up_nearly_the_same_rows():
    torch.manual_seed(0)
    table = nn.Embedding(10, 8).requires_grad_(requires_grad=False)
    made = weight_only.int8_embedding(*weight_only.int8_rows(table.weight))
    ids = torch.tensor([[1, 9], [0, 1]])
    torch.testing.assert_close(made(ids), table(ids), atol=0.02, rtol=0.02)


def test_a_trace_that_decides_by_what_it_sees_is_refused():
    class Decides(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x[:, :32] if len(x) > 1 else -x[:, :32],)

    with pytest.raises(BuildError, match=r"as a program it answers otherwise for \[1, 64\]"):
        torchscript.traced(Decides(), (torch.rand(4, 64),), PLAIN)


def test_a_trace_of_one_length_is_refused():
    class OneLength(nn.Module):
        def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
            return (x * torch.ones(int(x.shape[1])),)

    open_length = Signature((TensorSpec("x", "FP32", (-1, -1)),), (TensorSpec("y", "FP32", (-1, -1)),))
    with pytest.raises(BuildError, match=r"as a program it fails on inputs of \[5, 4\]"):
        torchscript.traced(OneLength(), (torch.rand(4, 6),), open_length)


def test_the_compilers_sentence_is_told_with_the_line_it_means():
    class Unscriptable(nn.Module):
        def forward(self, x):
            return sorted([x], key=lambda each: each.sum())[0]

    parent = types.SimpleNamespace(network=Unscriptable())
    with pytest.raises(BuildError) as refused:
        torchscript_script.compiled(parent)
    assert str(refused.value).startswith("TorchScript cannot compile it: ")
    assert "key=lambda each" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_two_of_every_four_weights_stay():
    weight = torch.tensor(
        [[1.0, -4.0, 3.0, 2.0, 0.0, 0.0, 0.0, 0.0], [5.0, 6.0, -7.0, 8.0, 1.0, 2.0, 3.0, 4.0]]
    )
    kept = sparse_2_4.pattern(weight)
    assert kept.tolist() == [[0, -4, 3, 0, 0, 0, 0, 0], [0, 0, -7, 8, 0, 0, 3, 4]]


def test_sparsity_says_what_the_hardware_lacks():
    assert "this machine has none" in (sparse_2_4.insufficient(machine()) or "")
    assert "the Tesla T4 has 7.5" in (sparse_2_4.insufficient(machine(("Tesla T4", 7, 5))) or "")
    assert sparse_2_4.insufficient(machine(("Tesla T4", 7, 5), ("A100", 8, 0))) is None


@pytest.mark.parametrize("scope", ["layer", "network"])
def test_the_smallest_weights_become_zero(scope):
    weights = {
        "large": torch.arange(1.0, 11).reshape(2, 5) * 100,
        "small": torch.arange(1.0, 11).reshape(2, 5),
    }
    zeros = l1_pruning.prune(weights, l1_pruning.L1PruningParams(amount=0.4, scope=scope))
    assert zeros == 8
    by_name = {name: int((weight == 0).sum()) for name, weight in weights.items()}
    assert by_name == ({"large": 4, "small": 4} if scope == "layer" else {"large": 0, "small": 8})
    assert weights["small"].max() == 10


def test_a_program_without_weights_is_not_pruned():
    with pytest.raises(BuildError, match="they are constants of its program"):
        l1_pruning.prune({}, l1_pruning.L1PruningParams())


def test_a_convolution_of_one_channel_stays_in_full_precision():
    """Inductor's int8 convolution returns noise for it."""
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval()
    x = torch.rand(2, 1, 8, 8)
    with torch.no_grad(), exporting.quiet():
        # exported twice, as a version of format exported_program is: no layers are named any more
        once = torch.export.export(network, (x,)).module()
        program = torch.export.export(nn.Sequential(once), (x,))
        graph, count = graph_int8.quantised(program, [(x,)], ())
    assert count == 1
    dequantised = [node for node in graph.graph.nodes if "dequantize_per_channel" in str(node.target)]
    assert len(dequantised) == 1


def test_a_kept_module_of_a_graph_stays_in_full_precision():
    network = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8)).eval()
    x = torch.rand(2, 8)
    with torch.no_grad(), exporting.quiet():
        program = torch.export.export(network, (x,))
        _, count = graph_int8.quantised(program, [(x,)], ("2",))
        assert count == 1
        with pytest.raises(BuildError, match="no convolution or linear layer"):
            graph_int8.quantised(program, [(x,)], ("0", "2"))


def test_a_head_that_nobody_reads_stands_in_no_graphs_way():
    """Encoders compute a pooler that sentence embeddings do not use."""

    class Pooled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer, self.pooler, self.act = nn.Linear(8, 8), nn.Linear(8, 8), nn.Tanh()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden = self.layer(x)
            self.act(self.pooler(hidden))
            return hidden

    x = torch.rand(2, 8)
    with torch.no_grad(), exporting.quiet():
        program = torch.export.export(Pooled().eval(), (x,))
        _, count = graph_int8.quantised(program, [(x,)], ())
    assert count == 1


def test_a_network_that_fx_cannot_trace_is_told_apart():
    """Its exported graph is quantised instead."""

    class Branches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(8, 8)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x) if x.shape[0] > 1 else -self.layer(x)

    parent = types.SimpleNamespace(network=Branches().eval(), samples=(torch.rand(2, 8),))
    with torchscript.quiet(), pytest.raises(static_int8.UntraceableError, match="FX cannot trace it"):
        static_int8.observed(parent, (), "onednn")


def test_the_engine_is_written_beside_the_program(tmp_path):
    torchscript.write_engine("onednn", tmp_path)
    assert json.loads((tmp_path / torchscript.ENGINE_FILE).read_text()) == {"engine": "onednn"}


def test_notices_of_torchscript_are_silent_only_inside():
    with torchscript.quiet():
        warnings.warn("`torch.jit.trace` is deprecated", DeprecationWarning, stacklevel=1)
    with pytest.warns(DeprecationWarning, match="torch.jit.trace"):
        warnings.warn("`torch.jit.trace` is deprecated", DeprecationWarning, stacklevel=1)
