"""Every artefact format: it opens its kind of file, answers like the original, and refuses the rest."""

import pytest
import torch

from serving_agent.errors import StartError
from serving_agent.formats import base, catalog
from tests.fakes import models


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory):
    """Format name → (folder, signature, inputs by name, expected outputs by name)."""
    folder = tmp_path_factory.mktemp("formats")
    digits, images = models.digits_model(), torch.from_numpy(models.digits_data()[0][1500:1505])
    logits = {"logits": digits(images).detach()}
    models.save_text_classifier(folder / "huggingface")
    tokens = {
        "input_ids": torch.tensor([[2, 5, 6, 3]]),
        "attention_mask": torch.ones(1, 4, dtype=torch.int64),
    }
    import transformers

    text = transformers.BertForSequenceClassification.from_pretrained(folder / "huggingface").eval()
    return {
        "torchscript": (
            models.save_torchscript(digits, folder / "torchscript"), models.DIGITS, {"image": images}, logits
        ),
        "exported_program": (
            models.save_exported(digits, folder / "pt2", images), models.DIGITS, {"image": images}, logits
        ),
        "huggingface": (
            folder / "huggingface", models.TEXT_SIGNATURE, tokens, {"logits": text(**tokens).logits.detach()}
        ),
    }  # fmt: skip


@pytest.fixture(params=catalog.names())
def format_(request):
    return catalog.get(request.param)


def test_it_answers_like_the_original(format_, artifacts):
    folder, signature, inputs, expected = artifacts[format_.name]
    model = format_.load(folder, "cpu", signature)
    with torch.inference_mode():
        outputs = model(inputs)
    assert outputs.keys() == expected.keys()
    for name, tensor in expected.items():
        torch.testing.assert_close(outputs[name], tensor)


def test_it_describes_itself(format_):
    assert isinstance(format_, base.Format)
    assert format_.title
    assert format_.description.endswith(".")


def test_an_empty_folder_is_refused_in_a_sentence(format_, tmp_path, artifacts):
    with pytest.raises(StartError, match="the artefact "):
        format_.load(tmp_path, "cpu", artifacts[format_.name][1])


def test_every_format_on_disk_is_in_the_catalogue():
    from pathlib import Path

    files = {path.stem for path in Path(base.__file__).parent.glob("*.py")} - {"__init__", "base", "catalog"}
    assert files == {module.rpartition(".")[2] for module in catalog.MODULES} == set(catalog.names())


def test_an_unknown_format_lists_the_known_ones():
    with pytest.raises(StartError, match="unknown format 'onnx'; known formats are torchscript"):
        catalog.get("onnx")


@pytest.mark.parametrize("result", [(1, 2), [1, 2], {"b": 2, "a": 1, "more": 3}])
def test_results_are_named(result):
    from serving_agent.contract.signature import Signature, TensorSpec

    signature = Signature((), (TensorSpec("a", "FP32", (1,)), TensorSpec("b", "FP32", (1,))))
    assert base.name_outputs(result, signature) == {"a": 1, "b": 2}


def test_a_state_dict_is_not_unpickled_by_torchscript(tmp_path):
    torch.save({"w": torch.zeros(1)}, tmp_path / "model.pt")
    with pytest.raises(RuntimeError):
        catalog.get("torchscript").load(tmp_path, "cpu", models.DIGITS)


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
