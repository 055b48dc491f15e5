"""Hugging Face folders: `config.json`, safetensors and a tokenizer, opened without network or remote code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from serving_agent.contract.signature import Signature
from serving_agent.errors import StartError
from serving_agent.formats.base import name_outputs

OFFLINE: Final[dict[str, Any]] = {"local_files_only": True, "trust_remote_code": False}
HEADS: Final = {"ForSequenceClassification": "AutoModelForSequenceClassification"}
"""Ending of the architecture's name → transformers class that opens it; AutoModel opens anything else."""


class HuggingFaceModel:
    """A transformers model with its tokenizer (None where the folder holds none)."""

    def __init__(self, module: Any, tokenizer: Any, device: str, signature: Signature) -> None:
        self.module = module
        self.tokenizer = tokenizer
        self.device = device
        self._signature = signature

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index, as the configuration gives them; `LABEL_0`, ... where it gives none."""
        named: Mapping[int, str] = getattr(self.module.config, "id2label", None) or {}
        return tuple(named[index] for index in sorted(named))

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return token tensors on the device, padded to the longest text and cut at the model's length."""
        if self.tokenizer is None:
            raise StartError("the artefact holds no tokenizer, which reading text needs")
        encoded = self.tokenizer(
            list(texts), padding=True, truncation=True, max_length=self._length(), return_tensors="pt"
        )
        return {name: tensor.to(self.device) for name, tensor in encoded.items()}

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the model with named tensors; outputs are those of the signature, by transformers' names."""
        return name_outputs(dict(self.module(**inputs, return_dict=True)), self._signature)

    def _length(self) -> int:
        positions = getattr(self.module.config, "max_position_embeddings", None) or 512
        return int(min(positions, self.tokenizer.model_max_length))


class HuggingFace:
    """Opens Hugging Face folders."""

    name = "huggingface"
    title = "Hugging Face"
    description = (
        "A folder with config.json, safetensors weights and tokenizer files; no code is run from it."
    )
    is_program = False

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> HuggingFaceModel:
        """Open weights and tokenizer. Raises StartError where config.json is missing."""
        if not (artifact_dir / "config.json").exists():
            raise StartError("the artefact holds no config.json")
        import transformers

        transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call] # its own is untyped

        config = transformers.AutoConfig.from_pretrained(artifact_dir, **OFFLINE)
        opener = getattr(transformers, _opener(config.architectures or ()))
        module = opener.from_pretrained(artifact_dir, config=config, use_safetensors=True, **OFFLINE)
        return HuggingFaceModel(module.to(device).eval(), _tokenizer(artifact_dir), device, signature)


def _opener(architectures: Sequence[str]) -> str:
    for ending, opener in HEADS.items():
        if any(name.endswith(ending) for name in architectures):
            return opener
    return "AutoModel"


def _tokenizer(artifact_dir: Path) -> Any:
    if not any(
        (artifact_dir / name).exists() for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
    ):
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(artifact_dir, **OFFLINE)


FORMAT: Final = HuggingFace()
