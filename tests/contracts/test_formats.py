"""Every artefact format: it opens its kind of file, answers like the original, and refuses the rest."""

import re
import shutil
import warnings
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from serving_agent.contract import architecture
from serving_agent.contract.signature import Signature
from serving_agent.errors import StartError
from serving_agent.formats import base, catalog
from tests.fakes import models, native_models, networks, opened_formats

pytestmark = pytest.mark.timeout(400)
"""Whoever comes first makes the native code, which takes a C++ compiler half a minute on an idle machine."""
NATIVE = tuple(each.name for each in catalog.formats() if each.is_native)
TOKENS = [
    {
        "input_ids": torch.tensor(rows),
        "attention_mask": torch.ones(len(rows), len(rows[0]), dtype=torch.int64),
    }
    for rows in ([[2, 5, 6, 3]], [[2, 4 + row, 7, 6, 3] for row in range(5)])
]


@dataclass(frozen=True)
class Artifact:
    """One model in one format, inputs of 1 and of 5 rows, and what the original makes of them."""

    folder: Path
    signature: Signature
    inputs: list[dict[str, torch.Tensor]]
    expected: list[dict[str, torch.Tensor]]
    tolerance: float = 1e-5


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Format name → Artifact; those with native code only where there is a C++ compiler."""
    folder = tmp_path_factory.mktemp("formats")
    digits, data = models.digits_model(), torch.from_numpy(models.digits_data()[0])
    images = [{"image": data[1500:1501]}, {"image": data[1510:1515]}]
    example = data[:2]

    def of_digits(artifact, network=digits, **options):
        logits = [{"logits": network(each["image"]).detach()} for each in images]
        return Artifact(artifact, models.DIGITS, images, logits, **options)

    models.save_text_classifier(folder / "huggingface")
    import transformers

    text = transformers.BertForSequenceClassification.from_pretrained(folder / "huggingface").eval()
    logits = [{"logits": text(**tokens).logits.detach()} for tokens in TOKENS]
    onnx = models.save_onnx(digits, folder / "onnx", (example,), models.DIGITS)
    made = {
        "torchscript": of_digits(models.save_torchscript(digits, folder / "torchscript")),
        "exported_program": of_digits(models.save_exported(digits, folder / "pt2", example)),
        "huggingface": Artifact(folder / "huggingface", models.TEXT_SIGNATURE, TOKENS, logits),
        "state_dict": of_digits(
            models.save_state_dict(digits, folder / "weights", "tests.fakes.networks:one_layer")
        ),
        "onnx": of_digits(onnx),
        "openvino": of_digits(models.save_openvino(onnx, folder / "openvino")),
    }
    if shutil.which("g++"):
        native, network = native_models.made(tmp_path_factory), models.smooth_digits()
        made |= {name: of_digits(native / name, network, tolerance=1e-4) for name in NATIVE}
    return made


class Rounds(torch.nn.Module):
    """Rounds to tenths by the operators that PT2E leaves in a program."""

    def forward(self, x):
        bounds = (0.1, 0, -128, 127, torch.int8)
        operators = torch.ops.quantized_decomposed
        return operators.dequantize_per_tensor(operators.quantize_per_tensor(x, *bounds), *bounds)


@pytest.fixture(scope="module")
def quantized(tmp_path_factory):
    """Name → Artifact of programs with quantised operators, one of them for an engine of its choice."""
    import torch.ao.quantization.fx._decomposed

    folder, rows = tmp_path_factory.mktemp("quantized"), torch.rand(5, 1)
    program = models.save_exported(Rounds(), folder / "program", rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch.ao's own, about its end
        network = torch.ao.quantization.quantize_dynamic(models.digits_model(), {torch.nn.Linear})
        images = {"image": torch.from_numpy(models.digits_data()[0][1500:1505])}
        script = models.save_torchscript(network, folder / "script", images["image"])
        (script / "quantized.json").write_text('{"engine": "onednn"}')
        logits = {"logits": network(images["image"])}
    return {
        "program": Artifact(program, models.SCALAR, [{"x": rows}], [{"y": Rounds()(rows)}]),
        "script": Artifact(script, models.DIGITS, [images], [logits], tolerance=0.2),
    }


@pytest.fixture(scope="module")
def answers(artifacts, quantized, tmp_path_factory):
    """Format name → what another process, which knows no original class, got from its artefact."""
    formats = {"program": "exported_program", "script": "torchscript"}
    jobs = {
        name: (opened_formats.Job(formats.get(name, name), str(each.folder), each.signature), each.inputs)
        for name, each in (quantized | artifacts).items()
    }
    return opened_formats.answers(jobs, tmp_path_factory.mktemp("answers"))


@pytest.fixture(params=catalog.names())
def format_(request):
    return catalog.get(request.param)


def able(format_):
    if format_.is_native and shutil.which("g++") is None:
        pytest.skip("native code is made by a C++ compiler, and this machine has none")


def test_it_answers_like_the_original_in_another_process(format_, artifacts, answers):
    able(format_)
    check(artifacts[format_.name], answers[format_.name])


@pytest.mark.parametrize("name", ["program", "script"])
def test_quantised_programs_bring_their_operators_along(name, quantized, answers):
    check(quantized[name], answers[name])


def check(artifact, found):
    for rows, expected in zip(found["at once"], artifact.expected, strict=True):
        assert rows.keys() == expected.keys()
        for name, tensor in expected.items():
            torch.testing.assert_close(rows[name], tensor, atol=artifact.tolerance, rtol=artifact.tolerance)


def test_its_answers_stay_as_they_are_while_others_are_made(format_, answers):
    able(format_)
    found = answers[format_.name]
    for before, after in zip(found["at once"], found["in the end"], strict=True):
        assert all(torch.equal(before[name], after[name]) for name in before)


def test_what_was_compiled_before_is_not_compiled_again(answers):
    able(catalog.get("compiled"))
    assert answers["compiled"]["compiled"] == 0


def test_it_describes_itself(format_):
    assert isinstance(format_, base.Format)
    assert format_.title
    assert format_.description.endswith(".")


def test_an_empty_folder_is_refused_in_a_sentence(format_, tmp_path):
    with pytest.raises(StartError, match="the artefact "):
        format_.load(tmp_path, "cpu", models.DIGITS)


def test_every_format_on_disk_is_in_the_catalogue():
    shared = {"__init__", "base", "catalog", "graph", "quantized", "text_model"}
    files = {path.stem for path in Path(base.__file__).parent.glob("*.py")} - shared
    assert files == {module.rpartition(".")[2] for module in catalog.MODULES} == set(catalog.names())


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(StartError, match="unknown format 'gguf'; known formats are torchscript"):
        catalog.get("gguf")


@pytest.mark.parametrize("result", [(1, 2), [1, 2], {"b": 2, "a": 1, "more": 3}])
def test_results_are_named(result):
    from serving_agent.contract.signature import TensorSpec

    signature = Signature((), (TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,))))
    assert base.name_outputs(result, signature) == {"a": 1, "b": 2}


def test_a_state_dict_is_not_unpickled_by_torchscript(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(RuntimeError):
        catalog.get("torchscript").load(tmp_path, "cpu", models.DIGITS)


def weights(folder, builder, tensors, **arguments):
    from safetensors.torch import save_file

    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / architecture.WEIGHTS)
    architecture.write(architecture.Architecture(f"tests.fakes.networks:{builder}", arguments), folder)
    return folder


@pytest.mark.parametrize(
    ("builder", "arguments", "sentence"),
    [
        ("no_network", {}, "made a dict, which is no torch module"),
        ("nothing_here", {}, "cannot be built: tests.fakes.networks:nothing_here raised AttributeError"),
        ("Digits", {"depth": 2}, "raised TypeError"),
        ("Digits", {}, "the file lacks layers.1.bias, layers.1.weight; the network has no 1.bias, 1.weight"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(tmp_path, builder, arguments, sentence):
    folder = weights(tmp_path / "artifact", builder, models.digits_model().state_dict(), **arguments)
    with pytest.raises(StartError, match=re.escape(sentence)):
        catalog.get("state_dict").load(folder, "cpu", models.DIGITS)


def test_weights_of_other_shapes_are_refused(tmp_path):
    tensors = {"layers.1.weight": torch.zeros(10, 64), "layers.1.bias": torch.zeros(9)}
    folder = weights(tmp_path / "artifact", "Digits", tensors)
    with pytest.raises(StartError, match=re.escape("layers.1.bias is [9], not [10]")):
        catalog.get("state_dict").load(folder, "cpu", models.DIGITS)


def test_a_network_is_built_with_its_arguments(tmp_path):
    from tests.fakes.networks import Digits

    torch.manual_seed(1)
    network = Digits(hidden=7, classes=3)
    folder = weights(tmp_path / "artifact", "Digits", network.state_dict(), hidden=7, classes=3)
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        answer = catalog.get("state_dict").load(folder, "cpu", models.DIGITS)({"image": images})
        assert torch.equal(answer["logits"], network(images))


@pytest.mark.parametrize("wrapper", ["model.", "module.", "_orig_mod.", "module.model."])
def test_what_a_training_wrapper_puts_before_all_names_is_left_out(tmp_path, wrapper):
    tensors = {wrapper + name: tensor for name, tensor in models.digits_model().state_dict().items()}
    folder = weights(tmp_path / "artifact", "one_layer", tensors)
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        answer = catalog.get("state_dict").load(folder, "cpu", models.DIGITS)({"image": images})
        assert torch.equal(answer["logits"], models.digits_model()(images))


def test_counters_that_old_checkpoints_lack_stay_as_the_network_has_them(tmp_path):
    torch.manual_seed(3)
    network = networks.normed()
    tensors = {name: tensor for name, tensor in network.state_dict().items() if "num_batches" not in name}
    folder = weights(tmp_path / "artifact", "normed", tensors)
    images = torch.rand(2, 1, 8, 8)
    with torch.inference_mode():
        answer = catalog.get("state_dict").load(folder, "cpu", models.DIGITS)({"image": images})
        assert torch.equal(answer["logits"], network.eval()(images))


@pytest.mark.parametrize("builder", ["os.system", "a:b:c", "a:b()", ":x", "x:", "a b:c", "a:é"])
def test_only_names_can_be_a_network(builder):
    with pytest.raises(ValueError, match="not of the form module:Class"):
        architecture.Architecture(builder)


class KeepsItsAnswer(torch.nn.Module):
    """Writes each answer into one buffer of its own and returns that."""

    def __init__(self):
        super().__init__()
        self.register_buffer("last", torch.zeros(1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.last.copy_(x)
        return self.last


def test_an_answer_stays_as_it_is_while_the_next_one_is_made(tmp_path):
    folder = models.save_torchscript(KeepsItsAnswer(), tmp_path / "model")
    model = catalog.get("torchscript").load(folder, "cpu", models.SCALAR)
    first = model({"x": torch.tensor([[1.0]])})["y"]
    model({"x": torch.tensor([[2.0]])})
    assert first.item() == 1.0
