"""Rounding one layer at a time, and what its ranking is used for."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from control_plane.optimization import layers, sensitivity
from control_plane.optimization.base import BuildError
from control_plane.optimization.layers import KeptLayers


def network() -> nn.Sequential:
    """Its second layer has one weight so large that int8 leaves nothing of the others."""
    torch.manual_seed(0)
    made = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
    with torch.no_grad():
        made[2].weight[:, 0] = 1000.0
        made[0].weight[0] = 0.0
        made[0].bias[0] = -1.0
    return made


def ranked(made: nn.Sequential, rounding: sensitivity.Rounding) -> tuple[sensitivity.Fragility, ...]:
    batches = [(torch.randn(8, 16, generator=torch.Generator().manual_seed(seed)),) for seed in range(3)]
    return sensitivity.ranked(lambda x: (made(x),), layers.linears(made), batches, rounding)


@pytest.mark.parametrize("rounding", [sensitivity.INT8, sensitivity.INT8_WEIGHTS], ids=["int8", "weights"])
def test_the_layer_that_rounding_ruins_comes_first(rounding):
    made = network()
    before = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    found = ranked(made, rounding)
    assert found[0].name == "2"
    assert found[0].sqnr_db < 10 < found[1].sqnr_db
    assert found[0].cosine < found[1].cosine <= 1 + 1e-9
    assert all(torch.equal(tensor, before[name]) for name, tensor in made.state_dict().items())
    assert not any(module._forward_pre_hooks for module in made.modules())


def test_fewer_bits_are_more_fragile_and_groups_less():
    made = network()
    coarse = {each.name: each for each in ranked(made, sensitivity.Rounding(weight_bits=4))}
    grouped = {each.name: each for each in ranked(made, sensitivity.Rounding(weight_bits=4, group=4))}
    fine = {each.name: each for each in ranked(made, sensitivity.INT8_WEIGHTS)}
    for name in ("0", "4"):
        assert coarse[name].sqnr_db < fine[name].sqnr_db
    assert grouped["2"].sqnr_db > coarse["2"].sqnr_db


def test_answers_that_are_no_numbers_are_the_worst():
    def broken(x):
        return (torch.full((2, 2), math.nan),)

    layer = nn.Linear(2, 2)
    (found,) = sensitivity.ranked(broken, {"x": layer}, [(torch.ones(2, 2),)], sensitivity.INT8)
    assert (found.sqnr_db, found.cosine) == (sensitivity.WORST, -1.0)


@given(st.floats(0, 1e30), st.floats(0, 1e30))
def test_the_ratio_is_bounded_and_falls_with_noise(signal, noise):
    ratio = sensitivity.sqnr(signal, noise)
    assert sensitivity.WORST <= ratio <= sensitivity.BEST
    assert ratio >= sensitivity.sqnr(signal, 2 * noise)


@given(st.integers(2, 8), st.one_of(st.none(), st.integers(1, 9)), st.integers(0, 99))
def test_rounded_weights_are_within_half_a_step(bits, group, seed):
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(seed))
    near = sensitivity.round_weight(weight, bits, group)
    step = weight.abs().amax(dim=1, keepdim=True) / (2 ** (bits - 1) - 1)
    assert ((near - weight).abs() <= step * 0.5001).all()
    assert near.shape == weight.shape


def test_kept_layers_are_split_off():
    names = ("a", "b", "c")
    chosen = layers.split_off(
        names, KeptLayers(keep=("a",), keep_most_fragile=1), lambda count: ["c"][:count], "layer"
    )
    assert chosen == {"b"}
    assert layers.split_off(names, KeptLayers(), lambda count: pytest.fail("not asked for"), "layer") == set(
        names
    )


@pytest.mark.parametrize(
    ("params", "sentence"),
    [
        (KeptLayers(keep=("d",)), "it has no layer 'd' that could be kept; there are, among others, a, b"),
        (KeptLayers(keep=("a", "b")), "it has no linear layer left that could be changed"),
        (KeptLayers(keep_most_fragile=2), "it has no linear layer left that could be changed"),
    ],
    ids=["unknown", "all", "all-fragile"],
)
def test_keeping_what_is_not_there_or_everything_is_refused(params, sentence):
    with pytest.raises(BuildError) as refused:
        layers.split_off(("a", "b"), params, lambda count: ("a", "b")[:count], "linear layer")
    assert str(refused.value) == sentence


def test_a_layer_used_twice_is_replaced_twice():
    twin = nn.Linear(2, 2)
    made = nn.ModuleDict({"one": twin, "two": nn.Sequential(twin), "other": nn.Linear(2, 2)})
    layers.replace(made, {"one": nn.Identity()})
    assert isinstance(made["one"], nn.Identity)
    assert made["two"][0] is made["one"]
    assert isinstance(made["other"], nn.Linear)


def test_the_transposed_layers_of_gpt2_become_linear():
    from transformers.pytorch_utils import Conv1D

    torch.manual_seed(0)
    made = nn.Sequential(Conv1D(3, 5)).eval()
    x = torch.randn(2, 5)
    with torch.no_grad():
        before = made(x)
        layers.linearise(made)
        assert type(made[0]) is nn.Linear
        torch.testing.assert_close(made(x), before)
