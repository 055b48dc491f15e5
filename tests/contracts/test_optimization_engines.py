"""Variants that other engines run: built for real, opened in another process, compared with their parent."""

import json

import numpy as np
import pytest
import torch

from control_plane.jobs.digits.network import DigitReader
from control_plane.optimization.messages import Artefact, BuildOrder
from serving_agent.contract import architecture
from tests.fakes import engine_builds, models, opened_formats

pytestmark = pytest.mark.timeout(600)  # all is built in the fixture of whichever test comes first

LAYERS = {"channels": 8, "convolutions": 2}
BUILDS = {
    "onnx": ("onnx-runtime", "torchscript", {}),
    "onnx of text": ("onnx-runtime", "huggingface", {}),
    "onnx dynamic": ("onnx-dynamic-int8", "huggingface", {}),
    "onnx static": ("onnx-static-int8", "exported_program", {}),
    "onnx static kept": ("onnx-static-int8", "state_dict", {"keep": ["features.2"]}),
    "openvino": ("openvino", "torchscript", {}),
    "openvino int8": ("openvino-int8", "exported_program", {}),
    "openvino int8 kept": ("openvino-int8", "state_dict", {"keep_most_fragile": 1}),
    "openvino weights": ("openvino-weights", "huggingface", {}),
    "compiled": ("compile-cache", "exported_program", {}),
}
"""Name → method, format of the parent, parameters."""
EXACT = frozenset({"onnx", "onnx of text", "openvino", "compiled"})
LEAST_COSINE = 0.99
REFUSED = {
    "no rows": ("onnx-static-int8", "state_dict", {}, "it needs rows to calibrate with, and got none"),
    "unknown layer": ("openvino-int8", "state_dict", {"keep": ["head"]}, "it has no layer 'head'"),
    "undividable": ("openvino-weights", "huggingface", {"bits": 4, "group": 128}, "128"),
    "fragile of a program": ("openvino-int8", "torchscript", {"keep_most_fragile": 1}, "name the layers"),
    "no products": ("onnx-dynamic-int8", "plain", {}, "no linear or recurrent layer"),
    "decides by values": ("openvino", "together", {}, "its TorchScript cannot|otherwise"),
}
"""Name → method, parent, parameters, what the refusal says."""


class Plain(torch.nn.Module):
    """Nothing to quantise."""

    def forward(self, image):
        return image.flatten(1)[:, :10].tanh()


class Together(torch.nn.Module):
    """Decides by the values that it sees."""

    def forward(self, image):
        if bool(image.sum() > 1e9):
            return image.flatten(1)[:, :10]
        return image.flatten(1)[:, 10:20]


@pytest.fixture(scope="module")
def parents(tmp_path_factory):
    """Format, or name → artefact of a small convolutional network or text classifier."""
    folder = tmp_path_factory.mktemp("engine parents")
    torch.manual_seed(0)
    network, images = DigitReader(**LAYERS).eval(), torch.from_numpy(models.digits_data()[0])
    (folder / "state_dict").mkdir()
    from safetensors.torch import save_file

    save_file(network.state_dict(), folder / "state_dict" / architecture.WEIGHTS)
    (folder / "state_dict" / "architecture.json").write_text(
        json.dumps({"class": "control_plane.jobs.digits.network:DigitReader", "arguments": LAYERS})
    )
    models.save_torchscript(network, folder / "torchscript")
    models.save_exported(network, folder / "exported_program", images[:4])
    models.save_text_classifier(folder / "huggingface")
    models.save_torchscript(Plain(), folder / "plain")
    models.save_torchscript(Together(), folder / "together")

    def artefact(name):
        text = name == "huggingface"
        return Artefact(
            folder=str(folder / name),
            format="torchscript" if name in ("plain", "together") else name,
            handler="text-classification" if text else "tensor",
            signature=models.TEXT_SIGNATURE if text else models.DIGITS,
            labels=("negative", "positive") if text else (),
        )

    names = ("state_dict", "torchscript", "exported_program", "huggingface", "plain", "together")
    return {name: artefact(name) for name in names}


@pytest.fixture(scope="module")
def replies(parents, tmp_path_factory):
    """Name → (what came of the order, its folder)."""
    folder = tmp_path_factory.mktemp("engine builds")
    rows = folder / "images.json"
    rows.write_text(json.dumps([{"image": image.tolist()} for image in models.digits_data()[0][:32]]))
    orders = {}
    for name, (method, parent, params) in {**BUILDS, **{n: r[:3] for n, r in REFUSED.items()}}.items():
        out = folder / name
        out.mkdir()
        with_rows = parent != "huggingface" and name != "no rows"
        orders[name] = BuildOrder(
            parent=parents[parent],
            method=method,
            params=params,
            rows_file=str(rows) if with_rows else None,
            out=str(out),
            threads=1,
        )
    # by itself, as every build really is: what was compiled before changes how the cache is found
    alone = {"compiled": orders.pop("compiled")}
    made = {**engine_builds.replies(orders, folder), **engine_builds.replies(alone, folder)}
    return {name: (reply, folder / name) for name, reply in made.items()}


@pytest.fixture(scope="module")
def answers(parents, replies, tmp_path_factory):
    """Name → for each input, what the variant and the parent answered; both opened in another process."""
    jobs = {}
    for name, (_, parent, _) in BUILDS.items():
        reply, folder = replies[name]
        assert reply.failed is None, (name, reply.failed)
        signature, inputs = parents[parent].signature, inputs_of(parent)
        jobs[name] = (opened_formats.Job(reply.format, str(folder), signature), inputs)
        jobs[f"parent of {name}"] = (
            opened_formats.Job(parents[parent].format, parents[parent].folder, signature), inputs
        )  # fmt: skip
    said = opened_formats.answers(jobs, tmp_path_factory.mktemp("engine answers"))
    return {name: (said[name], said[f"parent of {name}"]) for name in BUILDS}


def inputs_of(parent):
    """Batches of 1, 5 and 32 rows; of texts, in two lengths."""
    if parent != "huggingface":
        images = models.digits_data()[0][1000:1038]
        # stacked, as an agent makes a batch: numpy's new axis would have a stride that no request has
        return [
            {"image": torch.from_numpy(np.stack([*images[start:end]]))}
            for start, end in ((0, 1), (1, 6), (6, 38))
        ]
    made = []
    for rows, length in ((1, 4), (5, 9), (32, 9)):
        tokens = torch.randint(4, 12, (rows, length), generator=torch.Generator().manual_seed(rows))
        mask = torch.ones_like(tokens)
        mask[-1, length // 2 :] = 0
        made.append({"input_ids": tokens, "attention_mask": mask})
    return made


@pytest.mark.parametrize("name", BUILDS)
def test_the_variant_answers_like_its_parent_for_every_size(name, answers):
    variant, parent = answers[name]
    assert len(variant["at once"]) == 3
    for ours, theirs in zip(variant["at once"], parent["at once"], strict=True):
        assert ours.keys() == theirs.keys() == {"logits"}
        mine, expected = ours["logits"], theirs["logits"]
        assert (mine.shape, mine.dtype) == (expected.shape, expected.dtype)
        if name in EXACT:
            torch.testing.assert_close(mine, expected, rtol=1e-4, atol=1e-4)
        else:
            assert torch.nn.functional.cosine_similarity(mine, expected).min() > LEAST_COSINE


def test_nothing_is_compiled_again_when_a_warm_cache_is_opened(answers):
    assert answers["compiled"][0]["compiled"] == 0


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_built_is_refused_in_a_sentence(name, replies):
    reply, _ = replies[name]
    assert reply.code == "cannot_build", reply
    assert any(part in reply.failed for part in REFUSED[name][3].split("|")), reply.failed


def test_onnx_quantises_all_layers_but_the_kept_ones(replies):
    assert float_weights(replies["onnx static"][1]) == set()
    assert float_weights(replies["onnx static kept"][1]) == {(8, 8, 3, 3)}


def float_weights(folder):
    """Shapes of weights, of more than one dimension, in full precision."""
    import onnx

    graph = onnx.load(folder / "model.onnx").graph
    arrays = [onnx.numpy_helper.to_array(each) for each in graph.initializer]
    return {each.shape for each in arrays if each.dtype == np.float32 and each.ndim > 1}


def test_openvino_quantises_all_layers_but_the_kept_ones(replies):
    assert stored_types(replies["openvino int8"][1]) == ["i8", "i8", "i8"]
    assert sorted(stored_types(replies["openvino int8 kept"][1])) == ["f32", "i8", "i8"]


def stored_types(folder):
    """Types in which weights, of more than one dimension, are stored."""
    import openvino

    model = openvino.Core().read_model(folder / "model.xml")
    return [
        node.get_element_type().get_type_name()
        for node in model.get_ops()
        if node.get_type_name() == "Constant" and int(np.prod(node.get_output_shape(0))) > 64
    ]


def test_lineage_names_the_libraries_that_made_it(replies):
    assert {"torch", "onnx", "onnxruntime"} <= replies["onnx static"][0].libraries.keys()
    assert {"torch", "openvino", "nncf"} <= replies["openvino int8"][0].libraries.keys()
