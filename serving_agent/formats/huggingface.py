"""Hugging Face folders: `config.json`, safetensors and a tokenizer, opened without network or remote code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from serving_agent.contract.signature import Signature
from serving_agent.errors import StartError
from serving_agent.formats.base import name_outputs
from serving_agent.formats.text_model import OFFLINE, labels_of, read_config, read_tokenizer, tokenized

if TYPE_CHECKING:
    from torch import Tensor

HEADS: Final = {
    "ForSequenceClassification": "AutoModelForSequenceClassification",
    "ForCausalLM": "AutoModelForCausalLM",
    "LMHeadModel": "AutoModelForCausalLM",
}
"""Ending of the architecture's name → transformers class that opens it; AutoModel opens anything else."""


class HuggingFaceModel:
    """A transformers model with its tokenizer (None where the folder holds none)."""

    def __init__(self, module: Any, tokenizer: Any, device: str, signature: Signature) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.device = device
        self._signature = signature

    @property
    def config(self) -> Any:
        """The configuration, as transformers reads it."""
        return self.module.config

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index, as the configuration gives them; `LABEL_0`, ... where it gives none."""
        return labels_of(self.config)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return token tensors on the device, padded to the longest text and cut at the model's length."""
        return tokenized(self.tokenizer, self.config, texts, self.device)

    def last_hidden_state(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the states of all tokens, shape (texts, tokens, width)."""
        return cast("Tensor", self.module.base_model(**inputs).last_hidden_state)

    def logits(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the logits of a classifier, shape (texts, classes)."""
        return cast("Tensor", self.module(**inputs).logits)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model with named tensors; outputs are those of the signature, by transformers' names."""
        return name_outputs(dict(self.module(**inputs, return_dict=True)), self._signature)


class HuggingFace:
    """Opens Hugging Face folders."""

    name = "huggingface"
    title = "Hugging Face"
    description = (
        "A folder with config.json, safetensors weights and tokenizer files; no code is run from it."
    )
    is_program = False
    is_native = False
    is_module = True
    libraries = ("transformers",)

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> HuggingFaceModel:
        """Open weights and tokenizer. Raises StartError where config.json is missing."""
        config = read_config(artifact_dir)
        import transformers

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call] # its own is untyped

        opener = getattr(transformers, _opener(config.architectures or ()))
        module = opener.from_pretrained(artifact_dir, config=config, use_safetensors=True, **OFFLINE)
        return HuggingFaceModel(module.to(device).eval(), read_tokenizer(artifact_dir), device, signature)


def check_fit(artifact_dir: Path, *, exact: bool) -> None:
    """Check that the file holds every tensor of the network in its shape. Raises StartError.

    A pooler may be missing: no handler uses it, and models trained to guess words have none. exact: whether
    the file may hold nothing else.
    """
    import transformers

    config = transformers.AutoConfig.from_pretrained(artifact_dir, **OFFLINE)
    opener = getattr(transformers, _opener(config.architectures or ()))
    _, found = opener.from_pretrained(
        artifact_dir, config=config, use_safetensors=True, output_loading_info=True, **OFFLINE
    )
    said = {
        "the file lacks": [name for name in found["missing_keys"] if "pooler" not in str(name).split(".")],
        "the network has no": found["unexpected_keys"] if exact else (),
        "other shapes:": found["mismatched_keys"],
    }
    problems = [f"{what} {', '.join(sorted(map(str, names))[:5])}" for what, names in said.items() if names]
    if problems:
        raise StartError(f"the weights do not fit the network: {'; '.join(problems)}")


def _opener(architectures: Sequence[str]) -> str:
    for ending, opener in HEADS.items():
        if any(name.endswith(ending) for name in architectures):
            return opener
    return "AutoModel"


FORMAT: Final = HuggingFace()
