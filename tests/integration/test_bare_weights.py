"""Weights alone: asked for their network, proved to fit it, registered and served."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from control_plane.errors import ConflictError, InvalidInputError
from control_plane.registry.artifacts import ArtifactStore
from control_plane.services import architectures, uploads, versions
from control_plane.services.context import Context
from serving_agent.contract.signature import Signature, TensorSpec
from tests.fakes import checkpoints, models, registry
from tests.fakes.networks import Digits

NETWORK = "tests.fakes.networks:Digits"
IMAGE = Signature((TensorSpec("image", "FP32", (-1, 1, 8, 8)),), ())


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Context]:
    """A registry whose worker runs and whose operator lists networks."""
    ctx = registry.open_home(tmp_path_factory.mktemp("home"), architectures=(NETWORK,))
    with checkpoints.worker(ctx):
        yield ctx
    ctx.engine.dispose()


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training checkpoint: the weights and what an optimiser needs to go on."""
    torch.manual_seed(0)
    network = Digits(hidden=16)
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.rand(4, 1, 8, 8)).sum().backward()
    optimizer.step()
    path = tmp_path_factory.mktemp("weights") / "last.ckpt"
    torch.save(
        {"state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()], "epoch": 3}, path
    )
    return path


def test_weights_are_asked_for_their_network_and_registered(home: Context, weights: Path) -> None:
    waiting = checkpoints.checked(home, checkpoints.send(home, weights, model="digits"))
    assert (waiting.state, waiting.needs) == ("needs input", ("architecture",)), waiting.reason
    network = {"class": NETWORK, "arguments": {"hidden": 16}}
    answered = uploads.answer(home, waiting.id, actor="ben", architecture=network, signature=IMAGE)
    done = checkpoints.checked(home, answered)
    assert (done.state, done.version_ref) == ("registered", "digits@1"), done.reason
    version = versions.get(home, "digits@1")
    assert (version.format, version.program_accepted_by) == ("state_dict", None)
    assert [str(spec) for spec in version.signature.outputs] == ["output:FP32[-1,10]"]
    assert {file.path for file in version.files} == {"model.safetensors", "architecture.json"}
    assert version.verdict is not None
    assert version.verdict["decision"] == "convert"
    assert version.lineage["architecture"] == network


def test_what_is_stored_is_bit_equal_and_the_original_is_kept_sealed(home: Context, weights: Path) -> None:
    sent = checkpoints.send(home, weights, model="sealed")
    asked = checkpoints.checked(home, sent)
    network = {"class": NETWORK, "arguments": {"hidden": 16}}
    checkpoints.checked(
        home, uploads.answer(home, asked.id, actor="ben", architecture=network, signature=IMAGE)
    )
    version = versions.get(home, "sealed@1")
    store = ArtifactStore(home.settings.artifacts_dir)
    stored = load_file(store.folder(version.digest) / "model.safetensors")
    original = torch.load(weights, weights_only=True)["state_dict"]
    assert stored.keys() == original.keys()
    assert all(torch.equal(stored[name], tensor) for name, tensor in original.items())
    assert version.evidence_digest is not None
    assert (store.folder(version.evidence_digest) / "last.ckpt").read_bytes() == weights.read_bytes()


def test_a_class_without_inputs_is_asked_for_them(home: Context, weights: Path) -> None:
    asked = checkpoints.checked(home, checkpoints.send(home, weights, model="asked"))
    network = {"class": NETWORK, "arguments": {"hidden": 16}}
    again = checkpoints.checked(home, uploads.answer(home, asked.id, actor="ben", architecture=network))
    assert (again.state, again.needs) == ("needs input", ("signature",))
    done = checkpoints.checked(home, uploads.answer(home, asked.id, actor="ben", signature=IMAGE))
    assert done.state == "registered", done.reason


def test_another_network_may_be_given_when_the_weights_do_not_fit(home: Context, weights: Path) -> None:
    asked = checkpoints.checked(home, checkpoints.send(home, weights, model="unfit"))
    wrong = {"class": NETWORK, "arguments": {"hidden": 17}}
    again = checkpoints.checked(
        home, uploads.answer(home, asked.id, actor="ben", architecture=wrong, signature=IMAGE)
    )
    assert (again.state, again.needs) == ("needs input", ("architecture",))
    assert again.reason is not None
    assert "layers.1.weight is [16, 64], not [17, 64]" in again.reason.message
    right = {"class": NETWORK, "arguments": {"hidden": 16}}
    done = checkpoints.checked(home, uploads.answer(home, asked.id, actor="ben", architecture=right))
    assert done.state == "registered", done.reason


def test_weights_of_a_transformers_model_need_its_configuration_only(home: Context, tmp_path: Path) -> None:
    import json

    folder = models.save_text_classifier(tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    save_file(load_file(folder / "model.safetensors"), tmp_path / "reviews.safetensors")
    asked = checkpoints.checked(
        home, checkpoints.send(home, tmp_path / "reviews.safetensors", model="reviews")
    )
    done = checkpoints.checked(
        home, uploads.answer(home, asked.id, actor="ben", architecture={"config": config})
    )
    assert done.state == "registered", done.reason
    version = versions.get(home, "reviews@1")
    assert (version.format, version.handler) == ("huggingface", "tensor")
    assert [str(spec) for spec in version.signature.outputs] == ["logits:FP32[-1,2]"]
    assert version.labels == ("negative", "positive")


def test_weights_of_another_transformers_model_do_not_fit(home: Context, tmp_path: Path) -> None:
    import json

    folder = models.save_text_classifier(tmp_path / "folder")
    config = json.loads((folder / "config.json").read_text())
    tensors = load_file(folder / "model.safetensors")
    del tensors["classifier.bias"]
    save_file(tensors, tmp_path / "cut.safetensors")
    asked = checkpoints.checked(home, checkpoints.send(home, tmp_path / "cut.safetensors", model="cut"))
    again = checkpoints.checked(
        home, uploads.answer(home, asked.id, actor="ben", architecture={"config": config})
    )
    assert (again.state, again.needs) == ("needs input", ("architecture",))
    assert again.reason is not None
    assert "the file lacks classifier.bias" in again.reason.message


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"class": "os:system"}, "os:system is not in the list of networks that may be used"),
        ({"class": "nonsense"}, "not of the form module:Class"),
        ({"class": NETWORK, "arguments": {"not a name": 1}}, "not the name of an argument"),
        ({"class": NETWORK, "config": {}}, "does not describe a network"),
        ({}, "does not describe a network"),
        ({"config": {"architectures": ["X"], "auto_map": {"AutoModel": "evil.py"}}}, "code of its own"),
        ({"class": NETWORK, "arguments": {"text": "x" * 300_000}}, "at most 256 KiB"),
    ],
)
def test_networks_that_may_not_be_used_are_told_so(home: Context, given, sentence: str) -> None:
    with pytest.raises(InvalidInputError, match=sentence):
        architectures.check(home.settings, given)


def test_a_network_that_is_no_longer_listed_is_not_deployed(home: Context, weights: Path) -> None:
    asked = checkpoints.checked(home, checkpoints.send(home, weights, model="unlisted"))
    network = {"class": NETWORK, "arguments": {"hidden": 16}}
    checkpoints.checked(
        home, uploads.answer(home, asked.id, actor="ben", architecture=network, signature=IMAGE)
    )
    version = versions.get(home, "unlisted@1")
    architectures.check_served(home, version.format, version.digest)
    without = Context(settings=home.settings.model_copy(update={"architectures": ()}), engine=home.engine)
    with pytest.raises(ConflictError, match="does not list any more"):
        architectures.check_served(without, version.format, version.digest)
