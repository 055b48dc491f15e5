"""From a Hugging Face configuration to the handler that serves it, its signature and its labels. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode
from serving_agent.contract.signature import Signature, TensorSpec

CLASSIFIER: Final = "ForSequenceClassification"
LANGUAGE_MODELS: Final = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration", "ForSeq2SeqLM")
ENCODERS: Final = frozenset(
    {
        "albert", "bert", "camembert", "convbert", "deberta", "deberta-v2", "distilbert", "electra", "ernie",
        "flaubert", "funnel", "mobilebert", "modernbert", "mpnet", "nomic_bert", "rembert", "roberta",
        "roberta-prelayernorm", "roformer", "squeezebert", "xlm-roberta", "xlm-roberta-xl", "xmod",
    }
)  # fmt: skip
"""Model types whose hidden states can be averaged into an embedding."""
MAX_LABELS: Final = 100_000
TEXT: Final = (TensorSpec("text", "BYTES", (-1,)),)


@dataclass(frozen=True, slots=True)
class Served:
    """How an architecture is served."""

    handler: str
    signature: Signature
    labels: tuple[str, ...]


def served(config: dict[str, Any], file: str) -> Served:
    """Return how a model with *config* is served; *file* names it in refusals. Raises Refusal."""
    architecture = _architecture(config, file)
    if architecture.endswith(CLASSIFIER):
        labels = _labels(config, file)
        outputs = (
            TensorSpec("probabilities", "FP32", (-1, len(labels))),
            TensorSpec("label", "BYTES", (-1,)),
        )
        return Served("text-classification", Signature(TEXT, outputs), labels)
    if architecture.endswith(LANGUAGE_MODELS):
        raise Refusal(
            ReasonCode.LANGUAGE_MODEL,
            f"{architecture} generates text; serving language models is not available in this release",
            "Upload a classifier or an encoder model.",
            file=file,
        )
    if config.get("model_type") in ENCODERS and architecture.endswith(
        ("Model", "ForMaskedLM", "ForPreTraining")
    ):
        embedding = TensorSpec("embedding", "FP32", (-1, _width(config, file)))
        return Served("embedding", Signature(TEXT, (embedding,)), ())
    raise Refusal(
        ReasonCode.UNSUPPORTED_ARCHITECTURE,
        f"no handler serves the architecture {architecture}",
        "Text classifiers (…ForSequenceClassification) and encoders such as BertModel are served; "
        "export other models with torch.export.",
        file=file,
    )


def _architecture(config: dict[str, Any], file: str) -> str:
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0].isidentifier():
        return named[0][:80]
    raise _broken(file, "it does not name one architecture")


def _labels(config: dict[str, Any], file: str) -> tuple[str, ...]:
    """Return class names by index; transformers' default is two of them."""
    named = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if not isinstance(named, dict) or not 1 <= len(named) <= MAX_LABELS:
        raise _broken(file, "id2label does not hold class names")
    names = [named.get(str(index)) for index in range(len(named))]
    if not all(isinstance(name, str) and name for name in names):
        raise _broken(file, "id2label does not name the classes 0, 1, 2 and so on")
    return tuple(str(name) for name in names)


def _width(config: dict[str, Any], file: str) -> int:
    width = config.get("hidden_size", config.get("dim"))  # DistilBERT calls it dim
    if type(width) is int and 1 <= width <= 1 << 20:
        return width
    raise _broken(file, "hidden_size is not a size")


def _broken(file: str, why: str) -> Refusal:
    return Refusal(
        ReasonCode.MISSING_CONFIG,
        f"{file} does not describe a model: {why}",
        "Write it with model.save_pretrained(folder).",
        file=file,
    )
