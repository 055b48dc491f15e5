"""The extension point for artefact formats: one module each, importable without torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from serving_agent.contract.signature import Signature
from serving_agent.errors import ModelError, StartError


class LoadedModel(Protocol):
    """An artefact opened on its device."""

    def __call__(self, inputs: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the outputs by name for the inputs by name; all are tensors."""


@runtime_checkable
class Format(Protocol):
    """How artefacts of one kind are opened. Each format module holds one as `FORMAT`."""

    @property
    def name(self) -> str:
        """Key in the catalogue."""

    @property
    def title(self) -> str:
        """Name for people."""

    @property
    def description(self) -> str:
        """One line on what the artefact folder holds."""

    @property
    def is_program(self) -> bool:
        """Whether opening it may run what the uploader wrote."""

    @property
    def is_native(self) -> bool:
        """Whether it holds machine code: an agent opens it only with a signed manifest."""

    @property
    def is_module(self) -> bool:
        """Whether it opens as a module of torch, to which torch's execution options apply."""

    @property
    def libraries(self) -> tuple[str, ...]:
        """Modules that open it besides torch, to be imported before files are put out of reach."""

    def load(self, artifact_dir: Path, device: str, signature: Signature) -> LoadedModel:
        """Open the artefact for inference on *device*; imports torch. Raises StartError with a sentence."""


def only_file(artifact_dir: Path, suffix: str) -> Path:
    """Return the one file in *artifact_dir* that ends in *suffix*. Raises StartError."""
    found = sorted(path for path in artifact_dir.iterdir() if path.is_file() and path.name.endswith(suffix))
    if len(found) != 1:
        raise StartError(f"the artefact must hold exactly one {suffix} file; it holds {len(found)}")
    return found[0]


def name_outputs(result: Any, signature: Signature) -> dict[str, Any]:
    """Name what a model returned: a tensor, a sequence in the signature's order, or a mapping by name.

    Raises ModelError where number or names differ from the signature's outputs.
    """
    names = [spec.name for spec in signature.outputs]
    if isinstance(result, Mapping):
        if missing := [name for name in names if name not in result]:
            raise ModelError(
                f"the model returned {_keys(result)}; its signature declares {', '.join(missing)}"
            )
        return {name: result[name] for name in names}
    values = list(result) if isinstance(result, Sequence) else [result]
    if len(values) != len(names):
        raise ModelError(f"the model returned {len(values)} outputs; its signature declares {len(names)}")
    return dict(zip(names, values, strict=True))


class PositionalModel:
    """A module called with tensors in the signature's order, whose results are named by `name_outputs`."""

    def __init__(self, module: Any, signature: Signature) -> None:
        self.module = module
        self._signature = signature
        self._own = {_storage(tensor) for tensor in (*module.parameters(), *module.buffers())}
        self._inputs = tuple(spec.name for spec in signature.inputs)

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run the module once; an output that is one of its own tensors is copied: it may change again."""
        outputs = name_outputs(self.module(*[inputs[name] for name in self._inputs]), self._signature)
        return {name: self._apart(value) for name, value in outputs.items()}

    def _apart(self, value: Any) -> Any:
        return value.clone() if _storage(value) in self._own else value


def _storage(value: Any) -> int | None:
    """Return where a tensor's memory begins; None for what is no tensor."""
    storage = getattr(value, "untyped_storage", None)
    return None if storage is None else int(storage().data_ptr())


def _keys(result: Mapping[Any, Any]) -> str:
    return ", ".join(str(key) for key in list(result)[:8]) or "nothing"
