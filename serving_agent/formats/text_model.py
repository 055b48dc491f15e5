"""Text models: a tokenizer and a configuration, and either the network itself or a graph made of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from serving_agent.contract import graph_tensors
from serving_agent.contract.signature import Signature
from serving_agent.datatypes import TORCH_NAME
from serving_agent.errors import StartError
from serving_agent.formats.base import Format, LoadedModel
from serving_agent.formats.graph import GraphModel

if TYPE_CHECKING:
    from torch import Tensor

OFFLINE: Final[dict[str, Any]] = {"local_files_only": True, "trust_remote_code": False}
CONFIG: Final = "config.json"
TOKENIZER_FILES: Final = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")
"""Any of them makes a folder one with a tokenizer."""
OPEN: Final = Signature((), ())
"""Lets a graph that names its own tensors keep those names."""
SEGMENTS: Final = "token_type_ids"
"""Which of two texts a token is of: 0 where there is one; not every tokenizer says so."""


class TextModel(Protocol):
    """What handlers of texts need of a model."""

    @property
    def config(self) -> Any:
        """The configuration, as transformers reads it."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index, as the configuration gives them."""

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return token tensors on the device, shape (texts, tokens), padded to the longest text."""

    def last_hidden_state(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the states of all tokens, shape (texts, tokens, width)."""

    def logits(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the logits of a classifier, shape (texts, classes)."""


class TextGraph:
    """A graph that takes tokens and returns one tensor that a handler of texts reads."""

    def __init__(
        self, model: LoadedModel, tensors: Signature, output: str, folder: Path, device: str
    ) -> None:
        """Read tokenizer and configuration in *folder*. Raises StartError where one is missing.

        tensors: what *model* takes and returns. output: the one that is read.
        """
        self.config = read_config(folder)
        self.tokenizer = read_tokenizer(folder)
        self._model = model
        self._device = device
        self._inputs = {spec.name: spec.datatype for spec in tensors.inputs}
        self._output = output

    @property
    def graph(self) -> LoadedModel:
        """The graph itself, which takes tokens."""
        return self._model

    @property
    def module(self) -> Any:
        """The module that torch runs, for execution options; AttributeError where another engine does."""
        return self._model.module  # type: ignore[attr-defined]  # said above

    @module.setter
    def module(self, module: Any) -> None:
        self._model.module = module  # type: ignore[attr-defined]  # said above

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names by index, as the configuration gives them."""
        return labels_of(self.config)

    def tokenize(self, texts: Sequence[str]) -> dict[str, Any]:
        """Return token tensors on the device, padded to the longest text and cut at the model's length.

        Raises StartError where the graph takes what the tokenizer does not give.
        """
        import torch

        tokens = tokenized(self.tokenizer, self.config, texts, self._device)
        if SEGMENTS in self._inputs:
            tokens.setdefault(SEGMENTS, torch.zeros_like(tokens["input_ids"]))
        if missing := sorted(self._inputs.keys() - tokens.keys()):
            raise StartError(f"the graph takes {', '.join(missing)}, which its tokenizer does not give")
        return tokens

    def last_hidden_state(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the states of all tokens, shape (texts, tokens, width)."""
        return cast("Tensor", self(inputs)[self._output])

    def logits(self, inputs: Mapping[str, Any]) -> Tensor:
        """Return the logits of a classifier, shape (texts, classes)."""
        return cast("Tensor", self(inputs)[self._output])

    def __call__(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run the graph with those of the tokens that it takes."""
        import torch

        return self._model(
            {name: inputs[name].to(getattr(torch, TORCH_NAME[kind])) for name, kind in self._inputs.items()}
        )


def open_graph(format_: Format, folder: Path, device: str, declared: Signature, output: str) -> TextGraph:
    """Open the graph in *folder*, which answers *output*, with tokenizer and configuration beside it.

    declared: the version's signature; where clients send text, `tensors.json` says what the graph takes, or
    the graph itself where it names its tensors. Raises StartError.
    """
    if not has_tokenizer(folder):
        raise StartError("the artefact holds no tokenizer, which reading text needs")
    tensors = _tensors(folder, declared)
    model = format_.load(folder, device, tensors)
    if not tensors.inputs:
        tensors = _own_tensors(model)
    answers = [spec.name for spec in tensors.outputs]
    if output not in answers and len(answers) != 1:
        raise StartError(f"the graph returns {', '.join(answers) or 'nothing'}; {output} is needed")
    return TextGraph(model, tensors, output if output in answers else answers[0], folder, device)


def _tensors(folder: Path, declared: Signature) -> Signature:
    try:
        found = graph_tensors.read(folder)
    except msgspec.MsgspecError as error:
        raise StartError(f"{graph_tensors.FILE} does not describe tensors: {error}") from error
    if found is not None:
        return found
    sends_text = any(spec.datatype == "BYTES" for spec in declared.inputs)
    return OPEN if sends_text else declared


def _own_tensors(model: LoadedModel) -> Signature:
    if not isinstance(model, GraphModel):
        raise StartError(f"the artefact holds no {graph_tensors.FILE}, which says what its graph takes")
    return model.tensors


def read_config(folder: Path) -> Any:
    """Return the configuration in *folder*. Raises StartError where there is none."""
    if not (folder / CONFIG).exists():
        raise StartError(f"the artefact holds no {CONFIG}")
    import transformers

    return transformers.AutoConfig.from_pretrained(folder, **OFFLINE)


def has_tokenizer(folder: Path) -> bool:
    """Tell whether *folder* holds files of a tokenizer."""
    return any((folder / name).exists() for name in TOKENIZER_FILES)


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer in *folder*; None where it holds none."""
    if not has_tokenizer(folder):
        return None
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, **OFFLINE)


def labels_of(config: Any) -> tuple[str, ...]:
    """Return class names by index; `LABEL_0`, ... where the configuration gives none."""
    named: Mapping[int, str] = getattr(config, "id2label", None) or {}
    return tuple(named[index] for index in sorted(named))


def tokenized(tokenizer: Any, config: Any, texts: Sequence[str], device: str) -> dict[str, Any]:
    """Return token tensors, shape (texts, tokens), padded to the longest text and cut at the model's length.

    Raises StartError where *tokenizer* is None.
    """
    if tokenizer is None:
        raise StartError("the artefact holds no tokenizer, which reading text needs")
    positions = getattr(config, "max_position_embeddings", None) or 512
    longest = int(min(positions, tokenizer.model_max_length))
    encoded = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
    return {name: tensor.to(device) for name, tensor in encoded.items()}
