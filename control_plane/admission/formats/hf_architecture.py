"""From a Hugging Face configuration to the handler that serves it, its signature and its labels. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from control_plane.admission.base import Refusal
from control_plane.admission.reasons import ReasonCode
from serving_agent.contract.signature import Signature, TensorSpec

CLASSIFIER: Final = "ForSequenceClassification"
CAUSAL: Final = ("ForCausalLM", "LMHeadModel")
"""Language models that answer token ids with logits."""
TRANSLATORS: Final = ("ForConditionalGeneration", "ForSeq2SeqLM")
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
TOKENS: Final = (TensorSpec("input_ids", "INT64", (-1, -1)), TensorSpec("attention_mask", "INT64", (-1, -1)))
"""What transformers' text models take: rows of token ids, and 1 where one counts."""
DATATYPES: Final = {"float32": "FP32", "bfloat16": "BF16", "float16": "FP16"}
"""torch's name of an element type → the protocol's."""


@dataclass(frozen=True, slots=True)
class Served:
    """How an architecture is served."""

    handler: str
    signature: Signature
    labels: tuple[str, ...]


def served(config: dict[str, Any], file: str) -> Served:
    """Return how a model with *config* is served; *file* names it in refusals. Raises Refusal."""
    architecture = named(config, file)
    if architecture.endswith(CLASSIFIER):
        labels = class_names(config, file)
        outputs = (
            TensorSpec("probabilities", "FP32", (-1, len(labels))),
            TensorSpec("label", "BYTES", (-1,)),
        )
        return Served("text-classification", Signature(TEXT, outputs), labels)
    if architecture.endswith(CAUSAL):
        logits = TensorSpec("logits", _datatype(config), (-1, -1, _size(config, "vocab_size", file)))
        return Served("tensor", Signature(TOKENS, (logits,)), ())
    if architecture.endswith(TRANSLATORS):
        raise Refusal(
            ReasonCode.LANGUAGE_MODEL,
            f"{architecture} turns one text into another; serving such models is not available here",
            "Upload a causal language model, a classifier or an encoder model.",
            file=file,
        )
    if str(config.get("model_type")) in ENCODERS and architecture.endswith(
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


def named(config: dict[str, Any], file: str) -> str:
    """Return the one architecture that the configuration names. Raises Refusal."""
    named = config.get("architectures")
    if isinstance(named, list) and len(named) == 1 and isinstance(named[0], str) and named[0].isidentifier():
        return named[0][:80]
    raise _broken(file, "it does not name one architecture")


def class_names(config: dict[str, Any], file: str) -> tuple[str, ...]:
    """Return class names by index; transformers' default is two of them."""
    named = config.get("id2label", {"0": "LABEL_0", "1": "LABEL_1"})
    if not isinstance(named, dict) or not 1 <= len(named) <= MAX_LABELS:
        raise _broken(file, "id2label does not hold class names")
    names = [named.get(str(index)) for index in range(len(named))]
    if not all(isinstance(name, str) and name for name in names):
        raise _broken(file, "id2label does not name the classes 0, 1, 2 and so on")
    return tuple(str(name) for name in names)


def _datatype(config: dict[str, Any]) -> str:
    """Return the type that transformers opens the weights in, and answers in."""
    return DATATYPES.get(str(config.get("dtype", config.get("torch_dtype"))), "FP32")


def _width(config: dict[str, Any], file: str) -> int:
    return _size(config, "hidden_size" if "hidden_size" in config else "dim", file)  # DistilBERT calls it dim


def _size(config: dict[str, Any], key: str, file: str) -> int:
    size = config.get(key)
    if type(size) is int and 1 <= size <= 1 << 20:
        return size
    raise _broken(file, f"{key} is not a size")


def _broken(file: str, why: str) -> Refusal:
    return Refusal(
        ReasonCode.MISSING_CONFIG,
        f"{file} does not describe a model: {why}",
        "Write it with model.save_pretrained(folder).",
        file=file,
    )
