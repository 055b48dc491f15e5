"""What an upload would become, from the gate's verdict and what people declared."""

from __future__ import annotations

import pytest

from control_plane.admission.base import Accepted, Refusal
from control_plane.jobs import candidate
from control_plane.services.upload_checks import Declared
from serving_agent.contract.signature import Signature, TensorSpec

IMAGE = TensorSpec("image", "FP32", (-1, 1, 8, 8))
MASK = TensorSpec("mask", "BOOL", (-1, 8))
LOGITS = TensorSpec("logits", "FP32", (-1, 10))


def declared(**given) -> Declared:
    nothing = dict.fromkeys(
        ["signature", "architecture", "handler", "program_accepted_by", "program_accepted_at"]
    )
    return Declared(**{"model": "digits", "actor": "ada", "details": {}, "labels": (), **nothing, **given})


def weights(**given) -> Accepted:
    return Accepted(
        **{
            "format": "state_dict", "handler": "tensor", "signature": None, "program": False,
            "converted": True, "needs": ("architecture",), "stored": (), **given,
        }
    )  # fmt: skip


def program(**given) -> Accepted:
    return Accepted(
        **{
            "format": "torchscript", "handler": "tensor", "signature": Signature((IMAGE,), ()),
            "program": True, "needs": ("acceptance", "signature"), "stored": (("model.pt", "model.pt"),),
            **given,
        }
    )  # fmt: skip


def test_bare_weights_need_their_network_first() -> None:
    assert candidate.combine(weights(), declared()).needs == ("architecture",)


def test_a_class_needs_inputs_to_be_tried_with() -> None:
    network = {"class": "nets:Digits", "arguments": {}}
    asked = candidate.combine(weights(), declared(architecture=network))
    assert asked.needs == ("signature",)
    whole = candidate.combine(weights(), declared(architecture=network, signature=Signature((IMAGE,), ())))
    assert (whole.needs, whole.format, whole.is_measured, whole.exact) == ((), "state_dict", True, True)


def test_a_configuration_says_what_goes_in_and_what_the_classes_are_called() -> None:
    config = {"architectures": ["BertForSequenceClassification"], "id2label": {"0": "bad", "1": "good"}}
    whole = candidate.combine(weights(), declared(architecture={"config": config}))
    assert (whole.needs, whole.format, whole.handler) == ((), "huggingface", "tensor")
    assert whole.labels == ("bad", "good")
    assert [spec.name for spec in whole.signature.inputs] == ["input_ids", "attention_mask"]


def test_programs_need_what_was_not_given() -> None:
    assert candidate.combine(program(), declared()).needs == ("acceptance", "signature")
    accepted = declared(program_accepted_by="ada")
    assert candidate.combine(program(), accepted).needs == ("signature",)


def test_declared_inputs_come_in_the_order_of_the_program() -> None:
    known = program(signature=Signature((IMAGE, MASK), ()))
    given = declared(program_accepted_by="ada", signature=Signature((MASK, IMAGE), (LOGITS,)))
    whole = candidate.combine(known, given)
    assert whole.signature == Signature((IMAGE, MASK), (LOGITS,))
    assert (whole.needs, whole.is_measured, whole.exact) == ((), True, False)


def test_inputs_of_other_names_are_refused() -> None:
    with pytest.raises(Refusal, match="the program takes the inputs image; declared are mask"):
        candidate.combine(program(), declared(signature=Signature((MASK,), ())))


def test_a_signature_of_plain_weights_is_the_files_own() -> None:
    known = weights(format="huggingface", signature=Signature((IMAGE,), (LOGITS,)), needs=())
    given = declared(signature=Signature((MASK,), ()), labels=("a",), handler="embedding")
    whole = candidate.combine(known, given)
    assert whole.signature == known.signature
    assert (whole.labels, whole.handler, whole.is_measured) == (("a",), "embedding", False)
    assert whole.tried_with == candidate.TOKENS
