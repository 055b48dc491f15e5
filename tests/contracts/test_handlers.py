"""Every built-in handler: what it promises in its signature is what it returns."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from serving_agent import pipeline
from serving_agent.contract import graph_tensors
from serving_agent.contract.signature import Signature, TensorSpec
from serving_agent.errors import InvalidRequestError, ModelError, StartError
from serving_agent.formats import catalog as formats
from serving_agent.handlers import catalog
from serving_agent.model_server import ModelContext, ModelServer
from tests.fakes import models


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    folder = tmp_path_factory.mktemp("handlers")
    program = models.save_torchscript(models.digits_model(), folder / "program")
    text = models.save_text_classifier(folder / "text")
    return {
        "torchscript": ("torchscript", program, models.DIGITS),
        "huggingface": ("huggingface", text, models.TEXT_SIGNATURE),
        "reward": ("huggingface", models.save_reward_model(text, folder / "reward"), models.TEXT_SIGNATURE),
    }


def load(handler, artifact, labels=()):
    name, folder, signature = artifact
    server = handler()
    server.context = ModelContext(
        artifact_dir=folder,
        format=formats.get(name),
        signature=handler.served_signature(signature, labels),
        model_signature=signature,
        labels=labels,
        device="cpu",
    )
    server.load_model(server.context)
    return server


@pytest.fixture(params=catalog.names())
def server(request, artifacts):
    handler = catalog.get(request.param)
    name = {"score": "reward"}.get(request.param, "huggingface" if handler.needs_one_of else "torchscript")
    return load(handler, artifacts[name])


def outputs_of(server, **inputs):
    return {output.name: output.array for output in pipeline.run(server, inputs).outputs}


def test_it_keeps_its_signature(server):
    outputs = pipeline.run(server, server.sample_inputs(4)).outputs
    assert [(output.name, output.datatype) for output in outputs] == [
        (spec.name, spec.datatype) for spec in server.signature().outputs
    ]


def test_it_describes_itself(server):
    assert server.title
    assert server.description.endswith(".")
    assert any(server.applies_to(name) for name in formats.names())


def test_a_recorder_sees_every_step(server):
    steps = []

    class Recorder:
        def record(self, step, values):
            steps.append((step, len(values)))

    pipeline.run(server, server.sample_inputs(4), Recorder())
    assert [step for step, _ in steps] == ["inputs", "preprocess", "predict", "postprocess"]
    assert all(count for _, count in steps)


def test_every_handler_on_disk_is_in_the_catalogue():
    folder = Path(catalog.__file__).parent
    shared = {"__init__", "catalog", "classification", "text"}
    assert {path.stem for path in folder.glob("*.py")} - shared == {
        module.rpartition(".")[2] for module in catalog.MODULES
    }


def test_digits_are_classified(artifacts):
    labels = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
    server = load(catalog.get("image-classification"), artifacts["torchscript"], labels)
    images, classes = models.digits_data()
    outputs = outputs_of(server, image=images[1500:])
    assert outputs["probabilities"].sum(axis=1) == pytest.approx(1.0)
    right = [
        label.decode() == labels[digit] for label, digit in zip(outputs["label"], classes[1500:], strict=True)
    ]
    assert np.mean(right) > 0.8


def test_reviews_are_classified_by_the_models_own_labels(artifacts):
    server = load(catalog.get("text-classification"), artifacts["huggingface"])
    texts = np.array([text.encode() for text, _ in models.REVIEWS], dtype=object)
    labels = outputs_of(server, text=texts)["label"].tolist()
    assert labels == [[b"negative", b"positive"][label] for _, label in models.REVIEWS]
    with pytest.raises(InvalidRequestError, match="not UTF-8"):
        outputs_of(server, text=np.array([b"\xff"], dtype=object))


def test_scores_do_not_depend_on_their_neighbours(artifacts):
    server = load(catalog.get("score"), artifacts["reward"])
    texts = np.array([b"good", b"a really bad and awful film"], dtype=object)
    together = outputs_of(server, text=texts)["score"]
    alone = [outputs_of(server, text=texts[index : index + 1])["score"][0] for index in range(2)]
    assert together == pytest.approx(alone, abs=1e-5)
    assert together[0] != together[1]


def test_a_classifier_of_several_classes_gives_no_score(artifacts):
    with pytest.raises(StartError, match="one output"):
        load(catalog.get("score"), artifacts["huggingface"])


def test_embeddings_have_length_1_and_do_not_depend_on_their_neighbours(artifacts):
    server = load(catalog.get("embedding"), artifacts["huggingface"])
    texts = np.array([b"good", b"a really bad and awful film"], dtype=object)
    together = outputs_of(server, text=texts)["embedding"]
    alone = outputs_of(server, text=texts[:1])["embedding"]
    assert together.shape == (2, 32)
    assert np.linalg.norm(together, axis=1) == pytest.approx(1.0, abs=1e-5)
    assert together[:1] == pytest.approx(alone, abs=1e-5)


class Logits(torch.nn.Module):
    """A classifier as graphs have it: tokens and mask in, logits out."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, input_ids, attention_mask):
        return self.network(input_ids=input_ids, attention_mask=attention_mask).logits


class States(Logits):
    """An encoder: its last hidden states out."""

    def forward(self, input_ids, attention_mask):
        return self.network.base_model(input_ids=input_ids, attention_mask=attention_mask)[0]


STATES = Signature(models.TEXT_SIGNATURE.inputs, (TensorSpec("last_hidden_state", "FP32", (-1, -1, 32)),))
SENT = Signature((TensorSpec("text", "BYTES", (-1,)),), (TensorSpec("probabilities", "FP32", (-1, 2)),))
"""What a version's own signature is where clients send text."""


@pytest.fixture(scope="module")
def graphs(artifacts, tmp_path_factory):
    """Name of a graph made of the text classifier → (format, folder with the tokenizer, signature)."""
    from transformers import AutoModelForSequenceClassification

    home, text = tmp_path_factory.mktemp("graphs"), artifacts["huggingface"][1]
    network = AutoModelForSequenceClassification.from_pretrained(text, attn_implementation="eager").eval()
    example = (torch.ones(2, 6, dtype=torch.int64), torch.ones(2, 6, dtype=torch.int64))
    logits = models.save_onnx(Logits(network), home / "logits", example, models.TEXT_SIGNATURE)
    states = models.save_onnx(States(network), home / "states", example, STATES)
    script = models.save_torchscript(Logits(network), home / "script", example)
    graph_tensors.write(models.TEXT_SIGNATURE, script)
    made = {
        "onnx": ("onnx", logits, SENT),
        "onnx with tensors": ("onnx", logits, models.TEXT_SIGNATURE),
        "torchscript": ("torchscript", script, SENT),
        "onnx states": ("onnx", states, SENT),
        "openvino states": ("openvino", models.save_openvino(states, home / "openvino"), STATES),
    }
    for _, folder, _ in made.values():
        for path in text.glob("*.json"):
            shutil.copy(path, folder)
    return made


TEXTS = np.array([b"good", b"a really bad and awful film"], dtype=object)


@pytest.mark.parametrize(
    ("handler", "graph"),
    [
        ("text-classification", "onnx"),
        ("text-classification", "onnx with tensors"),
        ("text-classification", "torchscript"),
        ("embedding", "onnx states"),
        ("embedding", "openvino states"),
    ],
)
def test_graphs_with_a_tokenizer_answer_texts_as_their_network_does(artifacts, graphs, handler, graph):
    original = load(catalog.get(handler), artifacts["huggingface"])
    variant = load(catalog.get(handler), graphs[graph])
    assert variant.signature() == original.signature()
    expected, found = (outputs_of(server, text=TEXTS) for server in (original, variant))
    for name, array in expected.items():
        if array.dtype == object:
            assert found[name].tolist() == array.tolist()
        else:
            assert found[name] == pytest.approx(array, abs=1e-4)


def without(artifact, name, home):
    """The artefact in a folder of its own, without one of its files."""
    shutil.copytree(artifact[1], home / "copy", ignore=shutil.ignore_patterns(name))
    return artifact[0], home / "copy", artifact[2]


@pytest.mark.parametrize(
    ("graph", "lacks", "sentence"),
    [
        ("onnx", "tokenizer*", "holds no tokenizer"),
        ("onnx", "config.json", "holds no config.json"),
        ("torchscript", "tensors.json", "holds no tensors.json, which says what its graph takes"),
    ],
)
def test_graphs_without_what_reading_text_needs_are_refused(graphs, graph, lacks, sentence, tmp_path):
    with pytest.raises(StartError, match=sentence):
        load(catalog.get("text-classification"), without(graphs[graph], lacks, tmp_path))


@pytest.mark.parametrize(
    ("name", "outputs", "labels", "sentence"),
    [
        ("tensor", (TensorSpec("t", "BYTES", (-1,)),), (), "'t' is BYTES"),
        ("image-classification", (TensorSpec("y", "INT64", (-1, 3)),), (), "needs float logits"),
        (
            "image-classification",
            (TensorSpec("y", "FP32", (-1, 3)),),
            ("a",),
            "1 labels were given for 3 classes",
        ),
    ],
)
def test_signatures_that_do_not_suit_are_refused(name, outputs, labels, sentence):
    with pytest.raises(StartError, match=sentence):
        catalog.get(name).served_signature(Signature(models.DIGITS.inputs, outputs), labels)


def test_a_model_that_returns_another_type_than_declared_is_found_out(artifacts):
    wrong = Signature(models.DIGITS.inputs, (TensorSpec("logits", "FP64", (-1, 10)),))
    server = load(ModelServer, ("torchscript", artifacts["torchscript"][1], wrong))
    with pytest.raises(ModelError, match="returned 'logits' as FP32; its signature declares FP64"):
        pipeline.run(server, server.sample_inputs(1))


class Doubling(ModelServer):
    name = "doubling"

    def postprocess(self, outputs):
        return {name: 2 * array for name, array in super().postprocess(outputs).items()}


def test_custom_handlers_come_from_the_allow_list_only(artifacts):
    name = f"{__name__}:Doubling"
    with pytest.raises(StartError, match="not in the list of allowed handlers"):
        catalog.get(name)
    with pytest.raises(StartError, match="cannot be imported"):
        catalog.get("no_such_module:X", ("no_such_module:X",))
    with pytest.raises(StartError, match="not a subclass of ModelServer"):
        catalog.get("json:JSONDecoder", ("json:JSONDecoder",))
    with pytest.raises(StartError, match="unknown handler 'x'; known handlers are tensor"):
        catalog.get("x")
    images = models.digits_data()[0][:1]
    double = load(Doubling, artifacts["torchscript"])
    plain = load(catalog.get("tensor"), artifacts["torchscript"])
    assert outputs_of(double, image=images)["logits"] == pytest.approx(
        2 * outputs_of(plain, image=images)["logits"]
    )


def test_an_allowed_handler_is_found(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "operators_handlers", sys.modules[__name__])
    assert catalog.get("operators_handlers:Doubling", ("operators_handlers:Doubling",)) is Doubling
